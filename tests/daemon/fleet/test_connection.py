"""What a broker keeps of many rigs is loaded whole, beside rigs that publish all the time."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from daemon.config.settings import MqttConfig
from daemon.fleet import connection
from daemon.fleet.connection import connect_fleet
from daemon.mqtt import topics
from tests.daemon.fleet.many_rigs import RIGS, publish_rigs
from tests.sandbox import Subscriber

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sandbox import Mosquitto

ROUNDS = 200
"""Rounds of `publishing`: twenty seconds, far longer than a command needs here."""


@contextmanager
def publishing(publisher: Subscriber, messages: dict[str, str]) -> Iterator[list[int]]:
    """Publish retained messages, by topic, ten times a second; yield the rounds so far."""
    rounds: list[int] = []
    ended = threading.Event()

    def publish() -> None:
        for number in range(ROUNDS):
            if ended.wait(0.1):
                return
            rounds.append(number)
            for topic, text in messages.items():
                publisher.publish(topic, text, retain=True)

    working = threading.Thread(target=publish)
    working.start()
    try:
        yield rounds
    finally:
        ended.set()
        working.join()


def test_the_objects_of_more_rigs_than_a_broker_queues_are_all_loaded(broker: Mosquitto) -> None:
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with Subscriber(broker.port, topic="none") as publisher:
        publish_rigs(publisher)
        with connect_fleet(config) as fleet:
            assert len(fleet.rigs) == RIGS
            assert all(rig.is_online and rig.info and rig.health for rig in fleet.rigs)
            assert all(len(rig.predictions) == 2 for rig in fleet.rigs)


def test_only_what_is_needed_is_loaded(broker: Mosquitto) -> None:
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with Subscriber(broker.port, topic="none") as publisher:
        publish_rigs(publisher)
        with connect_fleet(config, frozenset({topics.INFO})) as fleet:
            assert all(rig.is_online and rig.info for rig in fleet.rigs)
            assert all(rig.health is None and not rig.predictions for rig in fleet.rigs)


def test_a_silent_rig_is_given_up_while_others_publish(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_S", 1.0)
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with Subscriber(broker.port, topic="none") as publisher:
        for rig in ("silent", "talking"):
            publisher.publish(f"scent/{rig}/status", "online", retain=True)
        publisher.catch_up()
        with (
            publishing(publisher, {"scent/talking/status": "online"}) as rounds,
            connect_fleet(config, frozenset()) as fleet,
        ):
            (answer,) = fleet.send(["silent"], "status", {})
    assert not answer.ok
    assert "no answer" in answer.text
    assert len(rounds) < ROUNDS


def test_the_connection_is_served_during_a_pause(broker: Mosquitto) -> None:
    """Otherwise the broker would end it after one and a half times its keep-alive."""
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with Subscriber(broker.port, topic="none") as publisher:
        publisher.publish("scent/rig/status", "online", retain=True)
        publisher.catch_up()
        with connect_fleet(config, frozenset()) as fleet:
            publisher.publish("scent/rig/status", "offline", retain=True)
            publisher.catch_up()
            fleet.wait(1.0)
            assert [rig.is_online for rig in fleet.rigs] == [False]


def test_rigs_that_publish_all_the_time_do_not_delay_a_command(broker: Mosquitto) -> None:
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    messages = {
        "scent/rig-001/health": json.dumps({"rate_hz": 1.0}),
        "scent/rig-001/status": "online",
    }
    with (
        Subscriber(broker.port, topic="none") as publisher,
        publishing(publisher, messages) as rounds,
        connect_fleet(config) as fleet,
    ):
        assert [rig.rig_id for rig in fleet.rigs] == ["rig-001"]
    assert len(rounds) < ROUNDS
