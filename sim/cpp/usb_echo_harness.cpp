// A UsbPhy that sends back what it receives, with a USB host on its pins: SIZE bytes both ways at once.
//
// usage: run SIZE SEED, prints: wrong bytes, ticks of 48 MHz, damaged packets, refused packets
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>

#include "Vtop.h"
#include "usb_host.h"
#include "usb_pins.h"
#include "verilated.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const size_t size = std::strtoull(argv[1], nullptr, 10);
  uint32_t random = std::strtoul(argv[2], nullptr, 10) * 2654435761u | 1;
  VerilatedContext context;
  Vtop top{&context};
  UsbDevice device(top, 50'000'000, [] {});
  UsbHost<UsbDevice> host(device);
  if (!host.enumerate()) {
    std::fprintf(stderr, "the device cannot be enumerated\n");
    return 1;
  }
  std::vector<uint8_t> sent;
  for (size_t i = 0; i < size; ++i) {
    random ^= random << 13;
    random ^= random >> 17;
    random ^= random << 5;
    sent.push_back(i + 1 == size ? 0 : uint8_t(1 + random % 255));  // a zero ends the transfer
  }
  host.outgoing.assign(sent.begin(), sent.end());
  const uint64_t begin = device.ticks();
  while (host.arrived.size() < size && device.ticks() - begin < 2000 * size + 1'000'000) host.work();
  size_t wrong = host.arrived.size() > size ? host.arrived.size() - size : 0;
  for (size_t i = 0; i < size; ++i) wrong += i >= host.arrived.size() || host.arrived[i] != sent[i];
  std::printf("%zu %llu %llu %llu\n", wrong, (unsigned long long)(device.ticks() - begin),
              (unsigned long long)host.errors, (unsigned long long)host.refused);
  return 0;
}
