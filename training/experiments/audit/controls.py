"""training/: the controls of the audit: inputs from which no substance should be recognisable.

Every control is a few numbers per window that hold no smell, or none that would be the same on
another day. If a classifier names substances from them, so can a model that sees them, on this
data and on no other. Knows recordings and the channel table; must never contain a classifier or
a verdict.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNELS, GAS_INDICES, Part
from models.preprocess import Lineariser, PreprocessSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from training.data.dataset import Dataset, Sample

MISSING = np.float32(-10_000.0)
"""Stands for "no reading": below the range of every channel, so that one split separates it."""

FIRST_READINGS = 5
NUMBERS_IN_NAME = 3

ENVIRONMENT = tuple(i for i, c in enumerate(CHANNELS) if c.part is Part.ENVIRONMENT)

_GAS_LOGS = PreprocessSpec(channels=tuple(CHANNELS[i].name for i in GAS_INDICES), rate_hz=1.0)
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Excerpts:
    """A recording and the position of its windows.

    `place` is its number among the recordings of its label, sorted by name; `factor` its samples
    per sample of the model's rate; `spans` the first and one-past-last sample of each window, the
    lags' history included.
    """

    sample: Sample
    place: int
    factor: int
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ControlTexts:
    """A control in words.

    `subject` starts the sentence "... name 68 % of windows right", `consequence` follows if that
    is above chance.
    """

    name: str
    inputs: str
    subject: str
    consequence: str = ""


@dataclass(frozen=True, slots=True)
class Control(ControlTexts):
    """A control; `describe` returns its float32[windows, numbers] of a recording."""

    _: KW_ONLY
    describe: Callable[[Excerpts], NDArray[np.float32]]


def find_excerpts(data: Dataset, spec: PreprocessSpec, owner: NDArray[np.int64]) -> list[Excerpts]:
    """Return every recording with the spans of its windows, of which `owner` has the recordings.

    Window k of a recording covers the samples [50k, 50k + 100 + longest lag) at the model's rate.
    """
    counts = np.bincount(owner, minlength=len(data.samples))
    seen: dict[int, int] = {}
    result = []
    for sample, count in zip(data.samples, counts.tolist(), strict=True):
        label = int(sample.target.argmax())
        place = seen[label] = seen.get(label, -1) + 1
        factor = max(1, round(sample.rate_hz / spec.rate_hz))
        length = spec.window + spec.lags[-1]
        spans = tuple(
            (spec.stride * k * factor, (spec.stride * k + length) * factor) for k in range(count)
        )
        result.append(Excerpts(sample, place, factor, spans))
    return result


def environment(recording: Excerpts) -> NDArray[np.float32]:
    """Mean, least, largest, first and last temperature, pressure, humidity and altitude."""
    values = recording.sample.values[:, ENVIRONMENT]
    return np.stack([_course(values[start:end]) for start, end in recording.spans])


def absolute_baseline(recording: Excerpts) -> NDArray[np.float32]:
    """Mean level of every gas channel in the window."""
    values = recording.sample.values[:, GAS_INDICES]
    return np.stack([_mean(values[start:end]) for start, end in recording.spans])


def first_seconds(recording: Excerpts) -> NDArray[np.float32]:
    """Mean level of every gas channel in the recording's first five readings."""
    values = recording.sample.values[: FIRST_READINGS * recording.factor, GAS_INDICES]
    return np.repeat(_mean(values)[np.newaxis], len(recording.spans), axis=0)


def file_order(recording: Excerpts) -> NDArray[np.float32]:
    """Place of the file in its sorted folder, and the first three numbers in its name."""
    stem = PurePosixPath(recording.sample.name).stem
    # A float64 holds no more than 15 digits exactly.
    found = [float(digits[:15]) for digits in re.findall(r"\d+", stem)][:NUMBERS_IN_NAME]
    numbers = [*found, *[float(MISSING)] * (NUMBERS_IN_NAME - len(found))]
    row = np.array([[recording.place, *numbers]], dtype=np.float32)
    return np.repeat(row, len(recording.spans), axis=0)


