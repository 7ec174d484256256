"""Models: the published states, and the constants of the decision layer.

May import models.novelty and models.taught_head. Pure.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass, field
from enum import StrEnum

from models.novelty import NoveltyName  # noqa: TC001 - read by get_type_hints
from models.taught_head import EXPOSURE_VARIANCE


class State(StrEnum):
    """State of a model, as published.

    Only models with a novelty score give `UNRECOGNISED`.
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
class LabelRule:
    """Constants of one label in place of those of all labels; None: the same.

    Attributes
    ----------
    announce: smallest probability with which it is announced.
    confirm: predictions in a row over `announce` before it is announced.
    """

    announce: float | None = None
    confirm: int | None = None

    def problems(self) -> list[str]:
        """Return everything that is wrong with this rule, one sentence each."""
        found = []
        if self.announce is not None and not 0 < self.announce < 1:
            found.append(f"announce must lie between 0 and 1, got {self.announce}")
        if self.confirm is not None and self.confirm < 1:
            found.append(f"confirm must be at least 1, got {self.confirm}")
        return found


@dataclass(frozen=True, slots=True)
class DecisionSpec:
    """The decision layer's constants; part of a bundle's manifest.

    Attributes
    ----------
    temperature: logits are divided by it before the softmax (calibrated on held-out folds).
    evidence_floor: evidence of the first rows, in windows. The network was trained on full
        windows and is too certain about a few rows.
    evidence_factor: evidence of each further window's worth of fresh rows. Below 1, because
        windows of one exposure resemble each other.
    memory_s: evidence fades by 1/e in this time, so a change without an onset is followed.
    announce: smallest probability with which a label is announced.
    withdraw: probability below which an announced label is withdrawn; at most `announce`.
    confirm: predictions in a row over `announce` before a label is announced.
    name_within: independent windows within which a label must be announced first; later the short
        list stands. Every further look is a further chance to be wrong: in sessions that a model
        was not trained on most names came later and were wrong. Taught smells are named at any
        time. None: no limit.
    overrule: not used any more; bundles of earlier versions have it.
    presence_thresholds: per label, the smallest presence of a component that counts as present
        (mixtures only, else empty).
    presence_release: share of its threshold below which a present component is dropped.
    groups: components that are announced as a group only, "at least one of them is there": which
        one it is was right no more often than by chance on another day (mixtures only). Where there
        are groups, no component is announced by itself.
    group_presence: smallest presence of a group that counts as present.
    min_proportion: a smaller part of a mixture is not named; the training data has none.
        A mixture is announced when its named parts make up `announce` of it, and withdrawn
        when they make up less than `withdraw`.
    fullness: the weight of a window is its filled share to this power. While a window fills, it
        contains every row of the windows before it, which therefore add little: over 250 held-out
        recordings the likeliest label was right 1.5 points more often between 60 and 180 s than
        with a power of 1 (the mean of seven moments; none was worse), and as often later. Powers
        from 3 to 10 differ by less.
    error_rate: stated upper bound of the share of wrong announcements; None where unstated.
        The posterior is that of a sequential test between all labels, which stops as soon as one
        reaches `announce`: with a calibrated posterior at most 1 - announce of the announcements
        are wrong, however long each test took (Wald 1945, Annals of Mathematical Statistics 16,
        for two hypotheses; Baum & Veeravalli 1994, IEEE Transactions on Information Theory 40,
        for many). A stated rate therefore needs announce = 1 - error_rate (`at_error_rate`); the
        trainer states a rate that held-out recordings confirm.
    novelty: name of the score in `models.novelty`; None: none.
    unknown_above: novelty, averaged over windows like the evidence, from which the evidence is
        for none of the labels; nothing is announced then. None switches it off.
    unknown_after: independent windows before the state may become `unrecognised`.
    unknown_confirm: predictions in a row above `unknown_above` before the state becomes
        `unrecognised`, and below it before it ends.
    set_coverage: share of cases in which the prediction set, or a component's interval, is to
        contain the truth.
    set_threshold: smallest posterior of a label in the prediction set: the conformal quantile of
        held-out recordings (Sadinle, Lei & Wasserman 2019, JASA 114). None: no sets.
    list_size: labels in the short list, the likeliest ones, which is given while one name is not
        certain.
    list_coverage: share of recordings of another session whose short list holds the truth; None:
        it was never measured, and no list is given.
    list_after: independent windows before a short list is given.
    proportion_margin: half the width of a component's interval: the conformal quantile of
        |proportion - truth| on held-out recordings (Lei et al. 2018, JASA 113). None: no intervals.
    head_temperature: squared distances to taught smells are divided by twice this.
    exposure_variance: between exposures of one taught smell, in units of that within a class.
    labels: by label, constants in place of `announce` and `confirm`.
    """

    temperature: float = 1.0
    evidence_floor: float = 0.3
    evidence_factor: float = 0.6
    memory_s: float = 180.0
    announce: float = 0.5
    withdraw: float = 0.3
    confirm: int = 2
    name_within: float | None = None
    overrule: float = 0.75
    presence_thresholds: tuple[float, ...] = ()
    presence_release: float = 0.8
    groups: tuple[tuple[str, ...], ...] = ()
    group_presence: float = 0.5
    min_proportion: float = 0.1
    fullness: float = 4.0
    error_rate: float | None = None
    novelty: NoveltyName | None = None
    unknown_above: float | None = None
    unknown_after: float = 1.0
    unknown_confirm: int = 3
    set_coverage: float = 0.9
    set_threshold: float | None = None
    list_size: int = 3
    list_coverage: float | None = None
    list_after: float = 1.0
    proportion_margin: float | None = None
    head_temperature: float = 1.0
    exposure_variance: float = EXPOSURE_VARIANCE
    labels: Mapping[str, LabelRule] = field(default_factory=dict)

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
        if not 0 < self.group_presence < 1 or not all(self.groups):
            found.append("group_presence must lie between 0 and 1, and no group may be empty")
        if not 0 <= self.min_proportion < 1:
            found.append(f"min_proportion must lie in 0..1, got {self.min_proportion}")
        if not 0 < self.presence_release <= 1:
            found.append(f"presence_release must lie in 0..1, got {self.presence_release}")
        return found + self._trust_problems()

    def _trust_problems(self) -> list[str]:
        """Return what is wrong with the constants of novelty, sets and taught smells."""
        found = []
        shares = {
            name: getattr(self, name)
            for name in (
                "error_rate",
                "set_coverage",
                "set_threshold",
                "list_coverage",
                "proportion_margin",
            )
        }
        found += [
            f"{name} must lie between 0 and 1, got {value}"
            for name, value in shares.items()
            if value is not None and not 0 < value < 1
        ]
        if self.exposure_variance < 0:
            found.append(f"exposure_variance must not be negative, got {self.exposure_variance}")
        if self.fullness < 0 or not self.head_temperature > 0:
            found.append(
                "fullness must not be negative and head_temperature be positive, "
                f"got {self.fullness} and {self.head_temperature}"
            )
        if self.unknown_after < 0 or self.unknown_confirm < 1:
            found.append(
                "unknown_after must not be negative and unknown_confirm be at least 1, "
                f"got {self.unknown_after} and {self.unknown_confirm}"
            )
        within = math.inf if self.name_within is None else self.name_within
        if self.list_size < 1 or self.list_after < 0 or not within > 0:
            found.append(
                "list_size must be at least 1, list_after not negative, name_within positive, "
                f"got {self.list_size}, {self.list_after} and {self.name_within}"
            )
        if self.unknown_above is not None and self.novelty is None:
            found.append("unknown_above needs novelty, the name of the score that it bounds")
        for label, rule in self.labels.items():
            found += [f"labels.{label}: {problem}" for problem in rule.problems()]
        return found

    def at_error_rate(self, rate: float) -> DecisionSpec:
        """Return these constants with the `announce` that a stated error rate needs.

        `withdraw` keeps its share of `announce`.
        """
        announce = 1.0 - rate
        return dataclasses.replace(
            self,
            error_rate=rate,
            announce=announce,
            withdraw=announce * self.withdraw / self.announce,
        )
