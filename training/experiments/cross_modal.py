"""training/: trainings with and without each cross-modal switch, on the same folds and steps.

The predictions of each training for recordings it was not trained on are stored in one file, so
that an interrupted comparison resumes and more folds or switches can be added. Predictions about
substances that were not trained on come from a second training per fold, which leaves out every
fifth substance. May import torch through `training.fit`; scores come from `training.evaluation`.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import UsageError
from training.config import CrossModalConfig, TrainConfig, config_as_dict, non_default_settings
from training.data.dataset import substance_folds
from training.data.protocol_windows import cut_windows
from training.data.substance_tables import read_descriptors, read_substance_tables
from training.evaluation.auroc import Auroc, column_aurocs, mean_auroc
from training.evaluation.intervals import (
    percentile_interval,
    pool_tallies,
    resample_counts,
    score_intervals,
)
from training.evaluation.scoring import mean_per_recording, total_scores
from training.evaluation.storage import write_json
from training.experiments.description_matching import (
    Matching,
    all_pairs,
    match_hidden,
    match_known,
    mean_matching,
)
from training.experiments.runner import (
    BATCH,
    SUBSTANCE_PROTOCOL,
    FoldPredictions,
    every_fifth,
    hash_inputs,
    load_or_compute,
    render_markdown_table,
    run_in_batches,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data.dataset import Dataset
    from training.experiments.cross_modal_sessions import SessionTraining
    from training.fit import TrainedNetwork

    ByFold = Mapping[int, FoldPredictions]

REPORT = "cross_modal.json"
PREDICTIONS = "cross_modal"
PLAIN = "none"
SWITCHES: dict[str, CrossModalConfig | None] = {
    PLAIN: None,
    "gcms": CrossModalConfig(gcms=0.5),
    "similarity": CrossModalConfig(similarity=0.4),
    "signed": CrossModalConfig(signed=0.5),
    "masked": CrossModalConfig(masked=0.4, pretrain=0.2),
    "both": CrossModalConfig(similarity=0.4, masked=0.4, pretrain=0.2),
    "balancer": CrossModalConfig(balancer=True),
    "descriptors": CrossModalConfig(descriptors=0.5),
    "descriptors+balancer": CrossModalConfig(descriptors=0.5, balancer=True),
}
"""What is compared, by name; `both` is MolFusion's two parts jointly with its weight, 0.4."""

_TABLE_HEAD = (
    "switch | folds | Top-1 (95 %) | against none (95 %) | recording Top-1 (95 %) | s a training "
    "| also"
)
_TABLE_ROW = (
    "{name} | {folds} | {top1:.3f} ({low:.3f} to {high:.3f}) | "
    "{delta_top1:+.3f} ({delta_low:+.3f} to {delta_high:+.3f}) | "
    "{recording_top1:.3f} ({recording_low:.3f} to {recording_high:.3f}) | {seconds:.0f} | {also}"
)


@dataclass(frozen=True, slots=True)
class Training:
    """One training of the comparison; `unseen` hides every fifth substance as well as the fold."""

    switch: str
    fold: int
    unseen: bool

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{'unseen' if self.unseen else 'fold'}-{self.fold}"


def list_trainings(names: Sequence[str], folds: Sequence[int], *, unseen: bool) -> list[Training]:
    """List the trainings fold by fold, so that an interrupted comparison is one of fewer folds.

    Only switches that predict something of hidden substances are trained without some.
    """
    unknown = [name for name in names if name not in SWITCHES]
    if unknown:
        raise UsageError(
            f"There is no switch {', '.join(unknown)}: name some of {', '.join(SWITCHES)}."
        )
    listed = []
    for fold in folds:
        for name in dict.fromkeys((PLAIN, *names)):
            settings = SWITCHES[name]
            listed.append(Training(name, fold, unseen=False))
            if unseen and settings and (settings.signed or settings.descriptors):
                listed.append(Training(name, fold, unseen=True))
    return listed


