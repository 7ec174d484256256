"""Daemon: the rig in one look: the answer to `request/status`.

Pure: from what the service knows to plain data. Knows no broker and no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.mqtt.payloads import quality_names, rounded
from hardware.frames import Quality

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from daemon.mqtt.payloads import Gauges
    from daemon.system.background import Data
    from models.bundle import Bundle
    from models.results import Prediction

STATUS = "status"
"""The request's name."""

_NO_TROUBLE = (Quality.OK, Quality.MISSING, Quality.SPIKE)
"""Of a channel: a board may lack it, and a spike is over with the next reading."""


def status_summary(
    gauges: Gauges, bundles: Iterable[Bundle], latest: Mapping[str, Prediction], trouble: str | None
) -> Data:
    """Return how the rig is.

    Parameters
    ----------
    gauges : Gauges
        As `health` publishes them.
    bundles : iterable of Bundle
        The models that run.
    latest : mapping
        By model, what it last said.
    trouble : str, optional
        Of the configuration: a reload that was refused.
    """
    return {
        "uptime_s": rounded(gauges.uptime_s, 1),
        "rss_mb": rounded(gauges.rss_mb, 1),
        "rate_hz": rounded(gauges.rate_hz, 3),
        "frames_ok": gauges.counts.frames,
        "frames_lost": gauges.counts.lost,
        "broker": dict(gauges.broker),
        "outbox": {
            "store": gauges.outbox.store,
            "depth": gauges.outbox.depth,
            "dropped": sum(gauges.outbox.dropped.values()),
        },
        "recording": dict(gauges.recording),
        "calibration": dict(gauges.calibration),
        "models": {
            bundle.manifest.name: _told_model(bundle, latest.get(bundle.manifest.name))
            for bundle in bundles
        },
        "troubles": list(_troubles(gauges, latest.values(), trouble)),
    }


def _told_model(bundle: Bundle, said: Prediction | None) -> Data:
    """Return which version runs and what it last said; nulls before its first word."""
    return {
        "version": bundle.manifest.version,
        "state": said and str(said.state),
        "label": said and said.label,
        "probability": said and rounded(said.probability, 4),
        "components": [
            {"label": part.label, "proportion": rounded(part.proportion, 4)}
            for part in (said.components if said else ())
        ],
        "reason": said and said.reason,
    }


def _troubles(gauges: Gauges, said: Iterable[Prediction], trouble: str | None) -> Iterator[str]:
    """Yield a sentence about everything that is wrong, the gravest first."""
    if gauges.board["why"] is not None:
        yield str(gauges.board["why"])
    for prediction in said:
        if prediction.reason is not None:
            yield f"{prediction.model} is {prediction.state}: {prediction.reason}."
    yield from _channel_troubles(gauges.quality)
    if gauges.recording["why"] is not None:
        yield f"The recording is paused: {gauges.recording['why']}."
    if gauges.outbox.why is not None:
        yield f"The outbox is kept in memory: {gauges.outbox.why}."
    if gauges.calibration["why"] is not None:
        yield f"The calibration is {gauges.calibration['state']}: {gauges.calibration['why']}"
    if trouble is not None:
        yield trouble


def _channel_troubles(quality: Sequence[int] | None) -> Iterator[str]:
    if quality is None:
        return
    for (name, word), code in zip(quality_names(quality).items(), quality, strict=True):
        if code not in _NO_TROUBLE:
            yield f"Channel {name} is {word.replace('_', ' ')}."
