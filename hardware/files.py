"""Ground floor: files of state: found without following links, written whole or not at all.

A process that may write in a state folder can replace any file in it by a link, a pipe or a folder.
So a path is opened folder by folder, each by the descriptor of the one before, and no link is
followed; what is opened must be a regular file. The folder that a configuration names may itself
lie behind links: `daemon.config.loading` resolves them once.

May import the standard library alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_MODE = 0o644

STATE_BYTES = 32 << 20
"""Most of a state file: the readings of an exposure, the largest, take a hundredth."""

LOCK = ".lock"

OPEN_FOLDERS = "/proc/self/fd"
"""Below it lie the open folders of this process by their descriptors: a path may begin there."""

_PARTIAL = re.compile(r"\.(?P<name>.+\.(?:json|yaml|npz|csv|parquet))\.[a-z0-9_]{8}")
"""Names of unfinished files: of the finished file `NAME`, `.NAME.12345678`."""


def open_folder(path: Path, *, create: bool = False) -> int:
    """Return a descriptor of a folder, reached without following a link.

    Parameters
    ----------
    path: of the folder.
    create: make what is missing of it.

    Raises
    ------
    OSError: it does not exist, or a link or something else lies on the way to it.
    """
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
    start, parts = "/", whole.parts[1:]
    if whole.is_relative_to(OPEN_FOLDERS):
        start, parts = f"{OPEN_FOLDERS}/{whole.parts[4]}", whole.parts[5:]
    descriptor = os.open(start, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        above = descriptor
        try:
            descriptor = _open_part(part, above, create=create)
        except OSError as error:
            raise _explained(error, whole, part, above) from None
        finally:
            os.close(above)
    return descriptor


def _open_part(name: str, above: int, *, create: bool) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=above)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):  # another process made it meanwhile
        os.mkdir(name, dir_fd=above)
    return os.open(name, flags, dir_fd=above)


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Return a descriptor of a regular file, reached without following a link; never wait for it.

    Parameters
    ----------
    path: of the file.
    flags: of `os.open`; with O_CREAT missing folders are made too.
    mode: of a file that is made.

    Raises
    ------
    OSError: it cannot be opened, or is a link, a folder, a pipe or a device.
    """
    folder = open_folder(path.parent, create=bool(flags & os.O_CREAT))
    try:
        return _open_regular_in(folder, path.name, flags, mode)
    except OSError as error:
        raise _explained(error, path, path.name, folder) from None
    finally:
        os.close(folder)


def open_plain(path: Path, *, follow: bool = True) -> int:
    """Return a descriptor of a regular file that a user named; never wait for it.

    Parameters
    ----------
    path: of the file, behind links or not.
    follow: whether the file itself may be a link.

    Raises
    ------
    OSError: it cannot be opened, or is no regular file.
    """
    flags = os.O_RDONLY if follow else os.O_RDONLY | os.O_NOFOLLOW
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def _open_regular_in(folder: int, name: str, flags: int, mode: int = 0o600) -> int:
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, mode, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return descriptor


def _explained(error: OSError, path: Path, part: str, folder: int) -> OSError:
    """Return an error with the whole path, which says of a link that it is one."""
    text = error.strerror or str(error)
    with suppress(OSError):
        if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
            return OSError(errno.ELOOP, f"{part} is a link, and links are not followed", str(path))
    return OSError(error.errno, text, str(path))


def read_regular(path: Path, most: int = STATE_BYTES) -> bytes:
    """Return the content of a state file of at most `most` bytes.

    Raises
    ------
    OSError: it is missing, too long, cannot be read, or is no regular file reached without links.
    """
    with os.fdopen(open_regular(path), "rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it holds more than {most} bytes", str(path))
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name, flush it to the disk, and rename it; make its folders.

    Raises
    ------
    OSError: the disk refuses, or a link lies on the way; the old content is still there.
    """
    folder = open_folder(path.parent, create=True)
    try:
        _sweep(folder, path.name)
        partial = f".{path.name}.{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            with os.fdopen(_open_regular_in(folder, partial, flags), "wb") as stream:
                # Held while it is written: an unfinished file without a lock is swept.
                fcntl.flock(stream, fcntl.LOCK_EX)
                stream.write(content)
                stream.flush()
                os.fchmod(stream.fileno(), FILE_MODE)
                os.fsync(stream.fileno())
                os.rename(partial, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            with suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=folder)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(folder)
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file, or a link in its place, if it exists; follow no link on the way to it.

    Raises
    ------
    OSError: it cannot be removed, or a link lies on the way.
    """
    with suppress(FileNotFoundError):
        folder = open_folder(path.parent)
        try:
            os.unlink(path.name, dir_fd=folder)
        finally:
            os.close(folder)


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk: a rename is durable only then."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time run the block; make the folder, and a file `.lock` in it."""
    descriptor = open_regular(folder / LOCK, os.O_RDONLY | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> int:
    """Remove the unfinished files that killed processes left in a folder and below it.

    Returns
    -------
    how many there were.
    """
    swept = 0
    for _, _, names, descriptor in os.fwalk(folder):
        swept += sum(_removed(descriptor, name) for name in names if _PARTIAL.fullmatch(name))
    return swept


def _sweep(folder: int, name: str) -> None:
    """Remove the unfinished files of one name."""
    with suppress(OSError):
        listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            for other in os.listdir(listed):  # noqa: PTH208 - a Path knows no descriptor
                match = _PARTIAL.fullmatch(other)
                if match is not None and match["name"] == name:
                    _removed(folder, other)
        finally:
            os.close(listed)


def _removed(folder: int, name: str) -> bool:
    """Remove an unfinished file unless a process is writing it; return whether it was removed."""
    try:
        descriptor = _open_regular_in(folder, name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=folder)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True
