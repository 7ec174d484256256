"""Daemon: `request/record`: start and stop the continuous recording, report on it, list segments.

Runs in the pipeline's thread. Must never publish recorded readings: a broker is no way to copy
recordings.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from daemon.recording.segments import list_segments
from daemon.request_fields import Action, Actions

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.recording.recorder import Recorder
    from daemon.system.background import Data

RECORD = "record"
"""Name of the request."""

LISTED = 200
"""Segments that `list` returns at most, the newest: an answer of about 20 KB."""


def recording_actions(recorder: Recorder, folder: Path) -> Actions:
    """Return the actions of `request/record` on a recorder that writes into `folder`."""

    def report() -> Data:
        values = recorder.report
        return {"recording": {**asdict(values), "state": values.state.value}}

    def start() -> Data:
        recorder.start()
        return report()

    def stop() -> Data:
        recorder.stop()
        return report()

    def segments() -> Data:
        newest = list_segments(folder)[-LISTED:]
        files = [{"file": segment.path.name, "bytes": segment.size} for segment in newest]
        return {**report(), "segments": files}

    return Actions(
        "status",
        status=Action(report),
        start=Action(start),
        stop=Action(stop),
        list=Action(segments),
    )
