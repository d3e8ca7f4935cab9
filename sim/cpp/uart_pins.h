// A UART (8N1) on two pins of a clocked simulation: call step() once per clock.
#pragma once

#include <cstdint>
#include <deque>

// Sends queued bytes without gaps.
class UartDriver {
 public:
  explicit UartDriver(int divisor) : divisor_(divisor) {}

  void send(uint8_t byte) { queue_.push_back(byte); }
  void clear() { queue_.clear(); }
  size_t waiting() const { return queue_.size(); }
  bool idle() const { return bits_ == 0 && queue_.empty(); }

  // The level of the pin in this clock.
  bool step() {
    if (bits_ == 0) {
      if (queue_.empty()) return true;
      shift_ = (1u << 9) | (unsigned(queue_.front()) << 1);
      queue_.pop_front();
      bits_ = 10;
      clocks_ = divisor_;
    }
    bool level = shift_ & 1;
    if (--clocks_ == 0) {
      clocks_ = divisor_;
      shift_ >>= 1;
      --bits_;
    }
    return level;
  }

 private:
  int divisor_;
  int clocks_ = 0;
  int bits_ = 0;
  unsigned shift_ = 0;
  std::deque<uint8_t> queue_;
};

// Samples each bit in its middle.
class UartMonitor {
 public:
  explicit UartMonitor(int divisor) : divisor_(divisor) {}

  bool idle() const { return bits_ == 0; }
  uint8_t byte() const { return uint8_t(shift_ >> 1); }

  // True when byte() is complete and its stop bit is right.
  bool step(bool level) {
    if (bits_ == 0) {
      if (level) return false;
      bits_ = 10;
      clocks_ = divisor_ / 2;
      shift_ = 0;
    }
    if (clocks_-- != 0) return false;
    clocks_ = divisor_ - 1;
    shift_ |= unsigned(level) << (10 - bits_);
    if (--bits_ != 0) return false;
    return level;
  }

 private:
  int divisor_;
  int clocks_ = 0;
  int bits_ = 0;
  unsigned shift_ = 0;
};
