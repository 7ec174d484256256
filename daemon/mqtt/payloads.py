"""Daemon: the rig's messages as JSON: pure functions from values to payloads.

Knows the wire format; no brokers, threads or clocks: the time, the boot's id and the sequence
number come in as an `Envelope`. Every payload has its JSON Schema in `daemon/schemas/`; numbers are
finite or null.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from daemon.board.diagnosis import rejected_lines
from hardware.channels import CHANNEL_NAMES, CHANNELS
from hardware.frames import Quality
from models.manifest import FP32_MODEL, INT8_MODEL
from models.prediction_fields import prediction_fields, rounded
from models.requirements import is_resampled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daemon.mqtt.outbox_values import OutboxReport
    from hardware.frames import SensorFrame
    from hardware.protocol import LineCounts
    from models.bundle import Bundle
    from models.decision_spec import DecisionSpec
    from models.results import Event, Prediction

STEADY_AFTER_S = 600.0
"""Writes per day are estimated only after this time: the start writes more."""

_FILE_OF = {"int8": INT8_MODEL, "fp32": FP32_MODEL}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Envelope:
    """The first fields of every payload.

    Attributes
    ----------
    unix_ms: time of the payload, milliseconds since 1970, UTC.
    clock_synced: whether that time can be trusted.
    boot_id: 16 hex digits, new at every start of the daemon.
    seq: counts the publications of this boot.
    """

    unix_ms: int
    clock_synced: bool
    boot_id: str
    seq: int

    def fields(self) -> Payload:
        """Return the leading fields."""
        return {
            "ts": format_utc(self.unix_ms),
            "clock_synced": self.clock_synced,
            "boot_id": self.boot_id,
            "seq": self.seq,
        }


def format_utc(unix_ms: int) -> str:
    """Return a UTC time in ISO 8601 with milliseconds, for example 2026-01-31T12:00:00.250Z."""
    moment = _EPOCH + timedelta(milliseconds=unix_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{unix_ms % 1000:03d}Z"


def encode(payload: Payload) -> str:
    """Return the payload as compact JSON; a number that is not finite is a bug and raises."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def prediction_payload(prediction: Prediction, envelope: Envelope) -> Payload:
    """Return the payload of `substance` or `mixture`, by the prediction's task."""
    return {**envelope.fields(), **prediction_fields(prediction), "buffered": False}


class RigEventType(StrEnum):
    """The types of the rig's own events, published beside those of the air."""

    BOARD_LOST = "board_lost"
    BOARD_BACK = "board_back"
    RECORDING_PAUSED = "recording_paused"
    RECORDING_RESUMED = "recording_resumed"
    RELOADED = "reloaded"
    RELOAD_REFUSED = "reload_refused"
    FEEDBACK = "feedback"


@dataclass(frozen=True, slots=True)
class RigEvent:
    """An event of the rig itself.

    Attributes
    ----------
    detail: the reason, for people.
    t_ms, frame_seq: of the newest reading, None before the first.
    model, label: of feedback: whose announcement it is about, and the true name.
    feedback: what the owner said, as `response/feedback` states it.
    """

    type: RigEventType
    detail: str | None
    t_ms: int | None
    frame_seq: int | None
    model: str | None = None
    label: str | None = None
    feedback: Mapping[str, Any] | None = None


def event_payload(event: Event | RigEvent, segment: str | None, envelope: Envelope) -> Payload:
    """Return the payload of `event`; `segment` is the recording that holds the reading `t_ms`."""
    of_air = None if isinstance(event, RigEvent) else event
    feedback = event.feedback if isinstance(event, RigEvent) else None
    return {
        **envelope.fields(),
        "frame_seq": event.frame_seq,
        "t_ms": event.t_ms,
        "segment": segment,
        "type": str(event.type),
        "model": event.model,
        "label": event.label,
        "probability": of_air and rounded(of_air.probability, 4),
        "channel": of_air and of_air.channel,
        "detail": event.detail,
        "buffered": False,
        **({} if feedback is None else {"feedback": dict(feedback)}),
    }


def sample_payload(frame: SensorFrame, t_ms: int, envelope: Envelope) -> Payload:
    """Return the payload of `sample`: a raw frame, null where a channel is absent or infinite."""
    return {
        **envelope.fields(),
        "frame_seq": frame.frame_seq,
        "t_ms": t_ms,
        "values": {
            name: rounded(value, 6)
            for name, value in zip(CHANNEL_NAMES, frame.values.tolist(), strict=True)
        },
    }


