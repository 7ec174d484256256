"""Calibration: takes the taught smells of one rig to another, in one file.

The file is a zip archive laid out like the store (`calibration.smell_store`), with a description of
the board that the smells were learnt on (`calibration.smell_origin`). Where that rig is calibrated,
its readings are corrected, that is, as the rig that the model was trained on would have sent them:
the importing rig's own calibration does not apply to them.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
import zlib
from collections.abc import Mapping  # noqa: TC003 - of a dataclass
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from calibration.exposures import EnrolmentError, prepare_readings
from calibration.smell_origin import (
    BoardComparison,
    BoardDescription,
    RigIdentity,
    compare_boards,
    describe_board,
)
from calibration.smell_set import (
    MAX_EXPOSURES,
    NEGATIVES,
    Exposure,
    SmellError,
    SmellSet,
    StoreDamagedError,
)
from calibration.smell_store import EXPOSURES, INDEX
from calibration.stored_readings import content_id, recording_bytes
from hardware.files import open_plain, write_atomically
from hardware.labels import checked_label
from hardware.typed_yaml import TypedYamlError
from hardware.version import installed_version

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.smell_set import Smell
    from calibration.smell_store import SmellStore

ORIGIN = "board.yaml"
"""In the archive: the board that the smells were learnt on. Earlier versions wrote none."""

_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError)
"""What zipfile raises of damaged, encrypted and unusually compressed files."""

MAX_IMPORT_BYTES = 256_000_000
"""Unpacked: a small archive can unpack to more than any memory. A hundred smells take a tenth."""

OTHER_BOARDS = (
    "Another board has mostly another fingerprint of a smell: of 8 exposures on real rigs whose "
    "smell another rig had been taught, 2 were named rightly, and 4 of 88 exposures got a wrong "
    "name (docs/trust.md). Teach them here instead"
)
"""What is known of smells that were learnt elsewhere."""


@dataclass(frozen=True, slots=True)
class ImportChoices:
    """What to do where an import is not plain.

    Attributes
    ----------
    merge: add exposures to smells of the same name that are taught here.
    rename: new label by label of the file.
    other_board: take smells of another board too.
    """

    merge: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    other_board: bool = False


@dataclass(frozen=True, slots=True)
class PlannedSmell:
    """What would be done with one smell of a file.

    Attributes
    ----------
    label: in the file.
    becomes: its label here.
    new: exposures to take.
    known: number of exposures that are taught here already.
    left_out: number of exposures beyond those that a smell may have.
    taught_here: whether a smell of the label `becomes` is taught.
    """

    label: str
    becomes: str
    new: tuple[Exposure, ...]
    known: int = 0
    left_out: int = 0
    taught_here: bool = False


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import would do.

    Attributes
    ----------
    origin: the board that the smells were learnt on.
    comparison: with this board.
    smells: of the file.
    problem: why it is refused; empty where it is not.
    """

    origin: BoardDescription
    comparison: BoardComparison
    smells: tuple[PlannedSmell, ...]
    problem: str = ""


