"""Soak: the kinds, order and times of the injected faults, drawn from a seed.

Pure: knows the names of faults and the simulator's notation for those of a board.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNEL_NAMES
from hardware.simulator.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterable


class FaultTarget(StrEnum):
    """The part that a fault affects."""

    BOARD = "board"
    BROKER = "broker"
    PROCESS = "process"
    DISK = "disk"
    RIG_ID = "rig id"


class BrokerFault(StrEnum):
    """Faults of the broker and of the connection to it."""

    KILLED = "killed"
    RESTARTED = "restarted"
    REFUSING = "refusing"
    STALLED = "stalled"
    CUT = "cut"
    NO_ANSWERS = "no-answers"


class ProcessFault(StrEnum):
    """Faults of the service's process."""

    KILLED = "killed"
    STOPPED = "stopped"
    FROZEN = "frozen"
    RELOADED = "reloaded"
    MISCONFIGURED = "misconfigured"


class DiskFault(StrEnum):
    """Faults of the service's files."""

    TORN = "torn"
    FULL = "full"
    POWER_CUT = "power-cut"
    HANGING = "hanging"


class RigFault(StrEnum):
    """Faults of the rig's name."""

    TAKEN = "taken"


_WEIGHTS: dict[FaultTarget, dict[str, int]] = {
    FaultTarget.BOARD: {
        FaultKind.UNPLUG.value: 4,
        FaultKind.GARBAGE.value: 6,
        FaultKind.DROP.value: 4,
        FaultKind.TRUNCATE.value: 4,
        FaultKind.STUCK.value: 4,
        FaultKind.SATURATE.value: 4,
        FaultKind.FREEZE.value: 3,
        FaultKind.INF.value: 3,
        FaultKind.NAN.value: 3,
        FaultKind.UINT32.value: 3,
        FaultKind.JITTER.value: 3,
        FaultKind.PAUSE.value: 4,
        FaultKind.CLOCK_JUMP.value: 4,
        FaultKind.CLOCK_WRAP.value: 2,
        FaultKind.REBOOT.value: 5,
    },
    FaultTarget.BROKER: {
        BrokerFault.KILLED: 2,
        BrokerFault.RESTARTED: 1,
        BrokerFault.REFUSING: 2,
        BrokerFault.STALLED: 2,
        BrokerFault.CUT: 3,
        BrokerFault.NO_ANSWERS: 2,
    },
    FaultTarget.PROCESS: {
        ProcessFault.KILLED: 4,
        ProcessFault.STOPPED: 2,
        ProcessFault.FROZEN: 1,
        ProcessFault.RELOADED: 2,
        ProcessFault.MISCONFIGURED: 1,
    },
    FaultTarget.DISK: {
        DiskFault.TORN: 2,
        DiskFault.FULL: 1,
        DiskFault.POWER_CUT: 3,
        DiskFault.HANGING: 1,
    },
    FaultTarget.RIG_ID: {RigFault.TAKEN: 1},
}
"""Relative frequency of each kind. An outage or a restart takes seconds, a fault of the board
almost no time."""

_LONGEST_BOARD_FAULT_S = 60.0
_LONGEST_OUTAGE_S = 3.0
_SHORTEST_OUTAGE_S = 0.2
_LONGEST_DELAY_S = 0.5


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One fault.

    Attributes
    ----------
    kind: the value of a `FaultKind`, `BrokerFault`, `ProcessFault`, `DiskFault` or `RigFault`.
    delay_s: real seconds before it.
    duration_s: in board time for a fault of the board, else in real seconds.
    channel: name of the channel that a board's fault affects, None for the whole board.
    """

    part: FaultTarget
    kind: str
    delay_s: float
    duration_s: float
    channel: str | None = None

    @property
    def board_schedule(self) -> str:
        """The fault in the simulator's notation, to begin at once."""
        channel = "" if self.channel is None else f":{self.channel}"
        duration = "" if FaultKind(self.kind).momentary else f":{self.duration_s!r}"
        return f"{self.kind}{channel}@0{duration}"

    def __str__(self) -> str:
        return f"{self.part} {self.kind}{'' if self.channel is None else f' {self.channel}'}"


def draw_faults(count: int, seed: int) -> list[InjectedFault]:
    """Return `count` faults: every kind once in a random order, then by weight."""
    rng = np.random.default_rng(seed)
    kinds = [(part, kind) for part, weights in _WEIGHTS.items() for kind in weights]
    weights = np.array([_WEIGHTS[part][kind] for part, kind in kinds], dtype=np.float64)
    first = rng.permutation(len(kinds))[:count]
    rest = rng.choice(len(kinds), size=max(0, count - len(first)), p=weights / weights.sum())
    return [_draw_times(*kinds[int(number)], rng) for number in (*first, *rest)]


def _draw_times(part: FaultTarget, kind: str, rng: np.random.Generator) -> InjectedFault:
    delay_s = round(float(rng.uniform(0.0, _LONGEST_DELAY_S)), 3)
    if part is not FaultTarget.BOARD:
        duration_s = round(float(rng.uniform(_SHORTEST_OUTAGE_S, _LONGEST_OUTAGE_S)), 3)
        return InjectedFault(part, kind, delay_s, duration_s)
    duration_s = round(float(rng.uniform(1.0, _LONGEST_BOARD_FAULT_S)), 3)
    channel = None
    if FaultKind(kind).of_channel:
        channel = CHANNEL_NAMES[int(rng.integers(len(CHANNEL_NAMES)))]
    return InjectedFault(part, kind, delay_s, duration_s, channel)


def summarise(faults: Iterable[InjectedFault]) -> str:
    """Return how many faults of each kind there are, one line per part."""
    counts = Counter((fault.part, fault.kind) for fault in faults)
    lines = []
    for part in FaultTarget:
        kinds = {kind: count for (of, kind), count in sorted(counts.items()) if of is part}
        each = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        lines.append(f"{part} {sum(kinds.values())} ({each})")
    return "\n".join(lines)
