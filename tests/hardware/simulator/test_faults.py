"""Fault schedules: from text to faults, and unreadable ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.channels import N_CHANNELS, channel_index
from hardware.errors import UsageError
from hardware.simulator.faults import Fault, FaultKind, describe_faults, parse_faults

_MOMENTARY = (FaultKind.CLOCK_JUMP, FaultKind.CLOCK_WRAP, FaultKind.REBOOT)
_OF_A_CHANNEL = (
    FaultKind.STUCK,
    FaultKind.SATURATE,
    FaultKind.INF,
    FaultKind.NAN,
    FaultKind.UINT32,
)


@st.composite
def _faults(draw: st.DrawFn) -> Fault:
    kind = draw(st.sampled_from(FaultKind))
    return Fault(
        kind,
        draw(st.floats(min_value=0, max_value=1e6)),
        0.0 if kind in _MOMENTARY else draw(st.floats(min_value=1e-3, max_value=1e6)),
        draw(st.integers(0, N_CHANNELS - 1)) if kind in _OF_A_CHANNEL else None,
    )


@given(st.lists(_faults(), min_size=1, max_size=6))
def test_faults_written_as_a_schedule_read_back_in_order(faults: list[Fault]) -> None:
    parsed = parse_faults(",".join(str(fault) for fault in faults))
    assert list(parsed) == sorted(faults, key=lambda fault: fault.start_s)


def test_the_documented_schedule_is_read() -> None:
    garbage, unplug, stuck = parse_faults("unplug@30:5,garbage@10,stuck:VOC@40:20")
    assert (garbage.kind, garbage.start_s) == (FaultKind.GARBAGE, 10)
    assert (unplug.start_s, unplug.end_s) == (30, 35)
    assert (stuck.channel, stuck.end_s) == (channel_index("VOC"), 60)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "at least one fault"),
        ("unplg@3", "'unplg'"),
        ("unplug", "when it starts"),
        ("unplug@", "when it starts"),
        ("unplug@-1", "when it starts"),
        ("unplug@3:0", "how long"),
        ("unplug@3:nan", "how long"),
        ("stuck@3", "needs channel"),
        ("unplug:VOC@3", "takes no channel"),
        ("stuck:VOX@3", "'VOX'"),
        ("reboot@3:5", "in a moment"),
    ],
)
def test_an_unreadable_schedule_is_named(text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_faults(text)
    assert named in str(caught.value)


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse_faults("unplg@3")
    assert all(kind.value in str(caught.value) for kind in FaultKind)


def test_every_kind_is_described_for_the_command_line() -> None:
    described = {line.split()[0].split(":")[0] for line in describe_faults().splitlines()}
    assert described == {kind.value for kind in FaultKind}
