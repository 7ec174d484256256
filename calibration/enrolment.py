"""Calibration: from readings of a smell to what a model makes of them, or why they cannot teach.

May import hardware, models and numpy. Must never know where taught smells are kept
(`calibration.smell_store`), nor a port, a broker or a clock.

Readings go the way that live ones go: channel health, the rig's correction, the model's rate and
preprocessing, windows that grow from the onset as the daemon's do, and from later on. What is
taught is the network's embedding of these windows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNEL_NAMES
from hardware.errors import ScentdError
from hardware.frames import Quality
from hardware.health import ChannelHealth
from models.decimator import Decimator
from models.exposure import Change, ExposureDetector, Phase
from models.exposure_settings import ExposureSettings
from models.preprocess import batch_features
from models.taught_head import EXPOSURE_VARIANCE, TaughtSmell
from models.timing import RateMeter, Timeline, lost_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction
    from models.embedding_space import EmbeddingSpace

GROWTH_S = 10.0
"""Seconds by which each window is longer than the one before."""

RESTART_S = 30.0
"""Seconds after which windows begin anew. The next exposure will be heard at other moments of its
course, too: of ten smells taught for two minutes, .75 of other recordings were named rightly, and
.73 with windows from the onset alone (five networks that never met the smells; none was worse)."""

MIN_USABLE_SHARE = 0.5
"""A channel that could be used for a smaller share of the exposure counts as missing."""

BATCH_SIZE = 32
"""Windows that go through the network at once: bounds the memory on a small machine."""


class EnrolmentError(ScentdError):
    """These readings cannot teach a smell; the message says why and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """A recording as the models hear it.

    Attributes
    ----------
    values: float32[n, 12], corrected, NaN where a channel could not be used.
    quality: uint8[n, 12] of `Quality`, after channel health.
    t_ms: int64[n], increasing.
    rate_hz: of the board.
    """

    values: NDArray[np.float32]
    quality: NDArray[np.uint8]
    t_ms: NDArray[np.int64]
    rate_hz: float

    def __len__(self) -> int:
        return len(self.t_ms)

    @property
    def lost(self) -> NDArray[np.int64]:
        """int64[n], samples lost just before each."""
        period_ms = 1000.0 / self.rate_hz
        steps = np.diff(self.t_ms, prepend=self.t_ms[:1]).tolist()
        return np.array([lost_samples(step, period_ms) for step in steps], np.int64)

    def rows(self, start: int, end: int) -> Readings:
        """Return the rows from `start` to before `end`."""
        rows = slice(start, end)
        return Readings(self.values[rows], self.quality[rows], self.t_ms[rows], self.rate_hz)


@dataclass(frozen=True, slots=True, eq=False)
class LearnedExposure:
    """What a model made of one exposure.

    Attributes
    ----------
    embedding: float32[windows, D].
    logits: float32[windows, labels].
    seconds: of the exposure, from the onset where one was found.
    channels_missing: channels of the model that it had to do without.
    """

    embedding: NDArray[np.float32]
    logits: NDArray[np.float32]
    seconds: float
    channels_missing: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.embedding)


def prepare_readings(
    recording: Recording, correction: Correction | None = None, *, rate_hz: float | None = None
) -> Readings:
    """Return a recording as the models hear it.

    Parameters
    ----------
    recording: as read.
    correction: of the rig that made it, reset before and after; None for none.
    rate_hz: the board's rate where it is known; measured otherwise.
    """
    nominal_hz = rate_hz or (recording.nominal_rate_hz if recording.timestamp_ms is None else None)
    timeline, meter, health = Timeline(nominal_hz), RateMeter(nominal_hz), ChannelHealth()
    if correction is not None:
        correction.reset()
    values: list[NDArray[np.float32]] = []
    quality: list[NDArray[np.uint8]] = []
    t_ms: list[int] = []
    for number, frame in enumerate(recording.frames()):
        now_ms = timeline.stamp(frame, number * 1000.0 / recording.nominal_rate_hz)
        step_ms = now_ms - t_ms[-1] if t_ms else 0
        judged = health.assess(frame, now_ms)
        row = np.where(judged == Quality.OK, frame.values, np.float32(np.nan))
        values.append(row if correction is None else correction(row, step_ms / 1000.0))
        quality.append(judged)
        t_ms.append(now_ms)
        if step_ms > 0:
            meter.observe(step_ms)
    if correction is not None:
        correction.reset()
    return Readings(
        np.array(values, np.float32),
        np.array(quality, np.uint8),
        np.array(t_ms, np.int64),
        meter.rate_hz or recording.nominal_rate_hz,
    )


