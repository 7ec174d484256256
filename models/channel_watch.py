"""Models: which channels can be used, over time.

May import hardware and numpy. Judges nothing itself: quality comes from the decoder and
from channel health; here it only gains patience, so that one bad line is no fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware.channels import CHANNEL_NAMES, N_CHANNELS
from hardware.frames import Quality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FAULT_AFTER_MS = 3000
"""A channel unusable for so long is out; shorter is a spike, a lost line or a flicker."""


class ChannelWatch:
    """Follows each channel's quality and says which are out, and which the board never had."""

    __slots__ = ("_bad_since", "_last", "_unusable", "out", "seen")

    def __init__(self) -> None:
        self.out: frozenset[int] = frozenset()
        """Channels of the board that have been unusable for `FAULT_AFTER_MS`."""
        self.seen: frozenset[int] = frozenset()
        """Channels that have ever sent a number."""
        self._last = b""
        self._unusable: list[int] = []
        self._bad_since: dict[int, int] = {}

    def update(self, quality: NDArray[np.uint8], t_ms: int) -> list[int]:
        """Take a frame's quality; return the indices that are unusable in this very frame."""
        now = quality.tobytes()
        if now != self._last:
            self._last = now
            self._unusable = [index for index in range(N_CHANNELS) if now[index] != Quality.OK]
            self.seen |= {index for index in range(N_CHANNELS) if now[index] != Quality.MISSING}
            self._bad_since = {
                index: self._bad_since.get(index, t_ms)
                for index in self._unusable
                if index in self.seen
            }
        return self._unusable

    def changes(self, t_ms: int) -> tuple[list[int], list[int]]:
        """Return the channels that went out, and those that came back, since the last call."""
        if not self._bad_since and not self.out:
            return [], []
        out = frozenset(
            index
            for index, since_ms in self._bad_since.items()
            if t_ms - since_ms >= FAULT_AFTER_MS
        )
        failed, recovered = sorted(out - self.out), sorted(self.out - out)
        self.out = out
        return failed, recovered

    def word(self, index: int) -> str:
        """Return what the channel's number is worth in the newest frame, as one word."""
        return Quality(self._last[index]).name.lower()

    def absent(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of `channels` that the board never sent a number of."""
        return tuple(name for name in channels if CHANNEL_NAMES.index(name) not in self.seen)

    def unusable(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of `channels` that are out, or that the board never had."""
        return tuple(
            name
            for name in channels
            if (index := CHANNEL_NAMES.index(name)) in self.out or index not in self.seen
        )
