"""The sub-commands of `scent-train`, one module each."""
