"""training/crossmodal: every switch with and without, on the same folds, seeds and steps.

Each training's answers on recordings it never saw are kept in one file, so that a comparison
that was cut off goes on and more folds or switches can be added. Substances that were never
trained on are judged by a second training per fold, which leaves out every fifth substance.
May import torch through `training.fit`; scores come from `training.evaluation`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import UsageError
from training.config import CrossModalConfig, TrainConfig, config_as_dict
from training.data.dataset import N_FOLDS, substance_folds
from training.data.substance_tables import read_descriptors, read_substance_tables
from training.evaluation.auroc import Area, column_areas, mean_area
from training.evaluation.intervals import DRAWS, intervals, percentiles, pooled, resampled
from training.evaluation.scoring import cut_windows, substance_tally, values
from training.evaluation.stored_answers import keep, kept, write_json
from training.experiments.description_matching import (
    Matching,
    all_pairs,
    cross_fitted,
    mean_matching,
    strangers_matched,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data.dataset import Dataset
    from training.data.substance_tables import SubstanceTable
    from training.evaluation.scoring import Tally
    from training.fit import TrainedNetwork

REPORT = "cross_modal.json"
ANSWERS = "cross_modal"
PLAIN = "none"
BATCH = 128
"""Windows asked at once."""

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


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutAnswers:
    """What a network said of recordings it was not trained on; R recordings, W windows.

    Attributes
    ----------
    recordings: int[R], numbers in the data set.
    truth: int[R], their labels.
    owner: int[W], the row of `recordings` each window was cut from.
    log_probabilities: float64[W, labels].
    descriptors: float64[R, descriptors], mean probability over windows; no column without.
    cosines: float64[R, labels, views], mean over windows; no view without signed pairs.
    views: names of the last axis.
    seconds: that the training took.
    """

    recordings: NDArray[np.int64]
    truth: NDArray[np.int64]
    owner: NDArray[np.int64]
    log_probabilities: NDArray[np.float64]
    descriptors: NDArray[np.float64]
    cosines: NDArray[np.float64]
    views: tuple[str, ...]
    seconds: float

    def tally(self) -> Tally:
        """Count the scores of substances."""
        return substance_tally(self.log_probabilities, self.owner, self.truth)


@dataclass(frozen=True, slots=True)
class Task:
    """One training of the comparison.

    Attributes
    ----------
    switch: its name.
    fold: whose recordings are held out.
    unseen: whether this fold's share of the substances is held out as well, wholly.
    """

    switch: str
    fold: int
    unseen: bool

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"{'unseen' if self.unseen else 'fold'}-{self.fold}"


def tasks(names: Sequence[str], folds: Sequence[int], *, unseen: bool) -> list[Task]:
    """List the trainings, fold by fold, so that a comparison cut short is one of fewer folds.

    Only what can say something of a substance it never met is trained without some.
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
            listed.append(Task(name, fold, unseen=False))
            if unseen and settings and (settings.signed or settings.descriptors):
                listed.append(Task(name, fold, unseen=True))
    return listed


