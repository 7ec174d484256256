"""Models: the rig's own recogniser of the smells that it was taught.

May import numpy and models. Pure: rows of the response in, probabilities and distances out.
`calibration.recogniser` fits it. It needs no model bundle, so that it serves any rig.

A linear discriminant in random Fourier features of the response (Rahimi and Recht, Random features
for large-scale kernel machines, NIPS 2007), which approximate a Gaussian kernel; all smells share
one shrunk within-class covariance. A smell that was never taught is far from every taught row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.response import ROW_S
from models.softmax import log_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.response import ResponseRows

TAUGHT = "taught"
"""Name of the recogniser where predictions name the model that made them."""

LEAST_SIZE = 0.3
"""Response, in log-conductance over the recogniser's signals, below which a row is no evidence:
clean air stays within it, on the rigs fruits5 and ai-nose alike."""

NOVELTY_STAGES = (3, 6, 12, 24, 36)
"""Rows of an exposure so far at which novelty limits are fitted: a rise is unlike the rest. Later
rows, after three minutes, do not change the novelty: on the plateau all smells come nearer to each
other. Held-out days of fruits5: of the smells never taught, .28 pass the distance that .90 of the
taught keep after 12 rows, .04 after 24, .12 after 48 and .24 in the end."""

LISTED = 3
"""Labels of the short list, which is given while none is announced."""

MEMORY_ROWS = 120
"""Rows, ten minutes, over which evidence is averaged; older ones fade."""

ANNOUNCE_ROWS = (6.0, 24.0)
ANNOUNCE = (0.7, 0.5)
"""Probability from which a taught smell is announced, after so many rows: half a minute after the
onset several smells still look alike. With 0.5 from the start .24 of the exposures of another day
were given another name first (fruits5), with 0.7 to the end .32 were not named any more."""

KEEP = 1.15
"""Factor on the novelty limit while a name is announced: a long exposure drifts away from what was
taught, and a name that was right must not be withdrawn for it."""

CONFIRM_ROWS = 2
"""Rows in a row that must agree before a name is announced, or `unrecognised` is."""


@dataclass(frozen=True, slots=True, eq=False)
class Recogniser:
    """What a rig was taught, fitted.

    Attributes
    ----------
    labels: of the smells, sorted.
    centre, spread: float64[features], of the standardisation.
    frequencies, phases: float64[features, random features] and float64[random features].
    means: float64[labels, random features], whitened.
    whitening: float64[random features, random features].
    rows: float32[taught rows, features], standardised.
    negatives: float32[rows, features], standardised, of exposures that are none of the smells.
    temperature: divides the squared distances.
    novelty_limits: by `NOVELTY_STAGES`; an exposure whose `novelty` is above it is none of the
        smells.
    set_threshold: smallest probability of a label in the prediction set; None where too little was
        taught to state a coverage.
    set_coverage: of the prediction set.
    list_coverage: share of held-out exposures whose smell was among the `LISTED` most probable;
        None where none was held out, or so few smells were taught that all would be listed.
    calibrated: whether the novelty limits come from held-out sessions; otherwise they are assumed.
    """

    labels: tuple[str, ...]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    phases: NDArray[np.float64]
    means: NDArray[np.float64]
    whitening: NDArray[np.float64]
    rows: NDArray[np.float32]
    negatives: NDArray[np.float32]
    temperature: float
    novelty_limits: tuple[float, ...]
    set_threshold: float | None
    set_coverage: float
    list_coverage: float | None
    calibrated: bool

    def squared_distances(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return float64[rows, labels], to the mean of each smell."""
        lifted = lift(self.standardised(features), self.frequencies, self.phases)
        difference: NDArray[np.float64] = (lifted @ self.whitening)[:, np.newaxis] - self.means
        distances: NDArray[np.float64] = (difference**2).sum(axis=2)
        return distances

    def row_log_probabilities(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return float64[rows, labels], each row normalised."""
        return log_softmax(self.squared_distances(features) / (-2.0 * self.temperature))

    def row_novelty(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return float64[rows], the distance to the nearest taught row.

        In standard deviations of one feature; 0 where a row was taught.
        """
        return nearest_distances(self.standardised(features), self.rows.astype(np.float64))

    def row_negative_distance(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return float64[rows], the distance to the nearest negative; infinite without any."""
        if not len(self.negatives):
            return np.full(len(features), np.inf)
        return nearest_distances(self.standardised(features), self.negatives.astype(np.float64))

    def novelty_limit(self, rows: float) -> float:
        """Return the mean novelty above which an exposure of so many rows is none of the smells."""
        return float(np.interp(rows, NOVELTY_STAGES, self.novelty_limits))

    def standardised(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return features in standard deviations; a missing channel lies at the centre."""
        standard: NDArray[np.float64] = np.nan_to_num((features - self.centre) / self.spread)
        return standard


def lift(
    standard: NDArray[np.float64], frequencies: NDArray[np.float64], phases: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the random Fourier features float64[rows, random features]."""
    lifted: NDArray[np.float64] = math.sqrt(2.0 / len(phases)) * np.cos(
        standard @ frequencies + phases
    )
    return lifted


def nearest_distances(
    rows: NDArray[np.float64], taught: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return float64[rows], the root mean squared difference to the nearest taught row."""
    squares = (rows**2).sum(axis=1)[:, np.newaxis] + (taught**2).sum(axis=1)
    nearest = (squares - 2.0 * rows @ taught.T).min(axis=1)
    distances: NDArray[np.float64] = np.sqrt(np.maximum(nearest, 0.0) / rows.shape[1])
    return distances


class RigDecision:
    """Evidence of one exposure for the smells that a rig was taught, and what is announced.

    Parameters
    ----------
    recogniser: of the rig.

    Attributes
    ----------
    announced: the label that is announced, or None.
    unrecognised: whether the odour is none of the taught smells.
    rejected: whether it is so because the exposure is nearer to a negative than to any of them.
    novelty: mean distance of the first rows to the nearest taught one; None before any.
    """

    def __init__(self, recogniser: Recogniser) -> None:
        self.recogniser = recogniser
        self.clear()

    def clear(self) -> None:
        """Discard all evidence: another exposure begins, or none is there."""
        self._rows = 0
        self._log_probability: NDArray[np.float64] | None = None
        self.novelty: float | None = None
        self._negative_sum = 0.0
        self.announced: str | None = None
        self.unrecognised = False
        self.rejected = False
        self._candidate: str | None = None
        self._agreeing = 0

    @property
    def ready(self) -> bool:
        """Whether any row was evidence."""
        return self._log_probability is not None

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """float64[labels], of the exposure so far; raises where it is not `ready`."""
        if self._log_probability is None:
            raise ValueError("no row of the exposure was evidence yet")
        probabilities: NDArray[np.float64] = np.exp(log_softmax(self._log_probability))
        return probabilities

    @property
    def top(self) -> tuple[tuple[str, float], ...]:
        """All labels with their probabilities, the likeliest first; empty before any row."""
        if not self.ready:
            return ()
        probabilities = self.probabilities
        order = np.argsort(-probabilities, kind="stable")
        return tuple((self.recogniser.labels[k], float(probabilities[k])) for k in order)

    @property
    def label_set(self) -> tuple[str, ...]:
        """Labels that hold the truth in `set_coverage` of cases; empty where none is stated."""
        least = self.recogniser.set_threshold
        if least is None:
            return ()
        return tuple(
            label for place, (label, share) in enumerate(self.top) if place == 0 or share >= least
        )

    @property
    def short_list(self) -> tuple[str, ...]:
        """The likeliest labels while none is announced; empty where no coverage is stated."""
        if self.recogniser.list_coverage is None or self.announced or self.unrecognised:
            return ()
        return tuple(label for label, _ in self.top[:LISTED])

    @property
    def probability(self) -> float | None:
        """Of the announced label."""
        return dict(self.top).get(self.announced) if self.announced is not None else None

    @property
    def seconds(self) -> float:
        """Seconds of the exposure that are evidence."""
        return self._rows * ROW_S

    def add(self, rows: ResponseRows) -> None:
        """Add rows of the exposure; those that hardly differ from clean air are no evidence."""
        features = rows[rows.size >= LEAST_SIZE].features()
        if not len(features):
            return
        recogniser = self.recogniser
        for scores, distance, negative in zip(
            recogniser.row_log_probabilities(features),
            recogniser.row_novelty(features).tolist(),
            recogniser.row_negative_distance(features).tolist(),
            strict=True,
        ):
            self._add_row(scores, distance, negative)

    def _add_row(self, scores: NDArray[np.float64], distance: float, negative: float) -> None:
        self._rows += 1
        share = 1.0 / min(self._rows, MEMORY_ROWS)
        before = scores if self._log_probability is None else self._log_probability
        self._log_probability = before + share * (scores - before)
        if self._rows <= NOVELTY_STAGES[-1]:
            mean = distance if self.novelty is None else self.novelty
            self.novelty = mean + (distance - mean) / self._rows
            self._negative_sum += negative
        self._announce()

    def _announce(self) -> None:
        """Announce what `CONFIRM_ROWS` rows have agreed on."""
        assert self.novelty is not None  # noqa: S101 - set with every row
        best, probability = self.top[0]
        least = float(np.interp(self._rows, ANNOUNCE_ROWS, ANNOUNCE))
        verdict = best if probability >= least else None
        keep = KEEP if self.announced == best else 1.0
        negative = self._negative_sum / min(self._rows, NOVELTY_STAGES[-1])
        is_negative = self.novelty > negative * keep
        if is_negative or self.novelty > self.recogniser.novelty_limit(self._rows) * keep:
            verdict = _UNKNOWN
        self._agreeing = self._agreeing + 1 if verdict == self._candidate else 1
        self._candidate = verdict
        if self._agreeing >= CONFIRM_ROWS:
            self.unrecognised = verdict == _UNKNOWN
            self.rejected = self.unrecognised and is_negative
            self.announced = None if self.unrecognised else verdict


_UNKNOWN = "\0unknown"
"""No label of a smell, whose characters are printable."""
