"""Daemon: the rigs' state as Prometheus reads it.

Names and units follow Prometheus' conventions: base units, `_total` for what only grows, `_ratio`
for shares. Values are those of the newest messages, so a rig that is offline keeps its last ones,
beside `scentd_up` 0.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

from daemon.mqtt.topics import MIXTURE, ONLINE, SUBSTANCE
from daemon.web.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from daemon.fleet.rig_state import WatchedRig
    from daemon.web.server_state import ServerState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MEGABYTE = 1e6

_COUNTERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("readings", "Readings decoded since the service started.", ("frames_ok",)),
    ("readings_lost", "Readings that the board numbered and that never came.", ("frames_lost",)),
    ("readings_duplicate", "Readings that came twice.", ("frames_duplicate",)),
    ("board_restarts", "Restarts of the board.", ("board_restarts",)),
    ("port_reconnects", "Times the serial port was opened again.", ("port_reconnects",)),
    ("chunks_dropped", "Reads dropped because the pipeline was behind.", ("chunks_dropped",)),
    ("channel_faults", "Failures of a channel.", ("channel_faults",)),
    ("broker_connections", "Connections to the broker.", ("broker", "connections")),
    ("requests_taken", "Requests over MQTT that were accepted.", ("requests", "taken")),
    ("requests_dropped", "Requests over MQTT that came too fast.", ("requests", "dropped")),
)
"""Name, help, and place in `health`."""

_GAUGES: tuple[tuple[str, str, tuple[str, ...], float], ...] = (
    ("reading_rate_hertz", "Measured rate of the board's readings.", ("rate_hz",), 1.0),
    ("resident_memory_bytes", "Resident memory of the service.", ("rss_mb",), MEGABYTE),
    ("uptime_seconds", "Time since the service started.", ("uptime_s",), 1.0),
    ("outbox_messages", "Messages that wait for the broker.", ("outbox_depth",), 1.0),
    ("outbox_size_bytes", "Size of the outbox.", ("outbox", "size_bytes"), 1.0),
    ("recording_size_bytes", "Size of the recordings.", ("recording", "kept_mb"), MEGABYTE),
)
"""Name, help, place in `health`, and factor to the base unit."""

STATES = (
    "warming_up",
    "ambient",
    "sensing",
    "recognised",
    "unrecognised",
    "recovering",
    "fault",
    "disabled",
)
"""Those of `models.decision_spec.State`, which would load numpy, of 20 MB."""

_CALIBRATION_STATES = ("none", "ok", "recalibrate", "unusable")


class RigCollector:
    """Gives Prometheus' client the newest state at every scrape."""

    def __init__(
        self, rigs: Callable[[], Iterable[WatchedRig]], server: Callable[[], ServerState]
    ) -> None:
        self._rigs = rigs
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """Yield every metric once, with the samples of all rigs."""
        rigs = list(self._rigs())
        yield from _presence(rigs)
        yield from _health(rigs)
        yield from _details(rigs)
        yield from _predictions(rigs)
        yield from _components(rigs)
        yield _events(rigs)
        yield from _server(self._server())


class _Collected:
    """Metrics that were collected before."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def exposition(metrics: Sequence[Metric]) -> bytes:
    """Return metrics as text in Prometheus' format 0.0.4; may be called in any thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(metrics))
    return generate_latest(registry)


def _presence(rigs: list[WatchedRig]) -> Iterator[Metric]:
    up = _gauge("up", "Whether the rig's service is connected to the broker.", "rig")
    board = _gauge("board_up", "Whether readings arrive from the board.", "rig")
    for rig in rigs:
        up.add_metric([rig.rig_id], float(rig.is_online))
        board.add_metric([rig.rig_id], float(rig.is_online and rig.sensor_status == ONLINE))
    yield up
    yield board


def _health(rigs: list[WatchedRig]) -> Iterator[Metric]:
    for name, text, place in _COUNTERS:
        counter = CounterMetricFamily(f"scentd_{name}", text, labels=["rig"])
        for rig in rigs:
            _add(counter, [rig.rig_id], _number(rig.health, *place))
        yield counter
    for name, text, place, factor in _GAUGES:
        gauge = _gauge(name, text, "rig")
        for rig in rigs:
            value = _number(rig.health, *place)
            _add(gauge, [rig.rig_id], None if value is None else value * factor)
        yield gauge


