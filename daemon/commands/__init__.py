"""The sub-commands of `scentd`, one module each."""
