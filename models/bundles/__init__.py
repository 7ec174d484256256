"""The shipped model bundles, one folder each. Written by `scent-train export` only."""
