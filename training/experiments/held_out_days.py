"""training/: cross-validation of a mixture model that holds out days and their component sets.

A network is trained without the recordings of one day, and without the mixtures of all other days
that have a component set of that day; it is scored on that day's mixtures. Otherwise it learns the
day, or the set by its other proportions. Imports torch only while it trains.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.mixture_decision import group_presence
from training.data.dataset import component_sets
from training.data.mixture_days import mixture_days, mixture_exposures
from training.engines import SERIAL
from training.evaluation.decision_source import SESSIONS_HELD_OUT
from training.evaluation.held_out import HeldOut, concatenate_held_out
from training.evaluation.intervals import pool_tallies, scores_with_intervals
from training.evaluation.mixture_fit import unfitted_spec
from training.evaluation.network_outputs import run_network
from training.evaluation.scoring import (
    Tally,
    group_tally,
    mean_per_recording,
    mixture_tally,
    total_scores,
)
from training.evaluation.storage import SESSIONS_REPORT, write_json
from training.experiments.crossval import best_constant
from training.experiments.runner import report_head, train_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.engines import Engine

PROTOCOL = (
    "a day and that day's component sets held out, its mixtures judged; single substances of other "
    "days always trained on; first 60 s, w=100, stride 50; recordings in time order"
)

_SURE = 0.5


class DayFold(NamedTuple):
    """A day held out: bool[recordings] of what is trained on and judged."""

    day: str
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


class _Scored(NamedTuple):
    """A day's tally, groups of recordings, outputs, and row of the report."""

    tally: Tally
    groups: list[str]
    held_out: HeldOut
    row: dict[str, Any]


def day_folds(data: Dataset) -> list[DayFold]:
    """Return a fold for every day that has mixtures whose rows are in the order of time.

    Recordings without a day neither train nor judge.
    """
    days = np.array(mixture_days(data))
    sets = component_sets(data)
    several = np.array([len(parts) > 1 for parts in sets])
    ordered = np.array([sample.in_order for sample in data.samples])
    folds = []
    for day in sorted(set(days.tolist()) - {""}):
        here = days == day
        held_out = {
            parts for parts, one, mixed in zip(sets, here, several, strict=True) if one and mixed
        }
        leaks = np.array([parts in held_out for parts in sets])
        test = here & several & ordered
        if test.any():
            folds.append(DayFold(day, (days != "") & ~here & ~leaks, test))
    return folds


def cross_validate_days(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    on_step: Callable[[int, int, float], None] = lambda _fold, _step, _loss: None,
    engine: Engine = SERIAL,
) -> dict[str, Any]:
    """Hold out every day, write the report and the held-out outputs, return the report.

    Parameters
    ----------
    config, data: a mixture model and its recordings, at the model's rate.
    folder: of the run; finished folds in it are used again.
    device: torch device.
    on_step: called with fold, step and loss.
    engine: on which the folds run.
    """
    follow = engine.follow(on_step)
    calls = [
        partial(_run_fold, config, data, number, fold, folder, device, partial(follow, number))
        for number, fold in enumerate(day_folds(data))
    ]
    scored = list(engine.in_order(calls))
    held_out = concatenate_held_out([one.held_out for one in scored])
    held_out.save(folder / SESSIONS_HELD_OUT)
    groups = [group for one in scored for group in one.groups]
    pooled = scores_with_intervals(pool_tallies([one.tally for one in scored]), groups)
    report = {
        **report_head(config, data, PROTOCOL),
        "sessions": len(scored),
        "exposures": len(set(groups)),
        "folds": [one.row for one in scored],
        "pooled": pooled["scores"],
        "intervals": pooled["intervals"],
        "recordings": [{"recording": name} for name in held_out.names],
    }
    write_json(folder / SESSIONS_REPORT, report)
    return report


def _run_fold(
    config: TrainConfig,
    data: Dataset,
    number: int,
    fold: DayFold,
    folder: Path,
    device: str,
    on_step: Callable[[int, float], None],
) -> _Scored:
    started_s = time.monotonic()
    train, test = data.subset(fold.train), data.subset(fold.test)
    if config.in_order_only:
        train = train.drop_unordered()
    bundle = train_bundle(
        config, train, folder / f"days-{number}", f"scent-train crossval (day {number})",
        decision=unfitted_spec(data.labels, config.announce_groups), device=device, on_step=on_step,
    )  # fmt: skip
    outputs = run_network(bundle, test)
    exposures = mixture_exposures(test)
    recordings = len(test.samples)
    several = (train.targets > 0).sum(axis=1) > 1
    constant = np.broadcast_to(
        best_constant(train.targets[several]), (len(outputs.owner), len(data.labels))
    )
    proportions, presence = outputs.require("proportions"), outputs.require("presence")
    tally = {
        **day_tally(proportions, presence, outputs.owner, test, config.announce_groups),
        **{
            f"constant_{name}": ratio
            for name, ratio in day_tally(
                constant, constant > 0, outputs.owner, test, config.announce_groups
            ).items()
        },
    }
    held_out = HeldOut(
        tuple(sample.name for sample in test.samples),
        tuple(exposures),
        np.full(recordings, number),
        test.targets,
        outputs,
    )
    row = {
        "fold": number,
        "day": fold.day,
        "recordings": recordings,
        "exposures": len(set(exposures)),
        **{name: round(value, 4) for name, value in total_scores(tally).items()},
        "seconds": round(time.monotonic() - started_s, 1),
    }
    return _Scored(tally, exposures, held_out, row)


def day_tally(
    proportions: NDArray[np.floating],
    presence: NDArray[Any],
    owner: NDArray[np.int64],
    test: Dataset,
    groups: Sequence[Sequence[str]],
) -> Tally:
    """Count what every recording adds to the scores of a day.

    Parameters
    ----------
    proportions, presence: float[windows, labels].
    owner: int[windows], the recording of each.
    test: the recordings.
    groups: labels that are announced together; the first one is scored.

    Returns
    -------
    `mixture_tally` without the presences, which have no threshold here; and `group_tally` of
    the recordings' mean presences, from a half on.
    """
    recordings = len(test.samples)
    target = test.targets
    scores = mixture_tally(proportions, presence >= _SURE, target[owner], owner, recordings)
    tally = {name: scores[name] for name in ("within_01", "top_k", "mae")}
    for group in groups[:1]:
        columns = [test.labels.index(label) for label in group]
        mean = mean_per_recording(presence[:, columns].astype(np.float64), owner, recordings)
        truly = np.asarray((target[:, columns] > 0).any(axis=1))
        tally |= group_tally(group_presence(mean) >= _SURE, truly)
    return tally
