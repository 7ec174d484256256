"""Daemon: the state of a rig: the answer to `request/status`, and a line for `systemctl status`.

Pure: gauges and predictions in, plain data out. Knows no broker and no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.board.monitor import BoardState
from daemon.mqtt.outgoing import BrokerState
from daemon.mqtt.payloads import quality_names
from hardware.counting import counted
from hardware.frames import Quality
from models.decision_spec import State
from models.prediction_fields import rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from daemon.mqtt.payloads import Gauges
    from daemon.system.background import Data
    from models.bundle import Bundle
    from models.results import Prediction

STATUS = "status"
"""Name of the request."""

_NO_TROUBLE = (Quality.OK, Quality.MISSING, Quality.SPIKE)
"""Qualities of a channel that are no trouble: a board may lack it, and a spike is one reading."""


def status_summary(
    gauges: Gauges, bundles: Iterable[Bundle], latest: Mapping[str, Prediction], trouble: str | None
) -> Data:
    """Return the state of the rig.

    Parameters
    ----------
    gauges: as `health` publishes them.
    latest: the latest prediction of every model, by its name.
    trouble: a sentence if a reload was refused.
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
            bundle.manifest.name: _model_summary(bundle, latest.get(bundle.manifest.name))
            for bundle in bundles
        },
        "troubles": list(_troubles(gauges, latest.values(), trouble)),
    }


def status_line(gauges: Gauges, latest: Iterable[Prediction], trouble: str | None) -> str:
    """Return the state of the rig in one line; parameters as of `status_summary`."""
    sentences = [] if trouble is None else [trouble]
    sentences += [prediction_sentence(prediction) for prediction in latest]
    if gauges.board["state"] != BoardState.ONLINE:
        sentences.append("No readings arrive from the board.")
    elif gauges.rate_hz:
        sentences.append(f"The board sends {counted(float(gauges.rate_hz), 'reading')} a second.")
    else:
        sentences.append("The board sends readings.")
    broker, depth = gauges.broker["state"], gauges.outbox.depth
    waiting = depth and broker != BrokerState.CONNECTED
    sentences.append(
        f"The broker is {broker}, {counted(depth, 'message')} waiting for it."
        if waiting
        else f"The broker is {broker}."
    )
    return " ".join(sentences)


def prediction_sentence(prediction: Prediction) -> str:
    """Return what a model says, in a short sentence."""
    if prediction.components:
        smell = " + ".join(part.label for part in prediction.components)
        return f"{prediction.model}: {smell}."
    if prediction.state is State.RECOGNISED and prediction.groups:
        group = max(prediction.groups, key=lambda one: one.presence)
        names = ", ".join(group.labels)
        return f"{prediction.model}: at least one of {names} ({group.presence:.0%})."
    if prediction.label is not None and prediction.probability is not None:
        return f"{prediction.model}: {prediction.label} ({prediction.probability:.0%})."
    return f"{prediction.model}: {prediction.state}."


def _model_summary(bundle: Bundle, latest: Prediction | None) -> Data:
    """Return a model's version and its latest prediction; nulls before the first one."""
    return {
        "version": bundle.manifest.version,
        "state": latest and str(latest.state),
        "label": latest and latest.label,
        "probability": latest and rounded(latest.probability, 4),
        "components": [
            {"label": part.label, "proportion": rounded(part.proportion, 4)}
            for part in (latest.components if latest else ())
        ],
        "reason": latest and latest.reason,
        "foreign_board": latest and latest.foreign_board,
        "resampled": latest and latest.resampled,
    }


def _troubles(gauges: Gauges, latest: Iterable[Prediction], trouble: str | None) -> Iterator[str]:
    """Yield a sentence about every trouble, the most serious first."""
    if gauges.board["why"] is not None:
        yield str(gauges.board["why"])
    for prediction in latest:
        # A board unlike that of the training is no trouble: smells can be taught there.
        if prediction.reason is not None and not prediction.foreign_board:
            yield f"{prediction.model} is {prediction.state}: {prediction.reason}."
    yield from _channel_troubles(gauges.quality)
    if gauges.recording["why"] is not None:
        yield f"The recording is paused: {gauges.recording['why']}."
    if gauges.outbox.why is not None:
        yield f"The outbox is kept in memory: {gauges.outbox.why}."
    if gauges.broker["why"] is not None:
        yield str(gauges.broker["why"])
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
