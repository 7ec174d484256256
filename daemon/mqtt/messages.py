"""Daemon: makes messages of what the pipeline found, and hands them to the publisher.

Knows payloads and topics; no sockets. Belongs to the pipeline's thread, so that the sequence number
needs no lock.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

from daemon.mqtt import payloads, topics
from daemon.mqtt.outbox_values import Message, Priority
from daemon.mqtt.payloads import Envelope, encode
from daemon.system.clock import clock_synced, unix_ms
from daemon.system.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from daemon.mqtt.payloads import Gauges, Payload, RigEvent
    from daemon.mqtt.publisher import Publisher
    from hardware.frames import SensorFrame
    from models.bundle import Bundle
    from models.results import Event, Prediction


class Messages:
    """Publishes under this boot's id and sequence number.

    Parameters
    ----------
    publisher: of the messages.
    version: of scentd, for `info`.
    folders: replaced by their names in texts: everybody who may read the rig's topics would learn
        them, from the errors of requests and of the disk.
    """

    def __init__(
        self, publisher: Publisher, *, version: str, folders: Mapping[str, Path] | None = None
    ) -> None:
        self._publisher = publisher
        # The longest first: one may lie in another.
        self._folders = sorted(
            ((json.dumps(str(path))[1:-1], name) for name, path in (folders or {}).items()),
            key=lambda pair: -len(pair[0]),
        )
        self._version = version
        self._boot_id = secrets.token_hex(8)
        self._seq = 0
        self._latest: dict[str, tuple[object, ...]] = {}
        self._log = get_logger("announcer")

    @property
    def boot_id(self) -> str:
        """Identifies this start of the process."""
        return self._boot_id

    def use_publisher(self, publisher: Publisher) -> None:
        """Publish through another publisher from now on."""
        self._publisher = publisher

    def publish_prediction(self, prediction: Prediction) -> None:
        """Publish a model's prediction."""
        topic = prediction.task
        payload = payloads.prediction_payload(prediction, self._envelope(topic))
        priority = self._priority(prediction)
        self._publisher.publish(
            Message(topic, encode(payload), qos=1, retain=True, priority=priority)
        )

    def _priority(self, prediction: Prediction) -> Priority:
        """Return whether a prediction repeats the model's latest one."""
        content = (
            prediction.state,
            prediction.label,
            prediction.reason,
            frozenset(part.label for part in prediction.components),
        )
        before = self._latest.get(prediction.model)
        self._latest[prediction.model] = content
        return Priority.REPEAT if content == before else Priority.CHANGE

    def publish_event(self, event: Event | RigEvent, segment: str | None = None) -> Envelope:
        """Publish an event, and the recording that holds it; return its envelope."""
        envelope = self._envelope(topics.EVENT)
        payload = payloads.event_payload(event, segment, envelope)
        text = self._without_folders(encode(payload))
        self._publisher.publish(Message(topics.EVENT, text, qos=1, retain=False))
        return envelope

    def publish_response(self, command: str, answer: Payload) -> None:
        """Publish the response to a request, or its progress."""
        text = self._without_folders(encode(answer))
        self._publisher.publish(Message(f"{topics.RESPONSE}/{command}", text, qos=1, retain=False))

    def publish_sample(self, frame: SensorFrame, t_ms: int) -> None:
        """Publish a raw frame."""
        payload = payloads.sample_payload(
            frame, t_ms, self._envelope(topics.SAMPLE, frame_seq=frame.frame_seq)
        )
        self._publisher.send_unqueued(topics.SAMPLE, encode(payload))

    def publish_health(self, gauges: Gauges) -> None:
        """Publish counters and gauges."""
        payload = payloads.health_payload(gauges, self._envelope(topics.HEALTH))
        self._publisher.set_state(topics.HEALTH, self._without_folders(encode(payload)), qos=0)

    def publish_info(
        self,
        bundles: Sequence[Bundle],
        *,
        rate_hz: float | None,
        dialect: str | None,
        calibration: str | None,
        foreign_boards: Mapping[str, bool | None],
    ) -> None:
        """Publish the models that run, and the board."""
        payload = payloads.info_payload(
            version=self._version,
            bundles=bundles,
            rate_hz=rate_hz,
            dialect=dialect,
            calibration=calibration,
            foreign_boards=foreign_boards,
            envelope=self._envelope(topics.INFO),
        )
        self._publisher.set_state(topics.INFO, encode(payload))

    def publish_board_status(self, *, present: bool) -> None:
        """Publish whether the board sends readings, independent of the service's own status."""
        status = topics.ONLINE if present else topics.OFFLINE
        self._publisher.set_state(topics.SENSOR_STATUS, status)

    def _without_folders(self, payload: str) -> str:
        for path, name in self._folders:
            payload = payload.replace(f"{path}/", "").replace(path, name)
        return payload

    def _envelope(self, topic: str, **of_reading: int) -> Envelope:
        envelope = Envelope(unix_ms(), clock_synced(), self._boot_id, self._seq)
        # Logged before the message is handed on, so that the log lists every message there can be.
        self._log.debug(
            "message made", topic=topic, boot_id=self._boot_id, seq=self._seq, **of_reading
        )
        self._seq += 1
        return envelope
