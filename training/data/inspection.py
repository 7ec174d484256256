"""training/: what a data set holds, and what about it would spoil a training.

numpy only. Every doubt is one paragraph: what was found, and what to do about it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNEL_NAMES, CHANNELS, Part
from models.preprocess import Lineariser, PreprocessSpec
from training.data.clean_air import FIRST_S, ONSET, onset_s
from training.data.sessions import labels_of_one_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from training.data.dataset import Dataset, Sample

USABLE_SHARE = 0.5
"""A channel is alive in a recording with usable readings, not all equal, in this share of rows."""
FEWEST_OF_A_SMELL = 2
"""Recordings in each part of a label that looks like two smells."""
TWO_SMELLS = 3.0
"""A label looks like two smells where its parts are this many times further apart than the
recordings within each ..."""
APART_SHARE = 0.5
"""... and at least this share of the distance of the two closest labels apart."""

AIR_LABELS = frozenset({"air", "ambient", "background", "clean_air", "room_air"})
"""Labels of recordings in which nothing is to be smelled."""

GAS_CHANNELS = tuple(c.name for c in CHANNELS if c.part is not Part.ENVIRONMENT)
_WHOLE_PPM = np.array([channel.part is Part.MQ for channel in CHANNELS])
"""Parts that send whole ppm, which may stay the same for minutes."""
_GROVE = tuple(channel.name for channel in CHANNELS if channel.part is Part.GROVE)
_NAMED = 5


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """What there is to know of a recording without a model.

    Attributes
    ----------
    name, label, session: of the recording.
    rate_hz, seconds: its rate and length.
    alive: names of the channels with readings that move.
    onset_s: when the smell arrives after clean air; None where nothing changes.
    air: log-conductance of the Grove channels over the first seconds, by channel.
    response: the second half's mean minus `air`, by channel.
    """

    name: str
    label: str
    session: str
    rate_hz: float
    seconds: float
    alive: frozenset[str]
    onset_s: float | None
    air: NDArray[np.float64]
    response: NDArray[np.float64]


def inspect_recordings(data: Dataset) -> list[RecordingFacts]:
    """Return the facts of every recording of single substances, at its own rate."""
    return [_facts(sample, data.labels[int(sample.target.argmax())]) for sample in data.samples]


def _facts(sample: Sample, label: str) -> RecordingFacts:
    values = sample.values
    finite = np.isfinite(values)
    moves = np.nanmax(np.where(finite, values, -np.inf), axis=0) > np.nanmin(
        np.where(finite, values, np.inf), axis=0
    )
    alive = (finite.mean(axis=0) >= USABLE_SHARE) & (moves | _WHOLE_PPM)
    signal = Lineariser(PreprocessSpec(_GROVE, rate_hz=sample.rate_hz))(values).astype(np.float64)
    first = max(1, round(FIRST_S * sample.rate_hz))
    air, later = (_mean(part) for part in (signal[:first], signal[len(signal) // 2 :]))
    last_ms = None if sample.time_ms is None else sample.time_ms[-1] - sample.time_ms[0]
    seconds = len(values) / sample.rate_hz if last_ms is None else float(last_ms) / 1000.0
    return RecordingFacts(
        sample.name,
        label,
        sample.session,
        sample.rate_hz,
        seconds,
        frozenset(np.array(CHANNEL_NAMES)[alive].tolist()),
        onset_s(sample),
        air,
        later - air,
    )


def find_problems(
    data: Dataset, facts: Sequence[RecordingFacts], channels: Sequence[str] = GAS_CHANNELS
) -> list[str]:
    """Return one paragraph for everything about a data set that would spoil a training.

    `channels` are those that the model is to read.
    """
    checks: Iterable[Callable[[], Iterator[str]]] = (
        lambda: _one_label(data, facts),
        lambda: _spellings(facts),
        lambda: _dead_channels(facts, channels),
        lambda: _without_clean_air(facts),
        lambda: _two_smells(facts),
        lambda: _one_session(data),
    )
    return [problem for check in checks for problem in check()]


def _one_label(data: Dataset, facts: Sequence[RecordingFacts]) -> Iterator[str]:
    sessions = sorted({one.session for one in facts} - {""})
    if len(data.labels) == 1 and len(sessions) > 1:
        yield (
            f"There is one label only, {data.labels[0]}, with the sessions {_some(sessions)}. If "
            "these are smells, name the folder above them as --data; a label is the first folder "
            "below it."
        )


def _spellings(facts: Sequence[RecordingFacts]) -> Iterator[str]:
    """Name folders that are read as one label."""
    folders: dict[str, set[str]] = defaultdict(set)
    for one in facts:
        folders[one.label].add(one.name.split("/")[0])
    for label, names in sorted(folders.items()):
        if len(names) > 1:
            yield (
                f"The folders {', '.join(sorted(names))} are read as one label, {label}: upper "
                "case, spaces and hyphens make no difference. If they hold two smells, give them "
                "names that differ in more."
            )


def _dead_channels(facts: Sequence[RecordingFacts], channels: Sequence[str]) -> Iterator[str]:
    """Name channels that are dead in some recordings and alive in others."""
    for channel in channels:
        dead = [one for one in facts if channel not in one.alive]
        if not dead or len(dead) == len(facts):
            continue
        whole = [
            session
            for session in sorted({one.session for one in dead} - {""})
            if all(channel not in one.alive for one in facts if one.session == session)
        ]
        where = f"in all of session {_some(whole)}" if whole else f"in {_names(dead)}"
        yield (
            f"{channel} has no usable readings, or always the same, {where}, and is alive in "
            f"other recordings ({len(dead)} of {len(facts)} are concerned). A model would learn "
            f"where the part was broken instead of a smell: leave {channel} out of "
            "preprocessing.channels, as `scent-train init` does, or record these again with a "
            "working part."
        )


def _without_clean_air(facts: Sequence[RecordingFacts]) -> Iterator[str]:
    """Name recordings in which nothing changes: nothing was smelled, or the smell was there."""
    still = [one for one in facts if one.onset_s is None and one.label not in AIR_LABELS]
    nothing: list[RecordingFacts] = []
    within: list[RecordingFacts] = []
    for one in still:
        air = _air_of_session(facts, one.session) if one.session else None
        near = air is not None and np.nanmax(np.abs(one.air - air), initial=0.0) < ONSET
        (nothing if near else within).append(one)
    if nothing:
        yield (
            f"Nothing was smelled in {_names(nothing)}: all readings lie within {ONSET} of the "
            "session's clean air in log-conductance. A model would learn air under the name of a "
            "smell: move them away, or record them again closer to the smell."
        )
    if within:
        yield (
            f"{len(within)} of {len(facts)} recordings do not begin in clean air: no Grove channel "
            f"moves by {ONSET} in log-conductance, as in {_names(within)}. What carries over to "
            "another day is the response above clean air, and it is not in them: start a recording "
            "in clean air, wait half a minute, then bring the smell."
        )


def _air_of_session(facts: Sequence[RecordingFacts], session: str) -> NDArray[np.float64] | None:
    """Return the median clean air of a session's recordings that begin in it; None without any."""
    known = [one.air for one in facts if one.session == session and one.onset_s is not None]
    return np.median(known, axis=0) if known else None


