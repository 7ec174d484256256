"""Calibration: fits the rig's recogniser to the exposures that it was taught.

May import numpy and models. Pure: exposures in, a `models.recogniser.Recogniser` out. It needs
neither torch nor scipy, and is fitted in closed form, so that a Raspberry Pi fits it anew after
every exposure that it is taught.

Smells count alike, so do the sessions of a smell, however many exposures and rows they have. What
says how sure a name is - the temperature, the novelty limits, the prediction set - is fitted to
sessions that are held out in turn. `scent-train rigs` prints what this reaches on real rigs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hardware.errors import ScentdError
from models.conformal import set_threshold
from models.recogniser import (
    LEAST_SIZE,
    LISTED,
    NOVELTY_STAGES,
    Recogniser,
    lift,
    nearest_distances,
)
from models.softmax import log_softmax

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from models.response import ResponseRows

RANDOM_FEATURES = 300
KERNEL_WIDTH = 0.7
"""Length scale of the Gaussian kernel, times the root of the number of standardised features, which
is the typical distance of a row from the centre. Chosen on fruits5 and ai-nose, where anything from
0.5 to 1.0 gave the same figures within noise."""

SHRINKAGE = 1.0
"""Identity added to the within-class covariance, times its mean variance: few exposures say little
about it. Chosen likewise, from 0.3 to 3."""

MOST_ROWS = 4096
"""Taught rows that are fitted, and kept for the distance to the nearest one (0.34 MB): 20 smells of
10 exposures are fitted in well under a second."""

MOST_TAUGHT_ROWS = 240
"""Rows of an exposure that are fitted: twenty minutes, as long as the library keeps."""

MOST_COMPARED_ROWS = 3000
"""Rows compared with each other for the novelty limits."""

MOST_FOLDS = 5
"""Sessions that are held out in turn for temperature and prediction sets; more take too long."""

MOST_JUDGED_ROWS = 1000
"""Rows of held-out exposures that are judged for them, of all folds together."""

STAGES = (3, 6, 12, 24, 48, 120)
"""Rows of an exposure so far at which its probabilities are judged."""

TEMPERATURES = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0)
DEFAULT_TEMPERATURE = 12.0
DEFAULT_NOVELTY = 0.7
"""Used where one session only was taught, so that nothing can be held out. Both are assumed, not
fitted. Held-out days of fruits5 and rooms of ai-nose: with 0.6, 0.7, 0.8 and 1.0, .88, .93, .93 and
.93 of the fruits are named rightly in the end, .64, .64, .64 and .71 of the exposures in the other
room, and .14, .28, .64 and .82, or .07, .14, .36 and .64, of what was never taught are named."""

DEFAULT_NOVELTY_ALONE = 0.4
"""The same of a single smell, whose features are measured in the deviations of `_spread_alone`. One
exposure of each smell alone, asked for on other days: with 0.35, 0.4 and 0.5, .99, 1.00 and 1.00 of
its exposures on fruits5 are known and .16, .28 and .43 of the other smells', on ai-nose .24, .53
and .63, and .04, .04 and .11. Simulated: .69, .73 and .78, and .02, .03 and .14."""

OWN_SPREAD_ALONE = 2.0
"""Factor on the deviations within the exposures of a single smell, in `_spread_alone`. With 1, .13
of the exposures of ai-nose are known at the limit that leaves .25 of the new smells of fruits5."""

ASSUMED_SPREAD = np.repeat((0.13, 0.65, 0.55, 0.085, 0.35), (5, 1, 5, 5, 5))
"""float64[features], of direction, size, response and its changes over `LAGS_S`: deviations over
the first two minutes of one exposure of each of five smells on one day of fruits5, the root mean
square over the four days and the signals."""

SET_COVERAGE = 0.9

FAMILIAR_WEIGHT = 0.85
"""Below 1, the novelty limit keeps further away from taught smells than from new ones. Held-out
days of fruits5: with 0.5, from 0.6 to 0.7, from 0.8 to 0.9 and with 1.0, .32, .28, .24 and .16 of
the new smells are given a name in the end; with 1.0 one taught exposure of 25 less has a name."""

SINGLE_SMELL_MARGIN = 1.2
"""Factor on the largest distance between sessions, where one smell only was taught."""

_LEAST_SPREAD = 1e-6
_LEAST_DEVIATION = 0.05
_SEED = 0


class RecogniserError(ScentdError):
    """A recogniser cannot be fitted to these exposures."""


class TaughtExposure(NamedTuple):
    """One exposure of a smell.

    Attributes
    ----------
    label: of the smell.
    session: the day, or whatever else names one sitting; its exposures resemble each other.
    rows: of the response; those below `LEAST_SIZE` are left out.
    clean_air: float64[8], log-conductances above which it lies, or None.
    """

    label: str
    session: str
    rows: ResponseRows
    clean_air: NDArray[np.float64] | None = None


class PreparedExposure(NamedTuple):
    """An exposure with its features float64[rows, features], NaN where unusable."""

    label: str
    session: str
    features: NDArray[np.float64]


def fit_recogniser(
    exposures: Sequence[TaughtExposure], negatives: Sequence[TaughtExposure] = ()
) -> Recogniser:
    """Return the recogniser of exposures, with all that depends on held-out sessions.

    Parameters
    ----------
    exposures: of the smells.
    negatives: exposures that are none of the smells. What is nearer to them than to any taught row
        has no name; neither the smells nor the limits are fitted to them (`scent-train rigs
        --negatives` compares this with the alternatives).

    Raises
    ------
    RecogniserError: no exposure has a response.
    """
    prepared = prepare_exposures(exposures)
    alone = len({exposure.label for exposure in prepared}) == 1
    fitted = fit_discriminant(prepared, _spread_alone if alone else None)
    limits = novelty_limits(fitted, prepared)
    certainty = _certainty(prepared)
    calibrated = limits != fitted.novelty_limits
    fitted = replace(fitted, novelty_limits=limits, calibrated=calibrated, **certainty)
    return with_negatives(fitted, negatives)


def with_negatives(recogniser: Recogniser, negatives: Sequence[TaughtExposure]) -> Recogniser:
    """Return a recogniser that keeps silent about what is nearer to these than to its smells."""
    if not negatives:
        return recogniser
    rows = np.concatenate([prepare_exposure(negative).features for negative in negatives])
    return replace(recogniser, negatives=recogniser.standardised(rows).astype(np.float32))


def prepare_exposures(exposures: Sequence[TaughtExposure]) -> list[PreparedExposure]:
    """Return the exposures that have rows of evidence, prepared.

    Raises
    ------
    RecogniserError: none has.
    """
    prepared = [prepare_exposure(exposure) for exposure in exposures]
    prepared = [exposure for exposure in prepared if len(exposure.features)]
    if not prepared:
        raise RecogniserError(
            "Expected exposures whose channels rise above clean air, got none. Teach a smell "
            "again, beginning in clean air."
        )
    return prepared


def prepare_exposure(exposure: TaughtExposure) -> PreparedExposure:
    """Return the rows that are evidence, as the recogniser's features."""
    rows = exposure.rows[exposure.rows.size >= LEAST_SIZE][:MOST_TAUGHT_ROWS]
    return PreparedExposure(exposure.label, exposure.session, rows.features())


