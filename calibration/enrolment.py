"""Calibration: what a model learns from readings of a smell, or why it can learn nothing.

May import hardware, models and numpy. Must never know where taught smells are kept
(`calibration.smell_store`), nor a port, a broker or a clock.

Readings are processed as live ones are (`calibration.exposures`), at the model's rate and with its
preprocessing, in windows that grow from the onset, as the daemon's do, and from later starts. The
network's embeddings of these windows are what is learnt.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.exposures import EnrolmentError, find_exposure
from hardware.channels import CHANNEL_NAMES
from hardware.files import read_regular
from hardware.frames import Quality
from hardware.safe_arrays import read_arrays
from models.preprocess import batch_features
from models.rate_conversion import RateConverter
from models.requirements import channel_problem, rate_problem
from models.taught_head import EXPOSURE_VARIANCE, TaughtSmell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.exposures import Readings
    from models.bundle import Bundle
    from models.embedding_space import EmbeddingSpace

    Window = tuple[NDArray[np.float32], NDArray[np.float32]]

GROWTH_S = 10.0
"""Seconds by which each window is longer than the one before."""

RESTART_S = 30.0
"""Seconds between the starts of windows: the next exposure will be recognised at other moments of
its course, too. Of ten smells taught for two minutes, .75 of other recordings were named rightly,
and .73 with windows from the onset alone (five networks trained without the smells; none was
worse)."""

MIN_USABLE_SHARE = 0.5
"""A channel that could be used for a smaller share of the exposure counts as missing."""

BATCH_SIZE = 32
"""Windows that go through the network at once: bounds the memory on a small machine."""


@dataclass(frozen=True, slots=True, eq=False)
class LearnedExposure:
    """What a model learnt from one exposure.

    Attributes
    ----------
    embedding: float32[windows, D].
    logits: float32[windows, labels].
    seconds: of the exposure, from the onset where one was found.
    channels_missing: channels of the model that could not be used.
    """

    embedding: NDArray[np.float32]
    logits: NDArray[np.float32]
    seconds: float
    channels_missing: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.embedding)

    def to_bytes(self) -> bytes:
        """Return the content of a file for `load`."""
        stream = io.BytesIO()
        np.savez(
            stream,
            embedding=self.embedding,
            logits=self.logits,
            seconds=np.float64(self.seconds),
            channels_missing=np.array(self.channels_missing, dtype=str),
        )
        return stream.getvalue()

    @classmethod
    def load(cls, path: Path) -> LearnedExposure:
        """Read a file; raise OSError, ValueError or KeyError for a missing or damaged one."""
        arrays = read_arrays(read_regular(path))
        missing = tuple(str(name) for name in arrays["channels_missing"])
        return cls(arrays["embedding"], arrays["logits"], float(arrays["seconds"]), missing)


def learn(bundle: Bundle, readings: Readings, start: int = 0) -> LearnedExposure:
    """Return what the model learns from an exposure.

    Parameters
    ----------
    bundle: a substance model whose bundle holds the space of its embeddings.
    readings: of the exposure, with those before it where they are known.
    start: the first row that may be learnt.

    Raises
    ------
    EnrolmentError: the model cannot be taught, or nothing can be learnt from these readings.
    """
    require_space(bundle)
    found = find_exposure(readings, start)
    first, end = found.first, found.end
    missing = _missing_channels(bundle, readings.quality[first:end])
    windows = list(_windows(bundle, readings, first, end))
    seconds = float(readings.t_ms[end - 1] - readings.t_ms[first]) / 1000.0 if end > first else 0.0
    if not windows:
        spec = bundle.manifest.preprocessing
        least_s = (spec.first_step + spec.min_steps) / spec.rate_hz
        raise EnrolmentError(
            f"{seconds:.0f} s of the smell are too short: {bundle.manifest.name} needs "
            f"{least_s:.0f} s without a gap, and learns well from two minutes. Let the sample "
            "stand longer before the sensors, or name a longer recording."
        )
    batches = [windows[row : row + BATCH_SIZE] for row in range(0, len(windows), BATCH_SIZE)]
    outputs = [
        bundle.run(np.stack([x for x, _ in batch]), np.stack([mask for _, mask in batch]))
        for batch in batches
    ]
    return LearnedExposure(
        np.concatenate([output.embedding for output in outputs]),
        np.concatenate([output.logits for output in outputs]),
        seconds,
        missing,
    )


def fit_smell(
    label: str,
    exposures: Sequence[NDArray[np.float32]],
    space: EmbeddingSpace,
    exposure_variance: float = EXPOSURE_VARIANCE,
) -> TaughtSmell:
    """Return the class of a smell from its exposures' embeddings, each float32[windows, D].

    Each exposure counts the same, however long it was: the windows of one are alike, and the mean
    must average out the differences between exposures, `exposure_variance` in the manifest.
    """
    means = np.stack([space.whiten(embedding).mean(axis=0) for embedding in exposures])
    windows = sum(map(len, exposures))
    return TaughtSmell(label, means.mean(axis=0), windows, len(exposures), exposure_variance)


def require_space(bundle: Bundle) -> EmbeddingSpace:
    """Return the space in which a bundle's embeddings are compared.

    Raises
    ------
    EnrolmentError: it is a mixture model, or was made without such a space.
    """
    name = bundle.manifest.name
    if bundle.manifest.task != "substance":
        raise EnrolmentError(
            f"Only models of single substances can be taught a smell; {name} is one of mixtures. "
            "Name another model."
        )
    if bundle.space is None:
        raise EnrolmentError(
            f"The bundle of {name} has no class means, so nothing can be taught beside them. "
            "Install a newer version of it, or export it again."
        )
    return bundle.space


def _missing_channels(bundle: Bundle, quality: NDArray[np.uint8]) -> tuple[str, ...]:
    """Return the model's channels that hardly ever worked; refuse where it needs them."""
    channels = bundle.manifest.preprocessing.channels
    faults = {}
    for name in channels:
        column = quality[:, CHANNEL_NAMES.index(name)]
        if len(column) and (column == Quality.OK).mean() < MIN_USABLE_SHARE:
            counts = np.bincount(column, minlength=len(Quality))
            counts[Quality.OK] = 0
            faults[name] = Quality(int(counts.argmax()))
    saturated = [name for name, fault in faults.items() if fault is Quality.SATURATED]
    if saturated:
        raise EnrolmentError(
            f"{', '.join(saturated)} was at its limit for most of the exposure, so the smell "
            "would be learnt from what the sensor could not measure. Hold the sample further away."
        )
    if channel_problem(bundle.manifest, faults) is not None:
        names = ", ".join(f"{name} ({fault.name.lower()})" for name, fault in faults.items())
        raise EnrolmentError(
            f"{bundle.manifest.name} cannot learn without {names}. Repair the sensors (see "
            "`scentd check`), and teach again."
        )
    return tuple(faults)


