"""Models: which channels can be used, over time.

May import hardware and numpy. Quality comes from the decoder and from channel health; here a
channel must be unusable for a while before that is a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware.channels import CHANNEL_NAMES
from hardware.frames import Quality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FAULT_AFTER_MS = 3000
"""A channel unusable for this long is a fault; a shorter time is a spike or a damaged line."""


class ChannelWatch:
    """Follows the quality of each channel.

    Attributes
    ----------
    failed: channels of the board that have been unusable for `FAULT_AFTER_MS`.
    present: channels that have ever sent a number; in the first `FAULT_AFTER_MS` all channels, as
        the first lines of a board may lack some.
    """

    __slots__ = ("_bad_since", "_first_ms", "_quality", "_seen", "_unusable", "failed", "present")

    def __init__(self) -> None:
        self.failed: frozenset[str] = frozenset()
        self.present: frozenset[str] = frozenset(CHANNEL_NAMES)
        self._seen: frozenset[str] = frozenset()
        self._first_ms: int | None = None
        self._quality = b""
        self._unusable: list[int] = []
        self._bad_since: dict[str, int] = {}

    def update(self, quality: NDArray[np.uint8], t_ms: int) -> list[int]:
        """Add a reading's quality; return the indices of its unusable channels."""
        now = quality.tobytes()
        if now != self._quality:
            self._quality = now
            self._unusable = [index for index, value in enumerate(now) if value != Quality.OK]
            self._seen |= {
                name
                for name, value in zip(CHANNEL_NAMES, now, strict=True)
                if value != Quality.MISSING
            }
            names = [CHANNEL_NAMES[index] for index in self._unusable]
            self._bad_since = {
                name: self._bad_since.get(name, t_ms) for name in names if name in self._seen
            }
        if self._first_ms is None:
            self._first_ms = t_ms
        if t_ms - self._first_ms >= FAULT_AFTER_MS:
            self.present = self._seen
        return self._unusable

    def changes(self, t_ms: int) -> tuple[list[str], list[str]]:
        """Return the channels that failed, and those that recovered, since the last call."""
        if not self._bad_since and not self.failed:
            return [], []
        before = self.failed
        self.failed = frozenset(
            name for name, since_ms in self._bad_since.items() if t_ms - since_ms >= FAULT_AFTER_MS
        )
        changed = sorted(before ^ self.failed, key=CHANNEL_NAMES.index)
        return (
            [name for name in changed if name in self.failed],
            [name for name in changed if name in before],
        )

    def quality_name(self, channel: str) -> str:
        """Return the channel's quality in the newest reading, as a word."""
        return Quality(self._quality[CHANNEL_NAMES.index(channel)]).name.lower()

    def unusable(self, channels: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of `channels` that have failed, or that the board never had."""
        return tuple(name for name in channels if name in self.failed or name not in self.present)
