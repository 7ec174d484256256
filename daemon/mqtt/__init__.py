"""Daemon: everything between a prediction and the broker, and requests back."""

from importlib.util import find_spec

from daemon.system.imports import without

# paho-mqtt needs urllib.request for proxies alone, and only where PySocks is installed: an HTTP
# client and its parsers are 1.7 MB of resident memory.
with without(*([] if find_spec("socks") else ["urllib.request"])):
    import paho.mqtt.client  # noqa: F401
