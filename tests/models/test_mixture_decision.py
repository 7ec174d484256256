"""Components of a mixture, and when they are announced."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.bundle import Outputs
from models.decision_spec import DecisionSpec
from models.mixture_decision import MixtureDecision
from models.substance_decision import EvidenceShare

MIXED = DecisionSpec(
    presence_thresholds=(0.6,) * 3, presence_release=0.5, announce=0.15, withdraw=0.1
)


def mixture(proportions: list[float], presence: list[float]) -> Outputs:
    """Return the outputs of a mixture model for one window."""
    rows = np.array([proportions, presence], dtype=np.float32)
    return Outputs(proportions=rows[:1], presence=rows[1:])


def mixture_after(presences: list[list[float]], memory_s: float = 0.01) -> list[list[str]]:
    decision = MixtureDecision(("a", "b", "c"), dataclasses.replace(MIXED, memory_s=memory_s))
    listed = []
    for presence in presences:
        decision.add(mixture([0.2, 0.5, 0.3], presence), EvidenceShare(5, 1, 0.05))
        listed.append([component.label for component in decision.components])
    return listed


def test_components_are_those_over_their_threshold_the_largest_first() -> None:
    assert mixture_after([[0.7, 0.9, 0.1]]) == [["b", "a"]]


def test_a_component_is_dropped_only_below_its_released_threshold() -> None:
    assert mixture_after([[0.7, 0, 0], [0.4, 0, 0], [0.2, 0, 0], [0.4, 0, 0]]) == [
        ["a"], ["a"], [], [],
    ]  # fmt: skip


def test_proportions_spread_over_all_components_are_not_announced() -> None:
    spec = dataclasses.replace(MIXED, announce=0.5, withdraw=0.3, memory_s=0.01)
    decision = MixtureDecision(("a", "b", "c"), spec)
    decision.add(mixture([0.4, 0.35, 0.25], [0.9, 0.1, 0.1]), EvidenceShare(0, 1, 1))
    assert decision.announced is None
    decision.add(mixture([0.6, 0.2, 0.2], [0.9, 0.1, 0.1]), EvidenceShare(5, 1, 1))
    assert decision.announced == "a"
    decision.add(mixture([0.4, 0.35, 0.25], [0.9, 0.1, 0.1]), EvidenceShare(5, 1, 1))
    assert decision.announced == "a"
    decision.add(mixture([0.2, 0.5, 0.3], [0.9, 0.1, 0.1]), EvidenceShare(5, 1, 1))
    assert decision.announced is None


def test_a_part_too_small_to_have_been_trained_on_is_not_named() -> None:
    decision = MixtureDecision(("a", "b", "c"), MIXED)
    decision.add(mixture([0.05, 0.55, 0.4], [0.9, 0.9, 0.9]), EvidenceShare(0, 1, 1))
    assert decision.announced == "b + c"


def test_proportions_are_the_mean_over_windows_and_sum_to_one() -> None:
    decision = MixtureDecision(("a", "b", "c"), dataclasses.replace(MIXED, memory_s=1e9))
    decision.add(mixture([1, 0, 0], [0.9, 0.9, 0.9]), EvidenceShare(0, 1, 1))
    decision.add(mixture([0, 0.5, 0.5], [0.9, 0.9, 0.9]), EvidenceShare(5, 1, 0.05))
    assert {c.label: c.proportion for c in decision.components} == pytest.approx(
        {"a": 0.5, "b": 0.25, "c": 0.25}
    )
    assert decision.announced == "a + b + c"


def test_components_lie_in_intervals_inside_0_and_1() -> None:
    decision = MixtureDecision(("a", "b", "c"), dataclasses.replace(MIXED, proportion_margin=0.3))
    decision.add(mixture([0.8, 0.1, 0.1], [0.9, 0.9, 0.1]), EvidenceShare(0, 1, 1))
    assert [(part.label, part.low, part.high) for part in decision.components] == [
        ("a", pytest.approx(0.5), 1.0),
        ("b", 0.0, pytest.approx(0.4)),
    ]


GROUPED = dataclasses.replace(MIXED, groups=(("a", "c"),), memory_s=0.01)


def test_a_group_is_announced_together_and_its_members_never_alone() -> None:
    decision = MixtureDecision(("a", "b", "c"), GROUPED)
    decision.add(mixture([0.5, 0.3, 0.2], [0.7, 0.9, 0.4]), EvidenceShare(0, 1, 1))
    assert decision.components == ()
    assert decision.groups[0].labels == ("a", "c")
    assert decision.groups[0].presence == pytest.approx(1 - 0.3 * 0.6)
    assert decision.announced == "a or c"
    assert decision.belief == pytest.approx(decision.groups[0].presence)


def test_a_group_is_withdrawn_only_below_its_released_threshold() -> None:
    decision = MixtureDecision(("a", "b", "c"), GROUPED)
    announced = []
    for presence in (0.6, 0.3, 0.2, 0.3):
        decision.add(mixture([0.2, 0.5, 0.3], [presence, 0.9, 0.0]), EvidenceShare(5, 1, 0.05))
        announced.append(decision.announced)
    assert announced == ["a or c", "a or c", None, None]
    decision.add(mixture([0.2, 0.5, 0.3], [0.8, 0.9, 0.0]), EvidenceShare(5, 1, 0.05))
    decision.withdraw()
    assert decision.announced is None
    assert decision.groups[0].presence == pytest.approx(0.8)
    decision.clear()
    assert decision.groups == ()


def test_candidates_are_the_most_probable_announced_or_not() -> None:
    decision = MixtureDecision(("a", "b", "c"), MIXED)
    assert decision.candidates == ()
    decision.add(mixture([0.5, 0.3, 0.2], [0.1, 0.9, 0.4]), EvidenceShare(0, 1, 1))
    assert [part.label for part in decision.candidates] == ["b", "c", "a"]
    assert decision.candidates[0].presence == pytest.approx(0.9)
    assert decision.groups == ()
