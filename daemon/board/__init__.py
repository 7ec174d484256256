"""Daemon: the serial port, what comes over it, and what is wrong when nothing comes."""