def _details(rigs: list[WatchedRig]) -> Iterator[Metric]:
    """Yield the numbers of `health` that come by channel, kind, reason or model."""
    channel_up = _gauge("channel_up", "Whether a channel's readings can be used.", "rig", "channel")
    rejected = CounterMetricFamily(
        "scentd_lines_rejected", "Lines from the board that are no reading.", labels=["rig", "kind"]
    )
    dropped = CounterMetricFamily(
        "scentd_outbox_dropped", "Messages that were lost.", labels=["rig", "reason"]
    )
    median = _gauge("inference_median_seconds", "Median of recent inference times.", "rig", "model")
    slow = _gauge(
        "inference_slow_seconds", "99th percentile of recent inference times.", "rig", "model"
    )
    calibration = _gauge(
        "calibration", "1 for the state that the calibration is in.", "rig", "state"
    )
    for rig in rigs:
        for channel, quality in _mapping(rig.health, "channels").items():
            channel_up.add_metric([rig.rig_id, channel], float(quality in ("ok", "spike")))
        for kind, count in _mapping(rig.health, "frames_bad").items():
            _add(rejected, [rig.rig_id, kind], _as_number(count))
        for reason, count in _mapping(rig.health, "outbox", "dropped").items():
            _add(dropped, [rig.rig_id, reason], _as_number(count))
        for model, times in _mapping(rig.health, "inference_ms").items():
            for gauge, quantile in ((median, "p50"), (slow, "p99")):
                value = _number(times, quantile)
                _add(gauge, [rig.rig_id, model], None if value is None else value / 1000.0)
        state = _mapping(rig.health, "calibration").get("state")
        for name in _CALIBRATION_STATES if state in _CALIBRATION_STATES else ():
            calibration.add_metric([rig.rig_id, name], float(name == state))
    yield from (channel_up, rejected, dropped, median, slow, calibration)


def _predictions(rigs: list[WatchedRig]) -> Iterator[Metric]:
    states = _gauge("state", "1 for the state that a model is in.", "rig", "task", "model", "state")
    probability = _gauge(
        "substance_probability_ratio", "Probability of the recognised smell.", *_BY_LABEL
    )
    novelty = _gauge(
        "novelty", "How unlike all known smells the air is, on the model's scale.", "rig", "model"
    )
    made = _gauge(
        "prediction_timestamp_seconds", "Time of the latest prediction.", "rig", "task", "model"
    )
    latency = _gauge(
        "prediction_latency_seconds", "From the reading to its prediction.", "rig", "task", "model"
    )
    for rig in rigs:
        for (task, model), payload in rig.predictions.items():
            where = [rig.rig_id, task, model]
            for state in STATES:
                states.add_metric([*where, state], float(payload.get("state") == state))
            _add(made, where, _unix_s(payload.get("ts")))
            value = _number(payload, "latency_ms")
            _add(latency, where, None if value is None else value / 1000.0)
            if task == SUBSTANCE:
                _add(novelty, [rig.rig_id, model], _number(payload, "novelty"))
                if payload.get("label") is not None:
                    labels = [rig.rig_id, model, str(payload["label"])]
                    _add(probability, labels, _number(payload, "probability"))
    yield from (states, probability, novelty, made, latency)


_BY_LABEL = ("rig", "model", "label")


def _components(rigs: list[WatchedRig]) -> Iterator[Metric]:
    proportion = _gauge("mixture_proportion_ratio", "Proportion of a component.", *_BY_LABEL)
    presence = _gauge(
        "mixture_presence_ratio", "Probability that a component is there.", *_BY_LABEL
    )
    for rig in rigs:
        for (task, model), payload in rig.predictions.items():
            parts = payload.get("components") if task == MIXTURE else None
            for part in parts if isinstance(parts, list) else ():
                if isinstance(part, dict):
                    labels = [rig.rig_id, model, str(part.get("label"))]
                    _add(proportion, labels, _number(part, "proportion"))
                    _add(presence, labels, _number(part, "presence"))
    yield from (proportion, presence)


def _events(rigs: list[WatchedRig]) -> Metric:
    counter = CounterMetricFamily(
        "scentd_events", "Events since scentd web started.", labels=["rig", "type"]
    )
    for rig in rigs:
        for kind, count in rig.event_counts.items():
            counter.add_metric([rig.rig_id, kind], float(count))
    return counter


def _server(state: ServerState) -> Iterator[Metric]:
    broker = GaugeMetricFamily(
        "scentd_web_broker_up", "Whether scentd web is connected to the broker."
    )
    broker.add_metric([], float(state.broker_connected))
    yield broker
    pages = GaugeMetricFamily("scentd_web_pages", "Pages that are open.")
    pages.add_metric([], float(state.pages))
    yield pages
    memory = GaugeMetricFamily("scentd_web_resident_memory_bytes", "Resident memory of scentd web.")
    memory.add_metric([], state.resident_mb * MEGABYTE)
    yield memory
    for name, text, count in (
        ("messages_dropped", "Messages from the broker that were not read.", state.dropped),
        ("messages_unreadable", "Messages that are no JSON object.", state.unreadable),
    ):
        counter = CounterMetricFamily(f"scentd_web_{name}", text)
        counter.add_metric([], float(count))
        yield counter
    refused = CounterMetricFamily(
        "scentd_web_refused", "Requests refused and pages cut.", labels=["reason"]
    )
    for reason in Refusal:
        refused.add_metric([str(reason)], float(state.refused[reason]))
    yield refused


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"scentd_{name}", text, labels=labels)


def _add(
    family: GaugeMetricFamily | CounterMetricFamily, labels: list[str], value: float | None
) -> None:
    if value is not None:
        family.add_metric(labels, value)


def _mapping(values: Any, *place: str) -> Mapping[str, Any]:
    for name in place:
        values = values.get(name) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}


def _number(values: Any, *place: str) -> float | None:
    return _as_number(_mapping(values, *place[:-1]).get(place[-1]))


def _as_number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable else None


def _unix_s(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None
