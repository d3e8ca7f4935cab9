// A virtual board: the overlay behind a pseudo-terminal. Bytes from the terminal go to pin rx bit by bit, bytes from pin
// tx go to the terminal, perhaps through a USB-serial bridge. The clock runs while there is anything to do and rests
// while there is not; what the bridge waits for then comes at once.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "bridge.h"
#include "uart_pins.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace {

constexpr int kCheck = 1, kRun = 3;     // contract.State in which the sequencer works by itself
constexpr int kBurst = 1000;            // clocks between looks at the terminal
constexpr int kQuietClocks = 20000;     // without a byte either way, then the board rests; more than any request takes
constexpr size_t kMaxWaiting = 4096;    // bytes; beyond this the terminal's own buffer holds the host back

class Board {
 public:
  Board(int terminal, int divisor, const Bridge& bridge, const char* trace)
      : terminal_(terminal), bridge_(bridge), driver_(divisor), monitor_(divisor) {
#if VM_TRACE
    if (trace) {
      context_.traceEverOn(true);
      trace_ = std::make_unique<VerilatedVcdC>();
      top_.trace(trace_.get(), 99);
      trace_->open(trace);
    }
#else
    (void)trace;
#endif
    top_.rx = 1;
    top_.direct = 0;
    top_.bus_valid = 0;
    top_.input_valid = 0;
    top_.reset = 0;  // for boards whose clock domain has no reset
    top_.rst = 1;
    for (int i = 0; i < 8; ++i) clock();
    top_.rst = 0;
    clock();  // the reset may come from a register: one clock more
  }

  ~Board() {
#if VM_TRACE
    if (trace_) trace_->close();
#endif
    top_.final();
  }

  // False when the other side has gone.
  bool step() {
    if (!exchange()) return false;
    for (int i = 0; i < kBurst; ++i) clock();
    return true;
  }

 private:
  void clock() {
    bridge_.step(now_++);
    while (driver_.waiting() < 2 && bridge_.has_for_line()) driver_.send(bridge_.for_line());
    top_.rx = driver_.step();
    top_.clk = 0;
    top_.eval();
    dump();
    if (monitor_.step(top_.tx)) bridge_.from_line(monitor_.byte());
    if (!driver_.idle() || !monitor_.idle() || top_.state == kCheck || top_.state == kRun) {
      quiet_ = 0;
    } else {
      ++quiet_;
    }
    top_.clk = 1;
    top_.eval();
    dump();
  }

  void dump() {
    ++half_clocks_;
#if VM_TRACE
    if (trace_) trace_->dump(half_clocks_ * 10);
#endif
  }

  bool exchange() {
    bool quiet = quiet_ >= kQuietClocks && bridge_.delivered().empty();
    if (quiet && bridge_.next_event() != UINT64_MAX) {  // let the time pass that the bridge waits for
      now_ = std::max(now_, bridge_.next_event());
      return true;
    }
    bool resting = quiet;
    pollfd watched[2] = {{STDIN_FILENO, POLLIN, 0}, {terminal_, 0, 0}};
    if (bridge_.waiting() < kMaxWaiting) watched[1].events |= POLLIN;
    if (!bridge_.delivered().empty()) watched[1].events |= POLLOUT;
    if (poll(watched, 2, resting ? -1 : 0) < 0) return errno == EINTR;
    if (watched[0].revents) {  // nothing is ever sent there: it has been closed
      char byte;
      if (read(STDIN_FILENO, &byte, 1) <= 0) return false;
    }
    if (watched[1].revents & (POLLHUP | POLLERR | POLLNVAL)) return false;
    if (watched[1].revents & POLLIN) return receive();
    if (watched[1].revents & POLLOUT) return send();
    return true;
  }

  bool receive() {
    uint8_t buffer[1024];
    ssize_t size = read(terminal_, buffer, sizeof buffer);
    if (size <= 0) return size < 0 && (errno == EAGAIN || errno == EINTR);
    for (ssize_t i = 0; i < size; ++i) bridge_.from_host(buffer[i]);
    quiet_ = 0;
    return bridge_.delivered().empty() || send();
  }

  bool send() {
    std::vector<uint8_t>& bytes = bridge_.delivered();
    ssize_t size = write(terminal_, bytes.data(), bytes.size());
    if (size < 0) return errno == EAGAIN || errno == EINTR;
    bytes.erase(bytes.begin(), bytes.begin() + size);
    return true;
  }

  int terminal_;
  Bridge bridge_;
  UartDriver driver_;
  UartMonitor monitor_;
  uint64_t half_clocks_ = 0, now_ = 0;
  int quiet_ = 0;
  VerilatedContext context_;
  Vtop top_{&context_};
#if VM_TRACE
  std::unique_ptr<VerilatedVcdC> trace_;
#endif
};

// Runs a board whose terminal is the master side of a pseudo-terminal in raw mode, until stdin or that is closed.
//
// arguments: TERMINAL_FD DIVISOR CLOCK_HZ LATENCY_US [TRACE.vcd]
int run_board(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: %s TERMINAL_FD DIVISOR CLOCK_HZ LATENCY_US [TRACE.vcd]\n", argv[0]);
    return 2;
  }
  const int terminal = std::atoi(argv[1]);
  fcntl(terminal, F_SETFL, fcntl(terminal, F_GETFL) | O_NONBLOCK);
  Bridge bridge(std::strtoull(argv[3], nullptr, 10), std::strtoull(argv[4], nullptr, 10));
  Board board(terminal, std::atoi(argv[2]), bridge, argc > 5 ? argv[5] : nullptr);
  while (board.step()) {
  }
  return 0;
}

}  // namespace

