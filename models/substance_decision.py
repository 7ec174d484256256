"""Models: which single substance is announced, from the outputs over overlapping windows.

May import numpy and models. Pure: no clock, no files; every constant comes from the bundle's
manifest or the rig's configuration (`DecisionSpec`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models import novelty
from models.decision_spec import DecisionSpec, LabelRule, State
from models.exposure import Phase
from models.softmax import log_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.bundle import Outputs
    from models.embedding_space import EmbeddingSpace
    from models.taught_head import TaughtHead

N_TOP = 5
"""Candidates in the `top` of every prediction."""


@dataclass(frozen=True, slots=True)
class EvidenceShare:
    """A window's part in the evidence.

    Attributes
    ----------
    elapsed_s: stream time since the previous window of this evidence (0 for the first).
    filled: feature rows in the window over those of a full one, 0..1.
    fresh: rows that were in no earlier window, over those of a full window.
    """

    elapsed_s: float
    filled: float
    fresh: float


class Component(NamedTuple):
    """One component of a mixture: its proportion of the whole and the belief in its presence.

    `low` and `high` bound the proportion with the manifest's `set_coverage`; None where the
    manifest has no `proportion_margin`.
    """

    label: str
    proportion: float
    presence: float
    low: float | None = None
    high: float | None = None


class ComponentGroup(NamedTuple):
    """Components that cannot be told apart, and the belief that at least one of them is present."""

    labels: tuple[str, ...]
    presence: float


class FadingMean:
    """An exponentially forgetting mean over windows, and the number of independent ones.

    The weight of a window is its filled share to the power of `fullness`; older ones fade with
    `memory_s`. `independent` sums the fresh shares of the windows, which fade in the same way.
    """

    __slots__ = ("_fullness", "_memory_s", "_sum", "_weight", "independent")

    def __init__(self, width: int, spec: DecisionSpec) -> None:
        self._memory_s = spec.memory_s
        self._fullness = spec.fullness
        self._sum: NDArray[np.float64] = np.zeros(width)
        self._weight = 0.0
        self.independent = 0.0

    def add(self, value: NDArray[np.float64], share: EvidenceShare) -> NDArray[np.float64]:
        """Add a window's value[width] and return the mean with it."""
        fade = math.exp(-share.elapsed_s / self._memory_s)
        weight = share.filled**self._fullness
        self._sum = self._sum * fade + value * weight
        self._weight = self._weight * fade + weight
        self.independent = self.independent * fade + share.fresh
        mean: NDArray[np.float64] = self._sum / self._weight
        return mean

    def clear(self) -> None:
        """Remove all windows."""
        self._sum = np.zeros_like(self._sum)
        self._weight = 0.0
        self.independent = 0.0