def _two_smells(facts: Sequence[RecordingFacts]) -> Iterator[str]:
    """Name labels whose recordings fall into two groups by the direction of their response."""
    groups: dict[str, list[RecordingFacts]] = defaultdict(list)
    everywhere = np.array([all(name in one.alive for one in facts) for name in _GROVE])
    for whole in facts:
        one = dataclasses.replace(whole, response=np.where(everywhere, whole.response, 0.0))
        length = float(np.linalg.norm(one.response))
        if one.onset_s is not None and np.isfinite(length) and length > ONSET:
            groups[one.label].append(one)
    means = [_directions(own).mean(axis=0) for own in groups.values()]
    smells_apart = min(
        (float(np.linalg.norm(a - b)) for a, b in itertools.combinations(means, 2)), default=0.0
    )
    for label, own in sorted(groups.items()):
        parts = _split(_directions(own))
        if parts is None:
            continue
        first, second = ([own[k] for k in part] for part in parts)
        apart = _directions(first).mean(axis=0) - _directions(second).mean(axis=0)
        if float(np.linalg.norm(apart)) < APART_SHARE * smells_apart:
            continue
        yield (
            f"The recordings of {label} fall into two groups as different as two smells: "
            f"{_names(first)} and {_names(second)}. If two smells share the name, give each a "
            "folder of its own; if not, a session went wrong: look at its clean air, and record "
            "it again."
        )


def _split(directions: NDArray[np.float64]) -> tuple[list[int], list[int]] | None:
    """Split rows into two groups that are far apart for their own spread; None if they are not."""
    count = len(directions)
    if count < 2 * FEWEST_OF_A_SMELL:
        return None
    distance = np.linalg.norm(directions[:, None] - directions[None], axis=2)
    one, other = np.unravel_index(int(distance.argmax()), distance.shape)
    near_one = distance[:, one] <= distance[:, other]
    parts = np.flatnonzero(near_one).tolist(), np.flatnonzero(~near_one).tolist()
    if min(map(len, parts)) < FEWEST_OF_A_SMELL:
        return None
    within = max(float(distance[np.ix_(part, part)].max()) for part in parts)
    between = float(distance[np.ix_(*parts)].min())
    return parts if between > TWO_SMELLS * within else None


def _directions(facts: Sequence[RecordingFacts]) -> NDArray[np.float64]:
    """Return the responses as unit vectors float64[recordings, channels]."""
    rows = np.nan_to_num(np.array([one.response for one in facts]))
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-9)
    return unit


def _one_session(data: Dataset) -> Iterator[str]:
    single = labels_of_one_session(data)
    if single:
        yield (
            f"{len(single)} of {len(data.labels)} labels have recordings of one session only, or "
            f"of none that is named: {_some(single)}. Nothing can tell what of their figures is "
            "the smell and what the day: record them on another day as LABEL/SESSION/*.csv, and "
            "hold whole sessions out (`scent-train crossval --sessions`)."
        )


def _mean(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the rows that are numbers; NaN where none is."""
    known = np.isfinite(rows)
    total = np.where(known, rows, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _names(facts: Sequence[RecordingFacts]) -> str:
    return _some([one.name for one in facts])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