def _spread_alone(own: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the deviations float64[features] in which distances to a single smell are measured.

    One exposure stands still on its plateau: in its `own` deviations, the same smell on another day
    is as far from it as a new one is where several smells were taught.
    """
    spread: NDArray[np.float64] = np.hypot(OWN_SPREAD_ALONE * own, ASSUMED_SPREAD)
    return spread


def fit_discriminant(
    exposures: Sequence[PreparedExposure],
    widen: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
) -> Recogniser:
    """Return the discriminant of any features, with defaults for what held-out sessions tell.

    `widen` makes the deviations of the standardisation out of those of the features.
    """
    every = 1 + (sum(len(exposure.features) for exposure in exposures) - 1) // MOST_ROWS
    exposures = [each._replace(features=each.features[::every]) for each in exposures]
    labels = tuple(sorted({exposure.label for exposure in exposures}))
    rows = np.concatenate([exposure.features for exposure in exposures])
    lengths = [len(exposure.features) for exposure in exposures]
    owner = np.repeat([labels.index(exposure.label) for exposure in exposures], lengths)
    weight = _row_weights(exposures)
    known = np.isfinite(rows)
    share = np.maximum(weight @ known, _LEAST_SPREAD)
    centre = (weight @ np.where(known, rows, 0.0)) / share
    deviation = np.where(known, rows - centre, 0.0)
    spread = np.maximum(np.sqrt((weight @ deviation**2) / share), _LEAST_SPREAD)
    spread = spread if widen is None else widen(spread)
    standard = deviation / spread
    rng = np.random.default_rng(_SEED)
    width = KERNEL_WIDTH * np.sqrt(rows.shape[1])
    frequencies = rng.normal(size=(rows.shape[1], RANDOM_FEATURES)) / width
    phases = rng.uniform(0.0, 2.0 * np.pi, RANDOM_FEATURES)
    lifted = lift(standard, frequencies, phases)
    member = weight[:, np.newaxis] * (owner[:, np.newaxis] == np.arange(len(labels)))
    means = (member.T @ lifted) / member.sum(axis=0)[:, np.newaxis]
    residual = lifted - means[owner]
    covariance = (weight[:, np.newaxis] * residual).T @ residual
    scale = np.trace(covariance) / RANDOM_FEATURES + _LEAST_SPREAD
    covariance += SHRINKAGE * scale * np.eye(RANDOM_FEATURES)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    default_novelty = DEFAULT_NOVELTY if len(labels) > 1 else DEFAULT_NOVELTY_ALONE
    return Recogniser(
        labels=labels,
        centre=centre,
        spread=spread,
        frequencies=frequencies,
        phases=phases,
        means=means @ whitening,
        whitening=whitening,
        rows=standard.astype(np.float32),
        negatives=np.empty((0, rows.shape[1]), np.float32),
        temperature=DEFAULT_TEMPERATURE,
        novelty_limits=(default_novelty,) * len(NOVELTY_STAGES),
        set_threshold=None,
        set_coverage=SET_COVERAGE,
        list_coverage=None,
        calibrated=False,
    )


def _row_weights(exposures: Sequence[PreparedExposure]) -> NDArray[np.float64]:
    """Return float64[rows], sum 1: smells, their sessions and a session's exposures count alike."""
    labels = {exposure.label for exposure in exposures}
    weights = []
    for exposure in exposures:
        same = [other for other in exposures if other.label == exposure.label]
        sessions = {other.session for other in same}
        together = sum(other.session == exposure.session for other in same)
        count = len(labels) * len(sessions) * together * len(exposure.features)
        weights.append(np.full(len(exposure.features), 1.0 / count))
    return np.concatenate(weights)


def _certainty(exposures: Sequence[PreparedExposure]) -> dict[str, Any]:
    """Return temperature, set threshold and list coverage, from held-out sessions.

    Empty with one session: the defaults stay.
    """
    every = 1 + sum(len(exposure.features) for exposure in exposures) // MOST_JUDGED_ROWS
    log_likelihood: list[NDArray[np.float64]] = []
    listed: list[bool] = []
    for recogniser, exposure in _held_out(exposures):
        distances = recogniser.squared_distances(exposure.features[::every])
        place = recogniser.labels.index(exposure.label)
        log_likelihood += _likelihood_by_temperature(distances, place, every)
        nearest = [recogniser.labels[k] for k in np.argsort(distances.mean(axis=0))[:LISTED]]
        listed.append(exposure.label in nearest)
    if not listed:
        return {}
    scores = np.stack(log_likelihood)
    best = int(scores.mean(axis=0).argmax())
    smells = len({exposure.label for exposure in exposures})
    return {
        "temperature": TEMPERATURES[best],
        "set_threshold": set_threshold(np.exp(scores[:, best]), SET_COVERAGE, len(listed)),
        # One more case that fails: a few exposures cannot promise that all will be listed.
        "list_coverage": sum(listed) / (len(listed) + 1) if smells > LISTED else None,
    }


def _likelihood_by_temperature(
    distances: NDArray[np.float64], truth: int, every: int
) -> list[NDArray[np.float64]]:
    """Return the truth's log-probability at each of `TEMPERATURES`, at each of `STAGES`.

    `distances` float64[rows, labels] are those of every `every`-th row.
    """
    by_row = [log_softmax(distances / (-2.0 * temperature)) for temperature in TEMPERATURES]
    stages = {min(-(-stage // every), len(distances)) for stage in STAGES}
    return [
        np.array([log_softmax(scores[:rows].mean(axis=0))[truth] for scores in by_row])
        for rows in sorted(stages)
    ]


def _held_out(
    exposures: Sequence[PreparedExposure],
) -> Iterator[tuple[Recogniser, PreparedExposure]]:
    """Yield recognisers, and exposures of a session that they were not fitted to."""
    sessions = sorted({exposure.session for exposure in exposures})
    if len(sessions) > MOST_FOLDS:
        sessions = list(np.random.default_rng(_SEED).permutation(sessions)[:MOST_FOLDS])
    for session in sessions:
        training = [exposure for exposure in exposures if exposure.session != session]
        labels = {exposure.label for exposure in training}
        judged = [
            exposure
            for exposure in exposures
            if exposure.session == session and exposure.label in labels
        ]
        if len(labels) > 1 and judged:
            recogniser = fit_discriminant(training)
            for exposure in judged:
                yield recogniser, exposure


def novelty_limits(fitted: Recogniser, exposures: Sequence[PreparedExposure]) -> tuple[float, ...]:
    """Return the mean novelty by `NOVELTY_STAGES` that best tells taught smells from others.

    Every exposure is compared with the other sessions, with its smell among them and without it.
    """
    standard = [fitted.standardised(exposure.features) for exposure in exposures]
    total = sum(map(len, standard))
    every = 1 + (total - 1) // MOST_COMPARED_ROWS
    thin = [rows[::every] for rows in standard]
    familiar: list[NDArray[np.float64]] = []
    new: list[NDArray[np.float64]] = []
    for exposure, rows in zip(exposures, thin, strict=True):
        others = [
            (other, taught)
            for other, taught in zip(exposures, thin, strict=True)
            if other.session != exposure.session
        ]
        same = [taught for other, taught in others if other.label == exposure.label]
        different = [taught for other, taught in others if other.label != exposure.label]
        apart = nearest_distances(rows, np.concatenate(different)) if different else None
        if same:
            near = nearest_distances(rows, np.concatenate(same))
            familiar.append(_means(near if apart is None else np.minimum(near, apart), every))
        if apart is not None:
            new.append(_means(apart, every))
    if familiar and new:
        by_stage = zip(np.transpose(familiar), np.transpose(new), strict=True)
        return tuple(_separating_limit(near, far) for near, far in by_stage)
    if familiar:
        return tuple((SINGLE_SMELL_MARGIN * np.max(familiar, axis=0)).tolist())
    return fitted.novelty_limits


def _means(distances: NDArray[np.float64], every: int) -> NDArray[np.float64]:
    """Return the mean of the first rows at each of `NOVELTY_STAGES`, of every `every`-th row."""
    return np.array([distances[: max(1, -(-stage // every))].mean() for stage in NOVELTY_STAGES])


def _separating_limit(familiar: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """Return the novelty that lies equally many deviations above taught smells as below new ones.

    Of their logarithms, as the distances are positive and skewed; few exposures determine two means
    and deviations better than the best of all limits.
    """
    near, far = np.log(familiar + _LEAST_SPREAD), np.log(new + _LEAST_SPREAD)
    near_spread = near.std() + _LEAST_DEVIATION
    far_spread = (far.std() + _LEAST_DEVIATION) * FAMILIAR_WEIGHT
    limit = (near.mean() * far_spread + far.mean() * near_spread) / (near_spread + far_spread)
    return float(np.exp(limit))
