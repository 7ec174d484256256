"""Daemon: the demo: a simulated board, an embedded broker, the real service, and a live view.

May import the rest of the daemon, the simulator, amqtt and rich (the extra `demo`); only
`scentd demo` imports it. Nothing here decides what a smell is: the view shows what the service
published, heard over MQTT as by any other client.
"""
