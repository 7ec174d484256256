"""Daemon: lets a command that root runs act as the owner of the rig's state folder.

The folder's owner can replace anything below it by a link. A command with root's rights would
follow such a link to every file of the computer; with the owner's rights it reaches only what the
owner can reach anyway. Knows user ids and folders, but no configuration.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import struct
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hardware.errors import ScentdError
from hardware.file_owner import other_owner
from hardware.files import OPEN_FOLDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT_GROUP = "dialout"
"""The group of serial ports on Debian, Ubuntu, Fedora and Raspberry Pi OS."""


_CAPABILITIES_VERSION = 0x20080522
_CAP_DAC_READ_SEARCH = 2
"""Constants of capset(2), for the second 32 of 64 capabilities too."""

_own_groups: tuple[int, ...] = ()
"""Of root, while the process acts as another user."""


class OwnerError(ScentdError):
    """The owner of the state folder cannot use it."""


def act_as_owner(folder: Path) -> Path:
    """Use the rights of a folder's owner from now on, if this is root and the folder is not.

    Root's own rights are left to `with_own_rights`.

    Returns
    -------
    the path by which this process and its children reach the folder: another than `folder` where
    the owner may not enter the folders above, as with DynamicUser of systemd.
    """
    owner = other_owner(folder)
    if owner is None:
        return folder
    descriptor = None
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    global _own_groups  # noqa: PLW0603 - rights belong to the process, as this does
    _own_groups = tuple(os.getgroups())
    _Rights(owner.uid, owner.gid, (owner.gid,)).take()
    reachable = os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)
    _keep_reading_python()
    if descriptor is None:
        return folder
    if reachable:
        os.close(descriptor)
        return folder
    return Path(OPEN_FOLDERS) / str(descriptor)


def _keep_reading_python() -> None:
    """Keep root's right to read where the owner may not read Python itself, as in root's home."""
    if os.access(os.__file__, os.R_OK, effective_ids=True):
        return
    libc = ctypes.CDLL(None)
    header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    rights = ctypes.create_string_buffer(24)
    if libc.capget(header, rights) == 0:
        effective, *others = struct.unpack("=6I", rights.raw)
        changed = struct.pack("=6I", effective | 1 << _CAP_DAC_READ_SEARCH, *others)
        libc.capset(header, changed)


@contextmanager
def acting_as_owner(folder: Path) -> Iterator[Path]:
    """Act as a folder's owner in the block, as `act_as_owner` does; yields what it returns."""
    before = _Rights.now()
    reached = act_as_owner(folder)
    try:
        yield reached
    finally:
        if before != _Rights.now():
            before.take()
            for descriptor in inherited_by_path(reached):
                os.close(descriptor)


@contextmanager
def with_own_rights() -> Iterator[None]:
    """Use root's rights in the block, if root runs this command and it acts as another user.

    Only for what the command line or the configuration names outside the state folder.
    """
    before = _Rights.now()
    if os.getuid() == 0 and before.uid != 0:
        _Rights(0, 0, _own_groups).take()
    try:
        yield
    finally:
        if before != _Rights.now():
            before.take()
            _keep_reading_python()


class _Rights(NamedTuple):
    """Effective user and group, and further groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def now(cls) -> _Rights:
        return cls(os.geteuid(), os.getegid(), tuple(os.getgroups()))

    def take(self) -> None:
        os.seteuid(0)  # only root may change its groups
        os.setgroups(self.groups)
        os.setegid(self.gid)
        os.seteuid(self.uid)


def become_owner(folder: Path) -> None:
    """Give up root's rights for good and be the owner of a folder, unless it is root's own.

    Raises
    ------
    OwnerError: the owner may not enter the folder by this path.
    """
    owner = other_owner(folder)
    if owner is None:
        return
    groups = {owner.gid}
    with suppress(KeyError):
        groups.add(grp.getgrnam(PORT_GROUP).gr_gid)
    with suppress(KeyError):
        groups.update(os.getgrouplist(pwd.getpwuid(owner.uid).pw_name, owner.gid))
    os.setgroups(sorted(groups))
    os.setresgid(owner.gid, owner.gid, owner.gid)
    os.setresuid(owner.uid, owner.uid, owner.uid)
    if not os.access(os.__file__, os.R_OK):
        raise OwnerError(
            f"state_dir {folder} belongs to user {owner.name}, as whom root's commands act, and "
            "that user may not read this Python. Run scentd as that user, with a Python of theirs."
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise OwnerError(
            f"state_dir {folder} belongs to user {owner.name}, as whom root's commands act, and "
            "that user may not enter it by this path. If it is the folder of the installed "
            "service, start that instead: sudo systemctl start scentd."
        )


def inherited_by_path(path: Path) -> tuple[int, ...]:
    """Return the descriptors that a child process needs to reach a path of `acting_as_owner`."""
    return (int(path.parts[4]),) if path.is_relative_to(OPEN_FOLDERS) else ()


def keep_only(uid: int, gid: int) -> None:
    """Give up all rights but those of a user and a group, for good, unless this is that user."""
    if os.getuid() == 0 and uid != 0:
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
