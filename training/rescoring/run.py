"""training/: any number of recordings scored by one or several models, on an engine.

Every recording and model is a file of its own, written whole or not at all. A run that was killed
goes on where it was: what is finished, and still of the same recording and model, is kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hardware.errors import UsageError
from hardware.files import sweep
from models.bundle import bundle_folder, load_bundle
from training.rescoring.results import Model, ScoredPart, write_summary
from training.rescoring.task import FAILED, NOT_FED, RescoreTask, rescore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from training.engines import Engine
    from training.rescoring.sources import Source


@dataclass(slots=True)
class RescoreReport:
    """What a run did.

    Attributes
    ----------
    recordings: how many there are.
    scored: parts (a recording and a model) that were scored now.
    kept: parts that were finished before.
    not_fed: parts of recordings that cannot feed the model.
    readings, predictions: of the parts that were scored now.
    processor_s: seconds that the processors of all workers took for it.
    failed: why a recording could not be read, by its name with rig and day.
    """

    recordings: int = 0
    scored: int = 0
    kept: int = 0
    not_fed: int = 0
    readings: int = 0
    predictions: int = 0
    processor_s: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)


def load_models(names: Iterable[str]) -> tuple[Model, ...]:
    """Return the models of bundles: folders, or names of shipped ones.

    Raises
    ------
    BundleError: one cannot be loaded here.
    UsageError: two have one name and version.
    """
    models = []
    for name in dict.fromkeys(names):
        # Loaded once here, so that precision "auto" means the same in every worker.
        bundle = load_bundle(name)
        manifest = bundle.manifest
        folder = str(bundle_folder(name).resolve())
        models.append(
            Model(folder, manifest.name, manifest.version, manifest.sha256, bundle.precision)
        )
    counts = Counter(f"{model.name} {model.version}" for model in models)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise UsageError(
            f"Two of the models are {twice[0]}, and their results would have the same names. Score "
            "by one of them, or write to another --output."
        )
    return tuple(models)


def rescore_recordings(
    engine: Engine,
    sources: Sequence[Source],
    models: tuple[Model, ...],
    output: Path,
) -> RescoreReport:
    """Score recordings by models; one that cannot be read does not stop the others.

    Parameters
    ----------
    engine: which runs the tasks.
    sources: the recordings.
    models: from `load_models`.
    output: folder of the results, made if it is missing.

    Raises
    ------
    BundleError, EngineError, OSError: a model, a worker or the disk fails.
    """
    output.mkdir(parents=True, exist_ok=True)
    sweep(output)
    report = RescoreReport(recordings=len(sources))
    parts: list[ScoredPart] = []
    tasks = [RescoreTask(source, models, output) for source in sources]
    for task, rescored in engine.run(rescore, tasks):
        parts += rescored.parts
        report.processor_s += rescored.processor_s
        _count(report, task, rescored.parts, rescored.kept)
    write_summary(output, parts)
    return report


def _count(
    report: RescoreReport, task: RescoreTask, parts: tuple[ScoredPart, ...], kept: int
) -> None:
    for number, part in enumerate(parts):
        if part.status == FAILED:
            source = task.source
            report.failed[f"{source.rig} {source.day} {source.name}"] = part.reason or ""
        elif part.status == NOT_FED:
            report.not_fed += 1
        elif number < kept:
            report.kept += 1
        else:
            report.scored += 1
            report.readings += part.readings
            report.predictions += part.predictions
