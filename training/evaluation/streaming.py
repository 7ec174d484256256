"""training/: recordings streamed through a bundle and the decision layer, as the daemon does.

numpy only. The scores are those that a rig's owner sees: after so many seconds, how many
recordings have been given a name, and how many of the names are right. The decision is that
of `models.substance_decision`, computed for all recordings at once; a test holds the two equal.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from models import novelty
from models.novelty import NoveltyName
from models.preprocess import FeatureStream
from models.softmax import log_softmax
from models.substance_decision import EvidenceShare, FadingMean
from training.data.clean_air import notice_onset, onset_s
from training.evaluation.intervals import DRAWS, percentile_interval
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
STREAMED_S = 300.0
"""Seconds of each recording that are streamed: announcements are made earlier or never."""
EXPOSURE_S = 1800.0
"""Seconds of an exposure that are streamed from its onset: its name is to stay while the odour
does."""
STAGES_S = (60.0, 120.0, 180.0, 300.0)
"""When the announcements are judged, in seconds since the recording's start."""

NOVELTIES: tuple[NoveltyName, ...] = get_args(NoveltyName)
"""The scores of novelty that are compared."""

_NO_LABEL = -1
_NOVELTY = "stream_novelty_"


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """Window-by-window outputs of networks for recordings they were not trained on.

    Attributes
    ----------
    logits: float32[recordings, windows, labels], one window every 5 s; NaN once a recording
        has ended.
    shares: each window's share of the evidence, the same for every recording.
    ends_s: float[windows], seconds of the recording until the window's end.
    truth: int[recordings].
    embedding: float32[recordings, windows, D], NaN as the logits; None where they were not kept.
    novelty: by the name of the score, float64[recordings, windows], NaN as the logits; empty
        until `with_novelty`.
    delay_s: float[recordings], what to add to `ends_s` for the seconds since the smell's arrival,
        where the windows' rows begin where the nose notices it; None: they begin with the
        recording.
    """

    logits: NDArray[np.float32]
    shares: tuple[EvidenceShare, ...]
    ends_s: NDArray[np.float64]
    truth: NDArray[np.int64]
    embedding: NDArray[np.float32] | None = None
    novelty: Mapping[NoveltyName, NDArray[np.float64]] = field(default_factory=dict)
    delay_s: NDArray[np.float64] | None = None

    @property
    def active(self) -> NDArray[np.bool_]:
        """bool[recordings, windows]: the recording lasts until the window's end."""
        active: NDArray[np.bool_] = np.isfinite(self.logits[:, :, 0])
        return active

    def select(self, chosen: NDArray[np.bool_]) -> Streams:
        """Return the streams of the recordings where `chosen` bool[recordings] is true."""
        return dataclasses.replace(
            self,
            logits=self.logits[chosen],
            truth=self.truth[chosen],
            embedding=None if self.embedding is None else self.embedding[chosen],
            novelty={name: values[chosen] for name, values in self.novelty.items()},
            delay_s=None if self.delay_s is None else self.delay_s[chosen],
        )

    def with_novelty(self, space: EmbeddingSpace) -> Streams:
        """Return the same streams with the novelty of every window, by every score."""
        if self.embedding is None:
            raise ValueError("streams without embeddings have no novelty")
        active = self.active
        found = {}
        for name in NOVELTIES:
            found[name] = np.full(active.shape, np.nan)
            found[name][active] = novelty.score(
                name, space, self.embedding[active], self.logits[active]
            )
        return dataclasses.replace(self, novelty=found)

    def window_at(self, seconds: float) -> int:
        """Return the last window that ends at `seconds` or before; the first where none does."""
        return max(int(np.searchsorted(self.ends_s, seconds, side="right")) - 1, 0)

    def values_at(self, values: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
        """Return values[recordings, windows] at `seconds`; for a shorter recording, at its end."""
        last = np.maximum(self.active.sum(axis=1) - 1, 0)
        chosen: NDArray[np.float64] = values[
            np.arange(len(values)), np.minimum(self.window_at(seconds), last)
        ]
        return chosen

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, but for the truth."""
        return {
            "stream_logits": self.logits,
            "stream_shares": np.array([(x.elapsed_s, x.filled, x.fresh) for x in self.shares]),
            "stream_ends_s": self.ends_s,
            **({} if self.embedding is None else {"stream_embedding": self.embedding}),
            **({} if self.delay_s is None else {"stream_delay_s": self.delay_s}),
            **{_NOVELTY + name: values for name, values in self.novelty.items()},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], truth: NDArray[np.int64]) -> Streams:
        """Return the streams that `to_arrays` gave; other arrays are ignored."""
        return cls(
            arrays["stream_logits"],
            tuple(EvidenceShare(*row) for row in arrays["stream_shares"].tolist()),
            arrays["stream_ends_s"],
            truth,
            arrays.get("stream_embedding"),
            {name: arrays[_NOVELTY + name] for name in NOVELTIES if _NOVELTY + name in arrays},
            arrays.get("stream_delay_s"),
        )


@dataclass(frozen=True, slots=True, eq=False)
class DecisionTrace:
    """The state of the decision layer after every window; arrays [recordings, windows].

    Attributes
    ----------
    best, belief: the likeliest label and its probability.
    named: the announced label, -1 without one.
    posterior: float[recordings, windows, labels].
    unrecognised: the odour counts as none of the labels.
    """

    best: NDArray[np.intp]
    belief: NDArray[np.float64]
    named: NDArray[np.intp]
    posterior: NDArray[np.float64]
    unrecognised: NDArray[np.bool_]


def stream_recordings(
    bundle: Bundle, samples: Sequence[Sample], *, from_onset: bool = False
) -> Streams:
    """Stream substances' recordings through a bundle, each as one exposure.

    The first five minutes of each; or, with `from_onset`, the first half hour from where the nose
    notices the smell, which it must.
    """
    manifest = bundle.manifest
    spec = manifest.preprocessing
    step = round(LIVE_STRIDE_S * spec.rate_hz)
    first = spec.first_step + spec.min_steps
    longest = EXPOSURE_S if from_onset else STREAMED_S
    ends = np.arange(first, max(first, round(longest * spec.rate_hz)) + 1, step)
    logits, embedding = (
        np.full((len(samples), len(ends), width), np.nan, np.float32)
        for width in (len(manifest.labels), manifest.network.embedding)
    )
    delay_s = np.zeros(len(samples))
    for row, sample in enumerate(samples):
        onset = notice_onset(sample) if from_onset else None
        skipped = max((onset or 0) - spec.first_step, 0)
        delay_s[row] = skipped / spec.rate_hz - (onset_s(sample) or 0.0)
        features = FeatureStream(spec)
        for window, end in enumerate((ends[ends + skipped <= len(sample.values)]).tolist()):
            features.extend(sample.values[features.samples : end + skipped])
            x, mask = features.window(min(end - spec.first_step, spec.window))
            output = bundle.run(x[np.newaxis], mask[np.newaxis])
            logits[row, window] = output.logits[0]
            embedding[row, window] = output.embedding[0]
    filled = (np.minimum(ends - spec.first_step, spec.window) / spec.window).tolist()
    shares = (
        EvidenceShare(0.0, filled[0], filled[0]),
        *(EvidenceShare(step / spec.rate_hz, part, step / spec.window) for part in filled[1:]),
    )
    truth = np.array([int(sample.target.argmax()) for sample in samples])
    return Streams(
        logits,
        shares,
        ends / spec.rate_hz,
        truth,
        embedding,
        delay_s=delay_s if from_onset else None,
    )


def concatenate_streams(parts: Sequence[Streams]) -> Streams:
    """Put the streams of several folds together."""
    embeddings = [part.embedding for part in parts if part.embedding is not None]
    delays = [part.delay_s for part in parts if part.delay_s is not None]
    return dataclasses.replace(
        parts[0],
        logits=np.concatenate([part.logits for part in parts]),
        truth=np.concatenate([part.truth for part in parts]),
        embedding=np.concatenate(embeddings) if len(embeddings) == len(parts) else None,
        novelty={
            name: np.concatenate([part.novelty[name] for part in parts])
            for name in parts[0].novelty
        },
        delay_s=np.concatenate(delays) if len(delays) == len(parts) else None,
    )


def of_truth(values: NDArray[Any], truth: NDArray[np.int64]) -> NDArray[Any]:
    """Return the values[recordings, windows, labels] of each recording's true label."""
    return np.take_along_axis(values, truth[:, None, None], axis=2)[:, :, 0]


def trace_decisions(streams: Streams, spec: DecisionSpec) -> DecisionTrace:
    """Run the decision layer over every recording."""
    masks = *novelty_masks(streams, spec), late_windows(streams, spec)
    return trace_announcements(posteriors(streams, spec), spec, *masks)


def trace_folds(
    streams: Streams, fold: NDArray[np.int64], specs: Mapping[int, DecisionSpec]
) -> DecisionTrace:
    """Run the decision layer over every recording with the constants of its fold[recordings]."""
    parts = [trace_decisions(streams.select(fold == k), spec) for k, spec in specs.items()]
    place = np.argsort(np.concatenate([np.flatnonzero(fold == k) for k in specs]))
    names = [item.name for item in dataclasses.fields(DecisionTrace)]
    joined = ([getattr(part, name) for part in parts] for name in names)
    return DecisionTrace(*(np.concatenate(arrays)[place] for arrays in joined))


def posteriors(streams: Streams, spec: DecisionSpec) -> NDArray[np.float64]:
    """Return the beliefs float[recordings, windows, labels]; NaN once a recording has ended."""
    means, independent = evidence_means(streams, spec)
    effective = spec.evidence_floor + spec.evidence_factor * independent
    return np.exp(log_softmax(means * effective[:, None]))


def novelty_masks(
    streams: Streams, spec: DecisionSpec
) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]:
    """Return where the novelty is over its bound, and where there is evidence enough to say so."""
    if spec.novelty is None or spec.unknown_above is None or spec.novelty not in streams.novelty:
        return None, None
    means, independent = novelty_means(streams, spec.novelty, spec)
    return means >= spec.unknown_above, independent >= spec.unknown_after


