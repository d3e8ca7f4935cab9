// The pins and clocks of a USB device under test, whose ports are those of hw/link/serial.py's UsbPins.
#pragma once

#include <cstdint>
#include <functional>

#include "Vtop.h"

namespace {

constexpr uint64_t kUsbHz = 48'000'000;  // of domain usb_io: four clocks a bit; domain usb has a quarter of it

// What UsbHost talks to. Every clock of `sync` calls `before` with the outputs settled, ahead of the edge.
class UsbDevice {
 public:
  UsbDevice(Vtop& top, uint64_t sync_hz, std::function<void()> before)
      : top_(top), sync_hz_(sync_hz), before_(std::move(before)) {
    top_.rst = top_.usb_rst = top_.usb_io_rst = 1;
    drive(true, false);
    for (int i = 0; i < 32; ++i) tick();
    top_.rst = top_.usb_rst = top_.usb_io_rst = 0;
  }

  void drive(bool dp, bool dn) {
    host_dp_ = dp;
    host_dn_ = dn;
  }
  bool driving() const { return top_.usb_d_p_oe; }
  bool dp() const { return top_.usb_d_p_o; }
  bool dn() const { return top_.usb_d_n_o; }
  bool attached() const { return top_.usb_pullup; }
  uint64_t ticks() const { return ticks_; }

  void tick() {
    top_.usb_d_p_i = driving() ? dp() : host_dp_;
    top_.usb_d_n_i = driving() ? dn() : host_dn_;
    top_.usb_io_clk = 0;
    if (ticks_ % 4 == 0) top_.usb_clk = 0;
    top_.eval();
    top_.usb_io_clk = 1;
    if (ticks_ % 4 == 0) top_.usb_clk = 1;
    top_.eval();
    for (credit_ += sync_hz_; credit_ >= kUsbHz; credit_ -= kUsbHz) {
      top_.clk = 0;
      top_.eval();
      before_();
      top_.clk = 1;
      top_.eval();
    }
    ++ticks_;
  }

 private:
  Vtop& top_;
  uint64_t sync_hz_, credit_ = 0, ticks_ = 0;
  std::function<void()> before_;
  bool host_dp_ = true, host_dn_ = false;
};

}  // namespace
