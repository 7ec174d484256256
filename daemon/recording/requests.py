"""Daemon: `request/record`: start and stop the continuous recording, report, list and label.

Runs in the pipeline's thread, and waits for no disk. Must never publish recorded readings: a broker
is no way to copy recordings.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from daemon.board.capture import capture_from_history
from daemon.recording.recorder import RecorderState
from daemon.recording.segments import list_segments
from daemon.request_fields import Action, Actions, RequestError, number, text
from daemon.system.background import describe_progress, in_thread
from hardware.labels import MAX_LABEL_LENGTH, checked_label
from hardware.recording_labels import MAX_AUTHOR_LENGTH, LabelledStretch, change_labels

if TYPE_CHECKING:
    from pathlib import Path
    from threading import Event

    from daemon.board.history import History
    from daemon.recording.live import LiveRecorder
    from daemon.system.background import Data, Steps

RECORD = "record"
"""Name of the request."""

LISTED = 200
"""Segments that `list` returns at most, the newest: an answer of about 20 KB."""

LABEL_SECONDS = (5.0, 3600.0)
"""Shortest and longest stretch that is recorded under a label by one request."""

AUTHOR = "record"


ANSWER_WITHIN_S = 10.0


class RecordingRequests:
    """The actions of `request/record`.

    Parameters
    ----------
    recorder: of the service.
    folder: into which it writes.
    history: the last minutes of readings, by which a coming stretch is followed.

    Attributes
    ----------
    handle: the actions.
    """

    def __init__(self, recorder: LiveRecorder, folder: Path, history: History) -> None:
        self._recorder = recorder
        self._folder = folder
        self._history = history
        author = text(AUTHOR, most=MAX_AUTHOR_LENGTH)
        label = text(most=MAX_LABEL_LENGTH)
        self.handle = Actions(
            "status",
            status=Action(self._report),
            start=Action(self._start),
            stop=Action(self._stop),
            list=Action(self._list),
            label=Action(
                self._label,
                ("seconds", "last_s"),
                label=label,
                seconds=number(*LABEL_SECONDS, 120.0),
                last_s=number(*LABEL_SECONDS, None),
                author=author,
            ),
        )

    def _report(self) -> Data:
        values = self._recorder.report
        return {"recording": {**asdict(values), "state": values.state.value}}

    def _start(self) -> Steps:
        return self._after(self._recorder.start(), "starting")

    def _stop(self) -> Steps:
        return self._after(self._recorder.stop(), "stopping")

    def _after(self, done: Event, doing: str) -> Steps:
        """Report once a change has been made."""
        give_up_s = time.monotonic() + ANSWER_WITHIN_S
        while not done.is_set():
            if time.monotonic() > give_up_s:
                raise RequestError(
                    f"The disk that holds {self._folder.name} does not answer; the recording "
                    "changes when it does."
                )
            yield {"doing": doing}
        return self._report()

    def _list(self) -> Steps:
        segments = yield from in_thread(list_segments, self._folder, doing="listing")
        newest = segments[-LISTED:]
        files = [{"file": segment.path.name, "bytes": segment.size} for segment in newest]
        return {**self._report(), "segments": files}

    def _label(self, *, label: str, seconds: float, last_s: float | None, author: str) -> Steps:
        """Record the coming seconds under a label, or label the last ones, if they are recorded."""
        checked = checked_label(label)
        if last_s is None:
            return self._record_and_label(checked, seconds, author)
        newest_ms = self._history.newest_ms
        if newest_ms is None:
            raise RequestError("The board has sent no reading yet, so there is nothing to label.")
        return self._labelled(checked, max(0, newest_ms - round(last_s * 1000)), newest_ms, author)

    def _record_and_label(self, label: str, seconds: float, author: str) -> Steps:
        before_ms = self._history.newest_ms
        began = self._recorder.report.state is RecorderState.OFF
        if began:
            self._recorder.start()
        try:
            span = yield from describe_progress(
                capture_from_history(self._history, seconds),
                lambda capture: {"doing": "recording", "share": capture.seconds / seconds},
            )
            # The history may hold less than the whole stretch.
            first_ms = int(span.t_ms[0]) if before_ms is None else before_ms + 1
            return (yield from self._labelled(label, first_ms, int(span.t_ms[-1]), author))
        finally:
            if began:
                self._recorder.stop()

    def _labelled(self, label: str, first_ms: int, last_ms: int, author: str) -> Steps:
        """Label the recorded readings between two times, in every segment that holds some."""
        paths = yield from in_thread(
            self._recorder.segments_between, first_ms, last_ms, doing="labelling"
        )
        if not paths:
            raise RequestError(
                "These readings were not recorded, so they cannot be labelled. Start the recording "
                '({"action": "start"}, or record: true), or label the coming seconds.'
            )
        stretch = LabelledStretch(first_ms, last_ms, label, author)

        def label_all() -> None:
            for path in paths:
                change_labels(path, lambda labels: labels.with_stretch(stretch))

        yield from in_thread(label_all, doing="labelling")
        files = [
            {"file": path.name, "start_ms": first_ms, "end_ms": last_ms, "label": label}
            for path in paths
        ]
        return {**self._report(), "labelled": files}
