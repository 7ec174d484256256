"""Daemon: the progress of a command: a changing line on a terminal, some lines elsewhere.

Writes to standard error alone, so that standard output stays data.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

BAR_WIDTH = 24
PLAIN_EVERY_S = 10.0
"""Interval of the lines into a file or a journal."""


class Progress:
    """A bar with text beside it; a context manager that ends with the cursor on a new line."""

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._live = self._stream.isatty()
        self._written_s = -PLAIN_EVERY_S
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()

    def show(self, share: float, text: str) -> None:
        """Show that `share` (0..1) is done, and `text` beside it."""
        share = min(1.0, max(0.0, share))
        if self._live:
            full = round(share * BAR_WIDTH)
            bar = "\u2588" * full + "\u2591" * (BAR_WIDTH - full)
            width = shutil.get_terminal_size().columns - 1
            # Padded, since the line before may have been longer.
            self._stream.write("\r" + f"{bar} {share:4.0%}  {text}"[:width].ljust(width))
            self._drawn = True
        elif share >= 1.0 or self._clock() - self._written_s >= PLAIN_EVERY_S:
            self._written_s = self._clock()
            self._stream.write(f"{share:4.0%}  {text}\n")
        self._stream.flush()
