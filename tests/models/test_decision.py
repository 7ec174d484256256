"""Evidence, announcements and states."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.decision import (
    DecisionSpec,
    Heard,
    MixtureDecision,
    Share,
    State,
    SubstanceDecision,
    log_probabilities,
    state_of,
)
from models.exposure import Phase

LABELS = ("a", "b", "c", "d", "e", "f", "g")
SPEC = DecisionSpec()
LOGITS = st.lists(
    st.lists(st.floats(-8, 8, width=32), min_size=7, max_size=7), min_size=1, max_size=12
)


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def window(logits: list[float]) -> np.ndarray:
    return np.array(logits, dtype=np.float32)


def heard(logits: list[float]) -> Heard:
    return Heard(window(logits))


@given(
    windows=LOGITS,
    temperature=st.floats(0.5, 3),
    floor=st.floats(0.1, 1),
    factor=st.floats(0, 1),
    memory_s=st.floats(5, 500),
    stride_s=st.floats(1, 50),
    filled=st.floats(0.2, 1),
)
def test_the_posterior_is_the_effective_number_of_windows_times_their_fading_mean(
    *,
    windows: list[list[float]],
    temperature: float,
    floor: float,
    factor: float,
    memory_s: float,
    stride_s: float,
    filled: float,
) -> None:
    """The running figures equal sums over all windows, written out."""
    spec = dataclasses.replace(
        SPEC,
        temperature=temperature,
        evidence_floor=floor,
        evidence_factor=factor,
        memory_s=memory_s,
    )
    decision = SubstanceDecision(LABELS, spec)
    fresh = 0.05
    for number, logits in enumerate(windows):
        share = Share(0.0 if number == 0 else stride_s, filled, filled if number == 0 else fresh)
        posterior = decision.add(heard(logits), share)
    ages = stride_s * np.arange(len(windows))[::-1]
    fade = np.exp(-ages / memory_s)
    log_p = np.array([np.log(softmax(window(w).astype(float) / temperature)) for w in windows])
    mean = (fade[:, None] * log_p).sum(axis=0) / fade.sum()
    independent = (fade * np.where(np.arange(len(windows)) == 0, filled, fresh)).sum()
    effective = floor + factor * independent
    np.testing.assert_allclose(posterior, softmax(effective * mean), rtol=1e-4, atol=1e-6)
    assert posterior.sum() == pytest.approx(1)


def test_a_full_window_outweighs_the_half_filled_one_that_it_holds() -> None:
    spec = dataclasses.replace(SPEC, temperature=1.0, memory_s=1e9)
    spec = dataclasses.replace(spec, evidence_floor=1.0, evidence_factor=0.0)
    decision = SubstanceDecision(LABELS, spec)
    half, full = window([1, 0, 0, 0, 0, 0, 0]), window([0, 1, 0, 0, 0, 0, 0])
    decision.add(Heard(half), Share(0, 0.5, 0.5))
    posterior = decision.add(Heard(full), Share(0, 1, 0.5))
    weight = 0.5**4
    expected = softmax((weight * half + full) / (weight + 1))
    np.testing.assert_allclose(posterior, expected, atol=1e-6)


def test_a_full_window_may_be_taken_at_its_word() -> None:
    spec = dataclasses.replace(SPEC, temperature=2.0, evidence_floor=0.4, evidence_factor=0.6)
    decision = SubstanceDecision(LABELS, spec)
    posterior = decision.add(heard([2, 1, 0, 0, 0, 0, 0]), Share(0, 1, 1))
    np.testing.assert_allclose(posterior, softmax(np.array([1, 0.5, 0, 0, 0, 0, 0])), atol=1e-6)


def test_a_few_rows_are_believed_less_than_a_full_window() -> None:
    beliefs = [
        SubstanceDecision(LABELS, SPEC).add(heard([3, 0, 0, 0, 0, 0, 0]), Share(0, part, part))[0]
        for part in (0.2, 0.5, 1.0)
    ]
    assert beliefs == sorted(beliefs)
    assert beliefs[0] < beliefs[2]


def test_the_same_samples_again_add_nothing() -> None:
    decision = SubstanceDecision(LABELS, SPEC)
    first = decision.add(heard([1, 0, 0, 0, 0, 0, 0]), Share(0, 1, 1)).copy()
    again = decision.add(heard([1, 0, 0, 0, 0, 0, 0]), Share(0, 1, 0))
    np.testing.assert_allclose(again, first, atol=1e-9)


def test_fresh_samples_that_agree_make_it_surer() -> None:
    decision = SubstanceDecision(LABELS, SPEC)
    beliefs = [
        decision.add(
            heard([1, 0, 0, 0, 0, 0, 0]), Share(0 if n == 0 else 50, 1, 1 if n == 0 else 0.5)
        )[0]
        for n in range(6)
    ]
    assert all(later > before for before, later in itertools.pairwise(beliefs))


def test_a_label_is_announced_after_confirming_and_not_before() -> None:
    decision = SubstanceDecision(LABELS, dataclasses.replace(SPEC, confirm=3))
    named = []
    for number in range(4):
        decision.add(heard([6, 0, 0, 0, 0, 0, 0]), Share(0 if number == 0 else 5, 1, 0.05))
        named.append(decision.named and decision.named[0])
    assert named == [None, None, "a", "a"]


def test_an_announced_label_stays_through_doubt_and_goes_in_disbelief() -> None:
    spec = dataclasses.replace(
        SPEC,
        confirm=1,
        memory_s=0.01,
        evidence_floor=1,
        evidence_factor=0,
        announce=0.6,
        withdraw=0.4,
    )
    decision = SubstanceDecision(LABELS, spec)
    names = []
    for probability in (0.7, 0.5, 0.45, 0.3, 0.5):
        rest = (1 - probability) / 6
        logits = np.log([probability, *[rest] * 6])
        decision.add(heard(list(logits)), Share(5, 1, 0.05))
        names.append(decision.announced)
    assert names == ["a", "a", "a", None, None]


def test_another_label_takes_over_once_it_is_sure() -> None:
    decision = SubstanceDecision(LABELS, dataclasses.replace(SPEC, memory_s=20.0))
    for number in range(6):
        decision.add(heard([6, 0, 0, 0, 0, 0, 0]), Share(0 if number == 0 else 5, 1, 0.05))
    assert decision.announced == "a"
    seen = set()
    for _ in range(20):
        decision.add(heard([0, 6, 0, 0, 0, 0, 0]), Share(5, 1, 0.05))
        seen.add(decision.announced)
    assert decision.announced == "b"
    assert seen <= {"a", "b", None}


def test_top_lists_five_in_order_and_nothing_before_a_window() -> None:
    decision = SubstanceDecision(LABELS, SPEC)
    assert decision.top == ()
    decision.add(heard([0, 5, 1, 2, 3, 4, -1]), Share(0, 1, 1))
    assert [label for label, _ in decision.top] == ["b", "f", "e", "d", "c"]


def test_clearing_forgets_evidence_and_label() -> None:
    decision = SubstanceDecision(LABELS, dataclasses.replace(SPEC, confirm=1))
    decision.add(heard([9, 0, 0, 0, 0, 0, 0]), Share(0, 1, 1))
    decision.clear()
    assert decision.announced is None
    assert decision.top == ()
    posterior = decision.add(heard([0, 1, 0, 0, 0, 0, 0]), Share(0, 1, 1))
    effective = SPEC.evidence_floor + SPEC.evidence_factor
    expected = softmax(effective * np.array([0.0, 1, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(posterior, expected, atol=1e-6)


def test_log_probabilities_survive_large_logits() -> None:
    result = log_probabilities(np.array([1e4, 0.0], dtype=np.float32), 1.0)
    assert result.tolist() == [0.0, -1e4]


# How much of the mixture its named parts must make up has tests of its own, below.
MIXED = dataclasses.replace(
    SPEC, presence_thresholds=(0.6,) * 3, presence_release=0.5, announce=0.15, withdraw=0.1
)


def mixture_after(presences: list[list[float]], memory_s: float = 0.01) -> list[list[str]]:
    decision = MixtureDecision(("a", "b", "c"), dataclasses.replace(MIXED, memory_s=memory_s))
    listed = []
    for presence in presences:
        decision.add(window([0.2, 0.5, 0.3]), window(presence), Share(5, 1, 0.05))
        listed.append([component.label for component in decision.components])
    return listed


def test_components_are_those_over_their_threshold_the_largest_first() -> None:
    assert mixture_after([[0.7, 0.9, 0.1]]) == [["b", "a"]]


def test_a_component_is_dropped_only_below_its_released_threshold() -> None:
    assert mixture_after([[0.7, 0, 0], [0.4, 0, 0], [0.2, 0, 0], [0.4, 0, 0]]) == [
        ["a"], ["a"], [], [],
    ]  # fmt: skip


def test_proportions_spread_over_everything_name_nothing() -> None:
    spec = dataclasses.replace(MIXED, announce=0.5, withdraw=0.3, memory_s=0.01)
    decision = MixtureDecision(("a", "b", "c"), spec)
    decision.add(window([0.4, 0.35, 0.25]), window([0.9, 0.1, 0.1]), Share(0, 1, 1))
    assert decision.announced is None
    decision.add(window([0.6, 0.2, 0.2]), window([0.9, 0.1, 0.1]), Share(5, 1, 1))
    assert decision.announced == "a"
    decision.add(window([0.4, 0.35, 0.25]), window([0.9, 0.1, 0.1]), Share(5, 1, 1))
    assert decision.announced == "a"
    decision.add(window([0.2, 0.5, 0.3]), window([0.9, 0.1, 0.1]), Share(5, 1, 1))
    assert decision.announced is None


def test_a_part_too_small_to_have_been_trained_on_is_not_named() -> None:
    decision = MixtureDecision(("a", "b", "c"), MIXED)
    decision.add(window([0.05, 0.55, 0.4]), window([0.9, 0.9, 0.9]), Share(0, 1, 1))
    assert decision.announced == "b + c"


def test_proportions_are_the_mean_over_windows_and_sum_to_one() -> None:
    decision = MixtureDecision(("a", "b", "c"), dataclasses.replace(MIXED, memory_s=1e9))
    decision.add(window([1, 0, 0]), window([0.9, 0.9, 0.9]), Share(0, 1, 1))
    decision.add(window([0, 0.5, 0.5]), window([0.9, 0.9, 0.9]), Share(5, 1, 0.05))
    assert {c.label: c.proportion for c in decision.components} == pytest.approx(
        {"a": 0.5, "b": 0.25, "c": 0.25}
    )
    assert decision.announced == "a + b + c"


@pytest.mark.parametrize(
    ("phase", "named", "expected"),
    [
        (Phase.WARMING_UP, True, State.WARMING_UP),
        (Phase.AMBIENT, True, State.AMBIENT),
        (Phase.UNKNOWN, False, State.SENSING),
        (Phase.UNKNOWN, True, State.RECOGNISED),
        (Phase.EXPOSED, False, State.SENSING),
        (Phase.EXPOSED, True, State.RECOGNISED),
        (Phase.RECOVERING, True, State.RECOVERING),
    ],
)
def test_the_state_follows_the_air_and_a_fault_goes_before_all(
    phase: Phase, expected: State, *, named: bool
) -> None:
    assert state_of(phase, named=named, fault=False) is expected
    assert state_of(phase, named=named, fault=True) is State.FAULT


def test_constants_that_contradict_each_other_are_all_named() -> None:
    spec = DecisionSpec(temperature=0, announce=0.3, withdraw=0.5, confirm=0)
    assert len(spec.problems()) == 3
    assert not DecisionSpec().problems()
    assert math.isclose(DecisionSpec().temperature, 1.0)
