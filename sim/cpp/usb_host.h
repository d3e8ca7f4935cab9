// A full-speed USB host on the pins of a device: bits, packets, transactions, enumeration of a CDC-ACM device, bulk data.
//
// The device is whatever `Device` is: tick() lets a quarter of a bit (a clock of 48 MHz) pass, drive(dp, dn) sets the
// line, driving() says whether the device drives it and dp(), dn() to what, attached() whether its pull-up is on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

template <typename Device>
class UsbHost {
 public:
  using Bytes = std::vector<uint8_t>;

  explicit UsbHost(Device& device) : device_(device) { idle(8); }

  // Bus reset, descriptors, address, configuration, line coding. False if the device does not play along.
  bool enumerate() {
    for (int i = 0; i < 1000 && !device_.attached(); ++i) idle(4);
    if (!device_.attached()) return false;
    for (int i = 0; i < kResetBits; ++i) bit(false, false);
    idle(200);
    address_ = 0;
    std::fill(toggles_in_, toggles_in_ + 16, 0);
    std::fill(toggles_out_, toggles_out_ + 16, 0);
    device_descriptor = control_in(0x80, 6, 0x0100, 0, 18);
    if (device_descriptor.size() != 18) return false;
    if (!control_out(0x00, 5, kAddress, 0, {})) return false;
    idle(kSettleBits);
    address_ = kAddress;
    Bytes head = control_in(0x80, 6, 0x0200, 0, 9);
    if (head.size() != 9) return false;
    uint16_t total = uint16_t(head[2] | head[3] << 8);
    configuration_descriptor = control_in(0x80, 6, 0x0200, 0, total);
    if (configuration_descriptor.size() != total) return false;
    manufacturer = control_in(0x80, 6, 0x0301, 0x0409, 255);
    product = control_in(0x80, 6, 0x0302, 0x0409, 255);
    if (!control_out(0x00, 9, 1, 0, {})) return false;
    // 115200 8N1, as any terminal does; the device may do what it likes with it
    return control_out(0x21, 0x20, 0, 0, {0x00, 0xC2, 0x01, 0x00, 0, 0, 8}) && line_state();
  }

  // One transaction of whatever there is to do; a start of frame when it is time.
  void work() {
    if (bits_ >= next_frame_) start_of_frame();
    if (!outgoing.empty() && out_next_) {
      bulk_out();
    } else {
      bulk_in();
    }
    out_next_ = !out_next_;
  }

  Bytes device_descriptor, configuration_descriptor, manufacturer, product;
  std::deque<uint8_t> outgoing;
  Bytes arrived;
  uint64_t errors = 0, refused = 0;  // packets that were damaged or missing; OUT packets that were not taken

 private:
  enum Pid : uint8_t { kOut = 0x1, kIn = 0x9, kSof = 0x5, kSetup = 0xD, kData0 = 0x3, kData1 = 0xB, kAck = 0x2, kNak = 0xA, kStall = 0xE };
  static constexpr int kAddress = 5, kData = 4, kPacket = 64;
  static constexpr int kResetBits = 12000 * 3, kSettleBits = 2000, kTries = 2000, kFrameBits = 12000;
  static constexpr int kTurnaround = 40;  // bits until an answer must have begun; the standard allows 18 and cables

  // -- bits
  void bit(bool dp, bool dn) {
    device_.drive(dp, dn);
    for (int i = 0; i < 4; ++i) device_.tick();
    ++bits_;
  }
  void idle(int bits) {
    for (int i = 0; i < bits; ++i) bit(true, false);
  }

  void send(const Bytes& packet) {
    bool level = true;  // J
    int ones = 0;
    auto put = [&](bool one) {
      if (!one) level = !level;
      bit(level, !level);
      ones = one ? ones + 1 : 0;
      if (ones == 6) {
        level = !level;
        bit(level, !level);
        ones = 0;
      }
    };
    for (int i = 0; i < 7; ++i) put(false);
    put(true);
    for (uint8_t byte : packet)
      for (int i = 0; i < 8; ++i) put(byte >> i & 1);
    bit(false, false);
    bit(false, false);
    idle(4);
  }

