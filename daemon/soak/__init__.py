"""Soak: faults injected into a running service, and a report of what was delivered all the same.

Belongs to `scentd soak`. May import what the daemon, the simulator and paho-mqtt offer; the
service itself must never import it.
"""
