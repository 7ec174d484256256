"""Daemon: the continuous recording of a running service, in a thread of its own.

The pipeline hands readings over and never waits for the disk, except for a moment when an event
asks which segment holds its reading. While the disk does not answer, readings wait, up to a bound;
then they are counted as skipped. `daemon.recording.recorder` does the work.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from daemon.recording.recorder import Recorder, RecorderReport, RecorderState
from daemon.system.disk_thread import HANGS_AFTER_S, DiskThread
from daemon.system.logs import get_logger
from hardware.counting import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from daemon.config.settings import RecordingConfig

WAITING_LIMIT = 1000
"""Readings that may wait for the disk: 100 s of the fastest board, and less than a megabyte."""

SEGMENT_WITHIN_S = 0.05
"""How long an event waits to learn which segment holds its reading."""

CLOSE_WITHIN_S = 0.3
"""How long the end waits for the last readings and for the thread."""


class LiveRecorder:
    """A `Recorder` in a thread; a context manager. All methods belong to the pipeline's thread.

    Parameters
    ----------
    folder, config, wanted: as of `Recorder`.
    on_change: called by `check` with the reason of a pause, and with None when the recording
        resumes.
    """

    def __init__(
        self,
        folder: Path,
        config: RecordingConfig,
        *,
        wanted: bool,
        on_change: Callable[[str | None], None],
    ) -> None:
        self._changes: deque[str | None] = deque()
        self._recorder = Recorder(folder, config, wanted=wanted, on_change=self._changes.append)
        self._wanted = wanted
        self._folder = folder
        self._on_change = on_change
        self._disk = DiskThread("recorder")
        self._log = get_logger("recording")
        self._skipped = self._pauses = 0
        self._hangs: str | None = None

    def __enter__(self) -> Self:
        self._disk.start()
        self._disk.submit(self._recorder.__enter__)
        return self

    def __exit__(self, *_: object) -> None:
        idle = self._disk.wait(0.0)
        self._disk.submit(self._recorder.__exit__)
        self._disk.close(CLOSE_WITHIN_S if idle else 0.0)

    def drain(self) -> None:
        """Write what waits, for a moment; count what cannot be written. The recording ends."""
        if self._disk.wait(CLOSE_WITHIN_S):
            return
        lost = self._disk.discard()
        self._skipped += lost
        self._log.error(
            f"{counted(lost, 'reading')} at the end could not be written below "
            f"{self._folder}: the disk has not answered for {self._disk.unanswered_s:.0f} s."
        )

    def write(self, t_ms: int, values: NDArray[np.float32]) -> None:
        """Append a reading; without room for it in the queue it is counted as skipped."""
        if self._wanted and not self._disk.submit(
            lambda: self._recorder.write(t_ms, values), limit=WAITING_LIMIT
        ):
            self._skipped += 1

    def start(self) -> threading.Event:
        """Record from the next reading on; return an event that is set when that is so."""
        self._wanted = True
        return self._do(self._recorder.start)

    def stop(self) -> threading.Event:
        """Record no more until `start`; return an event that is set when the segment is closed."""
        self._wanted = False
        return self._do(self._recorder.stop)

    def configure(self, config: RecordingConfig, *, wanted: bool) -> None:
        """Apply other bounds from the next reading on, and start or stop."""
        self._wanted = wanted
        self._do(lambda: self._recorder.configure(config, wanted=wanted))

    def _do(self, task: Callable[[], None]) -> threading.Event:
        done = threading.Event()
        self._disk.submit(task)
        self._disk.submit(done.set)
        return done

    def segment_at(self, t_ms: int) -> str | None:
        """Return the segment that holds the reading at `t_ms`, None if it is not known in time."""
        if self._hangs is not None or not self._disk.wait(SEGMENT_WITHIN_S):
            return None
        return self._recorder.segment_at(t_ms)

    def segments_between(self, first_ms: int, last_ms: int) -> list[Path]:
        """Return the segments of this run that hold readings between two times.

        It waits for the disk: not for the pipeline's thread.
        """
        self._disk.wait(HANGS_AFTER_S)
        return self._recorder.segments_between(first_ms, last_ms)

    def check(self) -> None:
        """Report pauses and resumptions since the last call, and a disk that hangs."""
        while self._changes:
            self._on_change(self._changes.popleft())
        unanswered_s = self._disk.unanswered_s
        if self._hangs is None and unanswered_s > HANGS_AFTER_S:
            self._pauses += 1
            self._hangs = f"the disk has not answered for {unanswered_s:.0f} s"
            self._log.warning(
                f"The recording below {self._folder} waits: {self._hangs}. It continues by itself "
                "when the disk does. Recognition continues."
            )
            self._on_change(self._hangs)
        elif self._hangs is not None and unanswered_s <= HANGS_AFTER_S:
            self._hangs = None
            self._log.warning("the disk answers again", rows_skipped=self.report.rows_skipped)
            self._on_change(None)

    @property
    def hangs(self) -> bool:
        """Whether its disk has not answered for a while."""
        return self._hangs is not None

    @property
    def report(self) -> RecorderReport:
        """The recorder's part of `health`."""
        report = self._recorder.report
        skipped, pauses = report.rows_skipped + self._skipped, report.pauses + self._pauses
        report = replace(report, rows_skipped=skipped, pauses=pauses)
        if self._hangs is None:
            return report
        return replace(report, state=RecorderState.PAUSED, why=self._hangs)
