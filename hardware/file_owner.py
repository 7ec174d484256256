"""Ground floor: whose rights root must use in a folder.

May import the standard library alone. Changes no rights: `daemon.system.owner` does.
"""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Owner(NamedTuple):
    """A user and a group, by number."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The user's name, or the number where it has none."""
        with suppress(KeyError):
            return pwd.getpwuid(self.uid).pw_name
        return str(self.uid)


def other_owner(folder: Path) -> Owner | None:
    """Return whose rights root must use in a folder; None if it is root's, or this is not root.

    It is the owner of the folder or else of the first part of its path, link or folder, that is not
    root's: who owns a part decides what lies behind it.
    """
    if os.geteuid() != 0:
        return None
    parts = [*reversed(folder.absolute().parents), folder.absolute()]
    parts += [*reversed(folder.resolve().parents), folder.resolve()]
    others = []
    for part in parts:
        with suppress(OSError):
            found = part.lstat()
            if found.st_uid != 0:
                others.append(Owner(found.st_uid, found.st_gid))
    with suppress(OSError):
        found = folder.stat()
        others[:0] = [Owner(found.st_uid, found.st_gid)] if found.st_uid != 0 else []
    return others[0] if others else None