def budgeted(config: TrainConfig, steps: int) -> TrainConfig:
    """Return the configuration with the comparison's budget: so many steps of one network.

    Without teachers: what they know would hide what a switch adds.
    """
    optimiser = dataclasses.replace(
        config.optimiser, steps=steps, epochs=0, warmup=min(config.optimiser.warmup, steps // 5)
    )
    return dataclasses.replace(config, optimiser=optimiser, teachers=())


def switched(config: TrainConfig, name: str) -> TrainConfig:
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


def heard(
    task: Task,
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> HeldOutAnswers:
    """Train a task's network and hear what it says of what it was not trained on.

    Answers of the same task, configuration and data in `folder` are read instead.
    """
    own = switched(config, task.switch)
    key = _identity(own, data, task)
    path = folder / ANSWERS / task.switch / f"{task.name}.npz"
    known = _stored(path, key)
    if known is not None:
        return known
    from training.fit import train_network  # noqa: PLC0415 - torch

    train, test = split(data, task)
    checkpoint = path.with_name(f"{task.name}-{key[:12]}")
    started_s = time.monotonic()
    fitted = train_network(
        own, data.subset(train), folder=checkpoint, device=device, on_step=on_step
    )
    result = ask(fitted, data, np.flatnonzero(test), round(time.monotonic() - started_s, 1))
    keep(path, key, {item.name: getattr(result, item.name) for item in dataclasses.fields(result)})
    shutil.rmtree(checkpoint)
    return result


def split(data: Dataset, task: Task) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which recordings a task trains on and which it is asked about, bool[recordings].

    A task without some substances holds out all their recordings beside those of the fold.
    """
    held_out = substance_folds(data) == task.fold
    if task.unseen:
        held_out |= np.isin(data.targets.argmax(axis=1), unseen_substances(data, task.fold))
    return ~held_out, held_out


def unseen_substances(data: Dataset, fold: int) -> NDArray[np.int64]:
    """Return the labels that a fold's second training never meets: every fifth, 10 of 50."""
    return np.arange(fold, len(data.labels), N_FOLDS)


def ask(
    fitted: TrainedNetwork, data: Dataset, recordings: NDArray[np.int64], seconds: float
) -> HeldOutAnswers:
    """Hear what a trained network, in float32, says of some recordings' protocol windows."""
    import torch  # noqa: PLC0415

    keep = np.isin(np.arange(len(data.samples)), recordings)
    samples = data.subset(keep).samples
    windows = cut_windows(samples, fitted.spec)
    matcher = fitted.objective.matcher if fitted.objective else None
    outputs: list[tuple[torch.Tensor, ...]] = []
    with torch.no_grad():
        for start in range(0, len(windows.x), BATCH):
            chunk = slice(start, start + BATCH)
            x, mask = torch.from_numpy(windows.x[chunk]), torch.from_numpy(windows.mask[chunk])
            outputs.append(fitted.network(x, mask))
        logits, embedding = (torch.cat([out[k] for out in outputs]) for k in range(2))
        described = [out[2] for out in outputs if len(out) > 2]  # noqa: PLR2004 - the third output
        cosines = (
            [
                matcher.cosine(view, embedding, matcher.get_buffer(f"{view}_values"))
                for view in matcher.views
            ]
            if matcher
            else []
        )

    count = len(windows.x)

    def per_recording(numbers: NDArray[Any]) -> NDArray[np.float64]:
        total = np.zeros((len(samples), *numbers.shape[1:]))
        np.add.at(total, windows.owner, numbers)
        windows_of = np.bincount(windows.owner, minlength=len(samples)).clip(min=1)
        mean: NDArray[np.float64] = total / windows_of.reshape(-1, *[1] * (numbers.ndim - 1))
        return mean

    return HeldOutAnswers(
        recordings=recordings,
        truth=data.targets[keep].argmax(axis=1),
        owner=windows.owner,
        log_probabilities=logits.double().log_softmax(dim=1).numpy(),
        descriptors=per_recording(
            torch.cat(described).numpy() if described else np.empty((count, 0))
        ),
        cosines=per_recording(
            torch.stack(cosines, dim=2).numpy()
            if cosines
            else np.empty((count, len(data.labels), 0))
        ),
        views=matcher.views if matcher else (),
        seconds=seconds,
    )


def row(
    name: str,
    config: TrainConfig,
    data: Dataset,
    seen: Mapping[int, HeldOutAnswers],
    unseen: Mapping[int, HeldOutAnswers],
    plain: Mapping[int, HeldOutAnswers],
) -> dict[str, Any]:
    """Return a switch's line of the table.

    Scores are over all windows (or recordings) of all folds; `*low` and `*high` are 95 %
    bootstrap intervals over recordings, of the difference too, whose resamples are paired.

    Parameters
    ----------
    name: of the switch.
    config: that was compared.
    data: the recordings.
    seen: by fold, trained on all substances.
    unseen: by fold, trained without some; empty where the switch says nothing of strangers.
    plain: by fold, without any switch.
    """
    folds = sorted(seen)
    tally = pooled([seen[fold].tally() for fold in folds])
    score, spread = values(tally), intervals(tally)
    base = pooled([plain[fold].tally() for fold in folds])
    result: dict[str, Any] = {"name": name, "folds": folds}
    for metric, prefix in (("top1", ""), ("recording_top1", "recording_")):
        result |= {
            metric: round(score[metric], 4),
            f"{prefix}low": spread[metric][0],
            f"{prefix}high": spread[metric][1],
        }
        weights = resampled(len(tally[metric].gained), None, seed=0, draws=DRAWS).astype(float)
        low, high = percentiles(tally[metric].of(weights) - base[metric].of(weights))
        result |= {
            f"delta_{metric}": round(score[metric] - values(base)[metric], 4),
            f"delta_{prefix}low": low,
            f"delta_{prefix}high": high,
        }
    result["seconds"] = round(float(np.mean([seen[fold].seconds for fold in folds])), 1)
    settings = SWITCHES[name]
    result["settings"] = config_as_dict(settings) if settings else {}
    extras: dict[str, Any] = {}
    if settings and settings.descriptors:
        table = read_descriptors(data.labels, config.cross_modal)
        extras |= _descriptor_extras(table, data, seen, unseen)
    if settings and settings.signed:
        extras |= _matching_extras(data, seen, unseen)
    return {**result, "extras": extras}


def _descriptor_extras(
    table: SubstanceTable,
    data: Dataset,
    seen: Mapping[int, HeldOutAnswers],
    unseen: Mapping[int, HeldOutAnswers],
) -> dict[str, Any]:
    """Macro AUROC of the descriptors on held-out recordings and on strangers, mean over folds."""
    wanted = table.values.astype(bool)
    known = [column_areas(one.descriptors, wanted[one.truth], one.truth) for one in seen.values()]
    strange = []
    for fold, one in unseen.items():
        strangers = unseen_substances(data, fold)
        own = np.isin(one.truth, strangers)
        # What no trained substance has could not be learned: it is no question to ask.
        trained = np.setdiff1d(np.arange(len(data.labels)), strangers)
        asked = wanted[one.truth[own]] & wanted[trained].any(axis=0)
        strange.append(column_areas(one.descriptors[own], asked, one.truth[own]))
    extras = {
        **_area_extras("descriptor_auroc", [mean_area([*areas.values()]) for areas in known]),
        **_area_extras(
            "descriptor_auroc_unseen", [mean_area([*areas.values()]) for areas in strange if areas]
        ),
    }
    for name, folds in (("descriptors", known), ("descriptors_unseen", strange)):
        extras[name] = {
            word: round(float(np.mean([areas[k].value for areas in folds if k in areas])), 3)
            for k, word in enumerate(table.names)
            if any(k in areas for areas in folds)
        }
    return extras


def _matching_extras(
    data: Dataset, seen: Mapping[int, HeldOutAnswers], unseen: Mapping[int, HeldOutAnswers]
) -> dict[str, Any]:
    """How well recordings were matched with descriptions, mean over folds."""
    known = [cross_fitted(one.cosines, one.truth) for one in seen.values()]
    strange = strangers_matched(
        {
            fold: all_pairs(one.cosines, one.truth, unseen_substances(data, fold))
            for fold, one in unseen.items()
        }
    )
    views = next(iter(seen.values())).views
    return {**_as_extras("", known, views), **_as_extras("_unseen", strange, views)}


def _as_extras(suffix: str, results: list[Matching], views: tuple[str, ...]) -> dict[str, Any]:
    if not results:
        return {}
    mean = mean_matching(results)
    return {
        **_area_extras(f"matching_auroc{suffix}", [one.auroc for one in results]),
        f"matching_sensitivity{suffix}": round(mean.sensitivity, 4),
        f"matching_specificity{suffix}": round(mean.specificity, 4),
        f"matching_views{suffix}": {
            view: round(value, 4) for view, value in zip(views, mean.views, strict=True)
        },
    }


def _area_extras(name: str, folds: list[Area]) -> dict[str, Any]:
    """Return the mean over folds, its interval over substances, and each fold's."""
    if not folds:
        return {}
    mean = mean_area(folds)
    low, high = mean.interval
    return {
        name: round(mean.value, 4),
        f"{name}_interval": [low, high],
        f"{name}_folds": [round(one.value, 4) for one in folds],
    }


def write_report(
    folder: Path, config: TrainConfig, data: Dataset, rows: Sequence[dict[str, Any]]
) -> Path:
    """Write the rows, with what makes them comparable, to `cross_modal.json`."""
    report = {
        "protocol": "grouped 5-fold, one recording of every substance held out; w=100, stride 50; "
        "float32; the same seed and steps for every switch",
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


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table for a reader."""
    lines = [
        "| switch | folds | Top-1 (95 %) | against none (95 %) | recording Top-1 (95 %) "
        "| s a training | also |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        also = ", ".join(
            f"{name.replace('_', ' ')} {value:.3f}"
            for name, value in one["extras"].items()
            if isinstance(value, float)
        )
        lines.append(
            f"| {one['name']} | {', '.join(map(str, one['folds']))} | "
            f"{one['top1']:.3f} ({one['low']:.3f} to {one['high']:.3f}) | "
            f"{one['delta_top1']:+.3f} ({one['delta_low']:+.3f} to {one['delta_high']:+.3f}) | "
            f"{one['recording_top1']:.3f} "
            f"({one['recording_low']:.3f} to {one['recording_high']:.3f}) | "
            f"{one['seconds']:.0f} | {also} |"
        )
    return "\n".join(lines)


def _identity(config: TrainConfig, data: Dataset, task: Task) -> str:
    """Tell answers apart as checkpoints are: an option added later cuts off none."""
    from training.fit import non_default_settings  # noqa: PLC0415 - torch

    knowledge = read_substance_tables(config.cross_modal, data).sha256 if config.cross_modal else ""
    settings = [non_default_settings(config), data.sha256, knowledge, task.fold, task.unseen]
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode()).hexdigest()


def _stored(path: Path, key: str) -> HeldOutAnswers | None:
    arrays: dict[str, Any] | None = kept(path, key)
    if arrays is None:
        return None
    arrays["views"] = tuple(map(str, arrays["views"]))
    arrays["seconds"] = float(arrays["seconds"])
    return HeldOutAnswers(**arrays)
