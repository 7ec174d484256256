"""Demo: simulated boards, an embedded broker, the real service, and a live view of its messages.

May import the rest of the daemon, the simulator, amqtt and rich (the extra `demo`); only
`scentd demo` imports it. The views show what the service published over MQTT.
"""