def find_exposure(
    readings: Readings, start: int = 0, settings: ExposureSettings | None = None
) -> tuple[int, int]:
    """Return the first row of the odour and the row after its last, from row `start` on.

    Where the air changed for certain, the odour is the longest stretch from an onset to its end.
    Where it did not, the odour was there all along: a steady one is as quiet as clean air, so
    only air that is *known* to be clean is refused.

    Parameters
    ----------
    readings: what lies before `start` only tells what clean air is.
    start: the first row that may teach.
    settings: of the detector.

    Raises
    ------
    EnrolmentError: the air was clean.
    """
    detector = ExposureDetector(settings or ExposureSettings(), skip_warm_up=True)
    rows = len(readings)
    stretches: list[tuple[int, int]] = []
    onset, certain, clean = 0, False, 0
    steps_s = np.diff(readings.t_ms, prepend=readings.t_ms[:1] - 1000).astype(float) / 1000.0
    for row, (values, dt_s) in enumerate(
        zip(readings.values.tolist(), steps_s.tolist(), strict=True)
    ):
        change = detector.update(values, dt_s)
        if change is Change.ONSET:
            onset, certain = row, False
        elif change is Change.ENDED and certain:
            stretches.append((max(onset, start), row))
        certain = detector.odour_certain or (certain and detector.phase is Phase.EXPOSED)
        clean += row >= start and detector.phase is Phase.AMBIENT and detector.air_known
    if certain:
        stretches.append((max(onset, start), rows))
    stretches = [(first, end) for first, end in stretches if end > first]
    if stretches:
        return max(stretches, key=lambda stretch: stretch[1] - stretch[0])
    if clean <= (rows - start) / 2:
        return start, rows
    raise EnrolmentError(
        f"Expected a smell to learn, but in {clean} of {rows - start} readings the air was as "
        "clean as before the last odour. Bring the sample to the sensors, and teach it while the "
        "state is sensing or unrecognised."
    )


def learn(
    bundle: Bundle, readings: Readings, start: int = 0, settings: ExposureSettings | None = None
) -> LearnedExposure:
    """Return what the model makes of an exposure.

    Parameters
    ----------
    bundle: a substance model whose bundle holds the space of its embeddings.
    readings: of the exposure, with what came before it where that is known.
    start: the first row that may teach.
    settings: of the detector of onset and end.

    Raises
    ------
    EnrolmentError: the model cannot be taught, or these readings cannot teach it.
    """
    require_space(bundle)
    first, end = find_exposure(readings, start, settings)
    exposure = readings.rows(first, end)
    missing = _missing_channels(bundle, exposure)
    windows = list(_windows(bundle, readings, first, end))
    seconds = float(exposure.t_ms[-1] - exposure.t_ms[0]) / 1000.0 if len(exposure) else 0.0
    if not windows:
        spec = bundle.manifest.preprocessing
        least_s = (spec.first_step + spec.min_steps) / spec.rate_hz
        raise EnrolmentError(
            f"{seconds:.0f} s of the smell are too short: {bundle.manifest.name} needs "
            f"{least_s:.0f} s without a gap, and learns well from two minutes. Let the sample "
            "stand longer before the sensors, or name a longer recording."
        )
    embedding, logits = _asked(bundle, windows)
    return LearnedExposure(embedding, logits, seconds, missing)


def fit_smell(
    label: str,
    exposures: Sequence[NDArray[np.float32]],
    space: EmbeddingSpace,
    exposure_variance: float = EXPOSURE_VARIANCE,
) -> TaughtSmell:
    """Return the class that exposures' embeddings, each float32[windows, D], make of a smell.

    Each exposure counts the same, however long it was: the windows of one are alike, and what
    tells one exposure from the next is what a mean must average out. `exposure_variance` is how
    much that is, as the model's manifest says.
    """
    means = np.stack([space.whiten(embedding).mean(axis=0) for embedding in exposures])
    windows = sum(map(len, exposures))
    return TaughtSmell(label, means.mean(axis=0), windows, len(exposures), exposure_variance)


