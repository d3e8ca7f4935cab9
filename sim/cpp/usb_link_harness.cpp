// Link behind a UsbPhy, with a behavioural core on its bus and a USB host on its pins. Commands as those of
// link_harness.cpp, cycles being clocks of 48 MHz; and
//   D  -> four times n u32, n bytes: descriptors of device and configuration, strings of manufacturer and product;
//         all empty if the device has not let itself be enumerated
//
// usage: run SEED SYNC_HZ HURRY
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "Vtop.h"
#include "bench_core.h"
#include "usb_host.h"
#include "usb_pins.h"
#include "verilated.h"

namespace {

class Bench {
 public:
  Bench(uint64_t sync_hz, bool hurry) : sync_hz_(sync_hz), core_(hurry) { power_on(); }

  void power_on() {
    host_.reset();
    device_.reset();
    top_ = std::make_unique<Vtop>(&context_);
    core_.power_off();
    device_ = std::make_unique<UsbDevice>(*top_, sync_hz_, [this] { before_edge(); });
    plug();
  }
  void plug() {
    host_ = std::make_unique<UsbHost<UsbDevice>>(*device_);
    ready_ = host_->enumerate();
  }

  uint64_t exchange(uint64_t limit, const std::vector<uint8_t>& data) {
    host_->outgoing.insert(host_->outgoing.end(), data.begin(), data.end());
    uint64_t begin = device_->ticks();
    while (ready_ && host_->arrived.empty() && device_->ticks() - begin < limit) host_->work();
    return ready_ ? device_->ticks() - begin : limit;
  }

  std::vector<uint8_t>& delivered() { return host_->arrived; }
  Core& core() { return core_; }
  bool ready() const { return ready_; }
  UsbHost<UsbDevice>& host() { return *host_; }

 private:
  void before_edge() {
    core_.drive(*top_);
    top_->eval();
    core_.step(*top_);
  }

  uint64_t sync_hz_;
  VerilatedContext context_;
  std::unique_ptr<Vtop> top_;
  Core core_;
  std::unique_ptr<UsbDevice> device_;
  std::unique_ptr<UsbHost<UsbDevice>> host_;
  bool ready_ = false;
};

bool read_all(void* data, size_t size) { return std::fread(data, 1, size, stdin) == size; }

template <typename T>
void put(T value) {
  std::fwrite(&value, sizeof value, 1, stdout);
}
void put_bytes(const std::vector<uint8_t>& bytes) {
  put<uint32_t>(uint32_t(bytes.size()));
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
}

bool exchange(Bench& bench) {
  uint64_t limit;
  uint32_t size;
  if (!read_all(&limit, sizeof limit) || !read_all(&size, sizeof size)) return false;
  std::vector<uint8_t> data(size);
  if (size && !read_all(data.data(), size)) return false;
  put<uint64_t>(bench.exchange(limit, data));
  put_bytes(bench.delivered());
  bench.delivered().clear();
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s SEED SYNC_HZ HURRY\n", argv[0]);
    return 2;
  }
  random_state = std::strtoul(argv[1], nullptr, 10) * 2654435761u | 1;
  Bench bench(std::strtoull(argv[2], nullptr, 10), std::atoi(argv[3]) != 0);
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
        std::fill_n(bench.core().clocks(), 8, 0);
        break;
      case 'D':
        for (auto* bytes : {&bench.host().device_descriptor, &bench.host().configuration_descriptor,
                            &bench.host().manufacturer, &bench.host().product})
          put_bytes(bench.ready() ? *bytes : std::vector<uint8_t>());
        break;
      default: return 2;
    }
    std::fflush(stdout);
  }
  return 0;
}
