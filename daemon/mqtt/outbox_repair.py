"""Daemon: replaces a damaged or deleted outbox by one with the messages that can still be read.

At every instant either the damaged file or the complete new one is there under a known name, so
that the next start continues what a kill interrupted.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.mqtt.outbox_database import OutboxFile
from daemon.mqtt.outbox_salvage import salvaged
from daemon.mqtt.outbox_values import Limits
from hardware.files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from daemon.mqtt.outbox_values import Entry

SET_ASIDE_KEPT = 3
"""Damaged files kept for inspection; older ones are deleted."""

_EVERYTHING = Limits(messages=1 << 62, size_bytes=1 << 62, age_s=1 << 62)
_BESIDE = ("", "-wal", "-journal", "-shm")


@dataclass(frozen=True, slots=True)
class Repaired:
    """A replaced outbox.

    Attributes
    ----------
    ids: of the messages in the new file.
    lost: messages that the damaged file held besides, as far as the file still shows.
    aside: name of the damaged file now.
    """

    ids: frozenset[int]
    lost: int
    aside: str


def replace_damaged(path: Path) -> Repaired:
    """Replace a damaged outbox, which no one has open, by one with all that can be read of it.

    Raises
    ------
    sqlite3.Error, OSError, DamagedError: the new file cannot be written; the damaged one is where
        it was.
    """
    with salvaged(path, path.with_name(f"{path.name}-wal")) as found:
        _save(path, found.entries())
        repaired = frozenset(found.ids), found.lost
    return Repaired(*repaired, finish_replacement(path) or "")


def put_back_deleted(file: OutboxFile) -> None:
    """Keep the messages of an open file that was deleted, for when its path is opened again.

    Raises
    ------
    sqlite3.Error, OSError, DamagedError: the new file cannot be written.
    """
    if file.path is not None:
        _save(file.path, file.entries())


def _save(path: Path, entries: Iterable[Entry]) -> None:
    """Write a complete new file, which `finish_replacement` puts in its place."""
    saving = path.with_name(f"{path.name}.saving")
    for suffix in _BESIDE:
        _remove(saving.with_name(saving.name + suffix))
    new = OutboxFile(saving)
    try:
        new.write(removed=(), added=entries, limits=_EVERYTHING, after=0, now_s=0)
    finally:
        new.close()
    saving.replace(_saved(path))
    sync_folder(path.parent)


def finish_replacement(path: Path) -> str | None:
    """Put a complete new file in the place of the damaged one; return the name of that now.

    None if nothing is to be replaced.
    """
    saved = _saved(path)
    if not saved.is_file():
        return None
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in _BESIDE:
        beside = path.with_name(path.name + suffix)
        if os.path.lexists(beside):
            _remove(aside.with_name(aside.name + suffix))
            beside.rename(aside.with_name(aside.name + suffix))
    saved.rename(path)
    sync_folder(path.parent)
    for one in sorted(path.parent.glob(f"{path.name}.damaged-*Z"))[:-SET_ASIDE_KEPT]:
        for suffix in _BESIDE:
            _remove(one.with_name(one.name + suffix))
    return aside.name


def _saved(path: Path) -> Path:
    return path.with_name(f"{path.name}.saved")


def _remove(path: Path) -> None:
    """Remove whatever lies at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
