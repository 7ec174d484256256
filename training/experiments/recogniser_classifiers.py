"""training/experiments: the classifiers that the rig's recogniser is compared with.

Each is fitted to the rows of taught exposures and scores rows of other ones. May import
`calibration`; those other than the recogniser's own need scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.recogniser import PreparedExposure, fit_discriminant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Scorer = Callable[[Floats], Floats]
    """Features float64[rows, features] in, scores float64[rows, labels] out, labels sorted."""

    Fit = Callable[[Sequence[PreparedExposure]], Scorer]

ROWS_EACH = 60
"""Rows of each exposure that scikit-learn's classifiers are fitted to, evenly spaced, so that all
exposures count alike."""

OWN = "kernel discriminant"
"""What the recogniser has."""

_LEAST_SHARE = 0.01
"""Added to the probabilities of classifiers that give zeros."""

_LEAST_SPREAD = 1e-6
_SEED = 0


def _own_discriminant(exposures: Sequence[PreparedExposure]) -> Scorer:
    fitted = fit_discriminant(exposures)
    return fitted.row_log_probabilities


def _sklearn(make: Callable[[int], object]) -> Fit:
    """Return the fit of a scikit-learn classifier, which `make` builds for so many smells."""

    def fit(exposures: Sequence[PreparedExposure]) -> Scorer:
        from sklearn.impute import SimpleImputer  # noqa: PLC0415 - training extra
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415
        from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

        rows, labels = [], []
        for exposure in exposures:
            chosen = np.linspace(0, len(exposure.features) - 1, ROWS_EACH).round().astype(int)
            rows.append(exposure.features[chosen])
            labels += [exposure.label] * ROWS_EACH
        model = make_pipeline(
            StandardScaler(),
            SimpleImputer(strategy="constant", fill_value=0.0),
            make(len(set(labels))),
        )
        model.fit(np.concatenate(rows), labels)

        def score(features: Floats) -> Floats:
            return np.asarray(np.log(model.predict_proba(features) + _LEAST_SHARE))

        return score

    return fit


def _shrunk_lda(smells: int) -> object:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # noqa: PLC0415

    return LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage=0.3, priors=np.full(smells, 1.0 / smells)
    )


def _logistic(_smells: int) -> object:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    return LogisticRegression(C=1.0, class_weight="balanced", max_iter=300)


def _neighbours(_smells: int) -> object:
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415

    return KNeighborsClassifier(15, weights="distance")


def _trees(_smells: int) -> object:
    from sklearn.ensemble import ExtraTreesClassifier  # noqa: PLC0415

    return ExtraTreesClassifier(50, min_samples_leaf=2, class_weight="balanced", random_state=_SEED)


def _mahalanobis(exposures: Sequence[PreparedExposure]) -> Scorer:
    """Score by the distance to each smell's mean in units of its own covariance.

    The covariance is shrunk by half to a multiple of the identity.
    """
    labels = sorted({exposure.label for exposure in exposures})
    spread = np.concatenate([one.features for one in exposures]).std(axis=0) + _LEAST_SPREAD
    fitted = []
    for label in labels:
        rows = np.concatenate([one.features for one in exposures if one.label == label]) / spread
        covariance = np.atleast_2d(np.cov(rows, rowvar=False, bias=True))
        scale = np.trace(covariance) / len(covariance) + _LEAST_SPREAD
        shrunk = 0.5 * covariance + 0.5 * scale * np.eye(len(covariance))
        whitening = np.linalg.cholesky(np.linalg.inv(shrunk))
        fitted.append((rows.mean(axis=0), whitening, np.linalg.slogdet(shrunk)[1]))

    def score(features: Floats) -> Floats:
        scores = [
            -0.5 * ((((features / spread - mean) @ whitening) ** 2).sum(axis=1) + volume)
            for mean, whitening, volume in fitted
        ]
        return np.stack(scores, axis=1)

    return score


def _nearest_mean(exposures: Sequence[PreparedExposure]) -> Scorer:
    """Score by the distance to the mean of each smell's exposures, all features alike."""
    labels = sorted({exposure.label for exposure in exposures})
    rows = np.concatenate([exposure.features for exposure in exposures])
    spread = rows.std(axis=0) + _LEAST_SPREAD
    means = np.array(
        [
            np.mean([one.features.mean(axis=0) for one in exposures if one.label == label], axis=0)
            for label in labels
        ]
    )

    def score(features: Floats) -> Floats:
        difference = (features[:, np.newaxis] - means) / spread
        return np.asarray(-0.5 * (difference**2).sum(axis=2))

    return score


CLASSIFIERS: Mapping[str, Fit] = {
    OWN: _own_discriminant,
    "shrunk LDA": _sklearn(_shrunk_lda),
    "logistic regression": _sklearn(_logistic),
    "Mahalanobis": _mahalanobis,
    "nearest mean": _nearest_mean,
    "15 neighbours": _sklearn(_neighbours),
    "extra trees": _sklearn(_trees),
}
