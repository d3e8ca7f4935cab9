// A Verilated Core; see core_driver.h.
#include "core_driver.h"

int main() { run_core(); }
