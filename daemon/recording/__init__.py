"""Daemon: recordings that the service keeps, in packed segments."""
