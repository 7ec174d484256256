"""Ground floor: follow a board's frame counter through loss, repeats, wraps and reboots.

Knows the standard library only; nothing of lines or values.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_UINT32 = 1 << 32
_HALF_UINT32 = 1 << 31
_NEAR_BOOT_FRAMES = 128
"""A sequence number below this can be a fresh boot's: at 10 Hz a board prints that many
frames in 13 s, longer than a host takes to reopen its port."""
_RECENT_FRAMES = 16
"""How far back a repeated line is recognised; repeats come from a driver's buffer."""


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """Where a frame stands in the board's sequence."""

    lost: int
    restarted: bool


_NEXT = SequenceStep(lost=0, restarted=False)


class FrameSequence:
    """Follow the board's uint32 frame counter through loss, repeats, wraps and reboots."""

    __slots__ = ("_last_ms", "_last_seq", "_recent")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: the next frame is the first."""
        self._last_seq: int | None = None
        self._last_ms = 0
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RECENT_FRAMES)

    def advance(self, seq: int, device_ms: int) -> SequenceStep | None:
        """Return the frame's place, or None for a repeat of a frame already seen."""
        place = self._judge(seq, device_ms)
        if place is not None:
            if place.restarted:
                self._recent.clear()
            self._last_seq = seq
            self._last_ms = device_ms
            self._recent.append((seq, device_ms))
        return place

    def _judge(self, seq: int, device_ms: int) -> SequenceStep | None:
        if self._last_seq is None:
            return _NEXT
        step = (seq - self._last_seq) % _UINT32
        if step == 1:
            return _NEXT
        if step == 0 or step >= _HALF_UINT32:
            # A repeated line carries the clock it had the first time. A counter that went
            # back with any other clock is a board that started anew, even two frames after
            # its last start.
            if (seq, device_ms) in self._recent:
                return None
            return SequenceStep(lost=0, restarted=True)
        if seq < _NEAR_BOOT_FRAMES and self._looks_rebooted(step, device_ms):
            return SequenceStep(lost=0, restarted=True)
        return SequenceStep(lost=step - 1, restarted=False)

    def _looks_rebooted(self, step: int, device_ms: int) -> bool:
        """Whether a small number ahead of the last one is a new boot rather than a gap.

        Either the counter would have had to wrap over a gap of hours, or the clock went back
        as well. A backward clock alone, with no frame missing, is a clock fault.
        """
        if step > _NEAR_BOOT_FRAMES * 2:
            return True
        return (device_ms - self._last_ms) % _UINT32 >= _HALF_UINT32
