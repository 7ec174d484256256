"""training/: fingerprints fitted for the board simulator."""
