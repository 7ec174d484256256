"""training/: random convolutions after MiniRocket, and a ridge classifier on their features.

Dempster, Schmidt and Webb, "MiniRocket: A Very Fast (Almost) Deterministic Transform for Time
Series Classification", KDD 2021: 84 fixed kernels of length 9 whose weights are -1 but for three
2s, dilated; of each convolution only the share of values above a bias counts, the biases being
quantiles of the convolution of training series. Series of several channels are convolved as the
sum over a random subset of channels, as the authors' multivariate variant does. Written from the
paper in numpy; scikit-learn is loaded when the classifier is fitted.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.softmax import log_softmax
from training.experiments.baselines.inputs import Standardiser

if TYPE_CHECKING:
    from numpy.typing import NDArray

KERNEL_LENGTH = 9
KERNELS = np.array(list(itertools.combinations(range(KERNEL_LENGTH), 3)))
"""int[84, 3]: which weights of each kernel are 2; all others are -1."""
MAX_DILATIONS = 32
MAX_CHANNELS = 9
"""A convolution sums over at most so many channels."""
RIDGE_ALPHAS = np.logspace(-3, 3, 10)

_GOLDEN = (5**0.5 + 1) / 2
_CHUNK = 256
"""Windows convolved at once; no result depends on it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Convolution:
    """One kernel at one dilation: channels summed over, and the biases of its features."""

    kernel: int
    dilation: int
    padded: bool
    channels: NDArray[np.int64]
    biases: NDArray[np.float32]


def dilations(length: int, features_per_kernel: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the dilations for series of `length`, and the features each gets per kernel.

    Dilations grow exponentially up to the one whose kernel spans the series.
    """
    count = min(features_per_kernel, MAX_DILATIONS)
    largest = np.log2((length - 1) / (KERNEL_LENGTH - 1))
    spread = np.logspace(0, largest, count, base=2).astype(np.int64)
    chosen, times = np.unique(spread, return_counts=True)
    features = (times * features_per_kernel / count).astype(np.int64)
    features[: features_per_kernel - int(features.sum())] += 1
    return chosen, features


class Rocket:
    """MiniRocket's features, about as many as the paper's 10,000, and a ridge classifier.

    `seed` chooses the channel subsets and the windows that give the biases; `jobs` is not used.
    """

    def __init__(
        self, n_labels: int, *, seed: int = 0, jobs: int = 1, features: int = 10_000
    ) -> None:
        del jobs
        self._n_labels = n_labels
        self._random = np.random.default_rng(seed)
        self._per_kernel = max(1, features // len(KERNELS))
        self._standardise: Standardiser | None = None
        self._convolutions: list[_Convolution] = []
        self._ridge: Any = None

    @property
    def parameters(self) -> int:
        """Weights of the ridge classifier, and the biases of the features."""
        biases = sum(len(convolution.biases) for convolution in self._convolutions)
        return int(self._ridge[-1].coef_.size + self._ridge[-1].intercept_.size) + biases

    def fit(self, x: NDArray[np.float32], label: NDArray[np.int64]) -> None:
        """Choose biases from, and train the classifier on, windows [windows, window, feature]."""
        from sklearn.linear_model import RidgeClassifierCV  # noqa: PLC0415 - of the train extra
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

        self._standardise = Standardiser.measure(x)
        self._convolutions = self._choose(self._standardise(x))
        self._ridge = make_pipeline(StandardScaler(), RidgeClassifierCV(RIDGE_ALPHAS))
        self._ridge.fit(self.transform(x), label)

    def transform(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the shares of positive values, float32[windows, features], each in 0..1."""
        if self._standardise is None:
            raise ValueError("fit before transform")
        series = self._standardise(x)
        return np.concatenate(
            [
                _positive_shares(series[start : start + _CHUNK], self._convolutions)
                for start in range(0, len(series), _CHUNK)
            ]
        )

    def log_probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the log-softmax of the ridge classifier's margins, float64[windows, labels].

        Ridge margins are no probabilities; their order, and that of their means over a
        recording, is kept.
        """
        margin = np.asarray(self._ridge.decision_function(self.transform(x)), dtype=np.float64)
        if margin.ndim == 1:  # two labels: one margin
            margin = np.stack([-margin, margin], axis=1)
        scores = np.full((len(x), self._n_labels), margin.min(axis=1)[:, None] - 1.0)
        scores[:, self._ridge.classes_] = margin
        return log_softmax(scores)

    def _choose(self, series: NDArray[np.float32]) -> list[_Convolution]:
        n_channels = series.shape[2]
        most = np.log2(min(n_channels, MAX_CHANNELS) + 1)
        # A low-discrepancy sequence spreads the quantiles evenly over the features (the paper's).
        quantile = itertools.count(1)
        chosen = []
        for number, (dilation, features) in enumerate(
            zip(*dilations(series.shape[1], self._per_kernel), strict=True)
        ):
            for kernel in range(len(KERNELS)):
                size = int(2 ** self._random.uniform(0, most))
                channels = self._random.choice(n_channels, min(size, n_channels), replace=False)
                example = series[self._random.integers(len(series))][None]
                padded = (number + kernel) % 2 == 0
                values = _convolve(
                    _shifted(example, int(dilation)), kernel, channels, int(dilation), padded=padded
                )
                levels = [(next(quantile) * _GOLDEN) % 1 for _ in range(int(features))]
                biases = np.quantile(values, levels).astype(np.float32)
                chosen.append(_Convolution(kernel, int(dilation), padded, channels, biases))
        return chosen


def _positive_shares(
    series: NDArray[np.float32], convolutions: list[_Convolution]
) -> NDArray[np.float32]:
    parts = []
    for dilation, group in itertools.groupby(convolutions, key=lambda item: item.dilation):
        shifted = _shifted(series, dilation)
        for item in group:
            values = _convolve(shifted, item.kernel, item.channels, dilation, padded=item.padded)
            parts.append((values[:, :, None] > item.biases).mean(axis=1, dtype=np.float32))
    return np.concatenate(parts, axis=1)


def _shifted(series: NDArray[np.float32], dilation: int) -> NDArray[np.float32]:
    """Return the nine taps of a dilated kernel and, last, minus their sum.

    float32[10, channel, windows, window]; beyond its ends a series counts as 0.
    """
    windows, length, channels = series.shape
    reach = KERNEL_LENGTH // 2 * dilation
    wide = np.zeros((channels, windows, length + 2 * reach), dtype=np.float32)
    wide[:, :, reach : reach + length] = series.transpose(2, 0, 1)
    taps = [wide[:, :, tap * dilation : tap * dilation + length] for tap in range(KERNEL_LENGTH)]
    return np.stack([*taps, -np.sum(taps, axis=0)])


def _convolve(
    shifted: NDArray[np.float32],
    kernel: int,
    channels: NDArray[np.int64],
    dilation: int,
    *,
    padded: bool,
) -> NDArray[np.float32]:
    """Convolve with one kernel, summed over channels: float32[windows, window or less].

    Weights of -1 everywhere plus 3 at three taps are the paper's -1 and 2.
    """
    taps = shifted[KERNELS[kernel]]
    total: NDArray[np.float32] = shifted[KERNEL_LENGTH, channels].sum(axis=0)
    total += 3 * taps[:, channels].sum(axis=(0, 1))
    reach = KERNEL_LENGTH // 2 * dilation
    return total if padded else total[:, reach : total.shape[1] - reach]
