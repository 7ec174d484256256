"""Daemon: a rig's recordings written into an archive of Parquet files (`hardware/archive.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.archive import archive_recording
from hardware.recording_stream import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from daemon.recording.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Archived:
    """What an export into an archive wrote.

    Attributes
    ----------
    files: paths below the archive, with the readings in each.
    unchanged: recordings that were there already, with the same session and labels.
    problems: why a recording or its labels could not be read, by its name.
    """

    files: dict[str, int]
    unchanged: int
    problems: dict[str, str]


def archive_recordings(
    catalogue: Catalogue,
    root: Path,
    names: Iterable[str] | None = None,
    *,
    rig: str,
    session: str | None = None,
) -> Archived:
    """Write recordings of a rig into an archive; one that cannot be read does not stop the others.

    Parameters
    ----------
    catalogue: of the rig.
    root: of the archive, made if it is missing.
    names: of recordings; all by default.
    rig: its name.
    session: of all of them, by default that of each.

    Raises
    ------
    CatalogueError: there is no recording of a name.
    OSError: the disk refuses.
    """
    files: dict[str, int] = {}
    problems: dict[str, str] = {}
    unchanged = 0
    for item in catalogue.chosen(names):
        if item.problem is not None:
            problems[item.name] = item.problem
            continue
        try:
            path, readings = archive_recording(
                root,
                catalogue.path(item.name),
                rig=rig,
                session=session or item.session,
                labels=item.labels,
            )
        except RecordingError as error:
            problems[item.name] = str(error)
            continue
        if readings is None:
            unchanged += 1
        else:
            files[path.relative_to(root).as_posix()] = readings
    return Archived(files, unchanged, problems)
