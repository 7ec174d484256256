"""What a broker keeps of many rigs is loaded whole, beside rigs that publish all the time."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from daemon.config.settings import MqttConfig
from daemon.fleet import connection
from daemon.fleet.connection import connect_fleet
from daemon.mqtt import topics
from tests.daemon.fleet.many_rigs import RIGS, client, publish_rigs

if TYPE_CHECKING:
    from tests.sandbox import Mosquitto


def test_the_objects_of_more_rigs_than_a_broker_queues_are_all_loaded(broker: Mosquitto) -> None:
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with client(broker.port) as publisher:
        publish_rigs(publisher)
        with connect_fleet(config) as fleet:
            assert len(fleet.rigs) == RIGS
            assert all(rig.is_online and rig.info and rig.health for rig in fleet.rigs)
            assert all(len(rig.predictions) == 2 for rig in fleet.rigs)


def test_only_what_is_needed_is_loaded(broker: Mosquitto) -> None:
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with client(broker.port) as publisher:
        publish_rigs(publisher)
        with connect_fleet(config, frozenset({topics.INFO})) as fleet:
            assert all(rig.is_online and rig.info for rig in fleet.rigs)
            assert all(rig.health is None and not rig.predictions for rig in fleet.rigs)


def test_a_silent_rig_is_given_up_while_others_publish(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_S", 1.0)
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    given_up = threading.Event()

    def publish() -> None:
        for _ in range(200):
            if given_up.wait(0.1):
                return
            publisher.publish("scent/talking/status", "online", retain=True)

    with client(broker.port) as publisher:
        for rig in ("silent", "talking"):
            publisher.publish(f"scent/{rig}/status", "online", 1, retain=True).wait_for_publish(30)
        working = threading.Thread(target=publish)
        working.start()
        try:
            with connect_fleet(config, frozenset()) as fleet:
                (answer,) = fleet.send(["silent"], "status", {})
                still_publishing = working.is_alive()
        finally:
            given_up.set()
            working.join()
    assert not answer.ok
    assert "no answer" in answer.text
    assert still_publishing


def test_the_connection_is_served_during_a_pause(broker: Mosquitto) -> None:
    """Otherwise the broker would end it after one and a half times its keep-alive."""
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with client(broker.port) as publisher:
        publisher.publish("scent/rig/status", "online", 1, retain=True).wait_for_publish(30)
        with connect_fleet(config, frozenset()) as fleet:
            publisher.publish("scent/rig/status", "offline", 1, retain=True).wait_for_publish(30)
            fleet.wait(1.0)
            assert [rig.is_online for rig in fleet.rigs] == [False]


def test_rigs_that_publish_all_the_time_do_not_delay_a_command(broker: Mosquitto) -> None:
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    loaded, rounds = threading.Event(), []

    def publish() -> None:
        # For longer than a command waits at most.
        for number in range(200):
            if loaded.wait(0.1):
                return
            rounds.append(number)
            publisher.publish("scent/rig-001/health", json.dumps({"rate_hz": 1.0}), retain=True)
            publisher.publish("scent/rig-001/status", "online", retain=True)

    with client(broker.port) as publisher:
        working = threading.Thread(target=publish)
        working.start()
        try:
            with connect_fleet(config) as fleet:
                assert [rig.rig_id for rig in fleet.rigs] == ["rig-001"]
        finally:
            loaded.set()
            working.join()
    assert len(rounds) < 200
