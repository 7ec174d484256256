"""Daemon: detects that the board is absent, silent or sends nonsense, and that it has recovered.

Pure: given what the port does and the time, it returns each trouble and its end once. Knows no
port, no broker and no log.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from daemon.board.diagnosis import LONGEST_PERIOD_S, explain_no_reading
from hardware.protocol import LineCounts

SILENT_AFTER_S = 5.0
SILENT_AFTER_PERIODS = 3.5
"""The board counts as present while its latest reading is younger than the longer of the two."""

NONSENSE_AFTER_S = 15.0
"""Time for the first reading after the port was opened: longer than a boot, and than the slowest
board's period."""


class BoardState(StrEnum):
    """State of the board, as published."""

    ONLINE = "online"
    ABSENT = "absent"
    SILENT = "silent"
    NONSENSE = "nonsense"


@dataclass(frozen=True, slots=True)
class Trouble:
    """The board gives no readings; `is_new` if it gave some before."""

    why: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Recovery:
    """The board gives readings again, after so many seconds of trouble."""

    after_s: float


class BoardMonitor:
    """Follows one board; `baud` is the port's speed, for advice.

    Attributes
    ----------
    openings: how often the port was opened.
    losses: how often trouble began.
    why: reason of the present trouble, None without one.
    """

    def __init__(self, baud: int) -> None:
        self._baud = baud
        self._open = False
        self._had_reading = self._explained = False
        self._trouble_since_s: float | None = None
        self._start_waiting(0.0, LineCounts())
        self.openings = 0
        self.losses = 0
        self.why: str | None = None

    def port_opened(self, now_s: float, counts: LineCounts) -> None:
        """Note that the port is open; `counts` are the decoder's."""
        self._open = True
        self.openings += 1
        self._start_waiting(now_s, counts)

    def port_closed(self, now_s: float, why: str) -> Trouble | None:
        """Note that the port is gone, or cannot be opened; return new trouble."""
        self._open = False
        return self._trouble(now_s, why)

    def add_bytes(self, size: int) -> None:
        """Note that bytes were received."""
        self._received_bytes += size

    def add_reading(self, now_s: float, counts: LineCounts) -> Recovery | None:
        """Note a reading; return the recovery, if it ends trouble."""
        self._had_reading = True
        self._start_waiting(now_s, counts)
        if self._trouble_since_s is None:
            return None
        recovery = Recovery(now_s - self._trouble_since_s)
        self._trouble_since_s = self.why = None
        return recovery

    def check_silence(
        self,
        now_s: float,
        counts: LineCounts,
        rate_hz: float | None,
        problem: str | None = None,
    ) -> Trouble | None:
        """Return new trouble as soon as an open port has given no readings for too long.

        `problem` is the decoder's.
        """
        if not self._open or self._explained:
            return None
        waited_s = now_s - self._waiting_since_s
        period_s = 1.0 / rate_hz if rate_hz else LONGEST_PERIOD_S
        limit_s = max(SILENT_AFTER_S, SILENT_AFTER_PERIODS * period_s)
        if waited_s < (limit_s if self._had_reading else NONSENSE_AFTER_S):
            return None
        why = explain_no_reading(
            _difference(counts, self._counts),
            received_bytes=self._received_bytes,
            listened_s=waited_s,
            baud=self._baud,
            problem=problem,
        )
        if why is None:
            return None
        self._explained = True
        return self._trouble(now_s, why)

    @property
    def present(self) -> bool:
        """Whether readings are received."""
        return self._open and self._had_reading and self._trouble_since_s is None

    @property
    def state(self) -> BoardState:
        """State of the board."""
        if self.present:
            return BoardState.ONLINE
        if not self._open:
            return BoardState.ABSENT
        return BoardState.NONSENSE if self._received_bytes else BoardState.SILENT

    def _start_waiting(self, now_s: float, counts: LineCounts) -> None:
        self._waiting_since_s = now_s
        self._received_bytes = 0
        self._counts = counts
        self._explained = False

    def _trouble(self, now_s: float, why: str) -> Trouble | None:
        is_new = self._trouble_since_s is None
        if not is_new and why == self.why:
            return None
        if is_new:
            self._trouble_since_s = now_s
            self.losses += 1
        self._had_reading = False
        self.why = why
        return Trouble(why, is_new)


def _difference(now: LineCounts, before: LineCounts) -> LineCounts:
    names = [item.name for item in fields(LineCounts)]
    return LineCounts(**{name: getattr(now, name) - getattr(before, name) for name in names})
