"""Simulator: a board that is not there, on a pseudo-terminal that real software opens.

Ground floor: may import the rest of `hardware` and numpy, never `models` or above. Its odours
are fitted to real recordings by `scent-train fingerprints`; see docs/simulator.md.
"""
