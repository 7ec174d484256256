"""The brokers of the sandbox."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from daemon.sandbox.broker import LOOPBACK, BrokerStartError, EmbeddedBroker
from daemon.sandbox.subscriber import Subscriber
from tests.sandbox import Mosquitto, retained, wait_until


def test_embedded_broker_delivers_messages_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with EmbeddedBroker() as broker, Subscriber(broker.port) as subscriber:
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        client.connect(LOOPBACK, broker.port)
        client.loop_start()
        client.publish("scent/kitchen/sensor/status", "online", qos=1, retain=True)
        client.publish("scent/kitchen/substance", '{"state": "ambient"}', qos=1)
        wait_until(lambda: len(subscriber.received) == 2, "both messages")
        client.disconnect()
        client.loop_stop()
    assert [(*message.rig_topic, message.value) for message in subscriber.received] == [
        ("kitchen", "sensor/status", "online"),
        ("kitchen", "substance", {"state": "ambient"}),
    ]
    assert set(threading.enumerate()) == before


def test_mosquitto_does_not_start_on_a_port_where_something_else_answers(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        broker = Mosquitto(tmp_path, port=server.getsockname()[1])
        with pytest.raises(BrokerStartError, match="Address already in use"):
            broker.start()


def test_a_broker_starts_again_on_its_port(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    for kill in (True, False):
        with broker:
            assert retained(broker.port, "scent/rig/status") is None
            broker.stop(kill=kill)
