"""training/: the mixing law of the sensors and a ScentFormer as one network: a product of experts.

The mixing law (`hardware.mixing_law`) predicts the levels of every composition on a grid of
proportions. With one covariance for all compositions, how likely each is follows from the levels by
a linear layer: softmax(x A + b), and proportions and presences by another: softmax(x A + b) O. No
gradient trains it: the responses to the substances are fitted in closed form
(`calibration.unmixing`), with an offset for each day. ScentFormer reads the changes over time; its
proportions q add `weight` times the sum of p ln q to the logarithm of each composition p (Hinton,
Neural Computation 14, 2002). torch, numpy and `calibration`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from calibration.unmixing import Priors, TaughtResponse, fit_unmixing
from hardware.channels import GAS_INDICES, channel_index
from hardware.mixing_law import mixed_response
from models.preprocess import Lineariser
from models.unmixing import STRENGTH_SPREAD, composition_grid, mean_response
from training.data.dataset import DataError
from training.data.mixture_days import mixture_days, mixture_exposures

if TYPE_CHECKING:
    from models.preprocess import PreprocessSpec
    from training.config import MixingConfig
    from training.data.dataset import Dataset
    from training.network.scentformer import MixtureNet

_BELOW_LOWEST = 0.3
"""The published mixtures hold no clean air. It is taken to lie this far, in log-conductance, below
the lowest level: there the law's 1 hardly matters, wherever clean air really is."""


class MixingLayer(nn.Module):
    """Levels to the log-probability of every composition, up to a constant.

    Its products, and those of `MixtureProductNet` with its compositions, are written out: a matrix
    product would be quantised, but a hundredth of a level counts, and so do thousands of
    compositions with a thousandth of the probability each.

    Parameters
    ----------
    config: its spread and prior.
    spec: the preprocessing, with levels, center and scale.
    data: the recordings in training.
    max_samples: samples used of a recording, from its start; None uses all.

    Raises
    ------
    DataError: a label has no recording.
    """

    weight: Tensor
    bias: Tensor
    shares: Tensor

    def __init__(
        self,
        config: MixingConfig,
        spec: PreprocessSpec,
        data: Dataset,
        max_samples: int | None = None,
    ) -> None:
        super().__init__()
        levels = _exposure_levels(spec, data, max_samples)
        air = np.min([level.response for level in levels], axis=0) - _BELOW_LOWEST
        columns = [GAS_INDICES.index(channel_index(name)) for name in spec.channels]
        unmixing = fit_unmixing(
            [one._replace(response=one.response - air) for one in levels],
            Priors.of_channels(columns),
        )
        if missing := sorted(set(data.labels) - set(unmixing.labels)):
            raise DataError(
                f"Expected recordings of every label, there are none of {', '.join(missing)}. "
                "Record them, or leave the labels out."
            )
        order = [unmixing.labels.index(label) for label in data.labels]
        grid = composition_grid(len(order), config.sizes)
        center, scale = (np.array(part[: spec.n_levels]) for part in (spec.center, spec.scale))
        # Levels come standardised; around their center the numbers stay small.
        predicted = mixed_response(unmixing.responses[order], grid.shares, unmixing.exponents)
        mean = (predicted + air - center) / scale
        covariance = config.inflation * unmixing.spread + STRENGTH_SPREAD**2 * np.outer(
            unmixing.exponents, unmixing.exponents
        )
        weight = mean @ np.linalg.inv(covariance / np.outer(scale, scale))
        bias = grid.log_prior - 0.5 * (weight * mean).sum(axis=1)
        for name, values in (("weight", weight), ("bias", bias), ("shares", grid.shares)):
            self.register_buffer(name, torch.from_numpy(np.asarray(values, dtype=np.float32)))

    def forward(self, level: Tensor) -> Tensor:
        """Return float32[batch, compositions] of standardised levels float32[batch, channels]."""
        return (level[:, None, :] * self.weight).sum(dim=2) + self.bias


class MixtureProductNet(nn.Module):
    """The product of the mixing law and a ScentFormer, with the outputs of a mixture network.

    Parameters
    ----------
    mixing: reads the levels of a window.
    network: reads the differences.
    weight: of the network.
    """

    def __init__(self, mixing: MixingLayer, network: MixtureNet, weight: float) -> None:
        super().__init__()
        self.mixing = mixing
        self.network = network
        self.expert_weight = weight
        self.output_names: tuple[str, ...] = network.output_names

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return proportions (summing to 1), presence probabilities, and the embedding.

        Parameters
        ----------
        x: float32[batch, window, feature], levels first.
        mask: float32[batch, window], 1 for measured rows.
        """
        levels = self.mixing.weight.shape[1]
        count = mask.sum(dim=1, keepdim=True).clamp(min=1.0)
        level = (x[:, :, :levels] * mask.unsqueeze(-1)).sum(dim=1) / count
        proportions, _, embedding = self.network.logits(x[:, :, levels:], mask)
        shares = self.mixing.shares
        agreement = (proportions.log_softmax(dim=1)[:, None, :] * shares).sum(dim=2)
        belief = (self.mixing(level) + self.expert_weight * agreement).softmax(dim=1)[:, :, None]
        return (belief * shares).sum(dim=1), (belief * (shares > 0)).sum(dim=1), embedding


def _exposure_levels(
    spec: PreprocessSpec, data: Dataset, max_samples: int | None
) -> list[TaughtResponse]:
    """Return the mean log-conductance of every exposure: one composition on one day."""
    linearise = Lineariser(spec)
    found: dict[str, list[int]] = defaultdict(list)
    days = mixture_days(data)
    for number, name in enumerate(mixture_exposures(data)):
        found[name].append(number)
    exposures = []
    for rows in found.values():
        levels = [
            mean_response(linearise(data.samples[row].values[:max_samples]).astype(np.float64))
            for row in rows
        ]
        target = data.samples[rows[0]].target
        shares = {data.labels[k]: float(target[k]) for k in np.flatnonzero(target)}
        total = math.fsum(shares.values())
        exposures.append(
            TaughtResponse(
                {label: share / total for label, share in shares.items()},
                days[rows[0]],
                np.mean(levels, axis=0),
            )
        )
    return exposures
