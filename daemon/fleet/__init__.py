"""Daemon: acts on many rigs of one broker: shows them, and sends requests to them in waves."""