  // The next packet of the device; empty if none comes, or a damaged one.
  Bytes receive() {
    device_.drive(true, false);
    int waited = 0;
    while (!(device_.driving() && !device_.dp() && device_.dn())) {  // K
      device_.tick();
      if (++waited % 4 == 0) ++bits_;
      if (waited > 4 * kTurnaround) return {};
    }
    Bytes packet;
    bool last = true, previous = false, synchronised = false;
    int phase = 0, ones = 0, count = 0;
    uint8_t byte = 0;
    for (int ticks = 0; ticks < 4 * 8 * 100; ++ticks) {
      bool dp = device_.driving() ? device_.dp() : true, dn = device_.driving() ? device_.dn() : false;
      if (dp != previous) phase = 0;
      previous = dp;
      if (phase++ % 4 == 1) {
        ++bits_;
        if (!dp && !dn) break;  // SE0
        bool one = dp == last;
        last = dp;
        if (ones == 6) {
          ones = 0;  // a stuffed bit
        } else if (!synchronised) {
          synchronised = one;
          ones = one;
        } else {
          ones = one ? ones + 1 : 0;
          byte = uint8_t(byte >> 1 | one << 7);
          if (++count % 8 == 0) packet.push_back(byte);
        }
      }
      device_.tick();
    }
    for (int i = 0; i < 100 && device_.driving(); ++i) device_.tick();
    idle(4);
    if (count % 8 || packet.empty() || ((packet[0] ^ packet[0] >> 4) & 0xF) != 0xF) {
      ++errors;
      return {};
    }
    return packet;
  }

  // -- packets
  static uint8_t pid_byte(Pid pid) { return uint8_t(pid | (~pid & 0xF) << 4); }

  void token(Pid pid, unsigned value) {  // 11 bits and their CRC
    unsigned crc = 0x1F;
    for (int i = 0; i < 11; ++i) {
      bool feedback = (value >> i & 1) ^ (crc & 1);
      crc >>= 1;
      if (feedback) crc ^= 0x14;
    }
    unsigned bits = value | (crc ^ 0x1F) << 11;
    send({pid_byte(pid), uint8_t(bits), uint8_t(bits >> 8)});
  }
  void token(Pid pid, int address, int endpoint) { token(pid, unsigned(address | endpoint << 7)); }

  static uint16_t crc16(const uint8_t* data, size_t size) {
    uint16_t crc = 0xFFFF;
    for (size_t i = 0; i < size; ++i) {
      crc ^= data[i];
      for (int k = 0; k < 8; ++k) crc = uint16_t(crc >> 1 ^ (crc & 1 ? 0xA001 : 0));
    }
    return uint16_t(~crc);
  }

  void data(Pid pid, const Bytes& payload) {
    Bytes packet{pid_byte(pid)};
    packet.insert(packet.end(), payload.begin(), payload.end());
    uint16_t crc = crc16(payload.data(), payload.size());
    packet.push_back(uint8_t(crc));
    packet.push_back(uint8_t(crc >> 8));
    send(packet);
  }
  void handshake(Pid pid) { send({pid_byte(pid)}); }

  void start_of_frame() {
    token(kSof, frame_++ & 0x7FF);
    next_frame_ = bits_ + kFrameBits;
  }

  // -- transactions
  enum class Outcome { kDone, kRefused, kStalled, kNothing };

  Outcome out(Pid pid, int endpoint, const Bytes& payload) {
    token(pid, address_, endpoint);
    uint8_t& toggle = toggles_out_[endpoint];
    if (pid == kSetup) toggles_out_[endpoint] = toggles_in_[endpoint] = 0;
    data(toggle ? kData1 : kData0, payload);
    Bytes answer = receive();
    if (answer.empty()) return Outcome::kNothing;
    if ((answer[0] & 0xF) != kAck) return Outcome::kRefused;
    toggle ^= 1;
    if (pid == kSetup) toggles_in_[endpoint] = 1;
    return Outcome::kDone;
  }

