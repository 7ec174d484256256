"""training/: recordings streamed through a bundle and the decision layer, as the daemon would.

numpy only. What is scored is what a rig's owner meets: after so many seconds, how many
recordings have been given a name, and how many of the names are right. The decision is the
one of `models.substance_decision`, done for all recordings at once; a test holds the two equal.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import numpy as np

from models import novelty
from models.novelty import NoveltyName
from models.preprocess import FeatureStream
from models.softmax import log_softmax
from models.substance_decision import EvidenceShare
from training.evaluation.intervals import interval_of
from training.evaluation.scoring import Ratio, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.decision_spec import DecisionSpec
    from models.embedding_space import EmbeddingSpace
    from training.data.dataset import Sample
    from training.evaluation.intervals import Interval

LIVE_STRIDE_S = 5.0
"""As the daemon's default `live_stride_s`."""
LISTENED_S = 300.0
"""Seconds of each recording that are streamed: announcements are made earlier or never."""
STAGES_S = (60.0, 120.0, 180.0, 300.0)
"""When the announcements are judged, in seconds since the recording's start."""

NOVELTIES: tuple[NoveltyName, ...] = get_args(NoveltyName)
"""The scores of novelty that are compared."""

_NOBODY = -1


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """What networks said, window by window, of recordings they had not seen.

    Attributes
    ----------
    logits: float32[recordings, windows, labels], one window every 5 s from the first on; NaN
        once a recording has ended.
    shares: the windows' parts in the evidence, the same for every recording.
    ends_s: float[windows], seconds of the recording until the window's end.
    truth: int[recordings].
    embedding: float32[recordings, windows, D], NaN as the logits; None where they were not kept.
    descriptors: float32[recordings, windows, descriptors], likewise.
    novelty: by the name of the score, float64[recordings, windows], NaN as the logits; empty
        without a space to tell it in.
    """

    logits: NDArray[np.float32]
    shares: tuple[EvidenceShare, ...]
    ends_s: NDArray[np.float64]
    truth: NDArray[np.int64]
    embedding: NDArray[np.float32] | None = None
    descriptors: NDArray[np.float32] | None = None
    novelty: Mapping[NoveltyName, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def heard(self) -> NDArray[np.bool_]:
        """bool[recordings, windows]: the recording lasted until there."""
        there: NDArray[np.bool_] = np.isfinite(self.logits[:, :, 0])
        return there

    def of(self, chosen: NDArray[np.bool_]) -> Streams:
        """Return the streams of the recordings where `chosen` bool[recordings] is true."""
        return dataclasses.replace(
            self,
            logits=self.logits[chosen],
            truth=self.truth[chosen],
            embedding=None if self.embedding is None else self.embedding[chosen],
            descriptors=None if self.descriptors is None else self.descriptors[chosen],
            novelty={name: values[chosen] for name, values in self.novelty.items()},
        )

    def told_in(self, space: EmbeddingSpace) -> Streams:
        """Return the same streams with the novelty of every window, by every score."""
        if self.embedding is None:
            raise ValueError("streams without embeddings have no novelty")
        shape = self.logits.shape[:2]
        rows = self.heard.reshape(-1)
        embedding = self.embedding.reshape(len(rows), -1)[rows]
        logits = self.logits.reshape(len(rows), -1)[rows]
        told = {}
        for name in NOVELTIES:
            values = np.full(len(rows), np.nan)
            values[rows] = novelty.score(name, space, embedding, logits)
            told[name] = values.reshape(shape)
        return dataclasses.replace(self, novelty=told)


@dataclass(frozen=True, slots=True, eq=False)
class DecisionTrace:
    """How the decision layer's mind went, window by window.

    Attributes
    ----------
    best: int[recordings, windows], the likeliest label.
    belief: float[recordings, windows], its probability.
    named: int[recordings, windows], the announced label, -1 without one.
    posterior: float[recordings, windows, labels].
    strange: bool[recordings, windows], the odour counts as none of the labels.
    """

    best: NDArray[np.intp]
    belief: NDArray[np.float64]
    named: NDArray[np.intp]
    posterior: NDArray[np.float64]
    strange: NDArray[np.bool_]


def stream(bundle: Bundle, samples: Sequence[Sample]) -> Streams:
    """Stream the first five minutes of substances' recordings through a bundle."""
    spec = bundle.manifest.preprocessing
    first = spec.first_step + spec.min_steps
    step = round(LIVE_STRIDE_S * spec.rate_hz)
    ends = np.arange(first, max(first, round(LISTENED_S * spec.rate_hz)) + 1, step)
    manifest = bundle.manifest

    def nothing_yet(width: int) -> NDArray[np.float32]:
        return np.full((len(samples), len(ends), width), np.nan, np.float32)

    logits = nothing_yet(len(manifest.labels))
    embedding = nothing_yet(manifest.network.embedding)
    descriptors = nothing_yet(len(manifest.descriptors)) if manifest.descriptors else None
    for row, sample in enumerate(samples):
        features = FeatureStream(spec)
        reached = ends[ends <= len(sample.values)].tolist()
        for window, (start, end) in enumerate(itertools.pairwise([0, *reached])):
            features.extend(sample.values[start:end])
            x, mask = features.window()
            said = bundle.run(x[np.newaxis], mask[np.newaxis])
            logits[row, window] = said.logits[0]
            embedding[row, window] = said.embedding[0]
            if descriptors is not None:
                descriptors[row, window] = said.descriptors[0]
    filled = np.minimum(ends - spec.first_step, spec.window) / spec.window
    shares = tuple(
        EvidenceShare(
            0.0 if k == 0 else step / spec.rate_hz, part, part if k == 0 else step / spec.window
        )
        for k, part in enumerate(filled.tolist())
    )
    truth = np.array([int(sample.target.argmax()) for sample in samples])
    return Streams(logits, shares, ends / spec.rate_hz, truth, embedding, descriptors)


def joined(parts: Sequence[Streams]) -> Streams:
    """Put the streams of several folds together."""

    def stacked(name: str) -> NDArray[np.float32] | None:
        values = [getattr(part, name) for part in parts]
        there = [value for value in values if value is not None]
        return np.concatenate(there) if len(there) == len(values) else None

    return dataclasses.replace(
        parts[0],
        logits=np.concatenate([part.logits for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
        embedding=stacked("embedding"),
        descriptors=stacked("descriptors"),
        novelty={
            name: np.concatenate([part.novelty[name] for part in parts])
            for name in parts[0].novelty
        },
    )


def follow(streams: Streams, spec: DecisionSpec) -> DecisionTrace:
    """Let the decision layer listen to every recording."""
    posterior = posteriors(streams, spec)
    return announce(posterior, spec, *strangeness_of(streams, spec))


def posteriors(streams: Streams, spec: DecisionSpec) -> NDArray[np.float64]:
    """Return the beliefs float[recordings, windows, labels]; NaN once a recording has ended."""
    means, independent = fading_means(streams, spec)
    effective = spec.evidence_floor + spec.evidence_factor * independent
    return np.exp(log_softmax(means * effective[:, None]))


def fading_novelty(
    streams: Streams, name: NoveltyName, spec: DecisionSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the decision layer bounds by `unknown_above`, float[recordings, windows].

    And independent float[windows], which it bounds by `unknown_after`.
    """
    return faded(streams.novelty[name], streams.shares, spec)


def announce(
    posterior: NDArray[np.float64],
    spec: DecisionSpec,
    novel: NDArray[np.bool_] | None = None,
    ripe: NDArray[np.bool_] | None = None,
) -> DecisionTrace:
    """Apply the naming rule of `models.substance_decision` to all windows at once.

    A label is named after `confirm` windows in a row over `announce`, and stays until its belief
    falls under `withdraw` or another label is sure. What was named when a recording ended stays.
    Nothing new is named while the odour is novel, and what was named is taken back once that has
    lasted `unknown_confirm` windows.

    Parameters
    ----------
    posterior: float[recordings, windows, labels].
    spec: the constants.
    novel: bool[recordings, windows], the novelty is `unknown_above` or more; None: nowhere.
    ripe: bool[windows], there has been enough evidence to say so; None: everywhere.
    """
    best, belief = posterior.argmax(axis=2), posterior.max(axis=2)
    if novel is None:
        novel = np.zeros(best.shape, dtype=bool)
    rows = np.arange(len(posterior))
    named = np.full(len(posterior), _NOBODY, dtype=np.intp)
    candidate, run = named.copy(), np.zeros(len(posterior), dtype=np.intp)
    strange, strange_run = np.zeros(len(posterior), dtype=bool), run.copy()
    course, strangeness = np.empty_like(best), np.empty(best.shape, dtype=bool)
    for k in range(posterior.shape[1]):
        heard = np.isfinite(belief[:, k])
        turns = heard & ((novel[:, k] & (ripe is None or ripe[k])) != strange)
        strange_run = np.where(turns, strange_run + 1, np.where(heard, 0, strange_run))
        turned = heard & (strange_run >= spec.unknown_confirm)
        strange, strange_run = strange ^ turned, np.where(turned, 0, strange_run)
        lost = turned & strange
        named, candidate = np.where(lost, _NOBODY, named), np.where(lost, _NOBODY, candidate)
        run = np.where(lost, 0, run)
        sure = heard & (belief[:, k] >= spec.announce) & ~novel[:, k] & ~strange
        overtaken = sure & (best[:, k] != named)
        stays = (named >= 0) & (posterior[rows, k, named] >= spec.withdraw) & ~overtaken
        open_ = heard & ~stays
        run = np.where(open_, np.where(sure & (best[:, k] == candidate), run + 1, sure), run)
        candidate = np.where(open_, np.where(sure, best[:, k], _NOBODY), candidate)
        chosen = np.where(run >= spec.confirm, best[:, k], _NOBODY)
        named = np.where(open_, chosen, named)
        course[:, k], strangeness[:, k] = named, strange
    return DecisionTrace(best, belief, course, posterior, strangeness)


def streaming_tally(streams: Streams, course: DecisionTrace) -> Tally:
    """Score announcements and beliefs at every stage.

    Returns
    -------
    For each of 60, 120, 180 and 300 s: `announced_`, the share of recordings with a name;
    `precision_`, the share of those names that are right; `accuracy_`, the share of recordings
    whose likeliest label is right, announced or not; `gap_`, mean belief minus that share.
    Recordings that had ended take no part.
    """
    tally = {}
    heard = streams.heard
    for seconds in STAGES_S:
        stage = int(np.searchsorted(streams.ends_s, seconds, side="right")) - 1
        there = heard[:, stage] & (stage >= 0)
        named = there & (course.named[:, stage] >= 0)
        right = course.named[:, stage] == streams.truth
        likely = there & (course.best[:, stage] == streams.truth)
        belief = np.where(there, np.nan_to_num(course.belief[:, stage]), 0.0)
        counts = there.astype(float)
        tally[f"accuracy_{seconds:.0f}s"] = Ratio(likely.astype(float), counts)
        tally[f"announced_{seconds:.0f}s"] = Ratio(named.astype(float), counts)
        tally[f"precision_{seconds:.0f}s"] = Ratio(
            (named & right).astype(float), named.astype(float)
        )
        tally[f"gap_{seconds:.0f}s"] = Ratio(belief - likely, counts)
    return tally


def stage_of(streams: Streams, seconds: float) -> int:
    """Return the last window that ends at `seconds` or before; the first where none does."""
    return max(int(np.searchsorted(streams.ends_s, seconds, side="right")) - 1, 0)


def as_of(values: NDArray[np.float64], streams: Streams, seconds: float) -> NDArray[np.float64]:
    """Return values[recordings, windows] at `seconds`; of those that had ended, at their end."""
    last = np.maximum(streams.heard.sum(axis=1) - 1, 0)
    stage = np.minimum(stage_of(streams, seconds), last)
    chosen: NDArray[np.float64] = values[np.arange(len(values)), stage]
    return chosen


def decided_s(streams: Streams, course: DecisionTrace) -> NDArray[np.float64]:
    """Return the seconds float[recordings] until the first announcement, NaN without one."""
    named = (course.named >= 0) & streams.heard
    return np.where(named.any(axis=1), streams.ends_s[named.argmax(axis=1)], np.nan)


def median_decision(first_s: NDArray[np.float64]) -> tuple[float, Interval]:
    """Return the median time to the first announcement, of recordings announced, and its interval.

    Without any announcement, the time listened: nothing came sooner.
    """

    def median(rows: NDArray[np.int64]) -> float:
        there = first_s[rows][np.isfinite(first_s[rows])]
        return float(np.median(there)) if len(there) else np.nan

    if not np.isfinite(first_s).any():
        return LISTENED_S, (LISTENED_S, LISTENED_S)
    return median(np.arange(len(first_s))), interval_of(median, len(first_s))


def fading_means(
    streams: Streams, spec: DecisionSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Do what `models.substance_decision.FadingMean` does, for all recordings at once.

    Returns
    -------
    mean log-probabilities float[recordings, windows, labels], and independent float[windows].
    """
    log_p = log_softmax(streams.logits.astype(np.float64) / spec.temperature)
    return faded(log_p, streams.shares, spec)


def faded(
    values: NDArray[np.float64], shares: Sequence[EvidenceShare], spec: DecisionSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the fading means of values[recordings, windows, ...], and independent[windows].

    What `models.substance_decision.FadingMean` does, for all recordings at once.
    """
    means = np.empty_like(values)
    total = np.zeros_like(values[:, 0])
    weight = independent = 0.0
    counts = np.empty(len(shares))
    for k, share in enumerate(shares):
        fade = float(np.exp(-share.elapsed_s / spec.memory_s))
        worth = share.filled**spec.fullness
        total = total * fade + values[:, k] * worth
        weight = weight * fade + worth
        independent = independent * fade + share.fresh
        means[:, k] = total / weight
        counts[k] = independent
    return means, counts


def strangeness_of(
    streams: Streams, spec: DecisionSpec
) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """Return where the novelty is over its bound, and where that may be said."""
    if spec.novelty is None or spec.unknown_above is None or spec.novelty not in streams.novelty:
        return None, None
    means, independent = fading_novelty(streams, spec.novelty, spec)
    return means >= spec.unknown_above, independent >= spec.unknown_after
