"""A rig's changes to the labels of a model: taught, hidden and renamed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.embedding_space import EmbeddingSpace
from models.taught_head import HIDDEN_LOG_PROBABILITY, HeadError, TaughtHead, TaughtSmell

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS = ("lemon", "mint", "garlic")
WIDTH = 6


@pytest.fixture
def space() -> EmbeddingSpace:
    """Return a space in which label i lies 5 along axis i."""
    return EmbeddingSpace(LABELS, np.zeros(WIDTH), np.eye(WIDTH), 5.0 * np.eye(len(LABELS), WIDTH))


def at(axis: int, size: float = 5.0) -> NDArray[np.float32]:
    point: NDArray[np.float32] = size * np.eye(WIDTH, dtype=np.float32)[axis]
    return point


def soap(axis: int = 4, exposures: int = 1) -> TaughtSmell:
    return TaughtSmell("soap", at(axis).astype(float), 16 * exposures, exposures)


LOGITS = np.array([2.0, 1.0, 0.0], dtype=np.float32)


def log_probabilities(
    head: TaughtHead, space: EmbeddingSpace, embedding: NDArray[np.float32], temperature: float = 1
) -> NDArray[np.float64]:
    """Return the log-probabilities of one window with `LOGITS`."""
    logits = LOGITS[np.newaxis]
    return head.log_probabilities(space, logits, embedding[np.newaxis], temperature, 1.0)[0]


def test_without_a_taught_smell_the_network_decides(space: EmbeddingSpace) -> None:
    log_p = log_probabilities(TaughtHead(), space, at(0), 2.0)
    expected = LOGITS / 2.0 - np.log(np.exp(LOGITS / 2.0).sum())
    np.testing.assert_allclose(log_p, expected, rtol=1e-6)


def test_a_window_at_a_taught_mean_has_its_label(space: EmbeddingSpace) -> None:
    head = TaughtHead((soap(),))
    p = np.exp(log_probabilities(head, space, at(4)))
    assert head.labels(LABELS)[p.argmax()] == "soap"
    assert p.sum() == pytest.approx(1.0)


def test_the_network_decides_between_shipped_labels(space: EmbeddingSpace) -> None:
    p = np.exp(log_probabilities(TaughtHead((soap(),)), space, at(0)))
    assert p[3] < 0.01
    np.testing.assert_allclose(p[:3] / p[:3].sum(), np.exp(LOGITS) / np.exp(LOGITS).sum())


def test_a_smell_taught_once_has_a_larger_share_halfway_than_one_taught_often(
    space: EmbeddingSpace,
) -> None:
    between = (at(0) + at(4)) / 2
    share = [
        np.exp(log_probabilities(TaughtHead((soap(exposures=n),)), space, between))[3]
        for n in (1, 2, 100)
    ]
    assert share[0] > share[1] > share[2]


def test_a_hidden_label_has_no_share_and_the_others_have_all(
    space: EmbeddingSpace,
) -> None:
    head = TaughtHead((soap(),), hidden=frozenset({"lemon"}))
    for embedding in (at(0), at(0, 1000.0)):
        log_p = log_probabilities(head, space, embedding)
        assert log_p[0] == HIDDEN_LOG_PROBABILITY
        assert np.isfinite(log_p).all()
        assert np.exp(log_p).sum() == pytest.approx(1.0)


def test_many_windows_have_the_probabilities_of_each_alone(space: EmbeddingSpace) -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (7, 3)).astype(np.float32)
    embedding = rng.normal(0, 4, (7, WIDTH)).astype(np.float32)
    head = TaughtHead((soap(), TaughtSmell("tar", at(5).astype(float), 40, 3)), frozenset({"mint"}))
    many = head.log_probabilities(space, logits, embedding, 1.3, 2.0)
    for row in range(7):
        one = head.log_probabilities(space, logits[[row]], embedding[[row]], 1.3, 2.0)
        np.testing.assert_allclose(many[[row]], one, rtol=1e-12)


def test_labels_are_published_renamed_then_taught() -> None:
    head = TaughtHead((soap(),), frozenset({"garlic"}), {"mint": "menthe"})
    assert head.labels(LABELS) == ("lemon", "menthe", "garlic (hidden)", "soap")


def test_the_name_of_a_hidden_label_can_be_taught() -> None:
    own = TaughtSmell("lemon", at(4).astype(float), 16, 1)
    assert TaughtHead((own,), frozenset({"lemon"})).labels(LABELS)[-1] == "lemon"
    with pytest.raises(HeadError, match="lemon"):
        TaughtHead((own,)).labels(LABELS)


@pytest.mark.parametrize(
    ("head", "log_p"),
    [
        (TaughtHead(hidden=frozenset({"tar"})), "tar"),
        (TaughtHead(renamed={"tar": "pitch"}), "tar"),
        (TaughtHead(renamed={"mint": "lemon"}), "lemon"),
        (TaughtHead(hidden=frozenset(LABELS)), "hidden"),
    ],
)
def test_a_head_that_does_not_fit_the_model_is_refused(head: TaughtHead, log_p: str) -> None:
    with pytest.raises(HeadError, match=log_p):
        head.labels(LABELS)


def test_two_taught_smells_never_share_a_name() -> None:
    with pytest.raises(HeadError, match="soap"):
        TaughtHead((soap(), soap(5)))
