"""Soak: a storm of faults against the real service, and the balance of what came through.

Belongs to `scentd soak`. May import what the daemon, the simulator and paho-mqtt offer; the
service itself must never import it.
"""