def late_windows(streams: Streams, spec: DecisionSpec) -> NDArray[np.bool_] | None:
    """Return where no label may be announced first any more, bool[windows]; None for nowhere."""
    if spec.name_within is None:
        return None
    _, independent = evidence_means(streams, spec)
    return independent > spec.name_within


def trace_announcements(
    posterior: NDArray[np.float64],
    spec: DecisionSpec,
    novel: NDArray[np.bool_] | None = None,
    enough: NDArray[np.bool_] | None = None,
    late: NDArray[np.bool_] | None = None,
) -> DecisionTrace:
    """Apply the naming rule of `models.substance_decision` to all recordings at once.

    A label is named after `confirm` windows in a row over `announce`, and stays until its belief
    falls under `withdraw` or another label is sure. The name at a recording's end stays.
    No new name is given while the odour is novel, and a given name is withdrawn once that has
    lasted `unknown_confirm` windows.

    Parameters
    ----------
    posterior: float[recordings, windows, labels].
    novel: bool[recordings, windows], the novelty is `unknown_above` or more; None: nowhere.
    enough: bool[windows], the evidence suffices to call an odour unrecognised; None: everywhere.
    late: bool[windows], no label may be announced first any more; None: nowhere.
    """
    best, belief = posterior.argmax(axis=2), posterior.max(axis=2)
    if novel is None:
        novel = np.zeros(best.shape, dtype=bool)
    rows = np.arange(len(posterior))
    named = np.full(len(posterior), _NO_LABEL, dtype=np.intp)
    candidate, run = named.copy(), np.zeros(len(posterior), dtype=np.intp)
    unrecognised, novel_run = np.zeros(len(posterior), dtype=bool), run.copy()
    all_named, all_unrecognised = np.empty_like(best), np.empty(best.shape, dtype=bool)
    for k in range(posterior.shape[1]):
        active = np.isfinite(belief[:, k])
        differs = active & ((novel[:, k] & (enough is None or enough[k])) != unrecognised)
        novel_run = np.where(differs, novel_run + 1, np.where(active, 0, novel_run))
        turned = active & (novel_run >= spec.unknown_confirm)
        unrecognised, novel_run = unrecognised ^ turned, np.where(turned, 0, novel_run)
        lost = turned & unrecognised
        named, candidate = np.where(lost, _NO_LABEL, named), np.where(lost, _NO_LABEL, candidate)
        run = np.where(lost, 0, run)
        sure = active & (belief[:, k] >= spec.announce) & ~novel[:, k] & ~unrecognised
        overtaken = sure & (best[:, k] != named)
        stays = (named >= 0) & (posterior[rows, k, named] >= spec.withdraw) & ~overtaken
        open_ = active & ~stays
        sure &= late is None or not late[k]
        run = np.where(open_, np.where(sure & (best[:, k] == candidate), run + 1, sure), run)
        candidate = np.where(open_, np.where(sure, best[:, k], _NO_LABEL), candidate)
        confirmed = np.where(run >= spec.confirm, best[:, k], _NO_LABEL)
        named = np.where(open_, confirmed, named)
        all_named[:, k], all_unrecognised[:, k] = named, unrecognised
    return DecisionTrace(best, belief, all_named, posterior, all_unrecognised)


