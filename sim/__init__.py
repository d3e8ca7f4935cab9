"""Golden model, simulated cores and the virtual board."""
