"""Evidence, announcements and states."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle import Outputs
from models.decision_spec import DecisionSpec, LabelRule, State
from models.embedding_space import EmbeddingSpace
from models.exposure import Phase
from models.softmax import log_softmax
from models.substance_decision import (
    EvidenceShare,
    SubstanceDecision,
    state_of,
)
from models.taught_head import TaughtHead, TaughtSmell

LABELS = ("a", "b", "c", "d", "e", "f", "g")
SPEC = DecisionSpec()
LOGITS = st.lists(
    st.lists(st.floats(-8, 8, width=32), min_size=7, max_size=7), min_size=1, max_size=12
)


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def window(logits: Any) -> np.ndarray:
    return np.array(logits, dtype=np.float32)


def outputs(logits: Any, embedding: Any = ()) -> Outputs:
    """Return the outputs of a substance model for one window."""
    return Outputs(window([embedding]), window([logits]))


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
    """The running means equal explicit sums over all windows."""
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
        share = EvidenceShare(
            0.0 if number == 0 else stride_s, filled, filled if number == 0 else fresh
        )
        posterior = decision.add(outputs(logits), share)
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
    decision.add(outputs(half), EvidenceShare(0, 0.5, 0.5))
    posterior = decision.add(outputs(full), EvidenceShare(0, 1, 0.5))
    weight = 0.5**4
    expected = softmax((weight * half + full) / (weight + 1))
    np.testing.assert_allclose(posterior, expected, atol=1e-6)


def test_with_a_floor_of_one_a_full_window_has_its_own_probabilities() -> None:
    spec = dataclasses.replace(SPEC, temperature=2.0, evidence_floor=0.4, evidence_factor=0.6)
    decision = SubstanceDecision(LABELS, spec)
    posterior = decision.add(outputs([2, 1, 0, 0, 0, 0, 0]), EvidenceShare(0, 1, 1))
    np.testing.assert_allclose(posterior, softmax(np.array([1, 0.5, 0, 0, 0, 0, 0])), atol=1e-6)


def test_a_few_rows_give_a_less_certain_posterior_than_a_full_window() -> None:
    beliefs = [
        SubstanceDecision(LABELS, SPEC).add(
            outputs([3, 0, 0, 0, 0, 0, 0]), EvidenceShare(0, part, part)
        )[0]
        for part in (0.2, 0.5, 1.0)
    ]
    assert beliefs == sorted(beliefs)
    assert beliefs[0] < beliefs[2]


def test_repeated_samples_add_no_evidence() -> None:
    decision = SubstanceDecision(LABELS, SPEC)
    first = decision.add(outputs([1, 0, 0, 0, 0, 0, 0]), EvidenceShare(0, 1, 1)).copy()
    again = decision.add(outputs([1, 0, 0, 0, 0, 0, 0]), EvidenceShare(0, 1, 0))
    np.testing.assert_allclose(again, first, atol=1e-9)


def test_fresh_samples_that_agree_increase_the_posterior() -> None:
    decision = SubstanceDecision(LABELS, SPEC)
    beliefs = [
        decision.add(
            outputs([1, 0, 0, 0, 0, 0, 0]),
            EvidenceShare(0 if n == 0 else 50, 1, 1 if n == 0 else 0.5),
        )[0]
        for n in range(6)
    ]
    assert all(later > before for before, later in itertools.pairwise(beliefs))


def test_a_label_is_announced_after_confirming_and_not_before() -> None:
    decision = SubstanceDecision(LABELS, dataclasses.replace(SPEC, confirm=3))
    named = []
    for number in range(4):
        decision.add(
            outputs([6, 0, 0, 0, 0, 0, 0]), EvidenceShare(0 if number == 0 else 5, 1, 0.05)
        )
        named.append(decision.named and decision.named[0])
    assert named == [None, None, "a", "a"]


def test_an_announced_label_is_withdrawn_only_below_the_withdrawal_threshold() -> None:
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
        decision.add(outputs(list(logits)), EvidenceShare(5, 1, 0.05))
        names.append(decision.announced)
    assert names == ["a", "a", "a", None, None]


def test_another_label_is_announced_once_it_is_certain_enough() -> None:
    decision = SubstanceDecision(LABELS, dataclasses.replace(SPEC, memory_s=20.0))
    for number in range(6):
        decision.add(
            outputs([6, 0, 0, 0, 0, 0, 0]), EvidenceShare(0 if number == 0 else 5, 1, 0.05)
        )
    assert decision.announced == "a"
    seen = set()
    for _ in range(20):
        decision.add(outputs([0, 6, 0, 0, 0, 0, 0]), EvidenceShare(5, 1, 0.05))
        seen.add(decision.announced)
    assert decision.announced == "b"
    assert seen <= {"a", "b", None}


def test_top_lists_five_in_order_and_nothing_before_a_window() -> None:
    decision = SubstanceDecision(LABELS, SPEC)
    assert decision.top == ()
    decision.add(outputs([0, 5, 1, 2, 3, 4, -1]), EvidenceShare(0, 1, 1))
    assert [label for label, _ in decision.top] == ["b", "f", "e", "d", "c"]


def test_clearing_discards_evidence_and_label() -> None:
    decision = SubstanceDecision(LABELS, dataclasses.replace(SPEC, confirm=1))
    decision.add(outputs([9, 0, 0, 0, 0, 0, 0]), EvidenceShare(0, 1, 1))
    decision.clear()
    assert decision.announced is None
    assert decision.top == ()
    posterior = decision.add(outputs([0, 1, 0, 0, 0, 0, 0]), EvidenceShare(0, 1, 1))
    effective = SPEC.evidence_floor + SPEC.evidence_factor
    expected = softmax(effective * np.array([0.0, 1, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(posterior, expected, atol=1e-6)


def test_log_softmax_survives_large_scores() -> None:
    result = log_softmax(np.array([1e4, 0.0], dtype=np.float32))
    assert result.tolist() == [0.0, -1e4]


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
def test_the_state_follows_the_phase_of_the_air(
    phase: Phase, expected: State, *, named: bool
) -> None:
    assert state_of(phase, named=named) is expected
    strange = State.UNRECOGNISED if expected is State.SENSING else expected
    assert state_of(phase, named=named, unrecognised=True) is strange


# Embeddings are 8 wide: label i lies along axis i, and nothing along the last one.
SPACE = EmbeddingSpace(LABELS, np.zeros(8), np.eye(8), np.eye(7, 8))
NOVELTY_SPEC = dataclasses.replace(
    SPEC, novelty="cosine", unknown_above=0.5, unknown_after=1.0, unknown_confirm=2, memory_s=1e9
)
KNOWN, UNKNOWN = np.eye(8, dtype=np.float32)[[0, 7]]
FIRST, LATER = EvidenceShare(0, 1, 1), EvidenceShare(5, 1, 0.05)
SURE_OF_A = window([9, 0, 0, 0, 0, 0, 0])


def test_enough_novelty_makes_an_odour_unrecognised_and_prevents_announcements() -> None:
    spec = dataclasses.replace(NOVELTY_SPEC, unknown_after=1.08, confirm=1)
    decision = SubstanceDecision(LABELS, spec, SPACE)
    found = []
    for number in range(6):
        decision.add(outputs(SURE_OF_A, UNKNOWN), LATER if number else FIRST)
        found.append(decision.unrecognised)
        assert decision.announced is None
        assert decision.novelty == pytest.approx(1.0)
    # The third window is the first with enough evidence; two in a row make the fourth.
    assert found == [False, False, False, True, True, True]


def test_a_label_is_withdrawn_once_the_odour_is_unrecognised() -> None:
    decision = SubstanceDecision(LABELS, dataclasses.replace(NOVELTY_SPEC, memory_s=5.0), SPACE)
    names = []
    for embedding in [KNOWN] * 4 + [UNKNOWN] * 8:
        decision.add(outputs(SURE_OF_A, embedding), EvidenceShare(5, 1, 1))
        names.append(decision.announced)
    assert names[:4] == [None, "a", "a", "a"]
    assert decision.unrecognised
    assert names[-1] is None
    for _ in range(12):
        decision.add(outputs(SURE_OF_A, KNOWN), EvidenceShare(5, 1, 1))
    assert not decision.unrecognised
    assert decision.announced == "a"


@given(
    strange=st.lists(st.booleans(), min_size=1, max_size=20),
    fresh=st.floats(0.01, 1),
    fullness=st.floats(0, 6),
    memory_s=st.floats(5, 500),
)
def test_novelty_has_the_weights_of_the_evidence(
    *, strange: list[bool], fresh: float, fullness: float, memory_s: float
) -> None:
    spec = dataclasses.replace(NOVELTY_SPEC, fullness=fullness, memory_s=memory_s)
    decision = SubstanceDecision(LABELS, spec, SPACE)
    filled = np.linspace(0.2, 1, len(strange))
    for number, (odd, part) in enumerate(zip(strange, filled, strict=True)):
        found = outputs(SURE_OF_A, UNKNOWN if odd else KNOWN)
        decision.add(found, EvidenceShare(5.0 if number else 0.0, part, fresh))
    ages = 5.0 * np.arange(len(strange))[::-1]
    weight = np.exp(-ages / memory_s) * filled**fullness
    expected = (weight * np.array(strange)).sum() / weight.sum()
    assert decision.novelty == pytest.approx(expected, abs=1e-9)


def test_clearing_ends_the_unrecognised_state() -> None:
    decision = SubstanceDecision(LABELS, NOVELTY_SPEC, SPACE)
    for number in range(4):
        decision.add(outputs(SURE_OF_A, UNKNOWN), LATER if number else FIRST)
    assert decision.unrecognised
    decision.clear()
    assert not decision.unrecognised
    assert decision.novelty is None


@pytest.mark.parametrize(
    "spec",
    [SPEC, dataclasses.replace(NOVELTY_SPEC, unknown_above=None)],
    ids=["no score", "no bound"],
)
def test_without_a_bound_nothing_is_unrecognised(spec: DecisionSpec) -> None:
    decision = SubstanceDecision(LABELS, spec, SPACE)
    for number in range(9):
        decision.add(outputs(SURE_OF_A, UNKNOWN), LATER if number else FIRST)
    assert not decision.unrecognised
    assert decision.announced == "a"


def test_a_taught_smell_is_a_label_and_not_novel() -> None:
    petrol = TaughtSmell("petrol", np.eye(8)[7], windows=5, exposures=1)
    spec = dataclasses.replace(NOVELTY_SPEC, head_temperature=0.01)
    decision = SubstanceDecision(LABELS, spec, SPACE, TaughtHead(taught=(petrol,)))
    for number in range(4):
        posterior = decision.add(outputs(SURE_OF_A, UNKNOWN), LATER if number else FIRST)
    assert posterior.shape == (8,)
    assert decision.announced == "petrol"
    assert decision.novelty == pytest.approx(0.0)


@given(LOGITS, st.floats(0.01, 0.9))
def test_a_set_has_every_label_over_the_threshold_and_always_the_likeliest(
    windows: list[list[float]], threshold: float
) -> None:
    spec = dataclasses.replace(SPEC, set_threshold=threshold)
    decision = SubstanceDecision(LABELS, spec)
    assert decision.label_set == ()
    for logits in windows:
        posterior = decision.add(outputs(logits), FIRST)
    expected = {label for label, p in zip(LABELS, posterior, strict=True) if p >= threshold}
    best = decision.top[0][0]
    assert set(decision.label_set) == expected | {best}
    assert decision.label_set[0] == best


def test_there_is_no_set_without_a_threshold() -> None:
    decision = SubstanceDecision(LABELS, SPEC)
    decision.add(outputs([9, 0, 0, 0, 0, 0, 0]), FIRST)
    assert decision.label_set == ()


def test_a_short_list_is_given_after_enough_evidence_while_no_label_is_announced() -> None:
    spec = dataclasses.replace(SPEC, list_coverage=0.7, list_after=0.9)
    decision = SubstanceDecision(LABELS, spec)
    unsure = [1.0, 2.0, 1.8, 0.0, 0.0, 0.0, 0.0]
    decision.add(outputs(unsure), EvidenceShare(0.0, 0.5, 0.5))
    assert decision.short_list == ()
    decision.add(outputs(unsure), EvidenceShare(5.0, 1.0, 0.5))
    assert decision.short_list == ("b", "c", "a")
    for _ in range(5):
        decision.add(outputs([0, 60, 0, 0, 0, 0, 0]), EvidenceShare(50.0, 1.0, 0.5))
    assert decision.announced == "b"
    assert decision.short_list == ()


def test_a_label_is_announced_in_time_or_never_but_a_taught_smell_at_any_time() -> None:
    spec = dataclasses.replace(SPEC, name_within=1.0, list_coverage=0.7, head_temperature=0.01)
    unsure, sure_of_a = [0.0] * 7, [60.0, 0, 0, 0, 0, 0, 0]
    fresh = EvidenceShare(50.0, 1.0, 1.0)
    late = SubstanceDecision(LABELS, spec)
    for logits in (unsure, unsure, *[sure_of_a] * 6):
        late.add(outputs(logits), fresh)
    assert late.announced is None
    assert late.short_list[0] == "a"
    early = SubstanceDecision(LABELS, spec)
    for _ in range(4):
        early.add(outputs(sure_of_a), EvidenceShare(5.0, 1.0, 0.2))
    assert early.announced == "a"
    petrol = TaughtSmell("petrol", np.eye(8)[7], windows=5, exposures=1)
    taught = SubstanceDecision(LABELS, spec, SPACE, TaughtHead(taught=(petrol,)))
    for _ in range(6):
        taught.add(outputs(unsure, UNKNOWN), fresh)
    assert taught.announced == "petrol"


def test_there_is_no_short_list_without_a_stated_coverage() -> None:
    decision = SubstanceDecision(LABELS, SPEC)
    decision.add(outputs([1.0, 2.0, 1.8, 0, 0, 0, 0]), EvidenceShare(0.0, 1.0, 2.0))
    assert decision.short_list == ()


def test_a_label_may_need_a_higher_probability_and_more_predictions() -> None:
    rules = {"a": LabelRule(announce=0.999999), "b": LabelRule(confirm=5)}
    spec = dataclasses.replace(SPEC, confirm=1, labels=rules)
    first = {}
    for label in "abc":
        decision = SubstanceDecision(LABELS, spec)
        for number in range(9):
            decision.add(outputs(9 * np.eye(7, dtype=np.float32)["abc".index(label)]), LATER)
            if decision.announced == label:
                first.setdefault(label, number)
    assert first["b"] == first["c"] + 4
    assert "a" not in first


def test_a_label_announced_below_the_withdrawal_threshold_is_kept_down_to_its_own() -> None:
    spec = dataclasses.replace(SPEC, confirm=1, labels={"a": LabelRule(announce=0.2)})
    decision = SubstanceDecision(LABELS, spec)
    for _ in range(3):
        decision.add(outputs([math.log(5), 0, 0, 0, 0, 0, 0]), EvidenceShare(5, 1, 1e-9))
    assert decision.top[0][1] < spec.withdraw
    assert decision.announced == "a"


@given(st.floats(0.01, 0.6))
def test_a_stated_error_rate_sets_the_announcing_probability(rate: float) -> None:
    spec = SPEC.at_error_rate(rate)
    assert spec.announce == pytest.approx(1 - rate)
    assert spec.withdraw / spec.announce == pytest.approx(SPEC.withdraw / SPEC.announce)

    assert not spec.problems()


def test_announcements_are_wrong_no_more_often_than_stated() -> None:
    """Three thousand sequential tests between labels, with calibrated evidence."""
    rng = np.random.default_rng(8)
    rate = 0.2
    independent = dataclasses.replace(
        SPEC, evidence_floor=1e-9, evidence_factor=1.0, memory_s=1e9, confirm=1, fullness=0.0
    ).at_error_rate(rate)
    wrong = announced = 0
    for _ in range(3000):
        truth = int(rng.integers(7))
        decision = SubstanceDecision(LABELS, independent)
        for _ in range(60):
            # Each window has one independent normal reading per label; the true one has a mean.
            reading = rng.normal(0, 1, 7) + 0.8 * (np.arange(7) == truth)
            decision.add(outputs((0.8 * reading).astype(np.float32)), EvidenceShare(0.0, 1, 1))
            if decision.announced is not None:
                announced += 1
                wrong += decision.announced != LABELS[truth]
                break
    assert announced > 2900
    assert wrong / announced <= rate
    assert wrong / announced > rate / 4  # and not by announcing only certain labels


def test_constants_that_contradict_each_other_are_all_named() -> None:
    spec = DecisionSpec(temperature=0, announce=0.3, withdraw=0.5, confirm=0)
    assert len(spec.problems()) == 3
    spec = DecisionSpec(
        error_rate=1.5,
        unknown_above=0.3,
        unknown_confirm=0,
        head_temperature=0,
        set_threshold=0,
        labels={"a": LabelRule(announce=2, confirm=0)},
    )
    assert len(spec.problems()) == 7
    assert not DecisionSpec().problems()
    assert math.isclose(DecisionSpec().temperature, 1.0)
