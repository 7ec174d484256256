"""Calibration: takes the taught smells of one rig to another, in one file.

The file is a zip archive laid out like the store (`calibration.smell_store`). Its readings are
corrected by the exporting rig's calibration, that is, as the rig that the model was trained on
would have sent them: the importing rig's own calibration does not apply to them.
"""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
import zlib
from typing import TYPE_CHECKING

from calibration.exposures import prepare_readings
from calibration.smell_set import Exposure, SmellError, SmellSet, StoreDamagedError
from calibration.smell_store import EXPOSURES, INDEX, SmellStore
from calibration.stored_readings import content_id, recording_bytes
from hardware.files import open_plain, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError)
"""What zipfile raises of damaged, encrypted and unusually compressed files."""

MAX_IMPORT_BYTES = 256_000_000
"""Unpacked: a small archive can unpack to more than any memory. A hundred smells take a tenth."""


def export_smells(store: SmellStore, path: Path) -> SmellSet:
    """Write the taught smells into one file, for another rig."""
    smells = store.smells()
    if not smells.smells:
        raise SmellError("No smell was taught yet, so there is nothing to export.")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(exposure: Exposure) -> Exposure:
            readings = _corrected_readings(store, exposure)
            name = content_id(readings)
            archive.writestr(f"{EXPOSURES}/{name}.csv", readings)
            return dataclasses.replace(exposure, id=name, as_trained=True)

        exported = tuple(
            dataclasses.replace(smell, exposures=tuple(map(add, smell.exposures)))
            for smell in smells.smells
        )
        index = dataclasses.replace(smells, smells=exported, hidden=(), renamed={})
        archive.writestr(INDEX, index.to_yaml())
    write_atomically(path, content.getvalue())
    return smells


def import_smells(store: SmellStore, path: Path) -> SmellSet:
    """Add the smells that another rig exported; a new one is in shadow.

    A smell whose label is taught here already is refined by the other rig's exposures.

    Raises
    ------
    SmellError: the file is no export.
    EnrolmentError: nothing can be learnt from the readings, or they are of another board.
    """
    imported, files = _read_export(path)

    def edit(smells: SmellSet) -> SmellSet:
        for smell in imported.smells:
            label = store.checked_label(smell.label, smells)
            exposures = tuple(
                _store_exposure(store, exposure, files) for exposure in smell.exposures
            )
            smells = smells.with_exposures(label, exposures, promote=False)
        return smells

    return store.update(f"imported {path.name}", edit)


def _read_export(path: Path) -> tuple[SmellSet, dict[str, bytes]]:
    """Return the index of an exported file, and all its files by name."""
    try:
        with os.fdopen(open_plain(path), "rb") as file, zipfile.ZipFile(file) as archive:
            size_bytes = sum(item.file_size for item in archive.infolist())
            if size_bytes > MAX_IMPORT_BYTES:
                raise SmellError(
                    f"{path} unpacks to {size_bytes} bytes, and the smells of a rig take far less "
                    f"than {MAX_IMPORT_BYTES}. Export it again on the other rig."
                )
            files = {name: archive.read(name) for name in archive.namelist()}
        return SmellSet.from_yaml(files[INDEX], f"{path}: {INDEX}"), files
    except (OSError, KeyError, StoreDamagedError, *_UNREADABLE) as error:
        raise SmellError(
            f"Expected a file made by `scentd enroll --export`, and {path} is none ({error}). "
            "Export it again on the other rig."
        ) from error


def _store_exposure(store: SmellStore, exposure: Exposure, files: dict[str, bytes]) -> Exposure:
    """Store another rig's exposure, if something can be learnt from it."""
    readings = files.get(f"{EXPOSURES}/{exposure.id}.csv", b"")
    if content_id(readings) != exposure.id:
        raise SmellError(
            f"The readings of exposure {exposure.id} are missing from the file or damaged. "
            "Export it again on the other rig."
        )
    exposure = dataclasses.replace(exposure, as_trained=True)
    return store.add_imported(exposure, readings)


def _corrected_readings(store: SmellStore, exposure: Exposure) -> bytes:
    """Return an exposure's readings as CSV, corrected by the rig's calibration."""
    correction = store.correction_of(exposure)
    if correction is None:
        return store.readings_path(exposure.id).read_bytes()
    readings = prepare_readings(store.recording(exposure), correction)
    return recording_bytes(readings.t_ms, readings.values)
