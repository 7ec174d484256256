"""The metrics follow Prometheus' conventions, as its own tool finds."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.fleet.rig_state import WatchedRig
from daemon.web.metrics import STATES, RigCollector, exposition
from daemon.web.refusals import Refusal
from daemon.web.server_state import ServerState
from models.decision_spec import State

SERVER = ServerState(
    broker_connected=True,
    pages=2,
    dropped=0,
    unreadable=1,
    refused=Counter({Refusal.TOKEN: 3}),
    resident_mb=35.0,
)


def rig(label: str = "coffee") -> WatchedRig:
    state = WatchedRig("kitchen")
    state.receive_status("status", "online")
    state.receive_status("sensor/status", "online")
    state.receive(
        "health",
        {
            "frames_ok": 100,
            "frames_bad": {"text": 2},
            "rate_hz": 1.0,
            "rss_mb": 80.5,
            "channels": {"NO2": "ok", "CO": "stuck"},
            "inference_ms": {"m": {"count": 3, "p50": 1.5, "p99": 4.0}},
            "outbox_depth": 1,
            "outbox": {"dropped": {"events": 0}, "size_bytes": 4096},
            "calibration": {"state": "ok"},
            "recording": {"kept_mb": 2.5},
        },
    )
    envelope: dict[str, Any] = {"boot_id": "a", "seq": 1, "ts": "2026-01-31T12:00:00.250Z"}
    state.receive(
        "substance",
        {
            **envelope,
            "model": "m",
            "state": "recognised",
            "label": label,
            "probability": 0.9,
            "novelty": 1.25,
            "latency_ms": 5.0,
        },
    )
    part = {"label": "banana", "proportion": 0.6, "presence": 0.9}
    state.receive(
        "mixture", {**envelope, "model": "mix", "state": "recognised", "components": [part]}
    )
    state.receive("event", {**envelope, "type": "onset"})
    return state


def samples(rigs: list[WatchedRig]) -> dict[tuple[str, ...], float]:
    """Return the value of each sample by its name and the values of its labels, sorted."""
    text = exposition(list(RigCollector(lambda: rigs, lambda: SERVER).collect())).decode()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_values_are_in_base_units() -> None:
    found = samples([rig()])
    assert found["scentd_up", "kitchen"] == 1
    assert found["scentd_readings_total", "kitchen"] == 100
    assert found["scentd_resident_memory_bytes", "kitchen"] == 80.5e6
    assert found["scentd_inference_median_seconds", "m", "kitchen"] == 0.0015
    assert found["scentd_recording_size_bytes", "kitchen"] == 2.5e6
    assert found["scentd_substance_probability_ratio", "coffee", "m", "kitchen"] == 0.9
    assert found["scentd_mixture_proportion_ratio", "banana", "mix", "kitchen"] == 0.6
    assert found["scentd_prediction_timestamp_seconds", "m", "kitchen", "substance"] == (
        1769860800.25
    )
    assert found["scentd_channel_up", "CO", "kitchen"] == 0
    assert found["scentd_state", "m", "kitchen", "recognised", "substance"] == 1
    assert found["scentd_state", "m", "kitchen", "ambient", "substance"] == 0
    assert found["scentd_web_refused_total", "no_token"] == 3


def test_a_rig_without_messages_has_no_invented_values() -> None:
    found = samples([WatchedRig("attic")])
    assert [key for key in found if "attic" in key] == [
        ("scentd_up", "attic"),
        ("scentd_board_up", "attic"),
    ]


def test_all_states_are_counted() -> None:
    assert tuple(STATES) == tuple(state.value for state in State)


@pytest.mark.parametrize("label", ["<script>", 'a "quoted" \\ name', "line\nbreak", "\U0001f34b"])
def test_any_label_can_be_read_back(label: str) -> None:
    found = samples([rig(label)])
    assert found["scentd_substance_probability_ratio", label, "m", "kitchen"] == 0.9


def test_nonsense_in_messages_is_left_out() -> None:
    state = WatchedRig("kitchen")
    state.receive("health", json.loads('{"frames_ok": "x", "channels": 3, "outbox": [1]}'))
    state.receive("substance", {"model": 5, "state": None, "label": ["x"], "ts": 4})
    state.receive("mixture", {"components": [3, {"label": "a"}]})
    assert samples([state])["scentd_up", "kitchen"] == 0


def test_prometheus_own_tool_finds_no_fault() -> None:
    tool = shutil.which("promtool") or pytest.skip(
        "promtool is not installed: apt install prometheus"
    )
    done = subprocess.run(
        [tool, "check", "metrics"],
        input=exposition(list(RigCollector(lambda: [rig()], lambda: SERVER).collect())),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
