"""Two services with one rig_id on one broker: said once, slowed down, ended when one is gone."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from daemon.config.settings import MqttConfig
from daemon.mqtt import publisher as publisher_module
from daemon.mqtt import takeovers as module
from daemon.mqtt.outbox import Outbox
from daemon.mqtt.publisher import Publisher
from daemon.mqtt.takeovers import EARLY_TIMES, FREE_AFTER_S, LONGEST_WAIT_S, Takeovers
from tests.sandbox import ROOT, Mosquitto, ServiceProcess, Subscriber, settings, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SAID = "each takes the other's place"


class Clock:
    """A steady clock that a test moves."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def connection(takeovers: Takeovers, clock: Clock, lasts_s: float, **end: bool) -> bool:
    takeovers.connected()
    clock.now_s += lasts_s
    return takeovers.ended(**{"taken_over": False, **end})


def test_the_second_takeover_is_said_and_later_ones_are_not() -> None:
    takeovers = Takeovers(clock := Clock())
    said = [connection(takeovers, clock, 1.0, taken_over=True) for _ in range(5)]
    assert said == [False, True, False, False, False]
    assert takeovers.total == 5


def test_attempts_become_rare_and_the_place_is_free_once_a_connection_lasts() -> None:
    takeovers = Takeovers(clock := Clock())
    while not takeovers.contested:
        connection(takeovers, clock, 1.0, taken_over=True)
    waits = [takeovers.wait_s() for _ in range(10)]
    assert waits[0] >= module.FIRST_WAIT_S / 2
    assert LONGEST_WAIT_S / 2 <= waits[-1] <= LONGEST_WAIT_S
    takeovers.connected()
    clock.now_s += FREE_AFTER_S - 1
    assert not takeovers.is_free_again()
    clock.now_s += 2
    assert takeovers.is_free_again()
    assert not takeovers.is_free_again()
    assert not takeovers.contested
    assert not connection(takeovers, clock, 1.0, taken_over=True)


def test_takeovers_far_apart_are_no_contest() -> None:
    takeovers = Takeovers(clock := Clock())
    assert not any(connection(takeovers, clock, 3600.0, taken_over=True) for _ in range(10))


def test_a_broker_without_reasons_is_judged_by_connections_that_end_early_in_a_row() -> None:
    takeovers = Takeovers(clock := Clock())
    for _ in range(EARLY_TIMES - 1):
        assert not connection(takeovers, clock, 0.5)
    assert connection(takeovers, clock, 0.5)


def test_a_broker_that_fails_or_restarts_is_no_contest() -> None:
    takeovers = Takeovers(clock := Clock())
    for number in range(50):
        if number % 3 == 0:
            takeovers.failed()
        assert not connection(takeovers, clock, 0.5)
    for _ in range(50):
        assert not connection(takeovers, clock, 10.0)


def service(folder: Path, model: Path, port: int) -> ServiceProcess:
    return ServiceProcess(folder, settings(folder / "ttyNONE", [model], port))


def test_two_services_with_one_rig_id_say_so_once_and_slow_down(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    schema = json.loads((ROOT / "daemon/schemas/health.json").read_text(encoding="utf-8"))
    with (
        Subscriber(broker.port) as subscriber,
        service(tmp_path / "one", toy_substances, broker.port) as one,
        service(tmp_path / "two", toy_substances, broker.port) as two,
    ):
        wait_until(lambda: SAID in one.log or SAID in two.log, "the contest")
        wait_until(
            lambda: any(health["broker"]["why"] for health in subscriber.payloads("health")),
            "a health that says so",
        )
        logs = [one.log, two.log]
        assert max(log.count(SAID) for log in logs) == 1
        assert sum(log.count("connected to the broker") for log in logs) < 12
        assert two.end() == 0
        ended = len(subscriber.received)
        # The other one comes back by itself.
        wait_until(
            lambda: (
                any(
                    message.text == "online"
                    for message in list(subscriber.received)[ended:]
                    if message.topic == "scent/rig/status"
                )
                or subscriber.texts("scent/rig/status")[-1] == "online"
            ),
            "the first service",
            patience_s=200.0,
        )
        health = subscriber.payloads("health")[-1]
    jsonschema.validate(health, schema)


@contextmanager
def rig(port: int) -> Iterator[Publisher]:
    config = MqttConfig(host="127.0.0.1", port=port, protocol="3.1.1")
    with Outbox(None) as outbox, Publisher(rig_id="rig", config=config, outbox=outbox) as publisher:
        yield publisher


def test_two_services_over_mqtt_3_1_1_slow_down_as_well(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "FIRST_RETRY_S", 0.1)
    monkeypatch.setattr(publisher_module, "RETRY_EVERY_S", 0.1)
    with rig(broker.port) as one, rig(broker.port) as two:
        wait_until(lambda: one.report().why or two.report().why, "the contest")
        assert one.report().takeovers == 0