def quality_names(quality: Sequence[int]) -> dict[str, str]:
    """Return the quality of each channel's reading by name: `ok`, `missing`, `stuck` ..."""
    return {
        name: Quality(int(code)).name.lower()
        for name, code in zip(CHANNEL_NAMES, quality, strict=True)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """The service's numbers for `health`; mappings are published as they are.

    Attributes
    ----------
    counts: of the decoder, over all connections of this boot.
    chunks_dropped: reads dropped because the pipeline was behind.
    rate_hz: the board's measured rate, None until known.
    quality: uint8[12], the latest per channel, None before the first frame.
    channel_faults: how often a channel failed.
    inference_ms: recent inference times by model.
    rss_mb: resident memory.
    uptime_s: since the start of the process.
    """

    counts: LineCounts
    port_open: bool
    port_reconnects: int
    board: Mapping[str, Any]
    recording: Mapping[str, Any]
    chunks_dropped: int
    rate_hz: float | None
    quality: Sequence[int] | None
    channel_faults: int
    inference_ms: Mapping[str, Sequence[float]]
    outbox: OutboxReport
    broker: Mapping[str, Any]
    calibration: Mapping[str, Any]
    requests: Mapping[str, int]
    rss_mb: float
    uptime_s: float


def health_payload(gauges: Gauges, envelope: Envelope) -> Payload:
    """Return the payload of `health`."""
    counts = gauges.counts
    return {
        **envelope.fields(),
        "frames_ok": counts.frames,
        "frames_bad": rejected_lines(counts),
        "frames_lost": counts.lost,
        "frames_duplicate": counts.duplicates,
        "board_restarts": counts.restarts,
        "port_open": gauges.port_open,
        "port_reconnects": gauges.port_reconnects,
        "board": dict(gauges.board),
        "recording": dict(gauges.recording),
        "chunks_dropped": gauges.chunks_dropped,
        "rate_hz": rounded(gauges.rate_hz, 3),
        "channels": None if gauges.quality is None else quality_names(gauges.quality),
        "channel_faults": gauges.channel_faults,
        "inference_ms": {
            model: {
                "count": len(times),
                "p50": rounded(percentile(times, 0.50), 3),
                "p99": rounded(percentile(times, 0.99), 3),
            }
            for model, times in gauges.inference_ms.items()
        },
        "outbox_depth": gauges.outbox.depth,
        "outbox_dropped": sum(gauges.outbox.dropped.values()),
        "outbox": _outbox(gauges.outbox, gauges.uptime_s),
        "broker": dict(gauges.broker),
        "calibration": dict(gauges.calibration),
        "requests": dict(gauges.requests),
        "rss_mb": rounded(gauges.rss_mb, 1),
        "uptime_s": rounded(gauges.uptime_s, 1),
    }


def _outbox(report: OutboxReport, uptime_s: float) -> Payload:
    """Return the outbox's numbers, and the writes per day at the rate since the start."""
    days = uptime_s / 86_400 if uptime_s >= STEADY_AFTER_S else None
    numbers = asdict(report)
    del numbers["depth"], numbers["written_bytes"]
    return {
        **numbers,
        "commits_per_day": days and round(report.commits / days),
        "written_mb_per_day": days and rounded(report.written_bytes / days / 1e6, 1),
    }


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile, None without values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def info_payload(
    *,
    version: str,
    bundles: Iterable[Bundle],
    rate_hz: float | None,
    dialect: str | None,
    calibration: str | None,
    foreign_boards: Mapping[str, bool | None],
    envelope: Envelope,
) -> Payload:
    """Return the payload of `info`: the models that run, and the board."""
    return {
        **envelope.fields(),
        "scentd_version": version,
        "models": [
            {
                "name": bundle.manifest.name,
                "version": bundle.manifest.version,
                "task": str(bundle.manifest.task),
                "labels": list(bundle.manifest.labels),
                "precision": bundle.precision,
                "sha256": bundle.manifest.files[_FILE_OF[bundle.precision]],
                "foreign_board": foreign_boards.get(bundle.manifest.name),
                "resampled": is_resampled(bundle.manifest, rate_hz),
                "trust": _trust(bundle.manifest.decision),
            }
            for bundle in bundles
        ],
        "calibration": calibration,
        "channels": [
            {"name": channel.name, "unit": channel.unit, "part": channel.device}
            for channel in CHANNELS
        ],
        "rate_hz": rounded(rate_hz, 3),
        "dialect": dialect,
    }


def _trust(spec: DecisionSpec) -> Payload:
    """Return the constants needed to interpret a model's probabilities, novelty and sets."""
    stated = spec.set_threshold is not None or spec.proportion_margin is not None
    return {
        "announce": spec.announce,
        "error_rate": spec.error_rate,
        "unknown_above": None if spec.novelty is None else spec.unknown_above,
        "set_coverage": spec.set_coverage if stated else None,
        "list_coverage": spec.list_coverage,
    }


def summary_payload(
    *,
    file: str,
    model: str,
    label: str | None,
    probability: float | None,
    decided_s: float | None,
    frames: int,
    rejected: int,
) -> Payload:
    """Return the last line that `scentd replay --json` prints of a file."""
    return {
        "type": "summary",
        "file": file,
        "model": model,
        "label": label,
        "probability": rounded(probability, 4),
        "decided_s": rounded(decided_s, 3),
        "frames": frames,
        "rejected": rejected,
    }
