"""Models: a recording replayed through the nose.

The one way of `scentd replay` and `scent-train rescore`, so that both give the same predictions.
May import hardware and models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hardware.segment_names import LIVE_SUFFIX, parse_segment_name
from models.decision_spec import State
from models.nose import Nose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hardware.frames import SensorFrame
    from models.bundle import Bundle
    from models.correction import Correction
    from models.nose import NoseSettings
    from models.recogniser import Recogniser
    from models.results import Event, Prediction, Step
    from models.taught_head import TaughtHead
    from models.unmixing import Unmixing


class ReplayedRecording(Protocol):
    """What a replay needs of a recording, whether it lies in CSV files or in an archive."""

    @property
    def timestamped(self) -> bool:
        """Whether every reading has a time."""

    @property
    def first_ms(self) -> int:
        """Time of the first reading, 0 without times."""

    @property
    def published(self) -> bool:
        """Whether its layout is one of the published ones, which lie within one exposure."""

    @property
    def assumed_rate_hz(self) -> float | None:
        """The rate if there are no times from which to measure one, else None."""

    def arrivals(self) -> Iterator[tuple[SensorFrame, float]]:
        """Yield the frames with their times of arrival in milliseconds."""


@dataclass(frozen=True, slots=True)
class Rig:
    """What a rig adds to the models.

    Attributes
    ----------
    correction: of its readings, or None.
    calibrated_air: float64[8], log-conductances of its calibration in clean air, or None.
    heads: by model, the labels that its owner taught, hid and renamed.
    recogniser, unmixing: of what it was taught, or None.
    """

    correction: Correction | None = None
    calibrated_air: NDArray[np.float64] | None = None
    heads: dict[str, TaughtHead] | None = None
    recogniser: Recogniser | None = None
    unmixing: Unmixing | None = None


def is_live(name: str, recording: ReplayedRecording) -> bool:
    """Whether a recording begins with the start of a service: of segments, only a run's first.

    `name` is that of its first file.
    """
    name = name.removesuffix(".gz")
    if parse_segment_name(Path(name)) is None:
        return name.endswith(LIVE_SUFFIX)
    # The service's time begins with its first reading; recording may have begun later.
    return recording.timestamped and recording.first_ms == 0


def replay_nose(
    bundles: Sequence[Bundle],
    recording: ReplayedRecording,
    *,
    live: bool,
    settings: NoseSettings | None = None,
    rate_hz: float | None = None,
    rig: Rig | None = None,
) -> Nose:
    """Return the nose for a recording.

    Parameters
    ----------
    bundles: the models.
    recording: which is going to be replayed.
    live: begin with the warm-up, as a live run does; else the sensors are warm, and a published
        recording lies within one exposure.
    settings: of the rig's owner.
    rate_hz: the board's rate where it is given.
    rig: what the rig adds to the models.
    """
    rig = rig or Rig()
    return Nose(
        bundles,
        settings,
        rate_hz=recording.assumed_rate_hz if rate_hz is None else rate_hz,
        skip_warm_up=not live,
        assume_exposed=not live and recording.published,
        correction=rig.correction,
        heads=rig.heads,
        recogniser=rig.recogniser,
        unmixing=rig.unmixing,
        calibrated_air=rig.calibrated_air,
    )


def replay(
    nose: Nose, recording: ReplayedRecording, on_step: Callable[[Step], None] | None = None
) -> Iterator[Event | Prediction]:
    """Yield the events and predictions of a recording, in order.

    `on_step` is called with every reading's step before its events and predictions.
    """
    for frame, arrival_ms in recording.arrivals():
        step = nose.process(frame, arrival_ms)
        if on_step is not None:
            on_step(step)
        yield from step.events
        yield from step.predictions
    yield from nose.finish()


@dataclass
class ReplayResult:
    """A recording's result: the label that was recognised last, and since when."""

    label: str | None = None
    probability: float | None = None
    decided_s: float | None = None

    def update(self, prediction: Prediction) -> None:
        """Take the next prediction into account."""
        label, probability = recognised(prediction)
        if label is None:
            return
        if label != self.label:
            self.decided_s = prediction.t_ms / 1000.0
        self.label, self.probability = label, probability


def recognised(prediction: Prediction) -> tuple[str | None, float | None]:
    """Return the label, or a mixture's components and the lowest of their presences.

    Where only a group was announced, its labels joined by | and its presence.
    """
    if prediction.state is not State.RECOGNISED:
        return None, None
    if prediction.task == "substance":
        return prediction.label, prediction.probability
    parts = prediction.components
    if not parts:
        group = max(prediction.groups, key=lambda one: one.presence)
        return "|".join(sorted(group.labels)), group.presence
    # Sorted by name: which of two nearly equal components is larger may change with every window.
    return "+".join(sorted(part.label for part in parts)), min(part.presence for part in parts)
