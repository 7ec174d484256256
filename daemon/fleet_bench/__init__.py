"""Daemon: measures a fleet: a thousand simulated rigs on one broker, and real services beside."""
