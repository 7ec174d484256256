"""Calibration: the earlier versions of a rig's library on disk, of which rollback restores one.

    versions/0007.yaml    the index after every change

May import calibration.smell_set. Knows no readings but the names of their files.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from calibration.smell_set import SmellSet, StoreDamagedError
from hardware.files import remove, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

MAX_VERSIONS = 30


class SmellVersions:
    """The versions in a folder, by number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def numbers(self) -> list[int]:
        """Return the numbers of all versions, the oldest first."""
        found = self._folder.glob("[0-9]*.yaml")
        return sorted(int(path.stem) for path in found if path.stem.isdigit())

    def load(self, number: int) -> SmellSet:
        """Return a version.

        Raises
        ------
        OSError, StoreDamagedError: it cannot be read.
        """
        return SmellSet.load(self._path(number))

    def own_ids(self) -> set[str]:
        """Return the ids of all exposures of any version that were not of another board."""
        ids: set[str] = set()
        for number in self.numbers():
            with contextlib.suppress(OSError, StoreDamagedError):
                for smell in self.load(number).smells:
                    for exposure in smell.exposures:
                        ids |= set() if exposure.other_board else exposure.ids
        return ids

    def write(self, smells: SmellSet) -> None:
        """Write a version under its number."""
        write_atomically(self._path(smells.version), smells.to_yaml())

    def remove(self, number: int) -> None:
        """Remove a version."""
        remove(self._path(number))

    def remove_unused(self, exposures: Path) -> None:
        """Remove the oldest versions, and the exposures that no other version holds."""
        versions = self.numbers()
        for number in versions[:-MAX_VERSIONS]:
            self.remove(number)
        needed: set[str] = set()
        for number in versions[-MAX_VERSIONS:]:
            try:
                smells = self.load(number).smells
            except (OSError, StoreDamagedError):
                return  # it cannot be known which exposures this version needs
            needed |= {exposure.id for smell in smells for exposure in smell.exposures}
        for path in exposures.glob("*"):
            if path.stem.split("-")[0] not in needed:
                remove(path)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:04d}.yaml"