def export_smells(store: SmellStore, path: Path, identity: RigIdentity | None = None) -> SmellSet:
    """Write the taught smells into one file, for another rig or for a new start of this one.

    Parameters
    ----------
    store: the rig's library.
    path: of the file.
    identity: what the rig knows of itself.
    """
    smells = store.smells()
    if not smells.smells:
        raise SmellError("No smell was taught yet, so there is nothing to export.")
    origin = replace(
        describe_board(store, identity or RigIdentity()),
        scentd=installed_version(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(exposure: Exposure) -> Exposure:
            exported, readings = _exported(store, exposure)
            archive.writestr(f"{EXPOSURES}/{exported.id}.csv", readings)
            return exported

        exported = tuple(
            replace(smell, exposures=tuple(map(add, smell.exposures))) for smell in smells.smells
        )
        index = replace(smells, smells=exported, hidden=(), renamed={})
        archive.writestr(INDEX, index.to_yaml())
        archive.writestr(ORIGIN, origin.to_yaml())
    write_atomically(path, content.getvalue())
    return smells


def _exported(store: SmellStore, exposure: Exposure) -> tuple[Exposure, bytes]:
    """Return an exposure with its clean air and its readings, corrected by the rig's calibration.

    Raises
    ------
    RecordingError: its readings are missing or damaged.
    """
    air = None
    with contextlib.suppress(EnrolmentError):
        air = store.learner.air_before(exposure)
    correction = store.correction_of(exposure)
    if correction is None:
        store.recording(exposure)  # raises an error for damaged readings
        return replace(exposure, clean_air=air), store.readings_path(exposure.id).read_bytes()
    readings = prepare_readings(store.recording(exposure), correction)
    data = recording_bytes(readings.t_ms, readings.values)
    return (
        replace(
            exposure,
            id=content_id(data),
            first_id=exposure.first_id or exposure.id,
            as_trained=True,
            # The readings of the file are as this air is seen.
            clean_air=None if air is None else replace(air, calibration=""),
        ),
        data,
    )


def check_import(
    store: SmellStore,
    path: Path,
    identity: RigIdentity | None = None,
    choices: ImportChoices | None = None,
) -> ImportPlan:
    """Say what an import would do, and whether the smells fit this board; change nothing.

    Raises
    ------
    SmellError: the file is no export.
    """
    return _read_export(path).plan(store, identity, choices)


def import_smells(
    store: SmellStore,
    path: Path,
    identity: RigIdentity | None = None,
    choices: ImportChoices | None = None,
) -> ImportPlan:
    """Add the smells of a file; a new one is in shadow. Return what was done.

    Parameters
    ----------
    store: the rig's library.
    path: of the file.
    identity: what the rig knows of itself.
    choices: what to do where it is not plain.

    Raises
    ------
    SmellError: the file is no export, its smells do not fit, or a choice is needed.
    EnrolmentError: nothing can be learnt from the readings.
    """
    exported = _read_export(path)
    plan = exported.plan(store, identity, choices)
    if not plan.problem and not any(smell.new for smell in plan.smells):
        return plan  # no version of the library for what changes nothing

    def edit(smells: SmellSet) -> SmellSet:
        nonlocal plan
        # Another process may have changed the library since.
        plan = exported.plan(store, identity, choices)
        if plan.problem:
            raise SmellError(plan.problem)
        for smell in plan.smells:
            label = store.checked_label(smell.becomes, smells)
            new = tuple(exported.store(store, one, plan.comparison) for one in smell.new)
            if new:
                smells = smells.with_exposures(label, new, promote=False)
        return smells

    store.update(f"imported {path.name}", edit)
    return plan


@dataclass(frozen=True, slots=True, eq=False)
class _ExportedFile:
    """The content of an exported file."""

    path: Path
    smells: SmellSet
    origin: BoardDescription
    files: Mapping[str, bytes]

    def plan(
        self, store: SmellStore, identity: RigIdentity | None, choices: ImportChoices | None
    ) -> ImportPlan:
        """Return what an import would do."""
        chosen = choices or ImportChoices()
        ours = describe_board(store, identity or RigIdentity())
        comparison = compare_boards(self.origin, ours)
        if not comparison.same and self._ids & store.versions.own_ids():
            why = "some of their exposures were taught to this rig"
            comparison = replace(comparison, same=True, why=why)
        here = store.smells()
        known = {name for one in here.smells for exposure in one.exposures for name in exposure.ids}
        # What is none of the taught smells on one board says nothing on another.
        wanted = [one for one in self.smells.smells if comparison.same or one.label != NEGATIVES]
        planned = tuple(self._planned(smell, here, known, chosen) for smell in wanted)
        problem = self._problem(comparison, planned, chosen)
        return ImportPlan(self.origin, comparison, planned, problem)

    @property
    def _ids(self) -> set[str]:
        """The ids of all exposures of the file."""
        exposures = (exposure for smell in self.smells.smells for exposure in smell.exposures)
        return {name for exposure in exposures for name in exposure.ids}

    def _planned(
        self, smell: Smell, here: SmellSet, known: set[str], chosen: ImportChoices
    ) -> PlannedSmell:
        """Return what would be done with a smell; what is new in it is `known` from then on."""
        becomes = chosen.rename.get(smell.label, smell.label)
        if becomes != NEGATIVES:
            becomes = checked_label(becomes)
        new = []
        for exposure in smell.exposures:
            new += [] if exposure.ids & known else [exposure]
            known |= exposure.ids
        taught = here.smell(becomes) if becomes in here else None
        room = MAX_EXPOSURES - (0 if taught is None else len(taught.exposures))
        taken = tuple(new[-room:]) if room > 0 else ()
        return PlannedSmell(
            smell.label,
            becomes,
            taken,
            known=len(smell.exposures) - len(new),
            left_out=len(new) - len(taken),
            taught_here=taught is not None,
        )

    def _problem(
        self,
        comparison: BoardComparison,
        planned: tuple[PlannedSmell, ...],
        chosen: ImportChoices,
    ) -> str:
        """Return why the import is refused; empty where it is not."""
        if comparison.missing:
            return (
                f"The smells of {self.path} were learnt with {', '.join(comparison.missing)}, "
                "which this board does not have. A taught smell is a direction over all of these "
                "channels, so that none of them would be recognised. Teach them on this board."
            )
        if not comparison.same and not chosen.other_board:
            return (
                f"The smells of {self.path} do not fit: {comparison.why}. {OTHER_BOARDS}, or take "
                "them in shadow all the same: --other-board."
            )
        unknown = sorted(set(chosen.rename) - {smell.label for smell in planned})
        if unknown:
            labels = ", ".join(smell.label for smell in planned)
            return f"{self.path} holds no smell called {', '.join(unknown)}. It holds: {labels}."
        return self._clash(comparison, planned, chosen)

    def _clash(
        self,
        comparison: BoardComparison,
        planned: tuple[PlannedSmell, ...],
        chosen: ImportChoices,
    ) -> str:
        """Return why smells of one name are refused; empty where they are not."""
        names = [smell.becomes for smell in planned if smell.new]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            return f"Two smells of {self.path} would both become {', '.join(twice)}. Rename one."
        both = [
            smell.becomes
            for smell in planned
            if smell.taught_here and smell.new and smell.becomes != NEGATIVES
        ]
        if not both or (chosen.merge and comparison.same):
            return ""
        named = ", ".join(both)
        if chosen.merge:
            return (
                f"{named} is taught here, and exposures of another board are not merged with those "
                f"of this one: both would be recognised less. Rename: --rename {both[0]}=NAME."
            )
        return (
            f"{named} is taught here already, and {self.path} holds other exposures of that name. "
            "Add them to it (--merge), or take them under another name (--rename "
            f"{both[0]}=NAME)."
        )

    def store(self, store: SmellStore, exposure: Exposure, comparison: BoardComparison) -> Exposure:
        """Store one exposure, if something can be learnt from it."""
        readings = self.files.get(f"{EXPOSURES}/{exposure.id}.csv", b"")
        if content_id(readings) != exposure.id:
            raise SmellError(
                f"The readings of exposure {exposure.id} are missing from the file or damaged. "
                "Export it again on the other rig."
            )
        if not comparison.same:
            place = self.origin.rig or "another rig"
            session = f"{place} {exposure.sitting}"
            exposure = replace(exposure, as_trained=True, other_board=True, session=session)
        return store.add_imported(exposure, readings)


def _read_export(path: Path) -> _ExportedFile:
    """Return the content of an exported file.

    Raises
    ------
    SmellError: it is none.
    """
    try:
        with os.fdopen(open_plain(path), "rb") as file, zipfile.ZipFile(file) as archive:
            size_bytes = sum(item.file_size for item in archive.infolist())
            if size_bytes > MAX_IMPORT_BYTES:
                raise SmellError(
                    f"{path} unpacks to {size_bytes} bytes, and the smells of a rig take far less "
                    f"than {MAX_IMPORT_BYTES}. Export it again on the other rig."
                )
            files = {name: archive.read(name) for name in archive.namelist()}
        smells = SmellSet.from_yaml(files[INDEX], f"{path}: {INDEX}")
        origin = BoardDescription()
        if ORIGIN in files:
            origin = BoardDescription.from_yaml(files[ORIGIN], f"{path}: {ORIGIN}")
    except (OSError, KeyError, StoreDamagedError, TypedYamlError, *_UNREADABLE) as error:
        raise SmellError(
            f"Expected a file made by `scentd smells export`, and {path} is none ({error}). "
            "Export it again on the other rig."
        ) from error
    return _ExportedFile(path, smells, origin, files)
