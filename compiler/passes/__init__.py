"""Front end: one pass per file, from a checkpoint to a quantised network."""
