"""Calibration: the store of the smells that a rig was taught, one folder per model.

May import hardware, models, yaml and numpy. Must never know ports, brokers or commands; the only
clock it reads dates what is kept.

    smells/MODEL/index.yaml            what is taught, in shadow, hidden and renamed
    smells/MODEL/versions/0007.yaml    the same after every change; rollback goes one back
    smells/MODEL/exposures/ID.csv      the readings of an exposure, as the board sent them
    smells/MODEL/exposures/ID-KEY.npz  what the model of this KEY made of them

Readings are the truth and embeddings only a cache: a new version of the model, or a new
calibration of the rig, makes them anew. Every file is written whole under another name and then
renamed, so that a power cut leaves the old set or the new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import zipfile
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from calibration.enrolment import (
    EnrolmentError,
    LearnedExposure,
    fit_smell,
    learn,
    prepare_readings,
    require_space,
)
from calibration.smell_set import Exposure, Smell, SmellError, SmellSet, StoreDamagedError
from hardware.errors import ScentdError, UsageError
from hardware.files import write_atomically
from hardware.recording import RecordingError, RecordingWriter, read_recording
from models.correction import correction_for
from models.taught_head import TaughtHead, TaughtSmell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction


FOLDER = "smells"
INDEX = "index.yaml"
VERSIONS = "versions"
EXPOSURES = "exposures"

LEAD_S = 120.0
"""Readings kept from before an exposure: the longest lag, and air to see the onset against."""

MAX_EXPOSURE_S = 600.0
"""Readings kept of one exposure; two minutes teach well, and a smell does not last for hours."""

MAX_SMELLS = 64
MAX_EXPOSURES = 16
"""Of one smell; the oldest gives way."""

MAX_IMPORT_BYTES = 256_000_000
"""Unpacked: a small file can be made to fill any memory. A hundred smells take a tenth of it."""

VERSIONS_KEPT = 30
MAX_LABEL_LENGTH = 64


class SmellStore:
    """The taught smells of one model on one rig.

    Parameters
    ----------
    state_dir: the rig's.
    bundle: the model, with the space of its embeddings.
    correction: of the rig's readings, None for none.

    Raises
    ------
    EnrolmentError: the model cannot be taught.
    """

    def __init__(
        self, state_dir: Path, bundle: Bundle, correction: Correction | None = None
    ) -> None:
        self._space = require_space(bundle)
        self._bundle = bundle
        self._correction = correction_for(bundle.manifest.name, correction)
        self.folder = state_dir / FOLDER / bundle.manifest.name

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._bundle.manifest.name

    @property
    def bundle(self) -> Bundle:
        """The model that is taught."""
        return self._bundle

    @property
    def correction(self) -> Correction | None:
        """Of the rig's readings."""
        return self._correction

    def use_correction(self, correction: Correction | None) -> None:
        """Hear the rig's readings through another correction from now on.

        An instance of its own: it is reset for every exposure.
        """
        self._correction = correction_for(self.model, correction)

    def smells(self) -> SmellSet:
        """Return what is taught now.

        Raises
        ------
        StoreDamagedError: the index cannot be read.
        """
        path = self.folder / INDEX
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return SmellSet(self.model)
        return SmellSet.from_yaml(data, str(path))

    def head(self, *, shadow: str | None = None) -> tuple[TaughtHead, list[str]]:
        """Return what stands beside the model's labels, and what could not be used of it.

        Parameters
        ----------
        shadow: the smell in shadow that is counted in all the same.

        Returns
        -------
        the head of all promoted smells, and one sentence about every smell that the model cannot
        use because the files of its exposures are gone or damaged.
        """
        smells = self.smells()
        variance = self._bundle.manifest.decision.exposure_variance
        classes, problems = [], []
        for smell in smells.smells:
            if smell.shadow and smell.label != shadow:
                continue
            lessons = []
            for exposure in smell.exposures:
                try:
                    lessons.append(self.learned_exposure(exposure).embedding)
                except (RecordingError, EnrolmentError) as error:
                    problems.append(f"An exposure of {smell.label} cannot be used: {error}")
            if lessons:
                classes.append(fit_smell(smell.label, lessons, self._space, variance))
        head = TaughtHead(tuple(classes), frozenset(smells.hidden), dict(smells.renamed))
        head.labels(self._bundle.manifest.labels)
        return head, problems

    def learned_exposure(self, exposure: Exposure) -> LearnedExposure:
        """Return what the model makes of a kept exposure, from the cache or from its readings.

        Raises
        ------
        RecordingError, EnrolmentError: its readings are gone or damaged.
        """
        path = self._cache(exposure)
        try:
            with np.load(path, allow_pickle=False) as kept:
                missing = tuple(str(name) for name in kept["channels_missing"])
                return LearnedExposure(
                    kept["embedding"], kept["logits"], float(kept["seconds"]), missing
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # Never made for this model and calibration, or damaged: the readings are the truth.
            pass
        readings = prepare_readings(self.recording(exposure), self._correction_of(exposure))
        start = int(np.searchsorted(readings.t_ms, exposure.start_ms))
        lesson = learn(self._bundle, readings, start)
        write_atomically(path, _npz(lesson))
        return lesson

    def recording(self, exposure: Exposure) -> Recording:
        """Return the readings of an exposure.

        Raises
        ------
        RecordingError: they are gone or damaged.
        """
        return read_recording(self._readings(exposure.id))

    def enroll(
        self,
        label: str,
        recording: Recording,
        *,
        source: str,
        start_ms: int = 0,
        promote: bool = False,
    ) -> tuple[SmellSet, LearnedExposure]:
        """Teach a smell from an exposure, or refine it with one more.

        Parameters
        ----------
        label: its name, new or taught already.
        recording: the readings of the exposure, and what came before it.
        source: where they came from, for people.
        start_ms: time since the recording's first reading from which on they teach.
        promote: say it from now on; else a new smell stays in shadow, and a refined one as it is.

        Raises
        ------
        SmellError: the name cannot be used, or there are too many smells.
        EnrolmentError: the readings cannot teach.
        """
        label = _label(label)
        with self._changing() as smells:
            known = next((smell for smell in smells.smells if smell.label == label), None)
            if known is None:
                self._refuse_name(label, smells)
            exposure, lesson = self._keep(recording, source, start_ms)
            if known is None:
                changed = smells.with_smell(Smell(label, not promote, (exposure,)))
            else:
                before = [kept for kept in known.exposures if kept.id != exposure.id]
                refined = Smell(
                    label,
                    known.shadow and not promote,
                    (*before, exposure)[-MAX_EXPOSURES:],
                )
                changed = smells.with_smell(refined, replacing=label)
            return self._commit(changed, f"taught {label}"), lesson

    def forget(self, label: str) -> SmellSet:
        """Forget a taught smell; until the versions that know it are gone, rollback finds it."""
        with self._changing() as smells:
            return self._commit(smells.without_smell(label), f"forgot {label}")

    def promote(self, label: str) -> SmellSet:
        """Say a smell from now on."""
        with self._changing() as smells:
            promoted = dataclasses.replace(smells.smell(label), shadow=False)
            changed = smells.with_smell(promoted, replacing=label)
            return self._commit(changed, f"promoted {label}")

    def rename(self, label: str, name: str) -> SmellSet:
        """Rename a taught smell, or publish a shipped label under another name.

        A shipped label takes its own name back by being renamed to it.
        """
        name = _label(name)
        with self._changing() as smells:
            if any(smell.label == label for smell in smells.smells):
                self._refuse_name(name, smells)
                renamed = dataclasses.replace(smells.smell(label), label=name)
                changed = smells.with_smell(renamed, replacing=label)
                return self._commit(changed, f"renamed {label} to {name}")
            shipped = self._shipped(label, smells)
            names = {old: new for old, new in smells.renamed.items() if old != shipped}
            if name != shipped:
                names[shipped] = name
            changed = dataclasses.replace(smells, renamed=names)
            return self._commit(changed, f"renamed {label} to {name}")

    def hide(self, label: str) -> SmellSet:
        """Never say a shipped label."""
        with self._changing() as smells:
            shipped = self._shipped(label, smells)
            hidden = tuple(sorted({*smells.hidden, shipped}))
            return self._commit(dataclasses.replace(smells, hidden=hidden), f"hid {label}")

    def unhide(self, label: str) -> SmellSet:
        """Say a hidden label again."""
        with self._changing() as smells:
            shipped = self._shipped(label, smells)
            if shipped not in smells.hidden:
                raise SmellError(f"{label} is not hidden. Hidden: {_listed(smells.hidden)}.")
            hidden = tuple(name for name in smells.hidden if name != shipped)
            return self._commit(dataclasses.replace(smells, hidden=hidden), f"showed {label}")

    def rollback(self) -> SmellSet:
        """Go back to the set before the last change; from a damaged index, to the newest whole one.

        Raises
        ------
        SmellError: there is nothing to go back to.
        """
        with self._locked():
            try:
                now = self.smells()
            except StoreDamagedError:
                now = None
            versions = self._versions()
            if now is not None:
                for number in [n for n in versions if n >= now.version]:
                    self._version(number).unlink(missing_ok=True)
                versions = [number for number in versions if number < now.version]
            for number in reversed(versions):
                try:
                    data = self._version(number).read_bytes()
                    before = SmellSet.from_yaml(data, str(self._version(number)))
                except (OSError, StoreDamagedError):
                    continue
                write_atomically(self.folder / INDEX, data)
                return before
            if now is not None and now.version > 0:
                empty = SmellSet(self.model, change="rolled back to the beginning")
                write_atomically(self.folder / INDEX, empty.to_yaml())
                return empty
        raise SmellError(
            f"Nothing was changed on {self.model} yet, so there is nothing to go back to."
        )

    def export(self, path: Path) -> SmellSet:
        """Write the taught smells into one file, for another rig.

        Readings go out corrected by this rig's calibration, as the rig that the model was trained
        on would have sent them: the other rig's own calibration knows nothing of this one.
        """
        smells = self.smells()
        if not smells.smells:
            raise SmellError("No smell was taught yet, so there is nothing to export.")
        packed = []
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for smell in smells.smells:
                exposures = []
                for kept in smell.exposures:
                    lesson, readings = self.learned_exposure(kept), self._corrected(kept)
                    name = _digest(readings)
                    archive.writestr(f"{EXPOSURES}/{name}.csv", readings)
                    archive.writestr(f"{EXPOSURES}/{name}.npz", _npz(lesson))
                    exposures.append(dataclasses.replace(kept, id=name, as_trained=True))
                packed.append(dataclasses.replace(smell, exposures=tuple(exposures)))
            packed_set = dataclasses.replace(
                smells, smells=tuple(packed), hidden=(), renamed={}, change=self._model_key
            )
            archive.writestr(INDEX, packed_set.to_yaml())
        write_atomically(path, target.getvalue())
        return smells

    def import_(self, path: Path, *, promote: bool = False) -> SmellSet:
        """Take the smells that another rig exported; into shadow, unless promoted.

        A smell of a name that is taught here already is refined by the other rig's exposures.

        Raises
        ------
        SmellError: the file is no export, or of a model of another name.
        EnrolmentError: it is of another version of the model, whose readings cannot teach this one.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                size_bytes = sum(item.file_size for item in archive.infolist())
                if size_bytes > MAX_IMPORT_BYTES:
                    raise SmellError(
                        f"{path} unpacks to {size_bytes} bytes, and what was ever taught to a rig "
                        f"takes far less than {MAX_IMPORT_BYTES}. Export it again on the "
                        "other rig."
                    )
                files = {name: archive.read(name) for name in archive.namelist()}
            theirs = SmellSet.from_yaml(files[INDEX], f"{path}: {INDEX}")
        except (OSError, KeyError, zipfile.BadZipFile, StoreDamagedError) as error:
            raise SmellError(
                f"Expected a file made by `scentd enroll --export`, and {path} is none ({error}). "
                "Export it again on the other rig."
            ) from error
        if theirs.model != self.model:
            raise SmellError(
                f"{path} has smells taught to {theirs.model}; this is {self.model}. A smell means "
                "something only to the model that it was taught to: choose it with --model."
            )
        with self._changing() as smells:
            changed = smells
            for smell in theirs.smells:
                label = _label(smell.label)
                known = next((own for own in changed.smells if own.label == label), None)
                if known is None:
                    self._refuse_name(label, changed)
                new = tuple(
                    self._import_exposure(exposure, files, same=theirs.change == self._model_key)
                    for exposure in smell.exposures
                )
                if known is None:
                    changed = changed.with_smell(Smell(label, not promote, new))
                    continue
                ids = {exposure.id for exposure in new}
                merged = (*(kept for kept in known.exposures if kept.id not in ids), *new)
                refined = Smell(label, known.shadow and not promote, merged[-MAX_EXPOSURES:])
                changed = changed.with_smell(refined, replacing=label)
            return self._commit(changed, f"imported {path.name}")

    def _import_exposure(
        self, exposure: Exposure, files: Mapping[str, bytes], *, same: bool
    ) -> Exposure:
        """Keep another rig's exposure; its embeddings too, where the model is the very same."""
        readings = files.get(f"{EXPOSURES}/{exposure.id}.csv", b"")
        if _digest(readings) != exposure.id:
            raise SmellError(
                f"The readings of exposure {exposure.id} are missing from the file or damaged. "
                "Export it again on the other rig."
            )
        write_atomically(self._readings(exposure.id), readings)
        embeddings = files.get(f"{EXPOSURES}/{exposure.id}.npz")
        if same and embeddings is not None:
            write_atomically(self._cache(exposure), embeddings)
        lesson = self.learned_exposure(exposure)
        return dataclasses.replace(exposure, windows=len(lesson), as_trained=True)

    def _corrected(self, exposure: Exposure) -> bytes:
        """Return an exposure's readings as CSV, corrected by the rig's calibration."""
        recording, correction = self.recording(exposure), self._correction_of(exposure)
        if correction is None:
            return self._readings(exposure.id).read_bytes()
        readings = prepare_readings(recording, correction)
        stream = io.BytesIO()
        with RecordingWriter(stream) as writer:
            for t_ms, values in zip(readings.t_ms.tolist(), readings.values, strict=True):
                writer.write(t_ms, values)
        return stream.getvalue()

    def _correction_of(self, exposure: Exposure) -> Correction | None:
        return None if exposure.as_trained else self._correction

    def _keep(
        self, recording: Recording, source: str, start_ms: int
    ) -> tuple[Exposure, LearnedExposure]:
        """Keep an exposure's readings, and learn from what is kept and nothing else."""
        data, start_ms = _kept_readings(recording, start_ms)
        name = _digest(data)
        write_atomically(self._readings(name), data)
        exposure = Exposure(name, _now(), source, start_ms, 0.0, 0)
        try:
            lesson = self.learned_exposure(exposure)
        except ScentdError:
            if all(kept.id != name for smell in self.smells().smells for kept in smell.exposures):
                self._readings(name).unlink(missing_ok=True)
            raise
        return (
            dataclasses.replace(
                exposure, seconds=round(lesson.seconds, 1), windows=len(lesson.embedding)
            ),
            lesson,
        )

    def _refuse_name(self, label: str, smells: SmellSet) -> None:
        if len(smells.smells) >= MAX_SMELLS:
            raise SmellError(
                f"{MAX_SMELLS} smells are taught, which is the most. Forget one that is not "
                "needed any more."
            )
        if any(smell.label == label for smell in smells.smells):
            raise SmellError(f"A smell called {label} is taught already. Choose another name.")
        published = {
            smells.renamed.get(name, name)
            for name in self._bundle.manifest.labels
            if name not in smells.hidden
        }
        if label in published:
            raise SmellError(
                f"{self.model} has a label {label} of its own. Hide it (`scentd enroll --hide "
                f"{label}`) or rename it (`scentd enroll --rename {label} NAME`), or teach yours "
                "under another name."
            )

    def _shipped(self, label: str, smells: SmellSet) -> str:
        """Return the shipped name of a label given by either of its names."""
        for name in self._bundle.manifest.labels:
            if label in (name, smells.renamed.get(name)):
                return name
        raise SmellError(
            f"{label!r} is neither a smell taught to {self.model} nor one of its own labels. "
            "`scentd enroll --list` shows both."
        )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[SmellSet]:
        """Hold the store and yield what it says, for one change."""
        with self._locked():
            yield self.smells()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the store: the service and a command line may both want to change it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _commit(self, smells: SmellSet, change: str) -> SmellSet:
        """Write the next version, then the index, then throw away what no version needs."""
        numbers = [0, smells.version, *self._versions()]
        made = dataclasses.replace(smells, version=max(numbers) + 1, date=_now(), change=change)
        self._check(made)
        data = made.to_yaml()
        write_atomically(self._version(made.version), data)
        write_atomically(self.folder / INDEX, data)
        self._throw_away()
        return made

    def _check(self, smells: SmellSet) -> None:
        """Refuse what does not fit the model: it must never get into the index.

        Raises
        ------
        HeadError: two labels of the same name, or none left.
        """
        nowhere = np.zeros(len(self._space.middle))
        classes = tuple(TaughtSmell(smell.label, nowhere, 1, 1) for smell in smells.smells)
        head = TaughtHead(classes, frozenset(smells.hidden), dict(smells.renamed))
        head.labels(self._bundle.manifest.labels)

    def _throw_away(self) -> None:
        """Remove the oldest versions, and exposures that no version knows any more."""
        versions = self._versions()
        for number in versions[:-VERSIONS_KEPT]:
            self._version(number).unlink(missing_ok=True)
        needed = set()
        for number in versions[-VERSIONS_KEPT:]:
            try:
                data = self._version(number).read_bytes()
                version = SmellSet.from_yaml(data, str(self._version(number)))
            except (OSError, StoreDamagedError):
                return  # who knows what it needs
            needed |= {kept.id for smell in version.smells for kept in smell.exposures}
        for path in (self.folder / EXPOSURES).glob("*"):
            if path.stem.split("-")[0] not in needed:
                path.unlink(missing_ok=True)

    @property
    def _model_key(self) -> str:
        """Tells one version of the model from another, and what of it makes the embeddings."""
        return f"{self._bundle.manifest.sha256[:16]} {self._bundle.precision}"

    def _cache(self, exposure: Exposure) -> Path:
        correction = self._correction_of(exposure)
        key = _digest(f"{self._model_key} {correction.id if correction else ''}".encode())[:12]
        return self.folder / EXPOSURES / f"{exposure.id}-{key}.npz"

    def _readings(self, name: str) -> Path:
        return self.folder / EXPOSURES / f"{name}.csv"

    def _version(self, number: int) -> Path:
        return self.folder / VERSIONS / f"{number:04d}.yaml"

    def _versions(self) -> list[int]:
        found = (self.folder / VERSIONS).glob("[0-9]*.yaml")
        return sorted(int(path.stem) for path in found if path.stem.isdigit())


def _kept_readings(recording: Recording, start_ms: int) -> tuple[bytes, int]:
    """Return the CSV of the readings worth keeping, and the time in it from which on they teach."""
    if recording.timestamp_ms is None:
        t_ms = np.arange(len(recording)) * round(1000.0 / recording.nominal_rate_hz)
    else:
        t_ms = recording.timestamp_ms - recording.timestamp_ms[0]
    first = int(np.searchsorted(t_ms, start_ms - LEAD_S * 1000.0))
    last = int(np.searchsorted(t_ms, start_ms + MAX_EXPOSURE_S * 1000.0))
    stream = io.BytesIO()
    with RecordingWriter(stream) as writer:
        for row in range(first, last):
            writer.write(int(t_ms[row] - t_ms[first]), recording.values[row])
    return stream.getvalue(), max(0, start_ms - int(t_ms[first])) if last > first else 0


def _label(text: str) -> str:
    """Return a label as it is kept.

    Raises
    ------
    UsageError: it cannot be one.
    """
    label = text.strip()
    if not label or len(label) > MAX_LABEL_LENGTH or not label.isprintable():
        raise UsageError(
            f"A smell's name has 1 to {MAX_LABEL_LENGTH} printable characters, and {text!r} came."
        )
    return label


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def _npz(lesson: LearnedExposure) -> bytes:
    stream = io.BytesIO()
    np.savez(
        stream,
        embedding=lesson.embedding,
        logits=lesson.logits,
        seconds=np.float64(lesson.seconds),
        channels_missing=np.array(lesson.channels_missing, dtype=str),
    )
    return stream.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
