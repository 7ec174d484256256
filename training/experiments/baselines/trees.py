"""training/: extremely randomised trees on statistics of a window (Geurts et al. 2006).

Loads scikit-learn when fitted. The controls of the audit are such trees on other inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def window_statistics(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 14 statistics of each feature over a window.

    Mean, standard deviation, minimum, maximum, five quantiles, first, middle and last value, the
    slope of the least-squares line (per step) and the mean absolute step. Of windows
    float32[windows, window, feature] as float32[windows, 14 * feature], statistic-major.
    """
    steps = x.shape[1]
    time = np.arange(steps) - (steps - 1) / 2
    slope = np.einsum("t,wtf->wf", time / np.square(time).sum(), x)
    parts = [
        x.mean(axis=1),
        x.std(axis=1),
        x.min(axis=1),
        x.max(axis=1),
        *np.quantile(x, QUANTILES, axis=1),
        x[:, 0],
        x[:, steps // 2],
        x[:, -1],
        slope,
        np.abs(np.diff(x, axis=1)).mean(axis=1),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


class Trees:
    """Extremely randomised trees on rows of numbers.

    Labels without a training row are never likely. `jobs` processor cores, -1 for all, which does
    not change the result.
    """

    def __init__(self, n_labels: int, *, trees: int = 500, seed: int = 0, jobs: int = 1) -> None:
        self._n_labels, self._trees, self._seed, self._jobs = n_labels, trees, seed, jobs
        self._forest: Any = None

    @property
    def parameters(self) -> int:
        """Nodes of all trees: a split or a leaf each."""
        return sum(int(tree.tree_.node_count) for tree in self._forest.estimators_)

    def fit(self, x: NDArray[np.float32], label: NDArray[np.int64]) -> None:
        """Grow the trees on rows float32[n, number] with labels int[n]."""
        from sklearn.ensemble import ExtraTreesClassifier  # noqa: PLC0415 - of the train extra

        self._forest = ExtraTreesClassifier(
            self._trees, random_state=self._seed, n_jobs=self._jobs
        ).fit(x, label)

    def log_probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return float64[n, labels]; one more tree of equal shares keeps the logarithm finite."""
        share = np.zeros((len(x), self._n_labels))
        share[:, self._forest.classes_] = self._forest.predict_proba(x)
        return np.log((share * self._trees + 1 / self._n_labels) / (self._trees + 1))


class WindowTrees(Trees):
    """Trees on the statistics of windows float32[windows, window, feature]."""

    def fit(self, x: NDArray[np.float32], label: NDArray[np.int64]) -> None:
        """Train on windows."""
        super().fit(window_statistics(x), label)

    def log_probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return float64[windows, labels]."""
        return super().log_probabilities(window_statistics(x))
