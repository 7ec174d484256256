"""Daemon: `request/record`: start and stop the continuous recording, say what it did and kept.

Done in the pipeline's thread. Knows the recorder; must never read or hand out what was recorded:
files leave the rig by other ways than its broker.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from daemon.recording.segments import segments_in
from daemon.requests import RequestError, only, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.recording.recorder import Recorder
    from daemon.system.background import Data

RECORD = "record"
"""The request's name."""

LISTED = 200
"""Segments that `list` names at most, the newest: an answer of some 20 KB."""


class RecordingRequests:
    """Answers `request/record`.

    Parameters
    ----------
    recorder : Recorder
        The rig's.
    folder : Path
        Where it writes.
    """

    def __init__(self, recorder: Recorder, folder: Path) -> None:
        self._recorder = recorder
        self._folder = folder

    def handle(self, payload: Data) -> Data:
        """Do what is asked.

        Raises
        ------
        RequestError
            It asks for something else than there is.
        """
        only(payload, ("action",))
        action = text_of(payload, "action", "status")
        if action == "start":
            self._recorder.start()
        elif action == "stop":
            self._recorder.stop()
        elif action == "list":
            return {"recording": self._report(), "segments": self._segments()}
        elif action != "status":
            raise RequestError(
                f"action must be status, start, stop or list, and {action!r} came. Send one of "
                "these."
            )
        return {"recording": self._report()}

    def _report(self) -> Data:
        report = self._recorder.report
        return {**asdict(report), "state": report.state.value}

    def _segments(self) -> list[Data]:
        return [
            {"file": segment.path.name, "bytes": segment.size}
            for segment in segments_in(self._folder)[-LISTED:]
        ]
