"""Soak: another client with the rig's client id, as a second service with the same `rig_id` is one.

It connects as soon as its connection ends, and so takes the rig's place again and again.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from daemon.sandbox.broker import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

_AGAIN_AFTER_S = 0.3


@contextmanager
def second_rig(client_id: str, port: int) -> Iterator[None]:
    """Take the place of a client at the broker again and again while the block runs."""
    ended = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id)

    def serve() -> None:
        while not ended.is_set():
            try:
                client.connect(LOOPBACK, port, keepalive=5)
                while not ended.is_set() and client.loop(0.1) == mqtt.MQTT_ERR_SUCCESS:
                    pass
            except OSError:
                pass  # the broker is away
            time.sleep(_AGAIN_AFTER_S)

    thread = threading.Thread(target=serve, name="second rig", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        client.disconnect()
