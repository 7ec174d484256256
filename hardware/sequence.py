"""Ground floor: follow a board's frame counter through loss, repeats, wraps and reboots.

May import the standard library alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_UINT32 = 1 << 32
_HALF_UINT32 = 1 << 31
_NEAR_BOOT_FRAMES = 128
"""A sequence number below this can follow a reboot: at 10 Hz a board sends that many frames in
13 s, and a host reopens its port sooner."""
_RECENT_FRAMES = 16
"""Frames among which a repeated line is recognised; a driver's buffer repeats lines."""
_FIRST_FRAMES = 2
"""Sequence numbers with which a boot begins: two, as the line after the banner may be damaged."""


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """From one frame to the next: frames lost between them, and whether the board restarted."""

    lost: int = 0
    restarted: bool = False


_NEXT = SequenceStep()
_RESTART = SequenceStep(restarted=True)


class FrameSequence:
    """The board's uint32 frame counter."""

    __slots__ = ("_last_ms", "_last_seq", "_message", "_recent")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all frames: the next one is the first."""
        self._last_seq: int | None = None
        self._last_ms = 0
        self._message = False
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RECENT_FRAMES)

    def see_message(self) -> None:
        """Note that the board sent text between two frames, as it does when it boots."""
        self._message = True

    def advance(self, seq: int, device_ms: int) -> SequenceStep | None:
        """Return the step to the next frame, or None for a repeat of an earlier one."""
        step = self._step(seq, device_ms)
        if step is not None:
            self._message = False
            if step.restarted:
                self._recent.clear()
            self._last_seq, self._last_ms = seq, device_ms
            self._recent.append((seq, device_ms))
        return step

    def _step(self, seq: int, device_ms: int) -> SequenceStep | None:
        if self._last_seq is None:
            return _NEXT
        ahead = (seq - self._last_seq) % _UINT32
        if ahead == 1:
            return _NEXT
        if ahead == 0 or ahead >= _HALF_UINT32:
            # A repeated line carries the clock it had the first time. A counter that went back
            # with any other clock is a restart, even two frames after the last one. A board that
            # restarts twice in a row sends the same clock again, but its banner before.
            repeated = (seq, device_ms) in self._recent
            booted = self._message and seq < _FIRST_FRAMES
            return None if repeated and not booted else _RESTART
        if seq < _NEAR_BOOT_FRAMES and self._looks_rebooted(ahead, device_ms):
            return _RESTART
        return SequenceStep(lost=ahead - 1)

    def _looks_rebooted(self, ahead: int, device_ms: int) -> bool:
        """Whether a small number ahead of the last one is a reboot rather than a gap.

        Either the counter would have had to wrap over a gap of hours, or the clock went back
        as well. A backward clock alone, with no frame missing, is a clock fault.
        """
        went_back = (device_ms - self._last_ms) % _UINT32 >= _HALF_UINT32
        return ahead > _NEAR_BOOT_FRAMES * 2 or went_back
