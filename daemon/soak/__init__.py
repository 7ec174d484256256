"""Soak: faults injected into a running service, and a report of the messages delivered.

Used by `scentd soak`. May import the daemon, the simulator and paho-mqtt; the service must never
import it.
"""
