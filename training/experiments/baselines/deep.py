"""training/: the published deep baselines: MLP, CNN and LSTM, in torch.

SmellNet (arXiv 2506.00239) compares these three kinds and gives their sizes only in its code; the
LSTM here follows that code in kind (one layer, mean over time), and the sizes are ours: each
network has a few hundred thousand weights at most. Trained by Adam for a fixed number of steps,
not by the clock, so that a result can be repeated. torch is loaded when one is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.experiments.baselines.inputs import Standardiser

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

BATCH = 32
_PREDICT_BATCH = 512


@dataclass(frozen=True, slots=True)
class DeepSettings:
    """How a network is sized and trained."""

    kind: str
    """"mlp", "cnn" or "lstm"."""
    steps: int = 5600
    """Batches of 32: 90 epochs of the published windows of 200 recordings, as published."""
    width: int = 64
    """Units of a hidden layer, filters of a convolution, or cells of the LSTM."""
    learning_rate: float = 1e-3
    """Peak rate; a cosine takes it to zero."""
    dropout: float = 0.2
    """Before the last layer."""


class Deep:
    """One small network; `jobs` threads for torch, -1 leaves torch its default."""

    def __init__(
        self, n_labels: int, settings: DeepSettings, *, seed: int = 0, jobs: int = 1
    ) -> None:
        self._n_labels, self._settings, self._seed, self._jobs = n_labels, settings, seed, jobs
        self._standardise: Standardiser | None = None
        self._network: Any = None

    @property
    def parameters(self) -> int:
        """Weights of the network."""
        return sum(weight.numel() for weight in self._network.parameters())

    def fit(self, x: NDArray[np.float32], label: NDArray[np.int64]) -> None:
        """Train on windows float32[windows, window, feature]."""
        import torch  # noqa: PLC0415 - of the train extra

        if self._jobs > 0:
            torch.set_num_threads(self._jobs)
        torch.manual_seed(self._seed)
        self._standardise = Standardiser.measure(x)
        inputs, expected = torch.from_numpy(self._standardise(x)), torch.from_numpy(label)
        network = build_baseline_network(self._settings, x.shape[1], x.shape[2], self._n_labels)
        optimiser = torch.optim.Adam(network.parameters(), lr=self._settings.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self._settings.steps)
        loss_of = torch.nn.CrossEntropyLoss()
        for _ in range(self._settings.steps):
            chosen = torch.randint(len(inputs), (BATCH,))
            optimiser.zero_grad(set_to_none=True)
            loss_of(network(inputs[chosen]), expected[chosen]).backward()
            optimiser.step()
            schedule.step()
        self._network = network.eval()

    def log_probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return float64[windows, labels]."""
        import torch  # noqa: PLC0415

        if self._standardise is None:
            raise ValueError("fit before log_probabilities")
        inputs = torch.from_numpy(self._standardise(x))
        with torch.no_grad():
            parts = torch.split(inputs, _PREDICT_BATCH)
            logits = torch.cat([self._network(part) for part in parts])
            return np.asarray(logits.double().log_softmax(dim=1).numpy())


def build_baseline_network(
    settings: DeepSettings, window: int, n_features: int, n_labels: int
) -> nn.Module:
    """Build a freshly initialised network from x [batch, window, feature] to logits."""
    from torch import Tensor, nn  # noqa: PLC0415

    width, dropout = settings.width, settings.dropout

    class OverTime(nn.Module):
        """Puts features before time, as the CNN needs them."""

        def forward(self, x: Tensor) -> Tensor:
            return x.transpose(1, 2)

    class MeanOfCells(nn.Module):
        """An LSTM's outputs, averaged over time."""

        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(n_features, width, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.lstm(x)[0]
            return outputs.mean(dim=1)

    def convolution(inputs: int, length: int) -> list[nn.Module]:
        return [
            nn.Conv1d(inputs, width, length, padding=length // 2),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        ]

    last = [nn.Dropout(dropout), nn.Linear(width, n_labels)]
    if settings.kind == "mlp":
        hidden = [nn.Linear(width, width), nn.ReLU()]
        return nn.Sequential(
            nn.Flatten(), nn.Linear(window * n_features, width), nn.ReLU(), *hidden, *last
        )
    if settings.kind == "cnn":
        layers = [
            OverTime(),
            *convolution(n_features, 7),
            nn.MaxPool1d(2),
            *convolution(width, 5),
            nn.MaxPool1d(2),
            *convolution(width, 3),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        ]
        return nn.Sequential(*layers, *last)
    if settings.kind == "lstm":
        return nn.Sequential(MeanOfCells(), nn.Linear(width, width), nn.ReLU(), *last)
    raise ValueError(f"kind must be mlp, cnn or lstm, got {settings.kind!r}")
