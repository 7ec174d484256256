"""Simulator: a simulated board, on a pseudo-terminal that real software opens.

May import the rest of `hardware` and numpy, never `models` or above. `scent-train fingerprints`
fits its odours to real recordings; see docs/simulator.md.
"""
