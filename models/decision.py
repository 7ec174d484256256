"""Models: from the network's outputs over overlapping windows to one honest state.

May import numpy and models.exposure's phases. Pure: no clock, no files, no network; every
constant comes from the bundle's manifest (`DecisionSpec`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.exposure import Phase

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_TOP = 5
"""Candidates listed in every prediction, as the `top` of the payload says."""

FULLNESS = 4
"""A window weighs by this power of how full it is. While a window fills, it holds every row of
the windows before it, which so have little to add: over 250 held-out recordings the likeliest
label was right 1.5 points more often between 60 and 180 s than with a power of 1 (the mean of
seven moments; none was worse), and as often later. Powers from 3 to 10 differ by less."""


class State(StrEnum):
    """What a model says of the air, as published.

    `UNRECOGNISED` is reserved for models that can tell an odour they never learned.
    """

    WARMING_UP = "warming_up"
    AMBIENT = "ambient"
    SENSING = "sensing"
    RECOGNISED = "recognised"
    UNRECOGNISED = "unrecognised"
    RECOVERING = "recovering"
    FAULT = "fault"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class DecisionSpec:
    """The decision layer's constants; part of a bundle's manifest.

    Attributes
    ----------
    temperature: logits are divided by it before the softmax (calibrated on held-out folds).
    evidence_floor: what the very first rows are worth as evidence, in windows. A few rows
        of a lag difference say less than the network, trained on full windows, believes.
    evidence_factor: what every further window's worth of fresh rows adds. Below 1, because
        windows of one exposure resemble each other.
    memory_s: evidence fades by 1/e in this time, so a change without an onset is followed.
    announce: probability from which on a label is announced.
    withdraw: probability below which an announced label is withdrawn; at most `announce`.
    confirm: predictions in a row over `announce` before a label is announced.
    overrule: belief from which on an odour is announced although the air seems clean, where
        nothing has proved it clean: a steady odour older than the start is quiet too.
    presence_thresholds: per label, the presence from which on a component counts as present
        (mixtures only, else empty).
    presence_release: share of its threshold below which a present component is dropped.
    min_proportion: a smaller part of a mixture is not named: none that was trained on is.
        A mixture is announced when its named parts make up `announce` of it, and withdrawn
        when they make up less than `withdraw`; proportions spread over everything name nothing.
    """

    temperature: float = 1.0
    evidence_floor: float = 0.3
    evidence_factor: float = 0.6
    memory_s: float = 180.0
    announce: float = 0.5
    withdraw: float = 0.3
    confirm: int = 2
    overrule: float = 0.75
    presence_thresholds: tuple[float, ...] = ()
    presence_release: float = 0.8
    min_proportion: float = 0.1

    def problems(self) -> list[str]:
        """Return everything that is wrong with these constants, one sentence each."""
        found = []
        if not self.temperature > 0 or not self.memory_s > 0:
            found.append("temperature and memory_s must be positive")
        if not 0 <= self.evidence_factor <= 1 or not 0 < self.evidence_floor <= 1:
            found.append(
                "evidence_floor and evidence_factor must lie in 0..1, the floor above 0, "
                f"got {self.evidence_floor} and {self.evidence_factor}"
            )
        if not 0 < self.withdraw <= self.announce < 1:
            found.append(
                "0 < withdraw <= announce < 1 must hold, "
                f"got withdraw {self.withdraw} and announce {self.announce}"
            )
        if not 0 < self.overrule <= 1:
            found.append(f"overrule must lie in 0..1, got {self.overrule}")
        if self.confirm < 1:
            found.append(f"confirm must be at least 1, got {self.confirm}")
        if not all(0 < value < 1 for value in self.presence_thresholds):
            found.append("every presence threshold must lie between 0 and 1")
        if not 0 <= self.min_proportion < 1:
            found.append(f"min_proportion must lie in 0..1, got {self.min_proportion}")
        if not 0 < self.presence_release <= 1:
            found.append(f"presence_release must lie in 0..1, got {self.presence_release}")
        return found


@dataclass(frozen=True, slots=True)
class Share:
    """A window's part in the evidence.

    Attributes
    ----------
    elapsed_s: stream time since the previous window of this evidence (0 for the first).
    filled: feature rows in the window over those of a full one, 0..1.
    fresh: rows that no earlier window had, over those of a full window.
    """

    elapsed_s: float
    filled: float
    fresh: float

    @property
    def weight(self) -> float:
        """The window's weight in a mean over windows."""
        return float(self.filled**FULLNESS)


