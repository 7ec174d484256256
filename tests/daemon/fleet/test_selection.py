"""Rigs are chosen by what they publish."""

from __future__ import annotations

import pytest

from daemon.fleet.rig_state import WatchedRig
from daemon.fleet.selection import choose_rigs, parse_condition
from hardware.errors import UsageError


def rig(
    name: str, *, online: bool = True, version: str = "0.3.0", state: str = "ambient"
) -> WatchedRig:
    found = WatchedRig(name)
    found.receive_status("status", "online" if online else "offline")
    found.receive_status("sensor/status", "online")
    models = [{"name": "substances-50", "version": version}]
    found.receive("info", {"scentd_version": "0.1.0", "models": models})
    found.receive("substance", {"model": "substances-50", "state": state, "label": None})
    return found


RIGS = [
    rig("lab-2", version="0.2.0"),
    rig("kitchen", online=False),
    rig("lab-1", state="recognised"),
]


@pytest.mark.parametrize(
    ("conditions", "chosen"),
    [
        ([], ["kitchen", "lab-1", "lab-2"]),
        (["rig=lab-*"], ["lab-1", "lab-2"]),
        (["rig!=lab-*"], ["kitchen"]),
        (["online=no"], ["kitchen"]),
        (["board=yes"], ["lab-1", "lab-2"]),
        (["model=substances-50@0.2.*"], ["lab-2"]),
        (["model=mixtures-12"], []),
        (["version=0.1.?", "state=recognised"], ["lab-1"]),
        (["label=coffee"], []),
        (["label!=coffee", "rig = lab-2"], ["lab-2"]),
    ],
)
def test_every_condition_must_hold(conditions: list[str], chosen: list[str]) -> None:
    found = choose_rigs(RIGS, map(parse_condition, conditions))
    assert [one.rig_id for one in found] == chosen


@pytest.mark.parametrize("text", ["lab-1", "rig", "=x", "rig=", "colour=red"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--where"):
        parse_condition(text)


def test_a_rig_that_never_said_anything_has_no_version() -> None:
    assert choose_rigs([WatchedRig("new")], [parse_condition("version=*")]) == []
