"""A request goes to a canary, then in waves, and no further once too many have failed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.fleet.waves import Plan, RigAnswer, send_in_waves

RIGS = [f"r{number}" for number in range(25)]


def answer(wave: list[str], failing: frozenset[str] = frozenset()) -> list[RigAnswer]:
    return [RigAnswer(rig, ok=rig not in failing, text="") for rig in wave]


@given(count=st.integers(0, 40), canary=st.integers(0, 5), size=st.integers(1, 12))
def test_every_rig_is_asked_once_in_order(count: int, canary: int, size: int) -> None:
    rigs = [f"r{number}" for number in range(count)]
    waves = list(Plan(canary, size).waves(rigs))
    assert [rig for wave in waves for rig in wave] == rigs
    assert all(waves)
    assert all(len(wave) <= size for wave in waves[1:])


def test_the_canary_is_tried_alone_and_its_failure_stops_the_rest() -> None:
    sent: list[list[str]] = []

    def send(wave: list[str]) -> list[RigAnswer]:
        sent.append(wave)
        return answer(wave, frozenset({"r0"}))

    rollout = send_in_waves(RIGS, Plan(canary=1, wave=10), send)
    assert sent == [["r0"]]
    assert rollout.left_out == RIGS[1:]
    assert not rollout.ok


def test_a_wave_is_ended_before_its_failures_stop_the_next() -> None:
    pauses: list[int] = []
    rollout = send_in_waves(
        RIGS,
        Plan(canary=1, wave=10, failures=2),
        lambda wave: answer(wave, frozenset({"r3", "r12"})),
        lambda: pauses.append(1),
    )
    assert [outcome.rig for outcome in rollout.outcomes] == RIGS[:21]
    assert rollout.left_out == RIGS[21:]
    assert len(pauses) == 2


def test_all_rigs_are_asked_where_none_fails() -> None:
    rollout = send_in_waves(RIGS, Plan(), answer)
    assert rollout.ok
    assert len(rollout.outcomes) == len(RIGS)
