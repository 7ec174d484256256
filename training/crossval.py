"""training/: grouped cross-validation: train on some recordings, score int8 on others.

Every fold goes the whole way: fit, quantise, write a bundle, load it, score it
through `evaluate`. Its answers on held-out recordings also set the decision
constants that must not be fitted on training data.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.bundle import load_bundle
from models.decision import DecisionSpec
from training.data import (
    N_FOLDS,
    Dataset,
    component_set_folds,
    substance_folds,
)
from training.evaluation.evaluate import Answers, ask, score
from training.evaluation.scoring import mixture_scores
from training.evaluation.streaming import (
    announced_scores,
    best_temperature,
    best_threshold,
    fit_evidence,
    joined,
    stream,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from training.config import TrainConfig

REPORT = "crossval.json"
HELD_OUT = "held_out.npz"

_DEFAULT_PRESENCE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What the folds' networks said of recordings they had not seen.

    Attributes
    ----------
    answers: owner counts recordings of the whole data set.
    target: float32[windows, labels].
    """

    answers: Answers
    target: NDArray[np.float32]


def folds_of(data: Dataset) -> NDArray[np.int64]:
    """Fold of each recording; -1 for those that train in every fold and test in none."""
    return substance_folds(data) if data.task == "substance" else component_set_folds(data)


