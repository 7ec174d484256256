"""Daemon: the recording that a running service keeps of its board.

A full disk ends the recording, never the service.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from daemon.logs import get_logger
from hardware.recording import RecordingError, RecordingWriter

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

LIVE_SUFFIX = ".live.csv"
"""Tells `scentd replay` that the recording begins when the service began: with the warm-up and
perhaps with clean air, unlike a recording that somebody made of one smell."""


class LiveRecording:
    """One CSV per run of the service, named by its beginning; the first frame opens it.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = get_logger("recording")
        self._stack = ExitStack()
        self._writer: RecordingWriter | None = None
        self._ended = False

    def write(self, t_ms: int, values: NDArray[np.float32]) -> None:
        """Append a frame; trouble is logged once and ends the recording."""
        if self._ended:
            return
        try:
            if self._writer is None:
                self._writer = self._open()
            self._writer.write(t_ms, values)
        except (RecordingError, OSError) as error:
            self._ended = True
            self._log.error(f"{error} Recognition goes on without a recording.")

    def _open(self) -> RecordingWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = self._folder / f"{stamp}{LIVE_SUFFIX}"
        number = 1
        # Two starts within a second, or a clock that was set back: never overwrite.
        while path.exists():
            number += 1
            path = self._folder / f"{stamp}-{number}{LIVE_SUFFIX}"
        self._log.info("recording", file=str(path))
        return self._stack.enter_context(RecordingWriter(path))

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
