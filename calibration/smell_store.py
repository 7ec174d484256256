"""Calibration: the library of the smells that a rig was taught.

May import hardware, models, yaml and numpy. Must never know ports, brokers or commands. The only
clock that it reads dates the changes.

    smells/index.yaml            what is taught, in shadow, hidden and renamed
    smells/versions/0007.yaml    the index after every change; rollback goes one back
    smells/exposures/ID.csv      the readings of an exposure, as the board sent them
    smells/exposures/ID-KEY.npz  what is computed of them: the response, or a model's embeddings

The readings belong to the rig and are kept for good. All else is a cache: another correction of the
rig, or another version of a model, computes it again. Every file is written under another name and
then renamed, so that a power cut leaves the old set or the new one. What earlier versions kept
below `smells/MODEL/` is taken over by the first change.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from calibration.exposures import EnrolmentError
from calibration.smell_learning import LEAST_EXPOSURE_S, ExposureLearner, LearntExposure
from calibration.smell_set import NEGATIVES, Exposure, SmellError, SmellSet, StoreDamagedError
from calibration.smell_versions import SmellVersions
from calibration.stored_readings import content_id, cut_readings, read_exposure
from hardware.errors import ScentdError
from hardware.files import locked_folder, remove, write_atomically
from hardware.labels import checked_label
from hardware.recording import RecordingError
from models.taught_head import TaughtHead, TaughtSmell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from calibration.enrolment import LearnedExposure
    from calibration.recogniser import TaughtExposure
    from calibration.smell_set import Smell, TaughtAir
    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction


FOLDER = "smells"
INDEX = "index.yaml"
VERSIONS = "versions"
EXPOSURES = "exposures"

MAX_SMELLS = 64


class SmellStore:
    """The taught smells of one rig.

    Parameters
    ----------
    state_dir: the rig's.
    bundles: the models of single substances that can compare embeddings; they learn the smells
        too, for exposures whose clean air is not known.
    correction: of the rig's readings, None for none.

    Attributes
    ----------
    learner: what is learnt from one exposure.
    versions: the earlier versions of the library.
    """

    def __init__(
        self, state_dir: Path, bundles: Sequence[Bundle] = (), correction: Correction | None = None
    ) -> None:
        self.folder = state_dir / FOLDER
        self.versions = SmellVersions(self.folder / VERSIONS)
        self.learner = ExposureLearner(self.readings_path, bundles)
        self.use_correction(correction)

    @property
    def bundles(self) -> dict[str, Bundle]:
        """The models that learn the smells, by name."""
        return self.learner.bundles

    @property
    def correction(self) -> Correction | None:
        """The correction of the rig's readings."""
        return self.learner.correction

    def use_correction(self, correction: Correction | None) -> None:
        """Correct the readings in this way from now on.

        The instance must belong to the store alone: it is reset for every exposure.
        """
        self.learner.correction = correction

    def smells(self) -> SmellSet:
        """Return what is taught now.

        Raises
        ------
        StoreDamagedError: the index cannot be read.
        """
        try:
            return SmellSet.load(self.folder / INDEX)
        except FileNotFoundError:
            return self._smells_of_earlier_versions()

    def _smells_of_earlier_versions(self) -> SmellSet:
        """Return what earlier versions kept for each model."""
        smells = SmellSet()
        for path in sorted(self.folder.glob(f"*/{INDEX}")):
            smells = smells.with_all_of(SmellSet.load(path))
        return smells

    def head(
        self, model: str | None = None, *, shadow: str | None = None
    ) -> tuple[TaughtHead, list[str]]:
        """Return what is added to a model's labels, and sentences about unusable exposures.

        These are the promoted smells, and `shadow`, a smell that may be in shadow. A smell goes
        before a label of the model that is published under its name.

        Parameters
        ----------
        model: its name, by default the first one's.
        shadow: label of a smell.
        """
        smells = self.smells()
        bundle = self.bundles[model] if model else next(iter(self.bundles.values()))
        classes, problems = [], []
        for smell in smells.taught:
            if smell.shadow and smell.label != shadow:
                continue
            embeddings = []
            for exposure in smell.exposures:
                try:
                    learned = self.learner.learned(exposure, bundle)
                except (RecordingError, EnrolmentError) as error:
                    problems.append(f"An exposure of {smell.label} cannot be used: {error}")
                else:
                    embeddings.append(learned.embedding)
            if embeddings:
                classes.append(self.learner.fit(smell.label, embeddings, bundle))
        return self._head(bundle, smells, tuple(classes)), problems

    def heads(self) -> tuple[dict[str, TaughtHead], list[str]]:
        """Return every model's head, and sentences about exposures that no model can use."""
        heads, problems = {}, []
        for model in self.bundles:
            heads[model], found = self.head(model)
            problems += found
        return heads, problems

    def taught_exposures(self, *, shadow: str | None = None) -> list[TaughtExposure]:
        """Return the responses of the promoted smells, and of `shadow`.

        Exposures whose clean air is not known, or whose readings are lost, are left out.
        """
        return self._responses(self.smells().taught, shadow)

    def _of_this_board(self) -> list[TaughtExposure]:
        """Return the responses of the promoted smells that are not of another board."""
        own = [
            replace(smell, exposures=tuple(one for one in smell.exposures if not one.other_board))
            for smell in self.smells().taught
        ]
        return self._responses(own, None)

    def negatives(self, *, shadow: str | None = None) -> list[TaughtExposure]:
        """Return the responses of the exposures that are none of the taught smells."""
        return self._responses([s for s in self.smells().smells if s.is_negative], shadow)

    def _responses(self, smells: Iterable[Smell], shadow: str | None) -> list[TaughtExposure]:
        exposures = []
        for smell in smells:
            used = not smell.shadow or smell.label == shadow
            for exposure in smell.exposures if used else ():
                with contextlib.suppress(RecordingError, EnrolmentError):
                    taught = self.learner.taught(smell.label, exposure)
                    if taught is not None:
                        exposures.append(taught)
        return exposures

    def learned_exposure(self, exposure: Exposure) -> LearnedExposure:
        """Return what the first model learns from an exposure.

        Raises
        ------
        RecordingError, EnrolmentError: its readings are missing, damaged or of no use for it.
        """
        return self.learner.learned(exposure, next(iter(self.bundles.values())))

    def recording(self, exposure: Exposure) -> Recording:
        """Return the readings of an exposure; RecordingError if they are missing or damaged."""
        return read_exposure(self.readings_path(exposure.id), exposure.id)

    def correction_of(self, exposure: Exposure) -> Correction | None:
        """Return what corrects an exposure's readings; None for those corrected already."""
        return self.learner.correction_of(exposure)

    def enroll(
        self,
        label: str,
        recording: Recording,
        *,
        source: str,
        session: str = "",
        start_ms: int = 0,
        promote: bool = False,
        clean_air: TaughtAir | None = None,
    ) -> tuple[SmellSet, LearntExposure]:
        """Teach a smell from an exposure, or refine it with one more.

        Parameters
        ----------
        label: new, or of a smell that was taught before.
        recording: the readings of the exposure, and of the time before it.
        source: where they came from, for people.
        session: of the exposure, by default today.
        start_ms: time since the recording's first reading from which on they are learnt.
        promote: announce the smell from now on. Otherwise a new smell stays in shadow, and a
            known one as it is.
        clean_air: as it is known at the recording's last reading, from which its age counts.

        Raises
        ------
        SmellError: the label cannot be used, or there are too many smells.
        EnrolmentError: nothing can be learnt from the readings.
        """
        with locked_folder(self.folder):
            smells = self.smells()
            label = self.checked_label(label, smells)
            exposure, learnt = self._add_exposure(recording, source, session, start_ms, clean_air)
            if label == NEGATIVES:
                learnt.require_response()
            changed = smells.with_exposures(label, (exposure,), promote=promote)
            return self._commit(changed, SmellSet.describe_teaching(label)), learnt

    def add_imported(self, exposure: Exposure, readings: bytes) -> Exposure:
        """Store an exposure from a file, which is in no set yet; return what was learnt of it.

        Whose board it is of was judged before (`calibration.smell_origin`).

        Raises
        ------
        EnrolmentError: nothing can be learnt from it.
        """
        return self._add(exposure, readings, ())[0]

    def update(self, change: str, edit: Callable[[SmellSet], SmellSet]) -> SmellSet:
        """Change what is taught, as one version.

        `edit` returns the new set; meanwhile no other process can change the store.
        """
        with locked_folder(self.folder):
            return self._commit(edit(self.smells()), change)

    def forget(self, label: str, exposure: str | None = None) -> SmellSet:
        """Forget a taught smell or one exposure of it; rollback restores it."""
        change = f"forgot {label if exposure is None else f'an exposure of {label}'}"
        return self.update(change, lambda smells: smells.without(label, exposure))

    def promote(self, label: str | None = None) -> SmellSet:
        """Announce a smell from now on; without a label, the one taught last of those in shadow."""
        if label is None:
            label = self.smells().latest_in_shadow()
        return self.update(
            f"promoted {label}", lambda smells: smells.with_change(label, shadow=False)
        )

    def rename(self, label: str, name: str) -> SmellSet:
        """Rename a taught smell, or publish a shipped label under another name.

        A shipped label that is renamed to its shipped name is published under that again.
        """
        name = checked_label(name)
        if NEGATIVES in (label, name):
            raise SmellError(f"{NEGATIVES!r} is no smell, so it is neither renamed nor a new name.")

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
            return replace(smells, renamed=renamed)

        return self.update(f"renamed {label} to {name}", edit)

    def hide(self, label: str) -> SmellSet:
        """Never announce a shipped label."""

        def edit(smells: SmellSet) -> SmellSet:
            hidden = {*smells.hidden, self._shipped_label(label, smells)}
            return replace(smells, hidden=tuple(sorted(hidden)))

        return self.update(f"hid {label}", edit)

    def unhide(self, label: str) -> SmellSet:
        """Announce a hidden label again."""

        def edit(smells: SmellSet) -> SmellSet:
            shipped = self._shipped_label(label, smells)
            if shipped not in smells.hidden:
                hidden = ", ".join(smells.hidden) or "none"
                raise SmellError(f"{label} is not hidden. Hidden: {hidden}.")
            others = tuple(name for name in smells.hidden if name != shipped)
            return replace(smells, hidden=others)

        return self.update(f"showed {label}", edit)

    def rollback(self) -> SmellSet:
        """Restore the set before the last change; for a damaged index, the newest readable one.

        Raises
        ------
        SmellError: there is no earlier set.
        """
        with locked_folder(self.folder):
            try:
                current = self.smells().version
            except StoreDamagedError:
                current = None
            for number in reversed(self.versions.numbers()):
                if current is not None and number >= current:
                    self.versions.remove(number)
                    continue
                with contextlib.suppress(OSError, StoreDamagedError):
                    earlier = self.versions.load(number)
                    write_atomically(self.folder / INDEX, earlier.to_yaml())
                    return earlier
            if current:
                before = self._smells_of_earlier_versions()
                empty = replace(before, version=0, change="rolled back to the beginning")
                write_atomically(self.folder / INDEX, empty.to_yaml())
                return empty
        raise SmellError("Nothing was taught or changed yet, so there is nothing to go back to.")

    def checked_label(self, text: str, smells: SmellSet) -> str:
        """Return a label as it is stored, if it is that of a taught smell or can become one.

        Raises
        ------
        UsageError: it cannot be a label.
        SmellError: there are too many smells.
        """
        label = checked_label(text)
        if label not in smells and len(smells.smells) >= MAX_SMELLS:
            raise SmellError(
                f"{MAX_SMELLS} smells are taught, which is the most. Forget one that is not "
                "needed any more."
            )
        return label

    def _shipped_label(self, label: str, smells: SmellSet) -> str:
        """Return the shipped name of a label, given under its shipped or its published name."""
        for bundle in self.bundles.values():
            for name in bundle.manifest.labels:
                if label in (name, smells.renamed.get(name)):
                    return name
        models = ", ".join(self.bundles) or "a model of single smells"
        raise SmellError(
            f"{label!r} is neither a smell that this rig was taught nor a label of {models}. "
            "`scentd enroll --list` shows the first, `scentd models list --labels` the second."
        )

    def _head(
        self, bundle: Bundle, smells: SmellSet, classes: tuple[TaughtSmell, ...]
    ) -> TaughtHead:
        """Return the head of one model; raises HeadError for a set that does not fit it."""
        shipped = bundle.manifest.labels
        renamed = {name: new for name, new in smells.renamed.items() if name in shipped}
        taught = {smell.label for smell in classes}
        replaced = {name for name in shipped if renamed.get(name, name) in taught}
        hidden = frozenset((set(smells.hidden) | replaced) & set(shipped))
        head = TaughtHead(classes, hidden, renamed)
        head.labels(shipped)
        return head

    def _add_exposure(
        self,
        recording: Recording,
        source: str,
        session: str,
        start_ms: int,
        clean_air: TaughtAir | None,
    ) -> tuple[Exposure, LearntExposure]:
        """Store an exposure's readings, and learn from the stored ones alone."""
        kept = cut_readings(recording, start_ms)
        data = kept.to_bytes()
        air = None if clean_air is None else clean_air.before(kept.until_end_s)
        named = (content_id(data), _now(), source, kept.start_ms)
        exposure = Exposure(*named, 0.0, 0, session=session, clean_air=air)
        return self._add(exposure, data, self._of_this_board(), LEAST_EXPOSURE_S)

    def _add(
        self,
        exposure: Exposure,
        readings: bytes,
        taught: Sequence[TaughtExposure],
        least_s: float = 0.0,
    ) -> tuple[Exposure, LearntExposure]:
        path = self.folder / EXPOSURES / f"{exposure.id}.csv"
        known = self.readings_path(exposure.id).exists()
        write_atomically(path, readings)
        try:
            learnt = self.learner.learn(exposure, taught, least_s)
        except ScentdError:
            if not known:
                for made in path.parent.glob(f"{exposure.id}*"):
                    remove(made)
            raise
        seconds, air = round(learnt.seconds, 1), learnt.air
        return replace(exposure, seconds=seconds, windows=learnt.windows, clean_air=air), learnt

    def _commit(self, smells: SmellSet, change: str) -> SmellSet:
        """Write the next version, then the index, then remove the files that no version needs."""
        version = max(0, smells.version, *self.versions.numbers()) + 1
        smells = replace(smells, version=version, date=_now(), change=change)
        self._check_labels(smells)
        self.versions.write(smells)
        write_atomically(self.folder / INDEX, smells.to_yaml())
        self.versions.remove_unused(self.folder / EXPOSURES)
        return smells

    def _check_labels(self, smells: SmellSet) -> None:
        """Raise HeadError for a set that does not fit a model."""
        for bundle in self.bundles.values():
            anywhere = np.zeros(1)
            classes = tuple(TaughtSmell(smell.label, anywhere, 1, 1) for smell in smells.taught)
            self._head(bundle, smells, classes)

    def readings_path(self, exposure_id: str) -> Path:
        """Return the file of an exposure's readings, where an earlier version may have put it."""
        path = self.folder / EXPOSURES / f"{exposure_id}.csv"
        if not path.exists():
            return next(self.folder.glob(f"*/{EXPOSURES}/{exposure_id}.csv"), path)
        return path


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
