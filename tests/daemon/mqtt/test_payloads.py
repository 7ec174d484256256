"""Payloads match the published schemas and hold finite numbers only."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.mqtt import payloads
from daemon.mqtt.outbox import Outbox
from daemon.mqtt.payloads import Envelope, Gauges, encode, format_utc, percentile
from hardware.channels import CHANNEL_NAMES, N_CHANNELS
from hardware.frames import SensorFrame
from hardware.protocol import LineCounts
from models.bundle import load_bundle
from models.decision_spec import DecisionSpec, State
from models.results import Prediction
from models.substance_decision import Component
from tests.sandbox import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMAS = {path.stem: path for path in (ROOT / "daemon" / "schemas").glob("*.json")}
ENVELOPE = Envelope(1_700_000_000_123, clock_synced=True, boot_id="0123456789abcdef", seq=7)


def schema(name: str) -> Any:
    return json.loads(SCHEMAS[name].read_text(encoding="utf-8"))


def objects_in(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if part.get("type") in ("object", ["object", "null"]):
            yield part
        for value in part.values():
            yield from objects_in(value)
    elif isinstance(part, list):
        for value in part:
            yield from objects_in(value)


def test_there_is_a_schema_of_every_payload() -> None:
    assert set(SCHEMAS) >= {
        "substance",
        "mixture",
        "event",
        "sample",
        "health",
        "info",
        "status",
        "replay_summary",
    }


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_schema_is_valid_and_closed(name: str) -> None:
    document = schema(name)
    jsonschema.Draft202012Validator.check_schema(document)
    for part in objects_in(document):
        if "properties" in part:  # what a response's data holds is the command's affair
            assert part.get("additionalProperties", True) is not True


@given(
    state=st.sampled_from(list(State)),
    probability=st.none() | st.floats(0, 1),
    window_s=st.floats(0, 1e4),
    latency_ms=st.floats(0, 1e6),
    missing=st.sets(st.sampled_from(CHANNEL_NAMES)),
    label_set=st.lists(st.sampled_from(("lemon", "mint", "garlic")), unique=True),
    short_list=st.lists(st.sampled_from(("lemon", "mint", "garlic")), unique=True),
    novelty=st.none() | st.floats(-1e9, 1e9),
    interval=st.none() | st.floats(0, 1),
)
def test_predictions_match_their_schemas(
    state: State,
    probability: float | None,
    window_s: float,
    latency_ms: float,
    missing: set[str],
    label_set: list[str],
    short_list: list[str],
    novelty: float | None,
    interval: float | None,
) -> None:
    for task in ("substance", "mixture"):
        prediction = Prediction(
            task=task,
            model="m",
            t_ms=5,
            frame_seq=3,
            state=state,
            label=None if probability is None else "lemon",
            probability=probability,
            top=(("lemon", 0.7), ("mint", 0.3)),
            components=(Component("lemon", 0.7, 0.9, interval, interval),),
            window_s=window_s,
            channels_missing=tuple(sorted(missing)),
            latency_ms=latency_ms,
            calibration="profile-1",
            label_set=tuple(label_set),
            short_list=tuple(short_list),
            list_coverage=0.7 if short_list else None,
            set_coverage=0.9,
            novelty=novelty,
            descriptors=(("citrus", 0.8),),
        )
        payload = payloads.prediction_payload(prediction, ENVELOPE)
        jsonschema.validate(json.loads(encode(payload)), schema(task))
        assert payload["calibration"] == "profile-1"
        if task == "substance":
            said = {"coverage": 0.9, "labels": label_set} if label_set else None
            assert payload["set"] == said
            listed = {"coverage": 0.7, "labels": short_list} if short_list else None
            assert payload["short_list"] == listed


@given(st.lists(st.floats(width=32), min_size=N_CHANNELS, max_size=N_CHANNELS))
def test_a_sample_has_null_where_there_is_no_finite_number(values: list[float]) -> None:
    frame = SensorFrame(1, 2, np.array(values, np.float32), np.zeros(N_CHANNELS, np.uint8))
    payload = json.loads(encode(payloads.sample_payload(frame, 2, ENVELOPE)))
    jsonschema.validate(payload, schema("sample"))
    nulls = [value is None for value in payload["values"].values()]
    assert nulls == [not math.isfinite(value) for value in values]


def test_health_before_the_first_frame_matches_its_schema() -> None:
    gauges = Gauges(
        counts=LineCounts(),
        port_open=False,
        port_reconnects=0,
        board={"state": "absent", "why": None, "losses": 0},
        recording={
            "state": "off",
            "why": None,
            "segment": None,
            "rows": 0,
            "rows_skipped": 0,
            "pauses": 0,
            "segments_removed": 0,
            "kept_mb": 0.0,
        },
        chunks_dropped=0,
        rate_hz=None,
        quality=None,
        channel_faults=0,
        inference_ms={"m": []},
        outbox=Outbox(None).report(),
        broker={
            "state": "connecting",
            "protocol": None,
            "connections": 0,
            "rejected": 0,
            "fleeting_dropped": 0,
            "takeovers": 0,
            "why": None,
        },
        calibration={"state": "none", "profile": None, "why": None, "drift": {}},
        requests={"taken": 0, "retained": 0, "dropped": 0},
        rss_mb=70.0,
        uptime_s=0.0,
    )
    payload = json.loads(encode(payloads.health_payload(gauges, ENVELOPE)))
    jsonschema.validate(payload, schema("health"))


def test_a_number_that_is_not_finite_never_becomes_json() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        encode({"value": math.nan})


def test_times_are_utc_with_milliseconds() -> None:
    assert format_utc(1_700_000_000_007) == "2023-11-14T22:13:20.007Z"
    assert format_utc(0) == "1970-01-01T00:00:00.000Z"


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values_with_the_right_share_below(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_info_holds_the_constants_to_interpret_a_model() -> None:
    bundle = load_bundle("substances-50")
    stated = dataclasses.replace(
        bundle.manifest.decision,
        announce=0.7,
        error_rate=0.15,
        novelty="cosine",
        unknown_above=0.4,
        set_threshold=0.05,
        list_coverage=0.7,
    )
    silent = DecisionSpec(announce=0.6)
    trust = []
    for decision in (stated, silent):
        bundle.manifest = dataclasses.replace(bundle.manifest, decision=decision)
        payload = payloads.info_payload(
            version="1",
            bundles=[bundle],
            rate_hz=None,
            dialect=None,
            calibration=None,
            foreign_boards={bundle.manifest.name: True},
            envelope=ENVELOPE,
        )
        assert payload["models"][0]["foreign_board"] is True
        jsonschema.validate(json.loads(encode(payload)), schema("info"))
        trust.append(payload["models"][0]["trust"])
    assert trust == [
        {
            "announce": 0.7,
            "error_rate": 0.15,
            "unknown_above": 0.4,
            "set_coverage": 0.9,
            "list_coverage": 0.7,
        },
        {
            "announce": 0.6,
            "error_rate": None,
            "unknown_above": None,
            "set_coverage": None,
            "list_coverage": None,
        },
    ]
