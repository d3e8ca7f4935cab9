// Link alone, with a behavioural core on its bus, driven over stdin and stdout (all numbers little-endian):
//   request:  cycles u32, n u32, n bytes for the device
//   response: cycles u32 that passed, n u32, n bytes from the device
// A request ends when the device has answered and its line is quiet, or after `cycles`; so nothing here can hang.
//
// usage: run DIVISOR SEED
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "Vtop.h"
#include "uart_pins.h"
#include "verilated.h"

namespace {

enum State { kIdle = 0, kInput = 2, kDone = 5 };

// Registers of region CSR; the last three exist only here, as witnesses of what was executed how often.
enum Csr { kStatus = 4, kControl = 5, kInputBytes = 9, kInputLength = 32, kInputHash = 33, kSum = 34 };

constexpr uint32_t kFnvOffset = 2166136261u, kFnvPrime = 16777619u;
constexpr int kOffsetBits = 20;
constexpr int kQuietBits = 15;

uint32_t random_state;

uint32_t random_bits() {  // xorshift32
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

// A core that takes its time: ready in every second clock on average, reads after 1 to 4 clocks.
class Core {
 public:
  // Values for the next clock, from those sampled before the edge.
  void step(Vtop& top) {
    if (top.bus_valid && top.bus_ready) {
      if (top.bus_write) {
        write(top.bus_addr, top.bus_w_data);
      } else {
        answer_ = read(top.bus_addr);
        delay_ = 1 + random_bits() % 4;
      }
    }
    if (top.input_valid && top.input_ready) take(top.input_payload);
  }

  void drive(Vtop& top) {
    top.bus_r_valid = delay_ == 1;
    top.bus_r_data = delay_ == 1 ? answer_ : random_bits();
    bool waiting = delay_ > 0;
    if (waiting) --delay_;
    top.bus_ready = !waiting && (random_bits() & 1);
    top.input_ready = state_ == kInput && (random_bits() & 1);
    top.state = state_;
    top.input_bytes = input_bytes_;
  }

 private:
  static size_t index(uint32_t addr) { return ((addr >> kOffsetBits) << 8 | (addr & 0xFF)) & 0xFFF; }

  uint32_t read(uint32_t addr) const {
    if (addr >> kOffsetBits) return memory_[index(addr)];
    switch (addr) {
      case kStatus: return state_;
      case kInputBytes: return input_bytes_;
      case kInputHash: return hash_;
      case kSum: return sum_;
      default: return 0;
    }
  }

  void write(uint32_t addr, uint32_t data) {
    if (addr >> kOffsetBits) {
      memory_[index(addr)] = data;
    } else if (addr == kSum) {
      sum_ += data;
    } else if (addr == kInputLength) {
      input_length_ = data;
    } else if (addr == kControl && (data & 4)) {
      state_ = kIdle;
    } else if (addr == kControl && (data & 1)) {
      state_ = kInput;
      input_bytes_ = 0;
      hash_ = kFnvOffset;
    }
  }

  void take(uint8_t byte) {
    hash_ = (hash_ ^ byte) * kFnvPrime;
    if (++input_bytes_ == input_length_) state_ = kDone;
  }

  std::vector<uint32_t> memory_ = std::vector<uint32_t>(4096);
  int state_ = kIdle;
  int delay_ = 0;
  uint32_t answer_ = 0, sum_ = 0, hash_ = kFnvOffset, input_bytes_ = 0, input_length_ = 0;
};

bool read_all(void* data, size_t size) { return std::fread(data, 1, size, stdin) == size; }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s DIVISOR SEED\n", argv[0]);
    return 2;
  }
  const int divisor = std::atoi(argv[1]);
  random_state = std::strtoul(argv[2], nullptr, 10) * 2654435761u | 1;

  VerilatedContext context;
  Vtop top{&context};
  UartDriver driver(divisor);
  UartMonitor monitor(divisor);
  Core core;
  std::vector<uint8_t> received;

  auto clock = [&] {
    core.drive(top);
    top.rx = driver.step();
    top.clk = 0;
    top.eval();
    core.step(top);
    if (monitor.step(top.tx)) received.push_back(monitor.byte());
    top.clk = 1;
    top.eval();
  };
  top.rst = 1;
  for (int i = 0; i < 4; ++i) clock();
  top.rst = 0;

  uint32_t head[2];
  while (read_all(head, sizeof head)) {
    std::vector<uint8_t> data(head[1]);
    if (!data.empty() && !read_all(data.data(), data.size())) break;
    for (uint8_t byte : data) driver.send(byte);
    uint32_t cycles = 0;
    int quiet = 0;
    while (cycles < head[0] && !(driver.idle() && !received.empty() && quiet > kQuietBits * divisor)) {
      clock();
      ++cycles;
      quiet = monitor.idle() ? quiet + 1 : 0;
    }
    uint32_t answer[2] = {cycles, uint32_t(received.size())};
    std::fwrite(answer, sizeof answer, 1, stdout);
    std::fwrite(received.data(), 1, received.size(), stdout);
    std::fflush(stdout);
    received.clear();
  }
  return 0;
}