class SubstanceDecision:
    """Posterior over labels from windows that overlap, and the label announced, if any.

    The posterior is softmax(n * m): m is the fading mean of the windows' log-probabilities,
    n = evidence_floor + evidence_factor * (independent windows) their effective number. Repeated
    samples therefore add nothing, and fresh ones add the factor's share. It is the forward filter
    of a label that rarely changes, by exponential forgetting (Kulhavy & Zarrop 1993, International
    Journal of Control 58), with likelihoods tempered for overlapping windows. Floor, factor and
    memory make it calibrated from the first window on: over 50 held-out recordings, belief and
    hit rate differed by 0.03 on average over five stages of a recording, against 0.13 with the
    first window's own probabilities.

    While the fading mean of the windows' novelty is `unknown_above` or more, nothing new is
    announced; after `unknown_confirm` such predictions in a row, the odour counts as none of the
    labels and an announced label is withdrawn.

    Parameters
    ----------
    labels: in the order of the logits.
    spec: the manifest's constants.
    space: of the model's embeddings; without one there is no novelty, and no head.
    head: taught, hidden and renamed labels.
    descriptors: names, in the order of the model's output.

    Attributes
    ----------
    novelty: how little the odour resembles anything learned; None without a score.
    unrecognised: whether the evidence is for none of the labels.
    foreign: the board is unlike that of the training: of the model's labels, none is announced.
    nameless: a label would be announced, had it a meaning on this board.
    """

    components: tuple[Component, ...] = ()
    candidates: tuple[Component, ...] = ()
    groups: tuple[ComponentGroup, ...] = ()
    unexplained = False

    def __init__(
        self,
        labels: tuple[str, ...],
        spec: DecisionSpec,
        space: EmbeddingSpace | None = None,
        head: TaughtHead | None = None,
        descriptors: tuple[str, ...] = (),
    ) -> None:
        self._labels = labels if head is None else head.labels(labels)
        self._shipped = len(labels)
        self.foreign = False
        self._spec = spec
        self._space = space
        self._head = head
        self._descriptor_names = descriptors
        rules = [spec.labels.get(label, LabelRule()) for label in self._labels]
        self._announce_at = [spec.announce if r.announce is None else r.announce for r in rules]
        self._confirm_at = [spec.confirm if r.confirm is None else r.confirm for r in rules]
        self._mean = FadingMean(len(self._labels), spec)
        self._novelty_mean = FadingMean(1, spec)
        self._descriptor_mean = FadingMean(len(descriptors), spec)
        self._posterior: NDArray[np.float64] | None = None
        self._ranking: tuple[NDArray[np.float64], list[tuple[str, float]]] | None = None
        self.novelty: float | None = None
        self._fitting: NDArray[np.float64] | None = None
        self.withdraw()

    @property
    def named(self) -> tuple[str, float] | None:
        """The announced label with its probability now."""
        if self._named is None or self._posterior is None:
            return None
        return self._labels[self._named], float(self._posterior[self._named])

    @property
    def top(self) -> tuple[tuple[str, float], ...]:
        """Up to five (label, probability), the likeliest first; empty before any window."""
        return tuple(self._ranked(0.0)[:N_TOP])

    @property
    def label_set(self) -> tuple[str, ...]:
        """The labels that contain the truth in `set_coverage` of cases, the likeliest first.

        It has at least one label; empty before any window, and where no set was fitted.
        """
        threshold = self._spec.set_threshold
        if threshold is None:
            return ()
        ranked = self._ranked(0.0)[:1] + self._ranked(threshold)[1:]
        return tuple(label for label, _ in ranked)

    @property
    def short_list(self) -> tuple[str, ...]:
        """The likeliest labels while none is announced, the likeliest first.

        One of them is the truth in `list_coverage` of recordings. Empty while a label is announced,
        while the odour counts as none of them, before `list_after`, and without a `list_coverage`.
        """
        spec = self._spec
        enough = self._mean.independent >= spec.list_after
        if spec.list_coverage is None or not enough or self.unrecognised or self.named:
            return ()
        return tuple(label for label, _ in self._ranked(0.0)[: spec.list_size])

    @property
    def descriptors(self) -> tuple[tuple[str, float], ...]:
        """Up to five (descriptor, how well it fits, 0..1), the best first."""
        if self._fitting is None:
            return ()
        best = np.argsort(-self._fitting, kind="stable")[:N_TOP]
        return tuple((self._descriptor_names[index], float(self._fitting[index])) for index in best)

    def add(self, outputs: Outputs, share: EvidenceShare) -> NDArray[np.float64]:
        """Add the model's outputs of one window; return the posterior[labels] with it."""
        mean = self._mean.add(self._log_probabilities(outputs)[0], share)
        spec = self._spec
        effective = spec.evidence_floor + spec.evidence_factor * self._mean.independent
        self._posterior = np.exp(log_softmax((mean * effective).astype(np.float32)))
        self._update_novelty(outputs, share)
        if self._descriptor_names:
            fit = outputs.descriptors[0].astype(np.float64)
            self._fitting = self._descriptor_mean.add(fit, share)
        self._announce(self._posterior)
        return self._posterior

    def clear(self) -> None:
        """Discard all evidence: the next window is of another odour, or of none."""
        for mean in (self._mean, self._novelty_mean, self._descriptor_mean):
            mean.clear()
        self._posterior = self.novelty = self._fitting = None
        self.withdraw()

    def withdraw(self) -> None:
        """Withdraw the announced label, or `unrecognised`, but keep the evidence."""
        self._named: int | None = None
        self._candidate: int | None = None
        self._run = 0
        self.unrecognised = self.nameless = False
        self._turning_run = 0

    @property
    def belief(self) -> float:
        """Probability of the announced label, 0 without one."""
        return 0.0 if self.named is None else self.named[1]

    @property
    def announced(self) -> str | None:
        """The announced label."""
        return None if self._named is None else self._labels[self._named]

    def _ranked(self, least: float) -> list[tuple[str, float]]:
        """Return (label, probability) from `least` on, the likeliest first, without hidden ones."""
        if self._posterior is None:
            return []
        if self._ranking is None or self._ranking[0] is not self._posterior:
            order = np.argsort(-self._posterior, kind="stable")
            shares = zip(order.tolist(), self._posterior[order].tolist(), strict=True)
            pairs = [(self._labels[index], share) for index, share in shares if share > 0]
            self._ranking = self._posterior, pairs
        return [pair for pair in self._ranking[1] if pair[1] >= least]

    def _log_probabilities(self, outputs: Outputs) -> NDArray[np.float64]:
        spec = self._spec
        if self._head is None or self._space is None:
            return log_softmax(outputs.logits, spec.temperature)
        return self._head.log_probabilities(
            self._space, outputs.logits, outputs.embedding, spec.temperature, spec.head_temperature
        )

    def _update_novelty(self, outputs: Outputs, share: EvidenceShare) -> None:
        """Update the novelty, and `unrecognised` once it has lasted long enough."""
        spec = self._spec
        if self._space is None or spec.novelty is None:
            return
        taught = () if self._head is None else self._head.taught
        value = novelty.score(
            spec.novelty, self._space, outputs.embedding, outputs.logits, taught=taught
        )
        self.novelty = float(self._novelty_mean.add(value, share)[0])
        enough = self._novelty_mean.independent >= spec.unknown_after
        turns = (self._is_novel() and enough) != self.unrecognised
        self._turning_run = self._turning_run + 1 if turns else 0
        if self._turning_run >= spec.unknown_confirm:
            self.unrecognised = not self.unrecognised
            self._turning_run = 0
            if self.unrecognised:
                self._named = self._candidate = None
                self._run = 0

    def _is_novel(self) -> bool:
        above = self._spec.unknown_above
        return above is not None and self.novelty is not None and self.novelty >= above

    def _is_late(self, label: int) -> bool:
        """Whether the time has passed in which a label may be announced first."""
        limit = self._spec.name_within
        if limit is None or self._mean.independent <= limit:
            return False
        taught = () if self._head is None else self._head.taught
        return self._labels[label] not in {smell.label for smell in taught}

    def _announce(self, posterior: NDArray[np.float64]) -> None:
        best = int(posterior.argmax())
        sure = posterior[best] >= self._announce_at[best]
        sure = bool(sure and not self._is_novel() and not self.unrecognised)
        named = self._named
        if named is not None:
            overtaken = sure and best != named
            least = min(self._spec.withdraw, self._announce_at[named])
            if posterior[named] >= least and not overtaken and self._has_meaning(named):
                return
            self._named = None
        sure = sure and not self._is_late(best)
        self._run = self._run + 1 if sure and best == self._candidate else int(sure)
        self._candidate = best if sure else None
        confirmed = self._run >= self._confirm_at[best]
        self.nameless = confirmed and not self._has_meaning(best)
        if confirmed and not self.nameless:
            self._named = best

    def _has_meaning(self, label: int) -> bool:
        """Whether a label means something on this board: a taught one always does."""
        return not self.foreign or label >= self._shipped


def state_of(phase: Phase, *, named: bool = False, unrecognised: bool = False) -> State:
    """Return the published state of a model that the board can feed.

    Parameters
    ----------
    phase: of the exposure detector.
    named: a label, or components, are announced.
    unrecognised: the evidence is for none of the labels.
    """
    if phase not in (Phase.UNKNOWN, Phase.EXPOSED):
        return State(phase.value)
    if named:
        return State.RECOGNISED
    return State.UNRECOGNISED if unrecognised else State.SENSING