def streaming_tally(streams: Streams, trace: DecisionTrace) -> Tally:
    """Score announcements and beliefs at every stage.

    Returns
    -------
    For each of 60, 120, 180 and 300 s: `announced_`, the share of recordings with a name;
    `precision_`, the share of those names that are right; `accuracy_`, the share of recordings
    whose likeliest label is right, announced or not; `gap_`, mean belief minus that share.
    Recordings that have ended before a stage are not counted there.
    """
    tally = {}
    for seconds in STAGES_S:
        stage = int(np.searchsorted(streams.ends_s, seconds, side="right")) - 1
        counted = streams.active[:, stage] & (stage >= 0)
        named = counted & (trace.named[:, stage] >= 0)
        right = named & (trace.named[:, stage] == streams.truth)
        likely = counted & (trace.best[:, stage] == streams.truth)
        belief = np.where(counted, np.nan_to_num(trace.belief[:, stage]), 0.0)
        for name, gained, possible in (
            ("accuracy", likely, counted),
            ("announced", named, counted),
            ("precision", right, named),
            ("gap", belief - likely, counted),
        ):
            tally[f"{name}_{seconds:.0f}s"] = Ratio(gained.astype(float), possible.astype(float))
    return tally


def first_announcement_s(streams: Streams, trace: DecisionTrace) -> NDArray[np.float64]:
    """Return the seconds float[recordings] until the first announcement, NaN without one."""
    named = (trace.named >= 0) & streams.active
    return np.where(named.any(axis=1), streams.ends_s[named.argmax(axis=1)], np.nan)


