"""Soak: which faults strike, in which order: drawn from a seed, and nothing is done here.

Pure: knows the names of faults and the simulator's way of writing those of a board.
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


class Side(StrEnum):
    """Whom a fault strikes."""

    BOARD = "board"
    BROKER = "broker"
    PROCESS = "process"
    DISK = "disk"


class BrokerFault(StrEnum):
    """What goes wrong between rig and broker."""

    KILLED = "killed"
    RESTARTED = "restarted"
    REFUSING = "refusing"
    STALLED = "stalled"
    CUT = "cut"
    DEAF = "deaf"


class ProcessFault(StrEnum):
    """What happens to the service's process."""

    KILLED = "killed"
    STOPPED = "stopped"
    FROZEN = "frozen"
    HUNG_UP = "hung-up"
    MISCONFIGURED = "misconfigured"


class DiskFault(StrEnum):
    """What happens to the service's files."""

    TORN = "torn"
    FULL = "full"


_WEIGHTS: dict[tuple[Side, str], int] = {
    (Side.BOARD, FaultKind.UNPLUG.value): 4,
    (Side.BOARD, FaultKind.GARBAGE.value): 6,
    (Side.BOARD, FaultKind.DROP.value): 4,
    (Side.BOARD, FaultKind.TRUNCATE.value): 4,
    (Side.BOARD, FaultKind.STUCK.value): 4,
    (Side.BOARD, FaultKind.SATURATE.value): 4,
    (Side.BOARD, FaultKind.FREEZE.value): 3,
    (Side.BOARD, FaultKind.INF.value): 3,
    (Side.BOARD, FaultKind.NAN.value): 3,
    (Side.BOARD, FaultKind.UINT32.value): 3,
    (Side.BOARD, FaultKind.JITTER.value): 3,
    (Side.BOARD, FaultKind.PAUSE.value): 4,
    (Side.BOARD, FaultKind.CLOCK_JUMP.value): 4,
    (Side.BOARD, FaultKind.CLOCK_WRAP.value): 2,
    (Side.BOARD, FaultKind.REBOOT.value): 5,
    (Side.BROKER, BrokerFault.KILLED): 2,
    (Side.BROKER, BrokerFault.RESTARTED): 1,
    (Side.BROKER, BrokerFault.REFUSING): 2,
    (Side.BROKER, BrokerFault.STALLED): 2,
    (Side.BROKER, BrokerFault.CUT): 3,
    (Side.BROKER, BrokerFault.DEAF): 2,
    (Side.PROCESS, ProcessFault.KILLED): 4,
    (Side.PROCESS, ProcessFault.STOPPED): 2,
    (Side.PROCESS, ProcessFault.FROZEN): 1,
    (Side.PROCESS, ProcessFault.HUNG_UP): 2,
    (Side.PROCESS, ProcessFault.MISCONFIGURED): 1,
    (Side.DISK, DiskFault.TORN): 2,
    (Side.DISK, DiskFault.FULL): 1,
}
"""How often each kind comes, beside the others. Outages and restarts cost seconds each, a
board's faults next to nothing."""

_CHANNEL_FAULTS = frozenset(
    {FaultKind.STUCK, FaultKind.SATURATE, FaultKind.INF, FaultKind.NAN, FaultKind.UINT32}
)
_MOMENTS = frozenset({FaultKind.CLOCK_JUMP, FaultKind.CLOCK_WRAP, FaultKind.REBOOT})
_LONGEST_BOARD_S = 60.0
_LONGEST_OUTAGE_S = 3.0
_SHORTEST_OUTAGE_S = 0.2
_LONGEST_LULL_S = 0.5


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """One blow.

    Attributes
    ----------
    side: whom it strikes.
    kind: the value of a `FaultKind`, `BrokerFault`, `ProcessFault` or `DiskFault`.
    lull_s: real seconds of peace before it.
    lasts_s: how long it lasts: a board's in board time, the others in real seconds.
    channel: name of the channel that a board's fault strikes, None for the whole board.
    """

    side: Side
    kind: str
    lull_s: float
    lasts_s: float
    channel: str | None = None

    @property
    def of_board(self) -> str:
        """The fault as the simulator's schedules write it, to begin at once."""
        where = "" if self.channel is None else f":{self.channel}"
        lasts = "" if FaultKind(self.kind) in _MOMENTS else f":{self.lasts_s!r}"
        return f"{self.kind}{where}@0{lasts}"

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.side} {self.kind}{'' if self.channel is None else f' {self.channel}'}"


def programme(count: int, seed: int) -> list[InjectedFault]:
    """Return `count` faults: every kind once in a drawn order, then by weight."""
    rng = np.random.default_rng(seed)
    kinds = list(_WEIGHTS)
    weights = np.array(list(_WEIGHTS.values()), dtype=np.float64)
    first = rng.permutation(len(kinds))[:count]
    rest = rng.choice(len(kinds), size=max(0, count - len(first)), p=weights / weights.sum())
    return [_drawn(*kinds[int(number)], rng) for number in (*first, *rest)]


def _drawn(side: Side, kind: str, rng: np.random.Generator) -> InjectedFault:
    lull_s = round(float(rng.uniform(0.0, _LONGEST_LULL_S)), 3)
    if side is not Side.BOARD:
        lasts_s = round(float(rng.uniform(_SHORTEST_OUTAGE_S, _LONGEST_OUTAGE_S)), 3)
        return InjectedFault(side, kind, lull_s, lasts_s)
    lasts_s = round(float(rng.uniform(1.0, _LONGEST_BOARD_S)), 3)
    struck = FaultKind(kind) in _CHANNEL_FAULTS
    channel = CHANNEL_NAMES[int(rng.integers(len(CHANNEL_NAMES)))] if struck else None
    return InjectedFault(side, kind, lull_s, lasts_s, channel)


def told(faults: Iterable[InjectedFault]) -> str:
    """Return how many of each kind there are, by side, as one line a side."""
    counts = Counter((fault.side, fault.kind) for fault in faults)
    lines = []
    for side in Side:
        kinds = {kind: count for (of, kind), count in sorted(counts.items()) if of is side}
        each = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        lines.append(f"{side} {sum(kinds.values())} ({each})")
    return "\n".join(lines)
