"""Daemon: the web page of the rigs on a broker, in a process of its own."""
