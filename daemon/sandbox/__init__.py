"""Daemon: starts a broker, a service and a subscriber for demo, soak, bench and tests."""
