"""training/: one recording scored by models: what a worker does.

The predictions are those of `scentd replay`: the same recording, model, nose and fields.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from hardware.archive import recording_name
from hardware.recording_labels import LabelsError, labels_path
from hardware.recording_stream import RecordingError
from hardware.version import installed_version
from models.bundle import load_bundle
from models.manifest import BundleError
from models.prediction_fields import prediction_fields
from models.replay import ReplayResult, is_live, replay, replay_nose
from models.requirements import feeding_problem
from models.results import Event
from training.rescoring.results import PredictionTable, ScoredPart, read_part, result_path
from training.rescoring.sources import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from hardware.archived_recording import ArchivedRecording
    from hardware.recording_labels import RecordingLabels
    from hardware.recording_stream import RecordingStream
    from models.bundle import Bundle
    from training.rescoring.results import Model
    from training.rescoring.sources import Source

FORMAT = 1
"""Format of the results; a change of it scores everything anew."""

SCORED, NOT_FED, FAILED = "scored", "not_fed", "failed"


@dataclass(frozen=True, slots=True)
class RescoreTask:
    """One recording, the models that score it, and the folder of the results."""

    source: Source
    models: tuple[Model, ...]
    output: Path


@dataclass(frozen=True, slots=True)
class Rescored:
    """The parts of one recording, how many were finished before, and the processor's seconds."""

    parts: tuple[ScoredPart, ...]
    kept: int = 0
    processor_s: float = 0.0


def rescore(task: RescoreTask) -> Rescored:
    """Score a recording by every model that has not scored it yet, and write the results.

    A recording that cannot be read gives parts that say why.

    Raises
    ------
    BundleError: a model cannot be loaded, or is another one than it was.
    OSError: the disk refuses the results.
    """
    started_s = time.thread_time()
    source = task.source
    try:
        content = _hash_source(source)
        parts, missing = [], []
        for model in task.models:
            identity = _identity(source, content, model)
            part = read_part(result_path(task.output, source, model))
            if part is not None and part.identity == identity:
                parts.append(part)
            else:
                missing.append((model, identity))
        kept = len(parts)
        if missing:
            recording, labels = open_source(source)
            parts += [
                _score(task.output, source, recording, labels, model, identity)
                for model, identity in missing
            ]
    except (RecordingError, LabelsError) as error:
        return Rescored(
            tuple(ScoredPart.of(source, model, FAILED, reason=str(error)) for model in task.models)
        )
    return Rescored(tuple(parts), kept, time.thread_time() - started_s)


def _hash_source(source: Source) -> str:
    """Return a hash of everything that is read of a recording."""
    digests = []
    for path in source.paths:
        try:
            with path.open("rb") as stream:
                digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
            if not source.archived and (labels := labels_path(path)).is_file():
                digests.append(hashlib.sha256(labels.read_bytes()).hexdigest())
        except OSError as error:
            raise RecordingError(f"{path} cannot be read: {error.strerror or error}.") from error
    return " ".join(digests)


def _identity(source: Source, content: str, model: Model) -> str:
    about = replace(source, paths=()), content, model.sha256, model.precision
    return hashlib.sha256(repr((FORMAT, installed_version(), about)).encode()).hexdigest()


def _score(
    output: Path,
    source: Source,
    recording: ArchivedRecording | RecordingStream,
    labels: RecordingLabels,
    model: Model,
    identity: str,
) -> ScoredPart:
    """Score a recording by one model, and write the predictions."""
    bundle = _load(model)
    path = result_path(output, source, model)
    session = _session(source, recording)
    table = PredictionTable()
    problem = feeding_problem(bundle.manifest, recording.present, recording.nominal_rate_hz)
    if problem is not None:
        part = ScoredPart.of(
            source, model, NOT_FED, reason=f"it cannot feed the model: {problem}",
            session=session, readings=len(recording), identity=identity,
        )  # fmt: skip
        table.write(path, part)
        return part
    result = ReplayResult()
    constant = {
        "recording": source.name,
        "session": session,
        "model_version": model.version,
        "model_sha256": model.sha256,
        "task": bundle.manifest.task,
    }
    first_ms = recording.first_ms
    name = recording_name(source.paths[0])
    nose = replay_nose([bundle], recording, live=is_live(name, recording))
    for seq, found in enumerate(replay(nose, recording)):
        if isinstance(found, Event):
            continue
        result.update(found)
        at_ms = found.t_ms + first_ms
        table.add(
            {
                **constant,
                **prediction_fields(found),
                "true_label": source.label or labels.at(at_ms),
                "t_ms": found.t_ms,
                "timestamp_ms": at_ms,
                "seq": seq,
            }
        )
    part = ScoredPart.of(
        source, model, SCORED, session=session, readings=len(recording), predictions=table.count,
        label=result.label, probability=result.probability, decided_s=result.decided_s,
        identity=identity,
    )  # fmt: skip
    table.write(path, part)
    return part


def _session(source: Source, recording: ArchivedRecording | RecordingStream) -> str:
    entries = getattr(recording, "entries", ())
    return entries[0].session if entries else source.session


@cache
def _load(model: Model) -> Bundle:
    bundle = load_bundle(model.folder, "int8" if model.precision == "int8" else "fp32")
    if bundle.manifest.sha256 != model.sha256:
        raise BundleError(
            f"{model.folder} is another version of {model.name} than when this run started. Run "
            "the same command again."
        )
    return bundle
