"""A few dozen simulated rigs over a real Mosquitto: real payloads, and nothing lost by its kill."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from daemon.config.settings import MqttConfig
from daemon.fleet_bench.light_fleet import RETAINED, LightFleet, most_per_second
from daemon.fleet_bench.light_rig import LightRig, write_script
from daemon.fleet_bench.table import most_connections_per_s
from daemon.mqtt import topics
from tests.sandbox import ROOT, Mosquitto, Subscriber, needs_mosquitto, wait_until

if TYPE_CHECKING:
    from pathlib import Path

RIGS = 30


def schema(name: str) -> Any:
    return json.loads((ROOT / f"daemon/schemas/{name}.json").read_text(encoding="utf-8"))


def test_a_simulated_rig_publishes_and_answers_as_a_service_does(
    broker: Mosquitto, toy_substances: Path
) -> None:
    script = write_script(str(toy_substances))
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with Subscriber(broker.port) as subscriber, LightRig("rig", config, script, 0.0) as rig:
        subscriber.await_text("scent/rig/status", "online")
        # What the rig publishes within four minutes.
        for second in range(240):
            rig.work(time.monotonic() + second)
        subscriber.publish("scent/rig/request/status", '{"transaction": "1"}')

        def answered() -> bool:
            rig.work(time.monotonic())
            return bool(subscriber.payloads("response/status"))

        wait_until(answered, "the answer")
        wait_until(lambda: rig.depth == 0, "the outbox")
        subscriber.catch_up()
        assert len(rig.publisher.made) > 40
        for topic in (topics.INFO, topics.HEALTH, topics.SUBSTANCE, topics.EVENT):
            payloads = subscriber.payloads(topic)
            assert payloads
            for payload in payloads:
                jsonschema.validate(payload, schema(topic))
        numbers = [one["seq"] for one in subscriber.payloads(topics.SUBSTANCE)]
        assert numbers == sorted(set(numbers))
        answer = subscriber.payloads("response/status")[0]
        assert answer["status"] == "ok"
        jsonschema.validate(answer["data"]["models"], {"type": "object", "minProperties": 1})
    with Subscriber(broker.port) as late:
        late.await_text("scent/rig/status", "offline")


def test_all_rigs_return_after_a_kill_of_the_broker_and_nothing_is_lost(
    toy_substances: Path,
) -> None:
    needs_mosquitto()
    with LightFleet(RIGS, str(toy_substances)) as fleet:
        fleet.await_online()
        back = fleet.measure_return(1.0)
        losses = fleet.count_losses()
        killed, _ = fleet.measure_wills()
    # In clean air this model predicts less often than the broker was there.
    kept = [topic for topic in RETAINED if topic != topics.SUBSTANCE]
    assert {topic: back.retained.get(topic) for topic in kept} == dict.fromkeys(kept, RIGS)
    assert back.most_per_s <= most_connections_per_s(RIGS)
    assert losses.made > 0
    assert (losses.missing, losses.disordered) == (0, 0)
    assert killed == RIGS


@pytest.mark.parametrize(
    ("times_s", "most"), [([], 0), ([3.0], 1), ([0.0, 0.9, 1.1, 1.8, 5.0], 3), ([2.0] * 7, 7)]
)
def test_the_busiest_second_is_found_wherever_it_begins(times_s: list[float], most: int) -> None:
    assert most_per_second(times_s) == most