def _windows(bundle: Bundle, readings: Readings, first: int, end: int) -> Iterator[Window]:
    """Yield x[window, feature] and mask[window]: growing from the onset, and from later starts."""
    spec = bundle.manifest.preprocessing
    growth, restart = (max(1, round(s * spec.rate_hz)) for s in (GROWTH_S, RESTART_S))
    for rows, mask in _feature_rows(bundle, readings, first, end):
        for start in range(0, len(rows) - spec.min_steps + 1, restart):
            longest = min(len(rows), start + spec.window)
            for stop in range(start + spec.min_steps, longest + 1, growth):
                room = spec.window - (stop - start)
                yield (
                    np.pad(rows[start:stop], ((0, room), (0, 0))),
                    np.pad(mask[start:stop], (0, room)),
                )


def _feature_rows(bundle: Bundle, readings: Readings, first: int, end: int) -> Iterator[Window]:
    """Yield the exposure's feature rows and their mask, one unbroken stretch after the other.

    The readings before the onset serve the lag differences alone, as they do live.
    """
    spec = bundle.manifest.preprocessing
    converter = _converter(bundle, readings.rate_hz)
    lead = max(0, first - converter.readings_covering(spec.lags[-1]))
    values, lost, t_ms = readings.values, readings.lost, readings.t_ms
    before, gaps_before = converter.feed(values[lead:first], lost[lead:first], t_ms[lead:first])
    during, gaps = converter.feed(values[first:end], lost[first:end], t_ms[first:end])
    samples, lost = np.concatenate([before, during]), np.concatenate([gaps_before, gaps])
    starts = np.flatnonzero(lost > spec.max_hold).tolist()
    for start, stop in itertools.pairwise([0, *starts, len(samples)]):
        if stop <= max(start, len(before)):
            continue
        gaps = lost[start:stop].copy()
        gaps[0] = 0
        # Rows up to the onset: every sample but the first ones, and those held in its place.
        known = max(0, len(before) - start)
        skipped = max(0, known + int(gaps[:known].sum()) - spec.first_step)
        (segment,) = batch_features(samples[start:stop], spec, gaps)
        yield segment.x[skipped:], segment.mask[skipped:]


def _converter(bundle: Bundle, rate_hz: float) -> RateConverter:
    """Return what converts the readings to the model's rate."""
    manifest = bundle.manifest
    problem = rate_problem(manifest, rate_hz)
    if problem is not None:
        raise EnrolmentError(
            f"The readings cannot feed {manifest.name}: {problem}. "
            "Choose a model that fits the board."
        )
    spec = manifest.preprocessing
    return RateConverter(rate_hz, spec.rate_hz, spec.max_hold, manifest.rate_ratio)
