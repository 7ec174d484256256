"""training/experiments: which inputs and which classifier the rig's recogniser should have.

Every candidate is taught from some sessions of a real rig and asked for the smells of another one.
The choice is nested: the candidate for a held-out session is chosen without that session, so that
the figure of the choice is not the best of many. Beside it stand the wrong and the unknown names,
withheld as the recogniser does: by the distance to the nearest taught row of that input. May import
`models` and `calibration`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.enrolment import learn
from calibration.exposures import EnrolmentError
from calibration.recogniser import (
    MOST_TAUGHT_ROWS,
    PreparedExposure,
    TaughtExposure,
    fit_discriminant,
    novelty_limits,
)
from models.recogniser import LEAST_SIZE, NOVELTY_STAGES
from models.response import LAGS_S, RECOGNISER_SIGNALS, ROW_S, SMALLEST_SIZE
from models.signals import GROVE_SIGNALS
from training.experiments.real_rigs import (
    LEAST_SMELLS,
    MOMENTS_S,
    TaughtSubset,
    everything,
    few,
    found_exposure,
)
from training.experiments.recogniser_classifiers import CLASSIFIERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from models.bundle import Bundle
    from models.recogniser import Recogniser
    from training.experiments.real_rigs import RigRecording
    from training.experiments.recogniser_classifiers import Floats, Scorer

DRAWS = 2
"""Random choices of the one exposure a smell that is taught."""

_SEED = 0

PRODUCT_INPUT = "direction, size, response and lags"
EMBEDDING_INPUT = "embedding of substances-50"


@dataclass(frozen=True, slots=True, eq=False)
class CandidateExposure:
    """One exposure with all that an input may be made of.

    Attributes
    ----------
    taught: its smell, session, rows of the response that are evidence, and clean air.
    rows_s: float64[rows], seconds of these rows after the onset.
    embedding: float64[windows, D], whitened, of a shipped model; None where it cannot be fed.
    seconds: of the smell that the windows lie in.
    """

    taught: TaughtExposure
    rows_s: Floats
    embedding: Floats | None
    seconds: float


def candidate_exposure(recording: RigRecording, bundle: Bundle | None) -> CandidateExposure:
    """Return an exposure with the rows that are evidence, and a model's embedding of it."""
    exposure = found_exposure(recording)
    strong = exposure.rows.size >= LEAST_SIZE
    rows_s = ROW_S * np.flatnonzero(strong)[:MOST_TAUGHT_ROWS].astype(np.float64)
    evidence = exposure._replace(rows=exposure.rows[strong][:MOST_TAUGHT_ROWS])
    embedding: Floats | None = None
    seconds = 0.0
    if bundle is not None and bundle.space is not None:
        try:
            learned = learn(bundle, recording.readings)
        except EnrolmentError:
            pass  # too short, or no smell in it
        else:
            embedding = np.asarray(bundle.space.whiten(learned.embedding), np.float64)
            seconds = learned.seconds
    return CandidateExposure(evidence, rows_s, embedding, seconds)


def _signals(exposure: CandidateExposure, signals: Sequence[int]) -> tuple[Floats, Floats, Floats]:
    """Return response[rows, signals], its bounded size[rows, 1], and its changes[rows, ...]."""
    rows = exposure.taught.rows
    bounded = np.maximum(rows.size, SMALLEST_SIZE)[:, np.newaxis]
    changes = [rows.changes[:, lag, signals] for lag in range(len(LAGS_S))]
    return rows.response[:, signals], bounded, np.concatenate(changes, axis=1)


def _features(names: str, signals: Sequence[int]) -> Callable[[CandidateExposure], Floats]:
    """Return what makes an input of its parts, named by their initials."""

    def make(exposure: CandidateExposure) -> Floats:
        response, size, lags = _signals(exposure, signals)
        air = exposure.taught.clean_air
        absolute = response if air is None else response + air[list(signals)]
        parts = {"d": response / size, "s": np.log(size), "r": response, "l": lags, "a": absolute}
        return np.concatenate([parts[name] for name in names], axis=1)

    return make


def _embedding(exposure: CandidateExposure) -> Floats:
    return np.empty((0, 0)) if exposure.embedding is None else exposure.embedding