def require_space(bundle: Bundle) -> EmbeddingSpace:
    """Return the space in which a bundle's embeddings are compared.

    Raises
    ------
    EnrolmentError: it is a mixture model, or was made without one.
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
            "Install a newer version of it, or export it anew."
        )
    return bundle.space


def _missing_channels(bundle: Bundle, exposure: Readings) -> tuple[str, ...]:
    """Return the model's channels that hardly ever worked; refuse where it needs them."""
    channels = bundle.manifest.preprocessing.channels
    needs = bundle.manifest.requirements
    words = {}
    for name in channels:
        quality = exposure.quality[:, CHANNEL_NAMES.index(name)]
        if len(quality) and (quality == Quality.OK).mean() < MIN_USABLE_SHARE:
            counts = np.bincount(quality, minlength=len(Quality))
            counts[Quality.OK] = 0
            words[name] = Quality(int(counts.argmax()))
    told = ", ".join(f"{name} ({str(word.name).lower()})" for name, word in words.items())
    saturated = [name for name, word in words.items() if word is Quality.SATURATED]
    if saturated:
        raise EnrolmentError(
            f"{', '.join(saturated)} was at its limit for most of the exposure, so the smell "
            "would be learnt from what the sensor could not measure. Hold the sample further away."
        )
    if set(words) & set(needs.required_channels) or len(channels) - len(words) < needs.min_channels:
        raise EnrolmentError(
            f"{bundle.manifest.name} cannot learn without {told}. Mend the sensors "
            "(`scentd check` tells more), and teach again."
        )
    return tuple(words)


def _factor(bundle: Bundle, rate_hz: float) -> int:
    """Return how many readings make one at the model's rate."""
    wanted_hz = bundle.manifest.preprocessing.rate_hz
    factor = max(1, round(rate_hz / wanted_hz))
    low, high = bundle.manifest.rate_ratio
    if not low <= rate_hz / factor / wanted_hz <= high:
        raise EnrolmentError(
            f"The readings come at {rate_hz:.3g} Hz, and {bundle.manifest.name} needs "
            f"{low * wanted_hz:.3g} to {high * wanted_hz:.3g} Hz or a multiple of that. "
            "Choose a model that fits the board."
        )
    return factor


def _windows(
    bundle: Bundle, readings: Readings, first: int, end: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield x[window, feature] and mask[window]: growing from the onset, and from later starts.

    What came before the onset serves the lag differences alone, as it does live.
    """
    spec = bundle.manifest.preprocessing
    grow, again = (max(1, round(s * spec.rate_hz)) for s in (GROWTH_S, RESTART_S))
    for rows, mask in _feature_rows(bundle, readings, first, end):
        for start in range(0, len(rows) - spec.min_steps + 1, again):
            longest = min(len(rows), start + spec.window)
            for stop in range(start + spec.min_steps, longest + 1, grow):
                room = spec.window - (stop - start)
                yield (
                    np.pad(rows[start:stop], ((0, room), (0, 0))),
                    np.pad(mask[start:stop], (0, room)),
                )


def _feature_rows(
    bundle: Bundle, readings: Readings, first: int, end: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield the exposure's feature rows and their mask, one unbroken stretch after the other."""
    spec = bundle.manifest.preprocessing
    factor = _factor(bundle, readings.rate_hz)
    lead = max(0, first - spec.lags[-1] * factor)
    decimator = Decimator(factor, (spec.max_hold + 1) * factor)
    lost = readings.lost
    before, gaps_before = decimator.feed(readings.values[lead:first], lost[lead:first])
    during, gaps = decimator.feed(readings.values[first:end], lost[first:end])
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


def _asked(
    bundle: Bundle, windows: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return embeddings float32[windows, D] and logits float32[windows, labels]."""
    answers = [
        bundle.run(
            np.stack([x for x, _ in windows[start : start + BATCH_SIZE]]),
            np.stack([mask for _, mask in windows[start : start + BATCH_SIZE]]),
        )
        for start in range(0, len(windows), BATCH_SIZE)
    ]
    return (
        np.concatenate([answer.embedding for answer in answers]),
        np.concatenate([answer.logits for answer in answers]),
    )
