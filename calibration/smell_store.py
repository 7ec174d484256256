"""Calibration: the store of the smells that a rig was taught, one folder per model.

May import hardware, models, yaml and numpy. Must never know ports, brokers or commands. The only
clock that it reads dates the changes.

    smells/MODEL/index.yaml            what is taught, in shadow, hidden and renamed
    smells/MODEL/versions/0007.yaml    the index after every change; rollback goes one back
    smells/MODEL/exposures/ID.csv      the readings of an exposure, as the board sent them
    smells/MODEL/exposures/ID-KEY.npz  the embeddings that the model of this KEY makes of them

The readings are kept for good; the embeddings are a cache, which a new version of the model or a
new calibration of the rig computes again. Every file is written under another name and then
renamed, so that a power cut leaves the old set or the new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from calibration.enrolment import LearnedExposure, fit_smell, learn, require_space
from calibration.exposures import EnrolmentError, prepare_readings
from calibration.smell_set import Exposure, SmellError, SmellSet, StoreDamagedError
from hardware.errors import ScentdError, UsageError
from hardware.files import locked_folder, read_regular, write_atomically
from hardware.recording import RecordingError, RecordingWriter, read_recording
from models.correction import correction_for
from models.taught_head import TaughtHead, TaughtSmell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction


FOLDER = "smells"
INDEX = "index.yaml"
VERSIONS = "versions"
EXPOSURES = "exposures"

LEAD_S = 120.0
"""Readings kept from before an exposure: the longest lag, and clean air to detect the onset."""

MAX_EXPOSURE_S = 600.0
"""Readings kept of one exposure; two minutes teach well."""

MAX_SMELLS = 64
MAX_VERSIONS = 30
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
        self.bundle = bundle
        self.model = bundle.manifest.name
        self.folder = state_dir / FOLDER / self.model
        self.use_correction(correction)

    def use_correction(self, correction: Correction | None) -> None:
        """Correct the readings in this way from now on.

        The instance must belong to the store alone: it is reset for every exposure.
        """
        self.correction = correction_for(self.model, correction)

    def smells(self) -> SmellSet:
        """Return what is taught now.

        Raises
        ------
        StoreDamagedError: the index cannot be read.
        """
        try:
            return SmellSet.load(self.folder / INDEX)
        except FileNotFoundError:
            return SmellSet(self.model)

    def head(self, *, shadow: str | None = None) -> tuple[TaughtHead, list[str]]:
        """Return what is added to the model's labels, and sentences about unusable exposures.

        These are the promoted smells, and `shadow`, a smell that may be in shadow.
        """
        smells = self.smells()
        variance = self.bundle.manifest.decision.exposure_variance
        classes, problems = [], []
        for smell in smells.smells:
            if smell.shadow and smell.label != shadow:
                continue
            embeddings = []
            for exposure in smell.exposures:
                try:
                    embeddings.append(self.learned_exposure(exposure).embedding)
                except (RecordingError, EnrolmentError) as error:
                    problems.append(f"An exposure of {smell.label} cannot be used: {error}")
            if embeddings:
                classes.append(fit_smell(smell.label, embeddings, self._space, variance))
        head = TaughtHead(tuple(classes), frozenset(smells.hidden), dict(smells.renamed))
        head.labels(self.bundle.manifest.labels)
        return head, problems

    def learned_exposure(self, exposure: Exposure) -> LearnedExposure:
        """Return what the model learns from an exposure, from the cache or from its readings.

        Raises
        ------
        RecordingError, EnrolmentError: its readings are missing or damaged.
        """
        path = self.cache_path(exposure)
        try:
            return LearnedExposure.load(path)
        except (OSError, ValueError, KeyError):
            pass  # never computed for this model and calibration, or damaged
        readings = prepare_readings(self.recording(exposure), self.correction_of(exposure))
        start = int(np.searchsorted(readings.t_ms, exposure.start_ms))
        learned = learn(self.bundle, readings, start)
        write_atomically(path, learned.to_bytes())
        return learned

    def recording(self, exposure: Exposure) -> Recording:
        """Return the readings of an exposure; RecordingError if they are missing or damaged."""
        path = self.readings_path(exposure.id)
        try:
            whole = content_id(read_regular(path)) == exposure.id
        except OSError as error:
            raise RecordingError(f"{path} cannot be read ({error.strerror}).") from error
        if not whole:
            raise RecordingError(
                f"{path} is damaged: its content does not belong to its name. Teach it again."
            )
        return read_recording(path)

    def correction_of(self, exposure: Exposure) -> Correction | None:
        """Return what corrects an exposure's readings; None for those corrected already."""
        return None if exposure.as_trained else self.correction

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
        label: new, or of a smell that was taught before.
        recording: the readings of the exposure, and of the time before it.
        source: where they came from, for people.
        start_ms: time since the recording's first reading from which on they are learnt.
        promote: announce the smell from now on. Otherwise a new smell stays in shadow, and a
            known one as it is.

        Raises
        ------
        SmellError: the label cannot be used, or there are too many smells.
        EnrolmentError: nothing can be learnt from the readings.
        """
        with locked_folder(self.folder):
            smells = self.smells()
            label = self.checked_label(label, smells)
            exposure, learned = self._add_exposure(recording, source, start_ms)
            changed = smells.with_exposures(label, (exposure,), promote=promote)
            return self._commit(changed, f"taught {label}"), learned

    def update(self, change: str, edit: Callable[[SmellSet], SmellSet]) -> SmellSet:
        """Change what is taught, as one version.

        `edit` returns the new set; meanwhile no other process can change the store.
        """
        with locked_folder(self.folder):
            return self._commit(edit(self.smells()), change)

    def forget(self, label: str) -> SmellSet:
        """Forget a taught smell; rollback restores it while a version holds it."""
        return self.update(f"forgot {label}", lambda smells: smells.without_smell(label))

    def promote(self, label: str) -> SmellSet:
        """Announce a smell from now on."""
        return self.update(
            f"promoted {label}", lambda smells: smells.with_change(label, shadow=False)
        )

    def rename(self, label: str, name: str) -> SmellSet:
        """Rename a taught smell, or publish a shipped label under another name.

        A shipped label that is renamed to its shipped name is published under that again.
        """
        name = _valid_label(name)

        def edit(smells: SmellSet) -> SmellSet:
            if label in smells:
                if name in smells:
                    raise SmellError(
                        f"A smell called {name} is taught already. Choose another name."
                    )
                return smells.with_change(label, label=self.checked_label(name, smells))
            shipped = self._shipped_label(label, smells)
            renamed = {**smells.renamed, shipped: name}
            if name == shipped:
                del renamed[shipped]
            return dataclasses.replace(smells, renamed=renamed)

        return self.update(f"renamed {label} to {name}", edit)

    def hide(self, label: str) -> SmellSet:
        """Never announce a shipped label."""

        def edit(smells: SmellSet) -> SmellSet:
            hidden = {*smells.hidden, self._shipped_label(label, smells)}
            return dataclasses.replace(smells, hidden=tuple(sorted(hidden)))

        return self.update(f"hid {label}", edit)

    def unhide(self, label: str) -> SmellSet:
        """Announce a hidden label again."""

        def edit(smells: SmellSet) -> SmellSet:
            shipped = self._shipped_label(label, smells)
            if shipped not in smells.hidden:
                hidden = ", ".join(smells.hidden) or "none"
                raise SmellError(f"{label} is not hidden. Hidden: {hidden}.")
            others = tuple(name for name in smells.hidden if name != shipped)
            return dataclasses.replace(smells, hidden=others)

        return self.update(f"showed {label}", edit)

    def rollback(self) -> SmellSet:
        """Restore the set before the last change; for a damaged index, the newest readable one.

        Raises
        ------
        SmellError: there is no earlier set.
        """
        with locked_folder(self.folder):
            versions = self._versions()
            try:
                current = self.smells().version
            except StoreDamagedError:
                current = None
            for number in reversed(versions):
                if current is not None and number >= current:
                    self._version_path(number).unlink(missing_ok=True)
                    continue
                with contextlib.suppress(OSError, StoreDamagedError):
                    earlier = SmellSet.load(self._version_path(number))
                    write_atomically(self.folder / INDEX, earlier.to_yaml())
                    return earlier
            if current:
                empty = SmellSet(self.model, change="rolled back to the beginning")
                write_atomically(self.folder / INDEX, empty.to_yaml())
                return empty
        raise SmellError(
            f"Nothing was changed on {self.model} yet, so there is nothing to go back to."
        )

    def checked_label(self, text: str, smells: SmellSet) -> str:
        """Return a label as it is stored, if it is that of a taught smell or can become one.

        Raises
        ------
        UsageError: it cannot be a label.
        SmellError: the model itself announces it, or there are too many smells.
        """
        label = _valid_label(text)
        if label in smells:
            return label
        if len(smells.smells) >= MAX_SMELLS:
            raise SmellError(
                f"{MAX_SMELLS} smells are taught, which is the most. Forget one that is not "
                "needed any more."
            )
        published = {
            smells.renamed.get(name, name)
            for name in self.bundle.manifest.labels
            if name not in smells.hidden
        }
        if label in published:
            raise SmellError(
                f"{self.model} has a label {label} of its own. Hide it (`scentd enroll --hide "
                f"{label}`) or rename it (`scentd enroll --rename {label} NAME`), or teach yours "
                "under another name."
            )
        return label

    def _shipped_label(self, label: str, smells: SmellSet) -> str:
        """Return the shipped name of a label, given under its shipped or its published name."""
        for name in self.bundle.manifest.labels:
            if label in (name, smells.renamed.get(name)):
                return name
        raise SmellError(
            f"{label!r} is neither a smell taught to {self.model} nor one of its own labels. "
            "`scentd enroll --list` shows both."
        )

    def _add_exposure(
        self, recording: Recording, source: str, start_ms: int
    ) -> tuple[Exposure, LearnedExposure]:
        """Store an exposure's readings, and learn from the stored ones alone."""
        t_ms, values, start_ms = _cut(recording, start_ms)
        data = recording_bytes(t_ms, values)
        exposure = Exposure(content_id(data), _now(), source, start_ms, 0.0, 0)
        path = self.readings_path(exposure.id)
        write_atomically(path, data)
        try:
            learned = self.learned_exposure(exposure)
        except ScentdError:
            if exposure.id not in _exposure_ids(self.smells()):
                path.unlink(missing_ok=True)
            raise
        seconds = round(learned.seconds, 1)
        return dataclasses.replace(exposure, seconds=seconds, windows=len(learned)), learned

    def _commit(self, smells: SmellSet, change: str) -> SmellSet:
        """Write the next version, then the index, then remove the files that no version needs."""
        version = max(0, smells.version, *self._versions()) + 1
        smells = dataclasses.replace(smells, version=version, date=_now(), change=change)
        self._check_labels(smells)
        data = smells.to_yaml()
        write_atomically(self._version_path(version), data)
        write_atomically(self.folder / INDEX, data)
        self._remove_unused()
        return smells

    def _check_labels(self, smells: SmellSet) -> None:
        """Raise HeadError for a set that does not fit the model."""
        anywhere = np.zeros(len(self._space.middle))
        classes = tuple(TaughtSmell(smell.label, anywhere, 1, 1) for smell in smells.smells)
        head = TaughtHead(classes, frozenset(smells.hidden), dict(smells.renamed))
        head.labels(self.bundle.manifest.labels)

    def _remove_unused(self) -> None:
        """Remove the oldest versions, and the exposures that no other version holds."""
        versions = self._versions()
        for number in versions[:-MAX_VERSIONS]:
            self._version_path(number).unlink(missing_ok=True)
        needed: set[str] = set()
        for number in versions[-MAX_VERSIONS:]:
            try:
                needed |= _exposure_ids(SmellSet.load(self._version_path(number)))
            except (OSError, StoreDamagedError):
                return  # it cannot be known which exposures this version needs
        for path in (self.folder / EXPOSURES).glob("*"):
            if path.stem.split("-")[0] not in needed:
                path.unlink(missing_ok=True)

    @property
    def model_key(self) -> str:
        """Identifies the version of the model and its precision, which make the embeddings."""
        return f"{self.bundle.manifest.sha256[:16]} {self.bundle.precision}"

    def cache_path(self, exposure: Exposure) -> Path:
        """Return the file of an exposure's embeddings under this model and calibration."""
        correction = self.correction_of(exposure)
        key = content_id(f"{self.model_key} {correction.id if correction else ''}".encode())[:12]
        return self.folder / EXPOSURES / f"{exposure.id}-{key}.npz"

    def readings_path(self, exposure_id: str) -> Path:
        """Return the file of an exposure's readings."""
        return self.folder / EXPOSURES / f"{exposure_id}.csv"

    def _version_path(self, number: int) -> Path:
        return self.folder / VERSIONS / f"{number:04d}.yaml"

    def _versions(self) -> list[int]:
        found = (self.folder / VERSIONS).glob("[0-9]*.yaml")
        return sorted(int(path.stem) for path in found if path.stem.isdigit())


