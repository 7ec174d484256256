"""Daemon: whether the board is there, and what ails it: absent, silent, or talking nonsense.

Pure: told what the port does and what time it is, it says when trouble is_new and when it is
over, each once. Knows no port, no broker and no log.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from daemon.board.diagnosis import explain_no_reading
from hardware.protocol import LineCounts

SILENT_AFTER_S = 5.0
SILENT_AFTER_PERIODS = 3.5
"""The board counts as present while its latest reading is younger than the larger of the two."""

SLOWEST_PERIOD_S = 10.0
NONSENSE_AFTER_S = 15.0
"""How long a port that was just opened may give no reading before that is trouble: longer than a
boot, and than the slowest board's period."""


class BoardState(StrEnum):
    """What the board does, as published."""

    ONLINE = "online"
    ABSENT = "absent"
    SILENT = "silent"
    NONSENSE = "nonsense"


@dataclass(frozen=True, slots=True)
class Trouble:
    """The board gives no readings, and this is why; `is_new` where it gave some before."""

    why: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Recovery:
    """The board gives readings again, after so many seconds of trouble."""

    after_s: float


Change = Trouble | Recovery


class BoardMonitor:
    """Watches one board.

    Parameters
    ----------
    baud : int
        The port's speed, for advice.

    Attributes
    ----------
    openings: how often the port was opened.
    losses: how often trouble began.
    why: of the present trouble, None without one.
    """

    def __init__(self, baud: int) -> None:
        self._baud = baud
        self._open = False
        self._waiting_since_s = 0.0
        self._had_reading = False
        self._received_bytes = 0
        self._counts = LineCounts()
        self._trouble_s: float | None = None
        self._complained = False
        self.openings = 0
        self.losses = 0
        self.why: str | None = None

    def port_opened(self, now_s: float, counts: LineCounts) -> None:
        """Note that the port is open; `counts` are the decoder's."""
        self._open = True
        self.openings += 1
        self._wait_from(now_s, counts)

    def port_closed(self, now_s: float, why: str) -> Trouble | None:
        """Note that the port is gone, or cannot be opened; return that where it is news."""
        self._open = False
        return self._trouble(now_s, why)

    def add_bytes(self, size: int) -> None:
        """Note that bytes came."""
        self._received_bytes += size

    def add_reading(self, now_s: float, counts: LineCounts) -> Recovery | None:
        """Note a reading; return the recovery that it is, if it is one."""
        self._had_reading = True
        self._wait_from(now_s, counts)
        if self._trouble_s is None:
            return None
        recovery = Recovery(now_s - self._trouble_s)
        self._trouble_s = self.why = None
        return recovery

    def check_silence(
        self, now_s: float, counts: LineCounts, rate_hz: float | None
    ) -> Trouble | None:
        """Return that an open port gives no readings, as soon as that is sure and news."""
        waited_s = now_s - self._waiting_since_s
        if not self._open or self._complained:
            return None
        period_s = 1.0 / rate_hz if rate_hz else SLOWEST_PERIOD_S
        patience_s = max(SILENT_AFTER_S, SILENT_AFTER_PERIODS * period_s)
        if waited_s < (patience_s if self._had_reading else NONSENSE_AFTER_S):
            return None
        why = explain_no_reading(
            _since(self._counts, counts),
            received_bytes=self._received_bytes,
            listened_s=waited_s,
            baud=self._baud,
        )
        if why is None:
            return None
        self._complained = True
        return self._trouble(now_s, why)

    @property
    def present(self) -> bool:
        """Whether readings come."""
        return self._open and self._had_reading and self._trouble_s is None

    @property
    def state(self) -> BoardState:
        """What the board does."""
        if self.present:
            return BoardState.ONLINE
        if not self._open:
            return BoardState.ABSENT
        return BoardState.NONSENSE if self._received_bytes else BoardState.SILENT

    def _wait_from(self, now_s: float, counts: LineCounts) -> None:
        self._waiting_since_s = now_s
        self._received_bytes = 0
        self._counts = counts
        self._complained = False

    def _trouble(self, now_s: float, why: str) -> Trouble | None:
        is_new = self._trouble_s is None
        if not is_new and why == self.why:
            return None
        if is_new:
            self._trouble_s = now_s
            self.losses += 1
        self._had_reading = False
        self.why = why
        return Trouble(why, is_new)


def _since(before: LineCounts, now: LineCounts) -> LineCounts:
    """Return what the decoder met between two of its counts."""
    return LineCounts(
        **{
            item.name: getattr(now, item.name) - getattr(before, item.name)
            for item in fields(LineCounts)
        }
    )
