"""Calibration: what exposures look like on the rig that a model was trained on.

May import `hardware`, `models`, `calibration.correction` and numpy; no file and no clock.
`ResponseExcerpt` describes one exposure by features that repeat from recording to recording of a
label: the level of each channel, and how much it changes within 1 to 50 seconds. `RigReference`
holds their distribution on the training rig, as the model's bundle carries it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_GAS
from hardware.errors import ScentdError
from models.rate_conversion import resample
from models.signals import log_signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.correction import Compensation


LAGS_S = (1, 2, 5, 10, 25, 50)

N_FEATURES = 1 + len(LAGS_S)
"""Of a channel in an exposure: its level, and ln of its mean change over each lag."""

MIN_REFERENCE_S = 100
"""Shorter exposures hold too few changes over 50 seconds."""

ONSET_S = 45
"""The first seconds of an exposure, in which the channels still rise, differ from exposure to
exposure; they are left out where `MIN_REFERENCE_S` remain. Of references of 150 s, four then close
.54 and .58 of the gap instead of .47 and .55 (folds 0 and 1)."""

MIN_KNOWN_SHARE = 0.9
"""Share of usable readings that a channel needs in an exposure."""

_QUIET = 1e-3
"""Mean changes of ln conductance below this come from a converter, not from an odour."""
_SHRINKAGE = 0.1
"""Share of the diagonal in the within-label covariance: 200 recordings, 7 features."""
_MIN_VARIANCE = 1e-4


class TransferError(ScentdError):
    """References cannot be used, or do not fit the model."""


@dataclass(frozen=True, slots=True, eq=False)
class RigReference:
    """The features of each label's exposures on the rig that a model was trained on.

    Attributes
    ----------
    labels: the model's.
    mean: float64[labels, 8, N_FEATURES], features averaged over a label's recordings; NaN where
        a channel was never usable.
    covariance: float64[8, N_FEATURES, N_FEATURES], of one recording's features about its
        label's mean, shrunk towards its diagonal.
    wander: float64[8], median variance of ln conductance per second.
    """

    labels: tuple[str, ...]
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    wander: NDArray[np.float64]

    @classmethod
    def measure(
        cls,
        recordings: Mapping[str, Sequence[NDArray[np.float32]]],
        rate_hz: float = 1.0,
    ) -> RigReference:
        """Measure recordings of the training rig, by label, float32[n, 12] with NaN where unusable.

        Raises
        ------
        TransferError: a recording is too short or too slow.
        """
        features, means, wander = [], [], []
        for label, values in recordings.items():
            exposures = [ResponseExcerpt.from_readings(label, item, rate_hz) for item in values]
            own = np.stack([exposure.features for exposure in exposures])
            means.append(np.ma.masked_invalid(own).mean(axis=0).filled(np.nan))
            if len(own) > 1:
                # Deviations from the mean of n are too small by a share 1/n of their variance.
                features.append((own - means[-1]) * math.sqrt(len(own) / (len(own) - 1)))
            wander += [exposure.wander for exposure in exposures]
        within = np.concatenate(features) if features else np.empty((0, N_GAS, N_FEATURES))
        median = [
            np.median(known) if len(known := column[np.isfinite(column)]) else 0.0
            for column in np.stack(wander, axis=1)
        ]
        return cls(tuple(recordings), np.stack(means), _covariances(within), np.array(median))

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the arrays that a bundle holds; the labels are the bundle's."""
        return {
            "rig_mean": self.mean,
            "rig_covariance": self.covariance,
            "rig_wander": self.wander,
        }

    @classmethod
    def from_arrays(
        cls, labels: Sequence[str], arrays: Mapping[str, NDArray[np.float64]]
    ) -> RigReference | None:
        """Return a bundle's reference, None for a bundle that has none."""
        names = ("rig_mean", "rig_covariance", "rig_wander")
        if any(name not in arrays for name in names):
            return None
        return cls(tuple(labels), *(arrays[name] for name in names))


@dataclass(frozen=True, slots=True, eq=False)
class ResponseExcerpt:
    """One exposure to a known odour on one rig.

    Attributes
    ----------
    label: of the odour.
    signal: float64[n, 8], log-conductances once a second, NaN where unusable.
    """

    label: str
    signal: NDArray[np.float64]

    @classmethod
    def from_readings(
        cls,
        label: str,
        values: NDArray[np.float32],
        rate_hz: float,
        compensation: Compensation | None = None,
        t_ms: NDArray[np.int64] | None = None,
    ) -> ResponseExcerpt:
        """Return the excerpt of an exposure float32[n, 12], brought to one reading a second.

        A faster board is averaged, a slower one interpolated between its readings at `t_ms`, or at
        its rate. The first `ONSET_S` are left out, as far as the rest is long enough.
        `compensation` removes the effect of humidity and temperature on this rig.

        Raises
        ------
        TransferError: it is shorter than `MIN_REFERENCE_S`, or slower than a reading in 4 s.
        """
        slow = resample(values, t_ms, rate_hz, 1.0)
        if slow is None or len(values) / rate_hz < MIN_REFERENCE_S:
            raise TransferError(
                f"A reference needs at least {MIN_REFERENCE_S} s and a reading in 4 s or less; "
                f"that of {label} has {len(values)} readings at {rate_hz:.2g} Hz, which is "
                f"{len(values) / rate_hz:.0f} s. Record it again, two minutes or longer."
            )
        slow = slow[min(ONSET_S, max(len(slow) - MIN_REFERENCE_S, 0)) :]
        signal = log_signals(slow)
        return cls(label, signal - compensation.offsets(slow) if compensation else signal)

    @property
    def features(self) -> NDArray[np.float64]:
        """float64[8, N_FEATURES]; NaN for a channel that is unusable."""
        features = features_of(np.where(self.usable, self.signal, 0.0))
        features[~self.usable] = np.nan
        return features

    @property
    def usable(self) -> NDArray[np.bool_]:
        """bool[8], whether a channel has enough usable readings."""
        return np.asarray(np.isfinite(self.signal).mean(axis=0) >= MIN_KNOWN_SHARE)

    @property
    def wander(self) -> NDArray[np.float64]:
        """float64[8], variance of ln conductance per second, of changes over five seconds."""
        changes = np.ma.masked_invalid(self.signal[5:] - self.signal[:-5])
        return np.asarray((changes.var(axis=0) / 5.0).filled(np.nan))


def features_of(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the features float64[channels, N_FEATURES] of signals float64[n, channels]."""
    changes = [np.nanmean(np.abs(signal[lag:] - signal[:-lag]), axis=0) for lag in LAGS_S]
    level = np.nanmedian(signal, axis=0)
    return np.stack([level, *(np.log(change + _QUIET) for change in changes)], axis=1)


def _covariances(within: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float64[8, F, F] of deviations float64[recordings, 8, F], shrunk."""
    result = np.empty((N_GAS, N_FEATURES, N_FEATURES))
    for k in range(N_GAS):
        rows = within[:, k][np.isfinite(within[:, k]).all(axis=1)]
        covariance = rows.T @ rows / max(len(rows), 1)
        diagonal = np.maximum(np.diagonal(covariance), _MIN_VARIANCE)
        result[k] = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.diag(diagonal)
        result[k][np.diag_indices(N_FEATURES)] = diagonal
    return result
