"""Simulator: schedules of faults of a board, and their text form.

May import the channel table and errors. Pure; `board` and `board_firmware` apply the faults.

A fault is ``KIND[:CHANNEL]@START[:DURATION]``, in seconds of the board's time since it was
plugged in: ``unplug@30:5``, ``garbage@10``, ``stuck:VOC@40:20``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Self

from hardware.channels import CHANNEL_NAMES, channel_index
from hardware.errors import UsageError


class FaultKind(Enum):
    """Kinds of faults; the value is the name in a schedule.

    Attributes
    ----------
    spelling: as in a schedule, with CHANNEL where it is of one channel.
    effect: for the help.
    duration_s: by default; 0 for a momentary fault.
    """

    spelling: str
    effect: str
    duration_s: float

    UNPLUG = "unplug", "the port goes away, and comes back with a rebooted board", 5
    GARBAGE = "garbage", "binary noise between the lines", 1
    DROP = "drop", "single bytes go missing inside the lines", 10
    TRUNCATE = "truncate", "lines end in their middle", 5
    STUCK = "stuck:CHANNEL", "a channel repeats its last number", 60
    SATURATE = "saturate:CHANNEL", "a channel stays at its end of scale", 20
    FREEZE = "freeze", "the BME680 hangs and repeats one impossible row", 60
    INF = "inf:CHANNEL", "a channel reads inf", 5
    NAN = "nan:CHANNEL", "a channel reads nan", 5
    UINT32 = "uint32:CHANNEL", "a channel reads 4294967295", 5
    JITTER = "jitter", "readings come up to half a period early or late", 30
    PAUSE = "pause", "the board hangs and sends nothing", 5
    CLOCK_JUMP = "clock-jump", "the device clock jumps an hour ahead", 0
    CLOCK_WRAP = "clock-wrap", "the device clock wraps at 2**32 ms", 0
    REBOOT = "reboot", "the board restarts and sends its banner", 0

    def __new__(cls, spelling: str, effect: str = "", duration_s: float = 0.0) -> Self:
        """Return a member whose value is its name in a schedule."""
        member = object.__new__(cls)
        member._value_ = spelling.partition(":")[0]
        member.spelling, member.effect, member.duration_s = spelling, effect, duration_s
        return member

    @property
    def of_channel(self) -> bool:
        """Whether it is a fault of one channel."""
        return ":" in self.spelling

    @property
    def momentary(self) -> bool:
        """Whether it has no duration."""
        return self.duration_s == 0


_EXAMPLE = "unplug@30:5,garbage@10,stuck:VOC@40:20"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes
    ----------
    kind: its kind.
    start_s: board time at which it begins.
    duration_s: how long it lasts; 0 for a momentary fault.
    channel: index in the channel table, None for a fault of the whole board.
    """

    kind: FaultKind
    start_s: float
    duration_s: float
    channel: int | None = None

    @property
    def end_s(self) -> float:
        """Board time at which it is over."""
        return self.start_s + self.duration_s

    def __str__(self) -> str:
        """Return the text form, which parses back to the same value."""
        where = "" if self.channel is None else f":{CHANNEL_NAMES[self.channel]}"
        lasts = "" if self.kind.momentary else f":{self.duration_s!r}"
        return f"{self.kind.value}{where}@{self.start_s!r}{lasts}"


def describe_faults() -> str:
    """Return one line per kind of fault: its spelling, its effect and its duration."""
    return "\n".join(
        f"{kind.spelling:17} {kind.effect}"
        + ("" if kind.momentary else f" ({kind.duration_s:g} s unless said otherwise)")
        for kind in FaultKind
    )


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Return the faults that a schedule lists, in the order of their start.

    Raises
    ------
    UsageError
        Anything that cannot be read, naming the item and, where a name is wrong, those known.

    Examples
    --------
    >>> [fault] = parse_faults("stuck:VOC@40:20")
    >>> fault.kind.value, fault.channel, fault.start_s, fault.end_s
    ('stuck', 2, 40.0, 60.0)
    """
    items = [item.strip() for item in text.split(",")]
    if not any(items):
        raise UsageError(f"A fault schedule needs at least one fault, such as {_EXAMPLE}.")
    return tuple(sorted((_fault(item) for item in items), key=lambda fault: fault.start_s))


def _fault(item: str) -> Fault:
    what, at, when = item.partition("@")
    name, colon, channel_name = what.strip().partition(":")
    kind = next((kind for kind in FaultKind if kind.value == name), None)
    if kind is None:
        raise UsageError(
            f"Fault {item!r}: there is no kind {name!r}. Known are: "
            f"{', '.join(kind.value for kind in FaultKind)}; write them as in {_EXAMPLE}."
        )
    if kind.of_channel != bool(colon):
        wanted = f"{name}:VOC@{when}" if kind.of_channel else f"{name}@{when}"
        raise UsageError(
            f"Fault {item!r}: {name} {'needs' if kind.of_channel else 'takes no'} channel; "
            f"write {wanted}."
        )
    channel = channel_index(channel_name) if colon else None
    start, duration_colon, duration = when.partition(":")
    start_s = _seconds(start)
    duration_s = _seconds(duration) if duration_colon else kind.duration_s
    if not at or start_s is None or duration_s is None or (duration_colon and duration_s == 0):
        raise UsageError(
            f"Fault {item!r} must say when it starts, and may say how long it lasts, in seconds: "
            f"{what.strip()}@30 or {what.strip()}@30:5."
        )
    if kind.momentary and duration_colon:
        raise UsageError(f"Fault {item!r}: {name} happens in a moment; leave the duration out.")
    return Fault(kind, start_s, duration_s, channel)


def _seconds(text: str) -> float | None:
    """Return a finite number of seconds, at least zero, or None for any other text."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
