"""Daemon: the running service: life cycle, runtime, reload, report."""