def with_budget(config: TrainConfig, steps: int) -> TrainConfig:
    """Return the configuration with the comparison's budget: so many steps of one network.

    Without teachers, experts and levels: their knowledge would hide the effect of a switch.
    """
    optimiser = dataclasses.replace(
        config.optimiser, steps=steps, epochs=0, warmup=min(config.optimiser.warmup, steps // 5)
    )
    return dataclasses.replace(one_network(config), optimiser=optimiser, teachers=())


def one_network(config: TrainConfig) -> TrainConfig:
    """Return the configuration of one network of lag differences, in place of a sum."""
    if not config.experts:
        return config
    spec = config.preprocessing
    lags = tuple(lag for lag in spec.lags if lag > 0)
    return dataclasses.replace(
        config, experts=(), levels=None, preprocessing=dataclasses.replace(spec, lags=lags)
    )


def with_switch(config: TrainConfig, name: str) -> TrainConfig:
    """Return the configuration with one switch on and all others off, its tables' files kept."""
    settings, given = SWITCHES[name], config.cross_modal
    if settings and given:
        settings = dataclasses.replace(
            settings,
            gcms_file=given.gcms_file,
            text_file=given.text_file,
            descriptors_file=given.descriptors_file,
        )
    return dataclasses.replace(config, cross_modal=settings)


def run_training(
    training: Training,
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> FoldPredictions:
    """Train a network and return its predictions for the recordings it was not trained on.

    Predictions in `folder` of the same training, configuration and data are read instead.
    """
    from training.fit import train_network  # noqa: PLC0415 - torch

    own = with_switch(config, training.switch)
    tables = read_substance_tables(own.cross_modal, data).sha256 if own.cross_modal else ""
    # As checkpoints are: an option that is added later invalidates no stored predictions.
    settings = non_default_settings(own)
    identity = hash_inputs([settings, data.sha256, tables, training.fold, training.unseen])
    path = folder / PREDICTIONS / training.switch / f"{training.name}.npz"
    checkpoint = path.with_name(f"{training.name}-{identity[:12]}")

    def compute() -> FoldPredictions:
        train, test = split_recordings(data, training)
        started_s = time.monotonic()
        fitted = train_network(
            own, data.subset(train), folder=checkpoint, device=device, on_step=on_step
        )
        predictions = predict(fitted, data, test, round(time.monotonic() - started_s, 1))
        shutil.rmtree(checkpoint)
        return predictions

    return load_or_compute(path, identity, FoldPredictions.read, compute)


def split_recordings(
    data: Dataset, training: Training | SessionTraining
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the recordings that a training trains on and is tested on, bool[recordings].

    A training without some substances holds out all their recordings and those of the fold.
    """
    held_out = substance_folds(data) == training.fold
    if training.unseen:
        held_out |= np.isin(data.targets.argmax(axis=1), hidden_substances(data, training.fold))
    return ~held_out, held_out


def hidden_substances(data: Dataset, fold: int) -> NDArray[np.int64]:
    """Return the labels that a fold's second training leaves out."""
    return np.flatnonzero(every_fifth(len(data.labels), fold))


def predict(
    fitted: TrainedNetwork, data: Dataset, chosen: NDArray[np.bool_], seconds: float
) -> FoldPredictions:
    """Run a trained network, in float32, on the protocol's windows of the chosen recordings.

    Extras of the predictions, as means over a recording's windows: `descriptors`
    float64[R, descriptors] and `cosines` float64[R, labels, views] with the names of the `views`;
    no column without descriptors, and no view without signed pairs.
    """
    samples = data.subset(chosen).samples
    windows = cut_windows(samples, fitted.spec)
    logits, embedding, *described = run_in_batches(fitted.network, windows, BATCH)
    matcher = fitted.objective.matcher if fitted.objective else None
    cosines = [
        matcher.cosine(view, embedding, matcher.get_buffer(f"{view}_values")).detach().numpy()
        for view in (matcher.views if matcher else ())
        if matcher
    ]
    count = len(windows.x)
    per_window = {
        "descriptors": described[0].numpy() if described else np.empty((count, 0)),
        "cosines": np.stack(cosines, axis=2) if cosines else np.empty((count, len(data.labels), 0)),
    }
    return FoldPredictions(
        recordings=np.flatnonzero(chosen),
        truth=data.targets[chosen].argmax(axis=1),
        owner=windows.owner,
        log_probabilities=logits.double().log_softmax(dim=1).numpy(),
        seconds=seconds,
        extras={
            **{
                name: mean_per_recording(values, windows.owner, len(samples))
                for name, values in per_window.items()
            },
            "views": np.array(matcher.views if matcher else (), dtype=str),
        },
    )


def switch_row(
    name: str,
    config: TrainConfig,
    data: Dataset,
    seen: ByFold,
    unseen: ByFold,
    plain: ByFold,
) -> dict[str, Any]:
    """Return a switch's row of the table.

    Scores are over all windows (or recordings) of all folds; `*low` and `*high` are 95 %
    bootstrap intervals over recordings, also of the difference, whose resamples are paired.

    Parameters
    ----------
    seen: predictions of networks trained with the switch on all substances.
    unseen: of those trained without every fifth; empty for a switch without them.
    plain: of those trained without any switch.
    """
    folds = sorted(seen)
    tally = pool_tallies([seen[fold].tally() for fold in folds])
    base = pool_tallies([plain[fold].tally() for fold in folds])
    scores, base_scores, intervals = total_scores(tally), total_scores(base), score_intervals(tally)
    weights = resample_counts(len(tally["top1"].gained)).astype(float)
    row: dict[str, Any] = {"name": name, "folds": folds}
    for metric, prefix in (("top1", ""), ("recording_top1", "recording_")):
        difference = tally[metric].weighted(weights) - base[metric].weighted(weights)
        row[metric] = round(scores[metric], 4)
        row[f"{prefix}low"], row[f"{prefix}high"] = intervals[metric]
        row[f"delta_{metric}"] = round(scores[metric] - base_scores[metric], 4)
        row[f"delta_{prefix}low"], row[f"delta_{prefix}high"] = percentile_interval(difference)
    row["seconds"] = round(float(np.mean([seen[fold].seconds for fold in folds])), 1)
    settings = SWITCHES[name]
    row["settings"] = config_as_dict(settings) if settings else {}
    extras: dict[str, Any] = {}
    if settings and settings.descriptors:
        extras |= descriptor_extras(config, data, seen, unseen)
    if settings and settings.signed:
        extras |= matching_extras(data, seen, unseen)
    return {**row, "extras": extras}


def descriptor_extras(
    config: TrainConfig, data: Dataset, seen: ByFold, unseen: ByFold
) -> dict[str, Any]:
    """Macro AUROC of the descriptors, on held-out recordings and on hidden substances."""
    table = read_descriptors(data.labels, config.cross_modal)
    positive = table.values.astype(bool)
    known = [
        column_aurocs(one.extras["descriptors"], positive[one.truth], one.truth)
        for one in seen.values()
    ]
    hidden = []
    for fold, one in unseen.items():
        substances = hidden_substances(data, fold)
        own = np.isin(one.truth, substances)
        # A descriptor that no trained substance has could not be learned and is not scored.
        trained = np.setdiff1d(np.arange(len(data.labels)), substances)
        expected = positive[one.truth[own]] & positive[trained].any(axis=0)
        hidden.append(column_aurocs(one.extras["descriptors"][own], expected, one.truth[own]))
    extras: dict[str, Any] = {}
    for suffix, folds in (("", known), ("_unseen", hidden)):
        macro = [mean_auroc(areas.values()) for areas in folds if areas]
        extras |= _auroc_extras(f"descriptor_auroc{suffix}", macro)
        extras[f"descriptors{suffix}"] = {
            word: round(float(np.mean([areas[k].value for areas in folds if k in areas])), 3)
            for k, word in enumerate(table.names)
            if any(k in areas for areas in folds)
        }
    return extras


def matching_extras(data: Dataset, seen: ByFold, unseen: ByFold) -> dict[str, Any]:
    """How well recordings were matched with descriptions, mean over folds."""
    known = [match_known(one.extras["cosines"], one.truth) for one in seen.values()]
    pairs = [
        all_pairs(one.extras["cosines"], one.truth, hidden_substances(data, fold))
        for fold, one in unseen.items()
    ]
    views = tuple(map(str, next(iter({**seen, **unseen}.values())).extras["views"]))
    extras: dict[str, Any] = {}
    results: list[Matching]
    for suffix, results in (("", known), ("_unseen", match_hidden(pairs))):
        if results:
            mean = mean_matching(results)
            extras |= {
                **_auroc_extras(f"matching_auroc{suffix}", [one.auroc for one in results]),
                f"matching_sensitivity{suffix}": round(mean.sensitivity, 4),
                f"matching_specificity{suffix}": round(mean.specificity, 4),
                f"matching_views{suffix}": {
                    view: round(value, 4) for view, value in zip(views, mean.views, strict=True)
                },
            }
    return extras


def _auroc_extras(name: str, folds: list[Auroc]) -> dict[str, Any]:
    """Return the mean over folds, its interval over substances, and each fold's."""
    if not folds:
        return {}
    mean = mean_auroc(folds)
    return {
        name: round(mean.value, 4),
        f"{name}_interval": list(mean.interval),
        f"{name}_folds": [round(one.value, 4) for one in folds],
    }


def write_switch_report(
    folder: Path, config: TrainConfig, data: Dataset, rows: Sequence[dict[str, Any]]
) -> Path:
    """Write the rows, with the settings that make them comparable, to `cross_modal.json`."""
    report = {
        "protocol": f"{SUBSTANCE_PROTOCOL}; float32; the same seed and steps for every switch",
        "unseen": "every fifth substance left out of a second training, with all its recordings",
        "intervals": "95 % bootstrap over recordings; of differences, paired",
        "model": config.name,
        "steps": config.optimiser.steps,
        "seed": config.seed,
        "network": config_as_dict(config.network),
        "data_sha256": data.sha256,
        "rows": list(rows),
    }
    return write_json(folder / REPORT, report)


def switch_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown table of the rows."""
    lines = []
    for row in rows:
        also = ", ".join(
            f"{name.replace('_', ' ')} {value:.3f}"
            for name, value in row["extras"].items()
            if isinstance(value, float)
        )
        folds = ", ".join(map(str, row["folds"]))
        lines.append(_TABLE_ROW.format(**row | {"folds": folds, "also": also}))
    return render_markdown_table(_TABLE_HEAD, lines)
