"""Daemon: models installed on the rig: archive, store, loading, requests."""
