// A Verilated overlay, as sim/overlay.py has it: a board behind a pseudo-terminal, or (argument "core") its core driven
// directly.
#define OVERLAY
#include <cstring>

#include "board_driver.h"
#include "core_driver.h"

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "core") == 0) run_core();
  return run_board(argc, argv);
}
