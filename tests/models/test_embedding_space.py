"""The space of embeddings, and novelty in it."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.errors import UsageError
from models import novelty
from models.embedding_space import EmbeddingSpace
from models.novelty import NoveltyName
from models.taught_head import TaughtSmell

LABELS = ("a", "b", "c")
CENTRES = np.array([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0]], dtype=float)
UNKNOWN_SMELL = np.array([0, 0, 0, 9], dtype=float)
SPREAD = np.array([0.3, 1.0, 0.5, 0.2])


def drawn(centres: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    around = np.repeat(centres, count, axis=0)
    return (around + rng.normal(0, SPREAD, around.shape)).astype(np.float32)


def measured(shrinkage: float = 0.1) -> EmbeddingSpace:
    return EmbeddingSpace.fit(
        drawn(CENTRES, 500, 1), np.repeat(np.arange(3), 500), LABELS, shrinkage
    )


def test_whitening_makes_the_spread_within_labels_the_same_in_every_direction() -> None:
    z = measured(shrinkage=0.0).whiten(drawn(CENTRES, 500, 1))
    within = z - np.repeat(z.reshape(3, 500, 4).mean(axis=1), 500, axis=0)
    np.testing.assert_allclose(within.T @ within / len(z), np.eye(4), atol=1e-5)


def test_means_are_the_whitened_means_of_their_labels() -> None:
    space = measured()
    z = space.whiten(drawn(CENTRES, 500, 1))
    np.testing.assert_allclose(space.means, z.reshape(3, 500, 4).mean(axis=1), atol=1e-6)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4))
def test_squared_distances_are_those_of_the_definition(seed: int, rows: int, means: int) -> None:
    rng = np.random.default_rng(seed)
    z, centres = rng.normal(0, 3, (rows, 4)), rng.normal(0, 3, (means, 4))
    expected = ((z[:, None] - centres) ** 2).sum(axis=2)
    found = EmbeddingSpace.squared_distances(z, centres)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (found >= 0).all()


def test_a_space_is_restored_from_its_arrays() -> None:
    space = measured()
    again = EmbeddingSpace.from_arrays(LABELS, space.to_arrays())
    assert again is not None
    x = drawn(CENTRES, 3, 2)
    np.testing.assert_array_equal(again.whiten(x), space.whiten(x))
    np.testing.assert_array_equal(again.means, space.means)
    assert EmbeddingSpace.from_arrays(LABELS, {"rig_other": np.zeros(3)}) is None


def test_arrays_of_other_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="2 labels needs"):
        EmbeddingSpace.from_arrays(("a", "b"), measured().to_arrays())


def test_a_label_without_windows_is_named() -> None:
    with pytest.raises(UsageError, match="none of c"):
        EmbeddingSpace.fit(drawn(CENTRES[:2], 5, 1), np.repeat([0, 1], 5), LABELS)


def scores_of(name: NoveltyName, x: np.ndarray, **given: list[TaughtSmell]) -> np.ndarray:
    """Return the scores of embeddings whose logits are their first three numbers."""
    return novelty.score(name, measured(), x, x[:, :3], **given)


@pytest.mark.parametrize("name", get_args(NoveltyName))
def test_an_unknown_smell_is_more_novel_than_any_label(name: NoveltyName) -> None:
    known, strange = drawn(CENTRES, 50, 3), drawn(UNKNOWN_SMELL[None], 50, 4)
    assert scores_of(name, strange).min() > scores_of(name, known).max()


@pytest.mark.parametrize("name", ["cosine", "distance", "relative"])
def test_a_taught_smell_is_not_novel(name: NoveltyName) -> None:
    strange = drawn(UNKNOWN_SMELL[None], 50, 4)
    mean = measured().whiten(drawn(UNKNOWN_SMELL[None], 50, 5)).mean(axis=0)
    taught = [TaughtSmell("stranger", mean, 50, 1)]
    before, after = scores_of(name, strange), scores_of(name, strange, taught=taught)
    assert after.max() < before.min()
    known = drawn(CENTRES, 50, 3)
    np.testing.assert_allclose(scores_of(name, known, taught=taught), scores_of(name, known))


@pytest.mark.parametrize("name", ["cosine", "distance"])
def test_a_smell_taught_once_accepts_more_distance_than_one_taught_often(name: NoveltyName) -> None:
    strange = drawn(UNKNOWN_SMELL[None], 50, 4)
    mean = measured().whiten(drawn(UNKNOWN_SMELL[None], 50, 5)).mean(axis=0)
    once, often = (
        scores_of(name, strange, taught=[TaughtSmell("stranger", mean, 50 * n, n)]) for n in (1, 20)
    )
    assert (once < often).all()


@given(scale=st.floats(0.2, 5))
def test_the_strength_of_an_odour_does_not_change_its_cosine(scale: float) -> None:
    space = measured()
    x = (space.middle + scale * (drawn(CENTRES, 4, 6) - space.middle)).astype(np.float32)
    reference = drawn(CENTRES, 4, 6)
    found, expected = (novelty.score("cosine", space, rows, rows[:, :3]) for rows in (x, reference))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_energy_and_probability_are_those_of_their_papers() -> None:
    logits = np.array([[2.0, 1.0, -1.0], [800.0, 0.0, 0.0]], dtype=np.float32)
    embedding = np.zeros((2, 4), dtype=np.float32)
    space = measured()
    first = np.exp([2.0, 1.0, -1.0])
    energy = novelty.score("energy", space, embedding, logits)
    np.testing.assert_allclose(energy, [-np.log(first.sum()), -800.0], rtol=1e-6)
    rest = novelty.score("probability", space, embedding, logits)
    np.testing.assert_allclose(rest, [1 - first.max() / first.sum(), 0.0], atol=1e-6)


def test_the_nearest_of_many_windows_is_far_from_an_unknown_smell() -> None:
    space, known = measured(), drawn(CENTRES, 200, 1)
    strange = novelty.neighbours(space, drawn(UNKNOWN_SMELL[None], 20, 4), known)
    familiar = novelty.neighbours(space, drawn(CENTRES, 20, 5), known)
    assert strange.min() > familiar.max()
    np.testing.assert_allclose(novelty.neighbours(space, known[:5], known), 0.0, atol=1e-6)
