"""Daemon: a broker, a service and a subscriber of one's own, for demo, soak, bench and tests."""