def channel_flags(recording: Excerpts) -> NDArray[np.float32]:
    """Whether each channel is absent, sometimes unusable (saturated, hung), or frozen.

    Over the whole recording: a channel that is constant for a window is not a fault.
    """
    finite = np.isfinite(recording.sample.values)
    absent = ~finite.any(axis=0)
    unusable = ~finite.all(axis=0)
    frozen = _spread(recording.sample.values) == 0
    row = np.concatenate([absent, unusable, frozen]).astype(np.float32)[np.newaxis]
    return np.repeat(row, len(recording.spans), axis=0)


def least_step(recording: Excerpts) -> NDArray[np.float32]:
    """Least change of each gas channel between two readings of the window, in log-conductance.

    Boards send whole counts: the least change is one count, which is more of a low reading than
    of a high one, so a difference of logarithms keeps a trace of the level. Channels with other
    than whole numbers have no such step.
    """
    readings = recording.sample.values[:, GAS_INDICES]
    fine = (np.isfinite(readings) & (readings != np.rint(readings))).any(axis=0)
    signal = Lineariser(_GAS_LOGS)(recording.sample.values)
    changes = np.where(fine, np.inf, np.abs(np.diff(signal, axis=0)))
    # A smaller difference is the rounding of a logarithm, not a change of the reading; nor is NaN.
    changes = np.where(changes > _ROUNDING, changes, np.inf)
    least = np.stack([changes[start : end - 1].min(axis=0) for start, end in recording.spans])
    return np.where(np.isfinite(least), least, MISSING).astype(np.float32)


CONTROLS = (
    Control(
        "environment",
        "temperature, pressure, humidity, altitude",
        "Temperature, pressure, humidity and altitude alone, which smell nothing,",
        "They distinguish recording sessions; a model that is given them learns the weather.",
        describe=environment,
    ),
    Control(
        "absolute_baseline",
        "mean level of each gas channel in the window",
        "The absolute levels of the gas channels, without any change over time,",
        "A level holds the smell, but also the board's age, warm-up and room air of that session; "
        "these folds cannot separate the two, so a model must not be given levels.",
        describe=absolute_baseline,
    ),
    Control(
        "first_seconds",
        f"mean level of each gas channel in the first {FIRST_READINGS} readings",
        f"The first {FIRST_READINGS} readings of a recording, which show no change over time,",
        "Sessions began at different levels: room air, warm-up, or a smell that was there before "
        "the recording. A score must not rest on where a recording begins.",
        describe=first_seconds,
    ),
    Control(
        "least_step",
        "least change of each gas channel's logarithm in the window",
        "The least steps of the gas channels' logarithms, each one count and so showing the level,",
        "Whole counts leave a trace of the level in every difference of logarithms. Scale and "
        "round the readings anew in training, so that no model can rely on it.",
        describe=least_step,
    ),
    Control(
        "file_order",
        "place of the file in its folder, numbers in its name",
        "The order and the names of the files, which are not even measured,",
        "Names or their order follow the sessions: keep them away from a model, and do not "
        "split folds by them.",
        describe=file_order,
    ),
    Control(
        "channel_flags",
        "which channels are absent, unusable or frozen",
        "Which channels were absent, saturated or frozen, which is a state of the board,",
        "Some labels were recorded while a part was broken: mask such channels and drop channels "
        "at random in training, so that a fault is no fingerprint.",
        describe=channel_flags,
    ),
)


def _mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the usable readings of each column of [rows, channels]."""
    finite = np.isfinite(values)
    number = finite.sum(axis=0)
    total = np.where(finite, values, 0).sum(axis=0, dtype=np.float64)
    return np.where(number, total / np.maximum(number, 1), MISSING).astype(np.float32)


def _course(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean, least, largest, first and last usable reading of each column."""
    finite = np.isfinite(values)
    some = finite.any(axis=0)
    columns = np.arange(values.shape[1])
    first = values[finite.argmax(axis=0), columns]
    last = values[len(values) - 1 - finite[::-1].argmax(axis=0), columns]
    least = np.where(finite, values, np.inf).min(axis=0)
    largest = np.where(finite, values, -np.inf).max(axis=0)
    rest = [np.where(some, part, MISSING) for part in (least, largest, first, last)]
    return np.concatenate([_mean(values), *rest]).astype(np.float32)


def _spread(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest minus least usable reading of each column; infinite where there is none."""
    finite = np.isfinite(values)
    largest = np.where(finite, values, -np.inf).max(axis=0)
    least = np.where(finite, values, np.inf).min(axis=0)
    return np.where(finite.any(axis=0), largest - least, np.inf)
