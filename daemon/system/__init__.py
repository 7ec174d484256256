"""Daemon: the operating system: background work, systemd, signals, logs, clock, memory."""
