"""Models: results of the nose: predictions, events and what one reading led to.

May import hardware and models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hardware.frames import SensorFrame
    from models.clean_air import CleanAirSource
    from models.decision_spec import State
    from models.substance_decision import Component, ComponentGroup


@dataclass(frozen=True, slots=True)
class Prediction:
    """One model's result at one moment.

    Attributes
    ----------
    task: "substance" or "mixture".
    model: the bundle's name; `models.recogniser.TAUGHT` where the board can feed no model.
    t_ms, frame_seq: of the newest reading.
    state: the published state.
    label, probability: of the announced substance; None unless `state` is recognised.
    top: up to five (label, probability or proportion), the likeliest first.
    components: of the announced mixture, the largest first.
    groups: of a mixture, components that cannot be told apart, with the probability that at least
        one of them is there; none of them is announced by itself.
    candidates: of a mixture, up to five components, the most probable first, announced or not.
    unexplained: something is in the mixture that the model or the rig does not know.
    window_s: seconds of readings behind it.
    channels_missing: channels of the model that were missing.
    latency_ms: from the arrival of the newest reading; not compared.
    reason: why the state is fault or disabled, or why no name can be given.
    calibration: id of the profile by which the readings were corrected, or None.
    label_set: labels that contain the truth in `set_coverage` of cases, the likeliest first;
        empty where the bundle has no threshold.
    set_coverage: of `label_set`, None without one.
    short_list: while one name is not certain, the likeliest labels, the likeliest first; empty in
        every state but `sensing`, and where the bundle states no coverage for it.
    list_coverage: share of cases in which `short_list` holds the truth, None without one.
    novelty: how little the odour resembles anything learned, None without a score.
    descriptors: up to five (descriptor, how well it fits, 0..1); only of an unrecognised odour.
    foreign_board: whether the readings are unlike those of the board that the model was trained
        on, so that its own labels are not announced.
    resampled: whether the model receives samples interpolated between the board's readings.
    taught: whether the rig's own recogniser decided, from what the rig was taught.
    clean_air: where the board's clean air is known from, None where it is not known.
    clean_air_age_s: seconds since it was measured here; None where it never was.
    """

    task: str
    model: str
    t_ms: int
    frame_seq: int
    state: State
    label: str | None = None
    probability: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    components: tuple[Component, ...] = ()
    groups: tuple[ComponentGroup, ...] = ()
    candidates: tuple[Component, ...] = ()
    unexplained: bool = False
    window_s: float = 0.0
    channels_missing: tuple[str, ...] = ()
    latency_ms: float = field(default=0.0, compare=False)
    reason: str | None = None
    calibration: str | None = None
    label_set: tuple[str, ...] = ()
    set_coverage: float | None = None
    short_list: tuple[str, ...] = ()
    list_coverage: float | None = None
    novelty: float | None = None
    descriptors: tuple[tuple[str, float], ...] = ()
    foreign_board: bool = False
    resampled: bool = False
    taught: bool = False
    clean_air: CleanAirSource | None = None
    clean_air_age_s: float | None = None


class EventType(StrEnum):
    """Type of an event, as published."""

    ONSET = "onset"
    RECOGNISED = "recognised"
    UNRECOGNISED = "unrecognised"
    LISTED = "listed"
    ENDED = "ended"
    CHANNEL_FAULT = "channel_fault"
    CHANNEL_RECOVERED = "channel_recovered"


@dataclass(frozen=True, slots=True)
class Event:
    """Something began or ended.

    Attributes
    ----------
    type: which.
    t_ms, frame_seq: of the reading that showed it.
    model, label, probability: of what was recognised; of an unrecognised odour only the model.
    channel: that failed or recovered.
    detail: for people.
    """

    type: EventType
    t_ms: int
    frame_seq: int
    model: str | None = None
    label: str | None = None
    probability: float | None = None
    channel: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What the nose makes of one reading.

    Attributes
    ----------
    frame: the reading.
    t_ms: its time, milliseconds since the first reading.
    quality: uint8[12] of `Quality`, channel health included.
    predictions: usually none; at most one per model in the steady state.
    events: what began or ended with this reading.
    """

    frame: SensorFrame
    t_ms: int
    quality: NDArray[np.uint8]
    predictions: list[Prediction]
    events: list[Event]
