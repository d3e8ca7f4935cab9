// What lies between a host and a UART: nothing, or a USB-serial bridge with the manners of an FT231X. Time is in clocks.
//
// To the device: the host controller moves up to 19 packets of 64 bytes in every USB frame of 1 ms into the bridge, as
// long as its buffer of 512 bytes has room; from there the bytes go out at the line's rate.
// To the host: bytes collect in the bridge until 62 of them fill a packet (two more bytes are modem status), or until
// the latency timer, which starts anew with every packet, runs out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <vector>

class Bridge {
 public:
  // latency_us 0: no bridge, bytes pass at once.
  Bridge(uint64_t clock_hz, uint64_t latency_us)
      : frame_(clock_hz / 1000), latency_(clock_hz / 1000 * latency_us / 1000) {}

  bool present() const { return latency_ != 0; }

  // -- to the device
  void from_host(uint8_t byte) { (present() ? outgoing_ : chip_).push_back(byte); }
  bool has_for_line() const { return !chip_.empty(); }
  uint8_t for_line() {
    uint8_t byte = chip_.front();
    chip_.pop_front();
    return byte;
  }
  size_t waiting() const { return outgoing_.size() + chip_.size(); }

  // -- to the host
  void from_line(uint8_t byte) {
    if (!present()) {
      delivered_.push_back(byte);
      return;
    }
    collected_.push_back(byte);
  }
  std::vector<uint8_t>& delivered() { return delivered_; }
  bool collecting() const { return !collected_.empty(); }

  // Call once per clock, with a time that never goes back; it may jump, but not over next_event().
  void step(uint64_t now) {
    if (!present()) return;
    if (now >= next_frame_) {
      next_frame_ = now + frame_;
      for (int i = 0; i < kPackets * kOutPacket && !outgoing_.empty() && chip_.size() < kChipBuffer; ++i) {
        chip_.push_back(outgoing_.front());
        outgoing_.pop_front();
      }
    }
    if (collected_.size() >= kInPacket || (now >= timer_ && !collected_.empty())) {
      size_t size = collected_.size() < kInPacket ? collected_.size() : size_t(kInPacket);
      delivered_.insert(delivered_.end(), collected_.begin(), collected_.begin() + size);
      collected_.erase(collected_.begin(), collected_.begin() + size);
      timer_ = now + latency_;
    } else if (now >= timer_) {
      timer_ = now + latency_;  // the empty packet that the bridge sends when its timer runs out
    }
  }

  // When something happens here although no byte comes; far away if nothing does.
  uint64_t next_event() const {
    uint64_t when = std::numeric_limits<uint64_t>::max();
    if (!present()) return when;
    if (!collected_.empty()) when = timer_;
    if (!outgoing_.empty() && next_frame_ < when) when = next_frame_;
    return when;
  }

 private:
  static constexpr int kPackets = 19, kOutPacket = 64, kInPacket = 62, kChipBuffer = 512;

  uint64_t frame_, latency_;
  uint64_t next_frame_ = 0, timer_ = 0;
  std::deque<uint8_t> outgoing_, chip_, collected_;
  std::vector<uint8_t> delivered_;
};
