"""The published scores, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.scoring import mixture_scores, substance_scores


def test_substance_scores_by_hand() -> None:
    p = np.log(np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]))
    result = substance_scores(p, np.array([0, 0, 1, 1]), np.array([0, 2]))
    assert result["top1"] == 0.5
    assert result["top5"] == 1.0
    assert result["recording_top1"] == 1.0
    assert result["macro_f1"] == pytest.approx((2 / 4 + 2 / 3) / 2)


def test_mixture_scores_by_hand() -> None:
    target = np.array([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]], dtype=np.float32)
    predicted = np.array([[0.45, 0.2, 0.35], [0.75, 0.25, 0.0]])
    result = mixture_scores(predicted, predicted > 0.3, target)
    assert result["within_01"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert result["top_k"] == pytest.approx(2 / 4)
    assert result["presence_f1"] == pytest.approx(2 * 1 / (3 + 4))
    assert result["mae"] == pytest.approx((0.05 + 0.3 + 0.35 + 0.75 + 0.05 + 0.8) / 6)
