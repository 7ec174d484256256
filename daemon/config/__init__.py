"""Daemon: the configuration: settings, the file they come from, credentials."""