  Outcome in(int endpoint, Bytes& payload) {
    token(kIn, address_, endpoint);
    Bytes answer = receive();
    if (answer.empty()) return Outcome::kNothing;
    uint8_t pid = answer[0] & 0xF;
    if (pid == kStall) return Outcome::kStalled;
    if (pid != kData0 && pid != kData1) return Outcome::kRefused;
    if (answer.size() < 3 || crc16(answer.data() + 1, answer.size() - 3) != (answer[answer.size() - 2] | answer[answer.size() - 1] << 8)) {
      ++errors;
      return Outcome::kNothing;
    }
    handshake(kAck);
    if ((pid == kData1) != bool(toggles_in_[endpoint])) return Outcome::kRefused;  // a repeat
    toggles_in_[endpoint] ^= 1;
    payload.assign(answer.begin() + 1, answer.end() - 2);
    return Outcome::kDone;
  }

  template <typename Transaction>
  bool until_done(Transaction transaction) {
    for (int i = 0; i < kTries; ++i) {
      if (transaction() == Outcome::kDone) return true;
      idle(20);
    }
    return false;
  }

  bool setup(uint8_t type, uint8_t request, uint16_t value, uint16_t index, uint16_t length) {
    Bytes packet{type, request, uint8_t(value), uint8_t(value >> 8), uint8_t(index), uint8_t(index >> 8),
                 uint8_t(length), uint8_t(length >> 8)};
    return until_done([&] { return out(kSetup, 0, packet); });
  }

  Bytes control_in(uint8_t type, uint8_t request, uint16_t value, uint16_t index, uint16_t length) {
    Bytes all;
    if (!setup(type, request, value, index, length)) return all;
    while (all.size() < length) {
      Bytes part;
      if (!until_done([&] { return in(0, part); })) return {};
      all.insert(all.end(), part.begin(), part.end());
      if (part.size() < kPacket) break;
    }
    toggles_out_[0] = 1;
    if (!until_done([&] { return out(kOut, 0, {}); })) return {};
    return all;
  }

  bool control_out(uint8_t type, uint8_t request, uint16_t value, uint16_t index, const Bytes& payload) {
    if (!setup(type, request, value, index, uint16_t(payload.size()))) return false;
    if (!payload.empty() && !until_done([&] { return out(kOut, 0, payload); })) return false;
    toggles_in_[0] = 1;
    Bytes nothing;
    return until_done([&] { return in(0, nothing); });
  }

  // DTR and RTS: hosts set them and do not mind a device that knows none.
  bool line_state() {
    if (!setup(0x21, 0x22, 3, 0, 0)) return false;
    toggles_in_[0] = 1;
    Bytes nothing;
    return until_done([&] {
      Outcome outcome = in(0, nothing);
      return outcome == Outcome::kStalled ? Outcome::kDone : outcome;
    });
  }

  void bulk_out() {
    size_t size = outgoing.size() < kPacket ? outgoing.size() : size_t(kPacket);
    Bytes payload(outgoing.begin(), outgoing.begin() + size);
    Outcome outcome = out(kOut, kData, payload);
    if (outcome == Outcome::kDone) outgoing.erase(outgoing.begin(), outgoing.begin() + size);
    if (outcome == Outcome::kRefused) ++refused;
  }

  void bulk_in() {
    Bytes payload;
    if (in(kData, payload) == Outcome::kDone) arrived.insert(arrived.end(), payload.begin(), payload.end());
  }

  Device& device_;
  uint64_t bits_ = 0, next_frame_ = 0;
  unsigned frame_ = 0;
  int address_ = 0;
  bool out_next_ = true;
  uint8_t toggles_in_[16] = {}, toggles_out_[16] = {};
};
