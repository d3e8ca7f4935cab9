// A behavioural core behind the host bus, the input and the state of a link under test, whose ports are those of Vtop.
#pragma once

#include <cstdint>
#include <vector>

#include "Vtop.h"

namespace {

enum State { kIdle = 0, kCheck = 1, kInput = 2, kRun = 3, kDone = 5 };

// Registers of region CSR; the last four exist only here, as witnesses of what was executed how often.
enum Csr {
  kStatus = 4, kControl = 5, kCycles = 8, kInputBytes = 9,
  kInputLength = 32, kInputHash = 33, kSum = 34, kInputStrip = 35
};
constexpr uint32_t kMembrane = 7;  // contract.Region: word k after DONE is the hash of the image, plus k

constexpr uint32_t kFnvOffset = 2166136261u, kFnvPrime = 16777619u;
constexpr int kOffsetBits = 20;
constexpr int kCheckClocks = 60;  // the sequencer reads its first descriptor

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
    if ((state_ == kCheck || state_ == kRun) && --left_ == 0) {
      state_ = state_ == kCheck || input_bytes_ < input_length_ ? kInput : kDone;
    }
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
    } else if (addr == kInputStrip) {
      input_strip_ = data;
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
    const bool whole = ++input_bytes_ == input_length_;
    if (!whole && (!input_strip_ || input_bytes_ % input_strip_)) return;
    state_ = compute_ ? kRun : whole ? kDone : kInput;
    left_ = compute_;
  }

  bool hurry_;
  std::vector<uint32_t> memory_ = std::vector<uint32_t>(4096);
  uint64_t clocks_[8] = {};
  int state_ = kIdle;
  int delay_ = 0;
  uint32_t left_ = 0, compute_ = 0;
  uint32_t answer_ = 0, sum_ = 0, hash_ = kFnvOffset, input_bytes_ = 0, input_length_ = 0;
  uint32_t input_strip_ = 0;  // it computes whenever it has so many bytes more; 0: when it has all
};

}  // namespace