def content_id(data: bytes) -> str:
    """Return the name of a file by its content."""
    return hashlib.sha256(data).hexdigest()[:16]


def recording_bytes(t_ms: NDArray[np.int64], values: NDArray[np.float32]) -> bytes:
    """Return readings float32[n, 12] at the times int64[n] as the CSV of a recording."""
    stream = io.BytesIO()
    with RecordingWriter(stream) as writer:
        writer.write_all(t_ms, values)
    return stream.getvalue()


def _cut(recording: Recording, start_ms: int) -> tuple[NDArray[np.int64], NDArray[np.float32], int]:
    """Return the times and values of the readings to keep, and the start within them."""
    if recording.timestamp_ms is None:
        t_ms = np.arange(len(recording)) * round(1000.0 / recording.nominal_rate_hz)
    else:
        t_ms = recording.timestamp_ms - recording.timestamp_ms[0]
    first = int(np.searchsorted(t_ms, start_ms - LEAD_S * 1000.0))
    last = int(np.searchsorted(t_ms, start_ms + MAX_EXPOSURE_S * 1000.0))
    t_ms, first_ms = t_ms[first:last], int(t_ms[first]) if last > first else start_ms
    return t_ms - first_ms, recording.values[first:last], max(0, start_ms - first_ms)


def _valid_label(text: str) -> str:
    label = text.strip()
    if not label or len(label) > MAX_LABEL_LENGTH or not label.isprintable():
        raise UsageError(
            f"A smell's name has 1 to {MAX_LABEL_LENGTH} printable characters, got {text!r}."
        )
    return label


def _exposure_ids(smells: SmellSet) -> set[str]:
    return {exposure.id for smell in smells.smells for exposure in smell.exposures}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
