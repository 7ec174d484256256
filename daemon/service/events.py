"""Daemon: logs and publishes events: odours, channels, board, recording.

Runs in the pipeline's thread. Joins the messages and the recorder, whose segment each event names.
Others decide that something has changed.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from daemon.board.monitor import Recovery, Trouble
from daemon.mqtt.payloads import RigEvent, RigEventType
from daemon.system.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.mqtt.messages import Messages
    from daemon.recording.live import LiveRecorder
    from daemon.review.announcements import Announcement
    from daemon.review.judgements import Judgement
    from daemon.review.requests import Review
    from models.results import Event, Prediction, Step

LOGGED_FIELDS = {"model", "label", "channel", "detail"}
"""Fields of an event that its log line holds."""


class EventPublisher:
    """Logs and publishes events.

    Parameters
    ----------
    messages: publishes them.
    recorder: knows the segment that holds a reading.
    review: returns what keeps the announcements.
    """

    def __init__(
        self,
        messages: Messages,
        recorder: LiveRecorder,
        review: Callable[[], Review],
    ) -> None:
        self._messages = messages
        self._recorder = recorder
        self._review = review
        self._latest: tuple[int, int] | None = None
        self._log = get_logger("service")

    def add_reading(self, step: Step) -> None:
        """Store the time of the latest reading, at which events of the rig happen."""
        self._latest = step.t_ms, step.frame.frame_seq
        self._review().announcements.begin_run(step.t_ms)

    def publish(self, event: Event) -> None:
        """Publish an event that the nose returned."""
        # The recovery of a channel is logged at the same level as its fault.
        log = self._log.info if event.channel is None else self._log.warning
        fields = {name: value for name, value in asdict(event).items() if name in LOGGED_FIELDS}
        log(
            str(event.type).replace("_", " "),
            **{name: value for name, value in fields.items() if value is not None},
        )
        segment = self._recorder.segment_at(event.t_ms)
        envelope = self._messages.publish_event(event, segment)
        self._review().add_event(event, segment, envelope)

    def publish_rig_event(self, kind: RigEventType, detail: str | None, **fields: Any) -> None:
        """Publish an event of the rig itself, at the time of the latest reading."""
        t_ms, frame_seq = self._latest or (None, None)
        segment = None if t_ms is None else self._recorder.segment_at(t_ms)
        self._messages.publish_event(RigEvent(kind, detail, t_ms, frame_seq, **fields), segment)

    def publish_feedback(self, judgement: Judgement, announcement: Announcement) -> None:
        """Publish what the owner said about an announcement."""
        what = announcement.label or announcement.detail or announcement.type
        truth = f", it was {judgement.label}" if judgement.label else ""
        self._log.info("feedback", verdict=judgement.verdict, announced=what)
        self.publish_rig_event(
            RigEventType.FEEDBACK,
            f"{what}: {judgement.verdict}{truth}",
            model=announcement.model,
            label=judgement.truth,
            feedback=judgement.data(),
        )

    def board_changed(self, change: Trouble | Recovery | None) -> None:
        """Publish that the board sends no readings, or sends them again; None for no change."""
        if isinstance(change, Trouble):
            self._log.warning(change.why)
            if change.is_new:
                self.publish_rig_event(RigEventType.BOARD_LOST, change.why)
        elif isinstance(change, Recovery):
            text = f"readings come again after {change.after_s:.1f} s"
            self._log.warning(text)
            self.publish_rig_event(RigEventType.BOARD_BACK, text)

    def recording_changed(self, why: str | None) -> None:
        """Publish that the recording pauses, and why, or that it resumes (None)."""
        kind = RigEventType.RECORDING_RESUMED if why is None else RigEventType.RECORDING_PAUSED
        self.publish_rig_event(kind, why)

    def model_changed(self, prediction: Prediction, before: Prediction | None) -> None:
        """Log the reason when a model becomes unable to work, and its recovery."""
        if prediction.reason == (before and before.reason):
            return
        if prediction.reason is None:
            self._log.warning(
                "model works again", model=prediction.model, state=str(prediction.state)
            )
        else:
            self._log.warning(f"{prediction.model} is {prediction.state}: {prediction.reason}")
