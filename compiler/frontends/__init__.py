"""Networks that others wrote, as the compiler's float graph: torch modules of SpikingJelly, snnTorch, or one's own."""
