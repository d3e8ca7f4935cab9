// Link alone, with a behavioural core on its bus and perhaps a USB-serial bridge on its line, driven over stdin and
// stdout. Every command is one byte and little-endian operands:
//   X cycles u64, n u32, n bytes  -> cycles that passed u64, n u32, n bytes: send bytes; run until something has reached
//                                    the host and no more comes, or for so many cycles
//   P                             -> nothing: power off and on; what was on its way is lost
//   U                             -> nothing: the cable was pulled and put back; what was on its way is lost
//   C cycles u32                  -> nothing: clocks that an image computes for from now on
//   S                             -> 8 u64: clocks spent in each state of the core since the last S
//
// usage: run DIVISOR SEED CLOCK_HZ LATENCY_US HURRY   (LATENCY_US 0: no bridge; HURRY 1: the core is always ready)
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "bench_core.h"
#include "bridge.h"
#include "uart_pins.h"
#include "verilated.h"

namespace {

constexpr int kQuietBits = 15;
constexpr int kSettleClocks = 6000;  // after which nothing in the link is under way, if its line and its core are at rest

class Bench {
 public:
  Bench(int divisor, uint64_t clock_hz, uint64_t latency_us, bool hurry)
      : divisor_(divisor), clock_hz_(clock_hz), latency_us_(latency_us), core_(hurry) {
    power_on();
  }

  void power_on() {
    top_ = std::make_unique<Vtop>(&context_);
    core_.power_off();
    plug();
    top_->rst = 1;
    for (int i = 0; i < 4; ++i) clock();
    top_->rst = 0;
  }

  void plug() {
    driver_ = UartDriver(divisor_);
    monitor_ = UartMonitor(divisor_);
    bridge_ = Bridge(clock_hz_, latency_us_);
    now_ = 0;
  }

  // Send and run; the clocks that passed.
  uint64_t exchange(uint64_t limit, const std::vector<uint8_t>& data) {
    for (uint8_t byte : data) bridge_.from_host(byte);
    uint64_t passed = 0;
    while (passed < limit && !arrived()) {
      uint64_t rest = std::min(skippable(), limit - passed);
      if (rest > 0) {
        core_.skip(rest);
        now_ += rest;
        passed += rest;
      }
      if (passed < limit) {
        clock();
        ++passed;
      }
    }
    return passed;
  }

  std::vector<uint8_t>& delivered() { return bridge_.delivered(); }
  Core& core() { return core_; }

 private:
  bool arrived() {
    if (bridge_.delivered().empty()) return false;
    return bridge_.present() || quiet_ > uint64_t(kQuietBits * divisor_);
  }

  // Clocks that may be left out: the line rests, and so does everything in the link.
  uint64_t skippable() {
    if (settled_ < kSettleClocks || bridge_.has_for_line()) return 0;
    uint64_t rest = core_.resting(), event = bridge_.next_event();
    return std::min(rest, event > now_ ? event - now_ - 1 : 0);
  }

  void clock() {
    bridge_.step(now_);
    while (driver_.waiting() < 2 && bridge_.has_for_line()) driver_.send(bridge_.for_line());
    core_.drive(*top_);
    top_->rx = driver_.step();
    top_->clk = 0;
    top_->eval();
    bool busy = !driver_.idle() || top_->bus_valid || (top_->input_valid && top_->input_ready) || core_.resting() == 0;
    core_.step(*top_);
    if (monitor_.step(top_->tx)) bridge_.from_line(monitor_.byte());
    top_->clk = 1;
    top_->eval();
    quiet_ = monitor_.idle() ? quiet_ + 1 : 0;
    settled_ = busy || !monitor_.idle() ? 0 : settled_ + 1;
    ++now_;
  }

  int divisor_;
  uint64_t clock_hz_, latency_us_, now_ = 0;
  uint64_t quiet_ = 0, settled_ = 0;
  VerilatedContext context_;
  std::unique_ptr<Vtop> top_;
  Core core_;
  UartDriver driver_{4};
  UartMonitor monitor_{4};
  Bridge bridge_{1000, 0};
};

bool read_all(void* data, size_t size) { return std::fread(data, 1, size, stdin) == size; }

template <typename T>
void put(T value) {
  std::fwrite(&value, sizeof value, 1, stdout);
}

bool exchange(Bench& bench) {
  uint64_t limit;
  uint32_t size;
  if (!read_all(&limit, sizeof limit) || !read_all(&size, sizeof size)) return false;
  std::vector<uint8_t> data(size);
  if (size && !read_all(data.data(), size)) return false;
  put<uint64_t>(bench.exchange(limit, data));
  std::vector<uint8_t>& delivered = bench.delivered();
  put<uint32_t>(uint32_t(delivered.size()));
  std::fwrite(delivered.data(), 1, delivered.size(), stdout);
  std::fflush(stdout);
  delivered.clear();
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: %s DIVISOR SEED CLOCK_HZ LATENCY_US HURRY\n", argv[0]);
    return 2;
  }
  random_state = std::strtoul(argv[2], nullptr, 10) * 2654435761u | 1;
  Bench bench(std::atoi(argv[1]), std::strtoull(argv[3], nullptr, 10), std::strtoull(argv[4], nullptr, 10),
              std::atoi(argv[5]) != 0);
  char command;
  while (read_all(&command, 1)) {
    uint32_t compute;
    switch (command) {
      case 'X':
        if (!exchange(bench)) return 0;
        break;
      case 'P': bench.power_on(); break;
      case 'U': bench.plug(); break;
      case 'C':
        if (!read_all(&compute, sizeof compute)) return 0;
        bench.core().set_compute(compute);
        break;
      case 'S':
        std::fwrite(bench.core().clocks(), sizeof(uint64_t), 8, stdout);
        std::fflush(stdout);
        std::fill_n(bench.core().clocks(), 8, 0);
        break;
      default: return 2;
    }
  }
  return 0;
}
