"""Daemon: what is known of one watched rig: the newest of every topic, readings, events of the day.

Pure: parsed messages in, values out. Everything is bounded, whatever a broker sends.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from daemon.mqtt import topics
from hardware.channels import CHANNEL_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HISTORY_MS = 600_000
"""Of readings: the last ten minutes of the board's time."""

READINGS_KEPT = 1300
"""A curve is no wider; of a faster board only every second or further reading is kept."""

SPACING_MS = HISTORY_MS // (READINGS_KEPT - 100)

EVENTS_KEPT = 1000
"""Those of a day of about one odour in four minutes; of a large fleet fewer are kept."""

MODELS_KEPT = 16
"""Predictions of different models that are kept."""

Payload = dict[str, Any]


class Reading(NamedTuple):
    """One reading: the board's time, and the twelve values, None where a channel gave none."""

    t_ms: int
    values: tuple[float | None, ...]


class WatchedRig:
    """One rig, as its messages show it.

    Parameters
    ----------
    rig_id: its name.
    events_kept: returns how many events to keep now.

    Attributes
    ----------
    status, sensor_status: `online` or `offline`; None before the first.
    info, health: the newest payloads; None before the first.
    predictions: the newest payload of each topic and model.
    events: the newest payloads, the oldest first.
    event_counts: events by type since this process started.
    """

    def __init__(self, rig_id: str, events_kept: Callable[[], int] = lambda: EVENTS_KEPT) -> None:
        self.rig_id = rig_id
        self._events_kept = events_kept
        self.status: str | None = None
        self.sensor_status: str | None = None
        self.info: Payload | None = None
        self.health: Payload | None = None
        self.predictions: dict[tuple[str, str], Payload] = {}
        self.events: deque[Payload] = deque()
        self.event_counts: Counter[str] = Counter()
        self._readings: deque[Reading] = deque(maxlen=READINGS_KEPT)
        self._seen: set[tuple[str, int]] = set()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The readings of the last ten minutes, the oldest first."""
        return tuple(self._readings)

    @property
    def is_online(self) -> bool:
        """Whether the rig's service runs, as far as the broker knows."""
        return self.status == topics.ONLINE

    def receive_status(self, topic: str, text: str) -> bool:
        """Update one of the two status topics; return whether it changed."""
        word = topics.ONLINE if text == topics.ONLINE else topics.OFFLINE
        if topic == topics.STATUS:
            changed, self.status = self.status != word, word
        else:
            changed, self.sensor_status = self.sensor_status != word, word
        return changed

    def receive(self, topic: str, payload: Payload) -> bool:
        """Update the state by an object; return whether a page should be given it."""
        if topic in (topics.SUBSTANCE, topics.MIXTURE):
            return self._receive_prediction(topic, payload)
        if topic == topics.EVENT:
            return self._receive_event(payload)
        if topic == topics.HEALTH:
            self.health = payload
        elif topic == topics.INFO:
            self._forget_models(payload)
            self.info = payload
        return True

    def receive_reading(self, payload: Payload) -> Reading | None:
        """Keep a reading and return it; None for one that is too close to the one before."""
        values, t_ms = payload.get("values"), payload.get("t_ms")
        if not isinstance(values, dict) or not isinstance(t_ms, int):
            return None
        last = self._readings[-1].t_ms if self._readings else None
        if last is not None and t_ms < last:
            self._readings.clear()  # the service has started again
        elif last is not None and t_ms - last < SPACING_MS:
            return None
        reading = Reading(t_ms, tuple(_number(values.get(name)) for name in CHANNEL_NAMES))
        self._readings.append(reading)
        while self._readings[0].t_ms < t_ms - HISTORY_MS:
            self._readings.popleft()
        return reading

    def snapshot(self) -> Payload:
        """Return all that a page needs to draw the rig."""
        return {
            "rig": self.rig_id,
            "status": self.status,
            "sensor_status": self.sensor_status,
            "info": self.info,
            "health": self.health,
            "predictions": [
                {"topic": topic, "payload": payload}
                for (topic, _), payload in self.predictions.items()
            ],
            "events": list(self.events),
            "readings": readings_rows(self._readings),
        }

    def _receive_prediction(self, topic: str, payload: Payload) -> bool:
        key = topic, str(payload.get("model"))
        before = self.predictions.get(key)
        if before is not None and _is_older(payload, before):
            return False
        # The newest last, so that the model that was heard of least recently is dropped.
        self.predictions.pop(key, None)
        self.predictions[key] = payload
        while len(self.predictions) > MODELS_KEPT:
            del self.predictions[next(iter(self.predictions))]
        return True

    def _receive_event(self, payload: Payload) -> bool:
        """Keep an event unless it came before: QoS 1 may repeat one."""
        identity = str(payload.get("boot_id")), _whole(payload.get("seq"))
        if identity in self._seen:
            return False
        kept = self._events_kept()
        if len(self._seen) > 2 * kept:
            self._seen = {
                (str(event.get("boot_id")), _whole(event.get("seq"))) for event in self.events
            }
        self._seen.add(identity)
        self.events.append(payload)
        while len(self.events) > kept:
            self.events.popleft()
        self.event_counts[str(payload.get("type"))] += 1
        return True

    def _forget_models(self, info: Payload) -> None:
        """Drop the predictions of models that run no more, after another choice of models."""
        before = _model_names(self.info)
        gone = before - _model_names(info)
        for key in [key for key in self.predictions if key[1] in gone]:
            del self.predictions[key]


def readings_rows(readings: Iterable[Reading]) -> list[list[float | None]]:
    """Return readings as rows of JSON: the time, then the twelve values."""
    return [[reading.t_ms, *reading.values] for reading in readings]


def _is_older(payload: Payload, other: Payload) -> bool:
    """Whether a payload of the same boot was published before another."""
    same_boot = payload.get("boot_id") == other.get("boot_id")
    return same_boot and _whole(payload.get("seq")) < _whole(other.get("seq"))


def _whole(value: object) -> int:
    return value if isinstance(value, int) else -1


def _number(value: object) -> float | None:
    usable = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if usable else None  # type: ignore[arg-type]


def _model_names(info: Payload | None) -> set[str]:
    models = (info or {}).get("models")
    if not isinstance(models, list):
        return set()
    return {str(model.get("name")) for model in models if isinstance(model, dict)}