def median_announcement_s(first_s: NDArray[np.float64]) -> tuple[float, Interval]:
    """Return the median of `first_announcement_s` over announced recordings, and its interval.

    Without any announcement, the streamed time: none was made within it.
    """
    if not np.isfinite(first_s).any():
        return STREAMED_S, (STREAMED_S, STREAMED_S)
    rows = np.random.default_rng(0).integers(0, len(first_s), size=(DRAWS, len(first_s)))
    some = np.isfinite(first_s[rows]).any(axis=1)
    medians = np.nanmedian(first_s[rows[some]], axis=1)
    return float(np.nanmedian(first_s)), percentile_interval(medians)


def evidence_means(
    streams: Streams, spec: DecisionSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the fading mean log-probabilities, and the independent[windows] of `fading_means`."""
    log_p = log_softmax(streams.logits, spec.temperature)
    return fading_means(log_p, streams.shares, spec)


def novelty_means(
    streams: Streams, name: NoveltyName, spec: DecisionSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the numbers that the decision layer bounds by `unknown_above` and `unknown_after`.

    The fading mean novelty float[recordings, windows], and independent float[windows].
    """
    return fading_means(streams.novelty[name], streams.shares, spec)


def fading_means(
    values: NDArray[np.float64], shares: Sequence[EvidenceShare], spec: DecisionSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the fading means of values[recordings, windows, ...], and independent[windows]."""
    mean = FadingMean(1, spec)  # of width 1, which broadcasts over any number of recordings
    means, independent = np.empty_like(values), np.empty(len(shares))
    for k, share in enumerate(shares):
        means[:, k] = mean.add(values[:, k], share)
        independent[k] = mean.independent
    return means, independent
