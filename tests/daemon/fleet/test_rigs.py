"""The state of the rigs follows their messages, whatever a broker sends, and stays bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.fleet import rigs as rigs_module
from daemon.fleet.rig_state import EVENTS_KEPT, HISTORY_MS, READINGS_KEPT, WatchedRig
from daemon.fleet.rigs import RIGS_KEPT, Rigs
from hardware.channels import CHANNEL_NAMES


class Pages:
    """Collects what pages would be given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[tuple[str, str, dict[str, Any]]] = []
        self.rigs = Rigs(
            ("kitchen",),
            lambda rig, update: self.given.append((rig, update)),
            lambda *answer: self.answers.append(answer),
        )

    def receive(self, topic: str, payload: object) -> None:
        text = payload if isinstance(payload, str) else json.dumps(payload)
        self.rigs.receive(f"scent/{topic}", text.encode())


def sample(t_ms: int, value: float | None = 1.0) -> dict[str, Any]:
    return {"t_ms": t_ms, "values": dict.fromkeys(CHANNEL_NAMES, value)}


def prediction(seq: int, **fields: Any) -> dict[str, Any]:
    return {"boot_id": "a", "seq": seq, "model": "m", "state": "ambient", **fields}


def test_the_rig_of_the_configuration_is_known_before_its_first_message() -> None:
    pages = Pages()
    assert pages.rigs.summary()["rigs"] == [
        {"rig": "kitchen", "status": None, "sensor_status": None}
    ]


def test_other_rigs_appear_with_their_first_message() -> None:
    pages = Pages()
    pages.receive("attic/status", "online")
    assert [rig["rig"] for rig in pages.rigs.summary()["rigs"]] == ["kitchen", "attic"]
    assert pages.rigs.by_id["attic"].is_online


def test_the_list_of_rigs_is_given_once_for_many_changes() -> None:
    pages = Pages()
    for number in range(20):
        pages.receive(f"rig-{number}/status", "online")
    listed = pages.rigs.take_summary()
    assert listed is not None
    assert len(listed["rigs"]) == 21
    pages.receive("rig-1/status", "online")
    assert pages.rigs.take_summary() is None
    pages.receive("rig-1/status", "offline")
    assert pages.rigs.take_summary() is not None


def test_invented_rigs_are_bounded() -> None:
    pages = Pages()
    for number in range(2 * RIGS_KEPT):
        pages.receive(f"rig-{number}/status", "online")
    assert len(pages.rigs.by_id) == RIGS_KEPT


def test_a_prediction_is_given_to_the_pages_of_its_rig() -> None:
    pages = Pages()
    pages.receive("kitchen/substance", prediction(1, state="recognised", label="coffee"))
    rig, update = pages.given[-1]
    assert (rig, update["kind"], update["payload"]["label"]) == ("kitchen", "substance", "coffee")
    snapshot = pages.rigs.by_id["kitchen"].snapshot()
    assert snapshot["predictions"][0]["payload"]["label"] == "coffee"


def test_a_late_prediction_of_the_same_boot_does_not_replace_a_newer_one() -> None:
    rig = WatchedRig("kitchen")
    assert rig.receive("substance", prediction(2, label="new"))
    assert not rig.receive("substance", prediction(1, label="old"))
    assert rig.receive("substance", {**prediction(0), "boot_id": "b"})


def test_a_model_that_runs_no_more_is_forgotten() -> None:
    rig = WatchedRig("kitchen")
    rig.receive("info", {"models": [{"name": "m"}]})
    rig.receive("substance", prediction(1))
    rig.receive("info", {"models": [{"name": "n"}]})
    assert rig.snapshot()["predictions"] == []


def test_an_event_that_comes_twice_is_kept_once_and_all_are_bounded() -> None:
    rig = WatchedRig("kitchen")
    for seq in range(3 * EVENTS_KEPT):
        event = {"boot_id": "a", "seq": seq, "type": "onset"}
        assert rig.receive("event", event)
        assert not rig.receive("event", event)
    assert len(rig.events) == EVENTS_KEPT
    assert rig.event_counts["onset"] == 3 * EVENTS_KEPT


def test_the_events_of_a_large_fleet_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rigs_module, "EVENTS_OF_ALL", 2000)
    pages = Pages()
    for seq in range(80):
        for rig in range(40):
            pages.receive(f"rig-{rig}/event", {"boot_id": "a", "seq": seq, "type": "onset"})
    kept = [len(rig.events) for rig in pages.rigs.by_id.values()]
    assert sum(kept) <= 2000
    assert min(kept[1:]) > 40


def test_rigs_are_listed_by_name_after_those_of_this_computer() -> None:
    pages = Pages()
    for name in ("lab-2", "attic", "lab-1"):
        pages.receive(f"{name}/status", "online")
    names = [rig["rig"] for rig in pages.rigs.summary()["rigs"]]
    assert names == ["kitchen", "attic", "lab-1", "lab-2"]


def test_readings_of_ten_minutes_are_kept_and_given_in_batches() -> None:
    pages = Pages()
    for second in range(900):
        pages.receive("kitchen/sample", sample(second * 1000))
    readings = pages.rigs.by_id["kitchen"].readings
    assert readings[-1].t_ms - readings[0].t_ms == HISTORY_MS
    assert len(pages.rigs.take_readings()["kitchen"]) == 900
    assert pages.rigs.take_readings() == {}


def test_of_a_fast_board_only_some_readings_are_kept() -> None:
    rig = WatchedRig("kitchen")
    for number in range(20_000):
        rig.receive_reading(sample(number * 50))
    assert len(rig.readings) <= READINGS_KEPT
    assert rig.readings[-1].t_ms - rig.readings[0].t_ms > HISTORY_MS * 0.99


def test_readings_begin_anew_when_the_time_of_the_board_does() -> None:
    rig = WatchedRig("kitchen")
    for t_ms in (5000, 6000, 100):
        rig.receive_reading(sample(t_ms))
    assert [reading.t_ms for reading in rig.readings] == [100]


def test_what_is_no_number_is_no_value_of_a_channel() -> None:
    rig = WatchedRig("kitchen")
    values = {"NO2": "x", "CO": None, "VOC": 3}
    reading = rig.receive_reading({"t_ms": 0, "values": values})
    assert reading is not None
    assert dict(zip(CHANNEL_NAMES, reading.values, strict=True))["VOC"] == 3.0
    assert reading.values.count(None) == 11


def test_an_answer_is_passed_on_with_its_command() -> None:
    pages = Pages()
    pages.receive("kitchen/response/enroll", {"status": "ok", "transaction": "1"})
    assert pages.answers == [("kitchen", "enroll", {"status": "ok", "transaction": "1"})]


@given(
    topic=st.sampled_from(
        ["status", "sensor/status", "substance", "mixture", "event", "sample", "health", "info"]
    ),
    payload=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["t_ms", "values", "seq", "boot_id", "models", "state", "model", "type"]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    ),
)
def test_no_message_ends_the_server(topic: str, payload: bytes) -> None:
    pages = Pages()
    for _ in range(2):
        pages.rigs.receive(f"scent/kitchen/{topic}", payload)
    json.dumps(pages.rigs.by_id["kitchen"].snapshot())