def cross_validate(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    folds: range = range(N_FOLDS),
    on_step: Callable[[int, int, float], None] = lambda _fold, _step, _loss: None,
) -> dict[str, Any]:
    """Cross-validate a configuration and write the report and the held-out answers to `folder`.

    Parameters
    ----------
    config: what to train.
    data: all recordings.
    folder: holds a sub-folder per fold; finished folds and checkpoints there are used again.
    device: torch device.
    folds: which folds to run.
    on_step: called with fold, step and loss.

    Returns
    -------
    The report: the scores of each fold, their mean and standard deviation, and for mixtures
    the scores of a constant prediction.
    """
    from training.bundling import Provenance, write  # noqa: PLC0415 - torch
    from training.fit import fit  # noqa: PLC0415

    fold_of = folds_of(data)
    rows: list[dict[str, Any]] = []
    held_out: list[HeldOut] = []
    for fold in folds:
        started_s = time.monotonic()
        train, test = data.subset(fold_of != fold), data.subset(fold_of == fold)
        if config.in_order_only:
            train = train.in_order()
        permuted = test.subset(np.array([not sample.in_order for sample in test.samples]))
        test = test.in_order()
        place = folder / f"fold-{fold}"
        fitted = fit(
            config,
            train,
            folder=place,
            device=device,
            on_step=lambda step, loss, fold=fold: on_step(fold, step, loss),  # type: ignore[misc]
        )
        neutral = DecisionSpec(presence_thresholds=_neutral_presence(data))
        provenance = Provenance(f"scent-train crossval (fold {fold})", config.name)
        write(place / "bundle", config, fitted, train, neutral, provenance)
        bundle = load_bundle(place / "bundle", precision="int8")
        answers = ask(bundle, test)
        rows.append(
            {
                "fold": fold,
                **score(bundle, test, answers),
                **_constant(train, test, answers.owner),
                **_permuted(bundle, permuted),
                "seconds": round(time.monotonic() - started_s, 1),
            }
        )
        held_out.append(HeldOut(answers, test.targets[answers.owner]))
    report = {
        "model": config.name,
        "task": config.task,
        "protocol": _protocol(data),
        "precision": "int8",
        "seed": config.seed,
        "data_sha256": data.sha256,
        "oddities": data.oddities,
        "folds": rows,
        "mean": _over(rows, np.mean),
        "sd": _over(rows, np.std),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    _save(folder / HELD_OUT, held_out)
    return report


def fit_decision(folder: Path, data: Dataset) -> tuple[DecisionSpec, dict[str, float]]:
    """Return the decision constants that follow from a cross-validation, and what they achieve.

    Substances: the temperature from the held-out windows, then the worth of evidence from the
    held-out recordings streamed through their fold's bundle; the scores are in-sample for these
    two constants and held out for the networks. Mixtures: presence thresholds of the best F1.
    """
    with np.load(folder / HELD_OUT, allow_pickle=False) as stored:
        target = stored["target"]
        if data.task == "mixture":
            presence = stored["presence"]
            thresholds = tuple(
                best_threshold(presence[:, k], target[:, k] > 0) for k in range(target.shape[1])
            )
            return DecisionSpec(presence_thresholds=thresholds), {}
        spec = DecisionSpec(temperature=best_temperature(stored["logits"], target))
    fold_of = folds_of(data)
    streams = joined(
        [
            stream(
                load_bundle(folder / f"fold-{fold}" / "bundle", precision="int8"),
                data.subset(fold_of == fold).samples,
            )
            for fold in range(N_FOLDS)
        ]
    )
    floor, factor = fit_evidence(streams, spec)
    spec = dataclasses.replace(spec, evidence_floor=floor, evidence_factor=factor)
    return spec, announced_scores(streams, spec)


def best_constant(target: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the constant prediction (a share per label) with the best within-0.1 on `target`.

    Searched among the mean and all pairs of labels in shares of tenths: more than two
    components of a constant cannot both be near the shares that occur.
    """
    truly = target > 0
    weight = truly / truly.sum(axis=1, keepdims=True)
    shares = np.arange(0, 11) / 10
    # Worth of giving label k the share s: how much of within-0.1 it alone earns.
    worth = np.stack([((np.abs(s - target) < 0.1 - 1e-6) * weight).mean(axis=0) for s in shares])
    best: NDArray[np.float64] = target.mean(axis=0).astype(np.float64)
    best_worth = float(((np.abs(best - target) < 0.1) * weight).sum(axis=1).mean())  # noqa: PLR2004
    for first, second in itertools.combinations(range(target.shape[1]), 2):
        for number, share in enumerate(shares):
            total = worth[number, first] + worth[10 - number, second]
            if total > best_worth:
                best_worth = float(total)
                best = np.zeros(target.shape[1])
                best[first], best[second] = share, 1 - share
    return best


def _constant(train: Dataset, test: Dataset, owner: NDArray[np.int64]) -> dict[str, float]:
    if train.task != "mixture":
        return {}
    multiple = train.targets[(train.targets > 0).sum(axis=1) > 1]
    constant = np.broadcast_to(best_constant(multiple), (len(owner), multiple.shape[1]))
    scores = mixture_scores(constant, constant > 0, test.targets[owner])
    return {f"constant_{name}": value for name, value in scores.items()}


def _permuted(bundle: Bundle, data: Dataset) -> dict[str, float]:
    """Score the held-out recordings that are in no time order, apart from the others."""
    if not data.samples:
        return {}
    scores = score(bundle, data, ask(bundle, data))
    return {f"permuted_{name}": value for name, value in scores.items()}


def _neutral_presence(data: Dataset) -> tuple[float, ...]:
    return (_DEFAULT_PRESENCE,) * len(data.labels) if data.task == "mixture" else ()


def _protocol(data: Dataset) -> str:
    if data.task == "substance":
        return "grouped 5-fold, one recording of every substance held out; w=100, stride 50"
    return (
        "5-fold, component sets held out, single substances always trained on; "
        "first 60 s, w=100, stride 50; recordings whose rows are out of time order are scored "
        "apart (permuted_*)"
    )


def _over(rows: list[dict[str, Any]], statistic: Callable[..., Any]) -> dict[str, float]:
    names = [
        name
        for name in rows[0]
        if name.removeprefix("permuted_") not in ("fold", "windows", "recordings", "seconds")
    ]
    return {name: round(float(statistic([row[name] for row in rows])), 4) for name in names}


def _save(path: Path, held_out: list[HeldOut]) -> None:
    arrays = {"target": np.concatenate([part.target for part in held_out])}
    for name in ("embedding", "logits", "proportions", "presence"):
        parts = [getattr(part.answers, name) for part in held_out]
        if parts[0] is not None:
            arrays[name] = np.concatenate(parts)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # stub wants a bool