INPUTS: Mapping[str, Callable[[CandidateExposure], Floats]] = {
    "absolute": _features("a", RECOGNISER_SIGNALS),
    "response": _features("r", RECOGNISER_SIGNALS),
    "direction": _features("d", RECOGNISER_SIGNALS),
    "direction and size": _features("ds", RECOGNISER_SIGNALS),
    "lags": _features("l", RECOGNISER_SIGNALS),
    "response and lags": _features("rl", RECOGNISER_SIGNALS),
    "direction, size and lags": _features("dsl", RECOGNISER_SIGNALS),
    "absolute, response and lags": _features("arl", RECOGNISER_SIGNALS),
    PRODUCT_INPUT: _features("dsrl", RECOGNISER_SIGNALS),
    f"{PRODUCT_INPUT}, no heater plate": _features("dsrl", GROVE_SIGNALS),
    EMBEDDING_INPUT: _embedding,
}


Candidate = tuple[str, str]
"""Input and classifier."""

REGIMES: Mapping[str, tuple[TaughtSubset, int]] = {"all": (everything, 1), "one": (few(1), DRAWS)}
"""What is taught: all that other sessions hold, or one exposure a smell of one of them."""

Hits = dict[tuple[str, int], "Floats"]
"""By session and number of an exposure, how often its likeliest smell was right: float64[moments],
mean over draws."""


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One line of the table; shares of held-out exposures.

    Attributes
    ----------
    input_name, classifier: the candidate.
    score: by which candidates are chosen: likeliest smell right, mean over moments, regimes and
        the exposures of all rigs.
    likeliest: by rig, the same at 120 s and in the end, taught from all other sessions, and in the
        end, taught by one exposure.
    right, wrong: named in the end, taught from all other sessions; the rest is withheld.
    unknown: smells never taught that are named in the end.
    chosen: for how many held-out sessions it was chosen.
    """

    input_name: str
    classifier: str
    score: float
    likeliest: dict[str, tuple[float, float, float]]
    right: float
    wrong: float
    unknown: float
    chosen: int


class RigCandidates:
    """What the candidates make of the exposures of one rig.

    Parameters
    ----------
    exposures: of it.
    """

    def __init__(self, exposures: Sequence[CandidateExposure]) -> None:
        self._exposures = exposures
        self.sessions = sorted({exposure.taught.session for exposure in exposures})
        self._inputs = {name: _prepared(exposures, make) for name, make in INPUTS.items()}

    def hits(self, candidate: Candidate, regime: str, without: str | None = None) -> Hits:
        """Hold each session out, teach from the others and ask for its exposures.

        `without` is a session that neither teaches nor is asked for.
        """
        name, classifier = candidate
        choose, draws = REGIMES[regime]
        prepared = self._inputs[name]
        found: dict[tuple[str, int], list[list[bool]]] = defaultdict(list)
        rng = np.random.default_rng(_SEED)
        for session in self.sessions:
            pool = [one for one in prepared if one.session not in (session, without)]
            known = {one.label for one in pool}
            asked = [
                number
                for number, one in enumerate(prepared)
                if one.session == session != without and one.label in known
            ]
            for _ in range(draws if asked else 0):
                taught = [one for one in choose(pool, rng) if len(one.features)]
                if len({one.label for one in taught}) >= LEAST_SMELLS:
                    score = CLASSIFIERS[classifier](taught)
                    labels = sorted({one.label for one in taught})
                    for number in asked:
                        found[session, number].append(self._right(name, number, score, labels))
        return {key: np.mean(rows, axis=0) for key, rows in found.items()}

    def _right(self, name: str, number: int, score: Scorer, labels: list[str]) -> list[bool]:
        """Return whether the likeliest smell of an exposure is right at each of `MOMENTS_S`."""
        asked, source = self._inputs[name][number], self._exposures[number]
        if not len(asked.features):
            return [False] * len(MOMENTS_S)
        scores = score(asked.features)
        times_s = source.rows_s
        if name == EMBEDDING_INPUT:
            times_s = np.linspace(0.0, source.seconds, len(scores), endpoint=False)
        known = [max(1, int((times_s < moment_s).sum())) for moment_s in MOMENTS_S]
        best = [labels[int(scores[:rows].mean(axis=0).argmax())] for rows in known]
        return [label == asked.label for label in best]

    def withheld(self, name: str, *, untaught: bool = False) -> dict[tuple[str, int], bool]:
        """Return by session and number whether an exposure is too far from what others taught.

        With `untaught`, its smell is left out of teaching.
        """
        prepared = self._inputs[name]
        found: dict[tuple[str, int], bool] = {}
        fitted: dict[tuple[str, str | None], tuple[Recogniser, float]] = {}
        for number, asked in enumerate(prepared):
            left_out = asked.label if untaught else None
            key = asked.session, left_out
            taught = [
                one
                for one in prepared
                if one.session != asked.session and one.label != left_out and len(one.features)
            ]
            if len({one.label for one in taught}) < LEAST_SMELLS:
                continue
            if key not in fitted:
                discriminant = fit_discriminant(taught)
                fitted[key] = discriminant, novelty_limits(discriminant, taught)[-1]
            discriminant, limit = fitted[key]
            early = asked.features[: NOVELTY_STAGES[-1]]
            far = not len(early) or bool(discriminant.row_novelty(early).mean() > limit)
            found[asked.session, number] = far
        return found


def _prepared(
    exposures: Sequence[CandidateExposure], make: Callable[[CandidateExposure], Floats]
) -> list[PreparedExposure]:
    """Return the exposures with the features of an input, without columns that are all missing."""
    made = [make(one) for one in exposures]
    width = max((rows.shape[1] for rows in made), default=0)
    usable = np.zeros(width, dtype=bool)
    for rows in made:
        if len(rows):
            usable |= np.isfinite(rows).any(axis=0)
    return [
        PreparedExposure(
            one.taught.label,
            one.taught.session,
            np.nan_to_num(rows[:, usable]) if len(rows) else np.empty((0, int(usable.sum()))),
        )
        for one, rows in zip(exposures, made, strict=True)
    ]


def compare_candidates(
    rigs: Mapping[str, Sequence[CandidateExposure]],
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[CandidateRow], float]:
    """Return a line for every candidate, the best first, and the score of the nested choice."""
    tried = {rig: RigCandidates(exposures) for rig, exposures in rigs.items()}
    every = [(name, classifier) for name in INPUTS for classifier in CLASSIFIERS]
    plain: dict[Candidate, dict[tuple[str, str], Hits]] = {}
    held_out = [(rig, session) for rig in tried for session in tried[rig].sessions]
    best: dict[tuple[str, str], tuple[float, Candidate]] = {}
    for candidate in every:
        progress(f"{candidate[1]} on {candidate[0]}")
        plain[candidate] = {
            (rig, regime): one.hits(candidate, regime)
            for rig, one in tried.items()
            for regime in REGIMES
        }
        for rig, session in held_out:
            inner = tried[rig].hits(candidate, "all", without=session)
            others = [hits for (other, _), hits in plain[candidate].items() if other != rig]
            score = _score([inner, *others])
            if (rig, session) not in best or score > best[rig, session][0]:
                best[rig, session] = score, candidate
    chosen = Counter(candidate for _, candidate in best.values())
    nested = [
        {key: hit for key, hit in plain[candidate][rig, regime].items() if key[0] == session}
        for (rig, session), (_, candidate) in best.items()
        for regime in REGIMES
    ]
    progress("distances to what was taught")
    far = {name: [one.withheld(name) for one in tried.values()] for name in INPUTS}
    new = {name: [one.withheld(name, untaught=True) for one in tried.values()] for name in INPUTS}
    rows = [
        _row(candidate, plain[candidate], far[candidate[0]], new[candidate[0]], chosen[candidate])
        for candidate in every
    ]
    return sorted(rows, key=lambda row: -row.score), _score(nested)


def _score(hits: Iterable[Hits]) -> float:
    return float(np.mean([share for found in hits for share in found.values()]))


def _row(
    candidate: Candidate,
    hits: dict[tuple[str, str], Hits],
    far: Sequence[dict[tuple[str, int], bool]],
    new: Sequence[dict[tuple[str, int], bool]],
    chosen: int,
) -> CandidateRow:
    likeliest = {}
    right, wrong = [], []
    rigs = [rig for rig, regime in hits if regime == "all"]
    for rig, withheld in zip(rigs, far, strict=True):
        of_all = np.mean(list(hits[rig, "all"].values()), axis=0)
        of_one = np.mean(list(hits[rig, "one"].values()), axis=0)
        likeliest[rig] = (float(of_all[_AT_120_S]), float(of_all[-1]), float(of_one[-1]))
        for key, hit in hits[rig, "all"].items():
            named = not withheld.get(key, True)
            right.append(named and bool(hit[-1]))
            wrong.append(named and not hit[-1])
    passed = [not is_far for withheld in new for is_far in withheld.values()]
    return CandidateRow(
        *candidate,
        _score(hits.values()),
        likeliest,
        float(np.mean(right)),
        float(np.mean(wrong)),
        float(np.mean(passed)),
        chosen,
    )


_AT_120_S = MOMENTS_S.index(120.0)