class Component(NamedTuple):
    """One component of a mixture: its proportion of the whole and the belief in its presence."""

    label: str
    proportion: float
    presence: float


def log_probabilities(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return the log-softmax of logits[labels] / temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max()
    result: NDArray[np.float64] = scaled - math.log(np.exp(scaled).sum())
    return result


class FadingMean:
    """A mean over windows that forgets, and how many independent windows it is worth.

    Windows weigh by how full they are (`Share.weight`); older ones fade with `memory_s`.
    `independent` counts what each window added that no earlier one had, fading alike.
    """

    __slots__ = ("_memory_s", "_sum", "_weight", "independent")

    def __init__(self, width: int, memory_s: float) -> None:
        self._memory_s = memory_s
        self._sum: NDArray[np.float64] = np.zeros(width)
        self._weight = 0.0
        self.independent = 0.0

    def add(self, value: NDArray[np.float64], share: Share) -> NDArray[np.float64]:
        """Add a window's value[width] and return the mean with it."""
        fade = math.exp(-share.elapsed_s / self._memory_s)
        self._sum = self._sum * fade + value * share.weight
        self._weight = self._weight * fade + share.weight
        self.independent = self.independent * fade + share.fresh
        mean: NDArray[np.float64] = self._sum / self._weight
        return mean

    def clear(self) -> None:
        """Forget every window."""
        self._sum = np.zeros_like(self._sum)
        self._weight = 0.0
        self.independent = 0.0


class SubstanceDecision:
    """Posterior over labels from windows that overlap, and the label announced, if any.

    The posterior is softmax(n * m): m is the fading mean of the windows' log-probabilities,
    n = evidence_floor + evidence_factor * (independent windows) their effective number. So a
    repetition of the same samples adds nothing, and fresh ones add what the factor grants.
    Floor, factor and memory make it calibrated from the first window on: over 50 held-out
    recordings belief and hit rate differed by 0.03 on average of five stages of a
    recording, against 0.13 for a first window taken at its word.

    Parameters
    ----------
    labels: in the order of the logits.
    spec: the manifest's constants.
    """

    def __init__(self, labels: tuple[str, ...], spec: DecisionSpec) -> None:
        self._labels = labels
        self._spec = spec
        self._mean = FadingMean(len(labels), spec.memory_s)
        self._posterior: NDArray[np.float64] | None = None
        self._named: int | None = None
        self._candidate: int | None = None
        self._run = 0

    @property
    def named(self) -> tuple[str, float] | None:
        """The announced label with its probability now."""
        if self._named is None or self._posterior is None:
            return None
        return self._labels[self._named], float(self._posterior[self._named])

    @property
    def top(self) -> tuple[tuple[str, float], ...]:
        """Up to five (label, probability), the likeliest first; empty before any window."""
        if self._posterior is None:
            return ()
        best = np.argsort(-self._posterior, kind="stable")[:N_TOP]
        return tuple((self._labels[index], float(self._posterior[index])) for index in best)

    def add(self, logits: NDArray[np.float32], share: Share) -> NDArray[np.float64]:
        """Take one window's logits[labels]; return the posterior[labels] with it."""
        mean = self._mean.add(log_probabilities(logits, self._spec.temperature), share)
        spec = self._spec
        effective = spec.evidence_floor + spec.evidence_factor * self._mean.independent
        self._posterior = np.exp(log_probabilities((mean * effective).astype(np.float32), 1.0))
        self._announce(self._posterior)
        return self._posterior

    def clear(self) -> None:
        """Forget all evidence: what comes next is another odour, or none."""
        self._mean.clear()
        self._posterior = None
        self.withdraw()

    def withdraw(self) -> None:
        """Take back the announced label without forgetting the evidence."""
        self._named = self._candidate = None
        self._run = 0

    @property
    def belief(self) -> float:
        """Probability of the announced label, 0 without one."""
        return 0.0 if self.named is None else self.named[1]

    @property
    def components(self) -> tuple[Component, ...]:
        """None: a substance model knows no mixtures."""
        return ()

    @property
    def announced(self) -> str | None:
        """The announced label."""
        return None if self._named is None else self._labels[self._named]

    def _announce(self, posterior: NDArray[np.float64]) -> None:
        best = int(posterior.argmax())
        sure = posterior[best] >= self._spec.announce
        named = self._named
        if named is not None:
            overtaken = sure and best != named
            if posterior[named] >= self._spec.withdraw and not overtaken:
                return
            self._named = None
        self._run = self._run + 1 if sure and best == self._candidate else int(sure)
        self._candidate = best if sure else None
        if self._run >= self._spec.confirm:
            self._named = best


class MixtureDecision:
    """Smoothed proportions and presences, and which components count as present.

    Parameters
    ----------
    labels: in the order of the outputs.
    spec: the manifest's constants, with one presence threshold per label.
    """

    def __init__(self, labels: tuple[str, ...], spec: DecisionSpec) -> None:
        self._labels = labels
        self._spec = spec
        self._mean = FadingMean(2 * len(labels), spec.memory_s)
        self._thresholds = np.array(spec.presence_thresholds)
        self._present = np.zeros(len(labels), dtype=bool)
        self._proportions: NDArray[np.float64] = np.zeros(len(labels))
        self._presences: NDArray[np.float64] = np.zeros(len(labels))
        self._windows = 0

    @property
    def components(self) -> tuple[Component, ...]:
        """The components present, the largest first."""
        return self._listed(np.flatnonzero(self._present))

    @property
    def top(self) -> tuple[tuple[str, float], ...]:
        """Up to five (label, proportion), the largest first; empty before any window."""
        if not self._windows:
            return ()
        best = self._listed(np.arange(len(self._labels)))[:N_TOP]
        return tuple((component.label, component.proportion) for component in best)

    def add(
        self, proportions: NDArray[np.float32], presence: NDArray[np.float32], share: Share
    ) -> None:
        """Take one window's proportions[labels] (sum 1) and presence[labels] (0..1)."""
        both = np.concatenate([proportions, presence]).astype(np.float64)
        mean = self._mean.add(both, share)
        self._proportions, self._presences = np.split(mean, 2)
        keep = self._present & (self._presences >= self._thresholds * self._spec.presence_release)
        present = keep | (self._presences >= self._thresholds)
        present &= self._proportions >= self._spec.min_proportion
        needed = self._spec.withdraw if self._present.any() else self._spec.announce
        whole = float(self._proportions[present].sum()) >= needed
        self._present = present if whole else np.zeros_like(present)
        self._windows += 1

    def clear(self) -> None:
        """Forget all evidence."""
        self._mean.clear()
        self._windows = 0
        self.withdraw()

    def withdraw(self) -> None:
        """Take back the components without forgetting the evidence."""
        self._present[:] = False

    @property
    def belief(self) -> float:
        """Presence of the surest component announced, 0 without one."""
        return max((component.presence for component in self.components), default=0.0)

    @property
    def named(self) -> tuple[str, float] | None:
        """None: a mixture has components, not one label."""
        return None

    @property
    def announced(self) -> str | None:
        """The components' labels in one string, None without any."""
        return " + ".join(sorted(component.label for component in self.components)) or None

    def _listed(self, indices: NDArray[np.intp]) -> tuple[Component, ...]:
        found = [
            Component(
                self._labels[index], float(self._proportions[index]), float(self._presences[index])
            )
            for index in indices
        ]
        return tuple(sorted(found, key=lambda component: -component.proportion))


def state_of(phase: Phase, *, named: bool, fault: bool) -> State:
    """Return the published state of a model.

    Parameters
    ----------
    phase: what the exposure detector says of the air.
    named: the decision layer announces a label, or components.
    fault: the board cannot feed the model now.
    """
    if fault:
        return State.FAULT
    if phase in (Phase.UNKNOWN, Phase.EXPOSED):
        return State.RECOGNISED if named else State.SENSING
    return {
        Phase.WARMING_UP: State.WARMING_UP,
        Phase.AMBIENT: State.AMBIENT,
        Phase.RECOVERING: State.RECOVERING,
    }[phase]
