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
#include "bridge.h"
#include "uart_pins.h"
#include "verilated.h"

namespace {

enum State { kIdle = 0, kCheck = 1, kInput = 2, kRun = 3, kDone = 5 };

// Registers of region CSR; the last three exist only here, as witnesses of what was executed how often.
enum Csr { kStatus = 4, kControl = 5, kCycles = 8, kInputBytes = 9, kInputLength = 32, kInputHash = 33, kSum = 34 };
constexpr uint32_t kMembrane = 7;  // contract.Region: word k after DONE is the hash of the image, plus k

constexpr uint32_t kFnvOffset = 2166136261u, kFnvPrime = 16777619u;
constexpr int kOffsetBits = 20;
constexpr int kQuietBits = 15;
constexpr int kCheckClocks = 60;     // the sequencer reads its first descriptor
constexpr int kSettleClocks = 6000;  // after which nothing in the link is under way, if its line and its core are at rest

uint32_t random_state;

uint32_t random_bits() {  // xorshift32
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

// A core that takes its time: ready in every second clock on average, reads after 1 to 4 clocks; or none, in a hurry.
class Core {
 public:
  explicit Core(bool hurry) : hurry_(hurry) {}

  void power_off() {
    uint32_t compute = compute_;
    *this = Core(hurry_);
    compute_ = compute;
  }

  // Values for the next clock, from those sampled before the edge.
  void step(Vtop& top) {
    if (top.bus_valid && top.bus_ready) {
      if (top.bus_write) {
        write(top.bus_addr, top.bus_w_data);
      } else {
        answer_ = read(top.bus_addr);
        delay_ = hurry_ ? 5 : 1 + random_bits() % 4;
      }
    }
    if (top.input_valid && top.input_ready) take(top.input_payload);
    ++clocks_[state_];
    if ((state_ == kCheck || state_ == kRun) && --left_ == 0) state_ = state_ == kCheck ? kInput : kDone;
  }

  void drive(Vtop& top) {
    top.bus_r_valid = delay_ == 1;
    top.bus_r_data = delay_ == 1 ? answer_ : random_bits();
    bool waiting = delay_ > 0;
    if (waiting) --delay_;
    top.bus_ready = !waiting && (hurry_ || (random_bits() & 1));
    top.input_ready = state_ == kInput && (hurry_ || (random_bits() & 1));
    top.state = state_;
    top.input_bytes = input_bytes_;
  }

  // Clocks for which nothing happens here by itself.
  uint64_t resting() const {
    if (state_ == kCheck) return 0;
    return state_ == kRun ? left_ - 1 : UINT64_MAX;
  }
  void skip(uint64_t clocks) {
    clocks_[state_] += clocks;
    if (state_ == kRun) left_ -= clocks;
  }
  void set_compute(uint32_t clocks) { compute_ = clocks; }
  uint64_t* clocks() { return clocks_; }

 private:
  static size_t index(uint32_t addr) { return ((addr >> kOffsetBits) << 8 | (addr & 0xFF)) & 0xFFF; }

  uint32_t read(uint32_t addr) const {
    if (addr >> kOffsetBits == kMembrane && state_ == kDone) return hash_ + (addr & 0xFFFF);
    if (addr >> kOffsetBits) return memory_[index(addr)];
    switch (addr) {
      case kStatus: return state_;
      case kCycles: return compute_;
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
      state_ = kCheck;
      left_ = kCheckClocks;
      input_bytes_ = 0;
      hash_ = kFnvOffset;
    }
  }

  void take(uint8_t byte) {
    hash_ = (hash_ ^ byte) * kFnvPrime;
    if (++input_bytes_ == input_length_) {
      state_ = compute_ ? kRun : kDone;
      left_ = compute_;
    }
  }

  bool hurry_;
  std::vector<uint32_t> memory_ = std::vector<uint32_t>(4096);
  uint64_t clocks_[8] = {};
  int state_ = kIdle;
  int delay_ = 0;
  uint32_t left_ = 0, compute_ = 0;
  uint32_t answer_ = 0, sum_ = 0, hash_ = kFnvOffset, input_bytes_ = 0, input_length_ = 0;
};

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
