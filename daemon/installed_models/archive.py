"""Daemon: copies a bundle from a folder or an archive into an empty folder.

Knows archives and the valid names of a bundle's files; does not verify their content. A module of
its own because only an installation needs the archive libraries.
"""

from __future__ import annotations

import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from hardware.errors import ScentdError
from models.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE_LIMIT = 256 << 20
"""Bytes of an unpacked bundle: ten times those of the largest shipped one."""

FILES_LIMIT = 64

_UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # an unusual compression of zip
    RuntimeError,  # an encrypted zip
)
_CHUNK = 1 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


class UnpackingError(ScentdError):
    """A path is no bundle's folder or archive, too large, or has files outside one folder."""


def unpack_bundle(source: Path, fresh: Path) -> None:
    """Copy a bundle's files from a folder or an archive into an empty folder."""
    try:
        _copy(source, fresh)
    except (*_UNREADABLE, FileExistsError) as error:
        raise UnpackingError(
            f"{source} cannot be unpacked ({error}). Copy it again, or pack the "
            "bundle's folder as .tar.gz or .zip."
        ) from None


def _copy(source: Path, fresh: Path) -> None:
    left = SIZE_LIMIT
    for number, (name, stream) in enumerate(_files(source), start=1):
        if number > FILES_LIMIT:
            raise UnpackingError(
                f"{source} holds more than {FILES_LIMIT} files; a bundle has about ten."
            )
        with stream, (fresh / name).open("xb") as target:
            while chunk := stream.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise UnpackingError(
                        f"{source} unpacks to more than {SIZE_LIMIT >> 20} MiB, too much for a "
                        "bundle."
                    )
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())


def _files(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield every file of a bundle with its plain name."""
    if source.is_dir():
        yield from _files_of_folder(source)
        return
    if not source.is_file():
        raise UnpackingError(
            f"There is no bundle at {source}. Name its folder, or a .tar.gz or .zip of it."
        )
    folders: set[PurePosixPath] = set()
    read = _entries_of_zip if zipfile.is_zipfile(source) else _entries_of_tar
    for name, stream in read(source):
        path = PurePosixPath(name)
        folders.add(path.parent)
        # One folder, at most one level deep; nothing absolute, nothing upwards.
        if (
            path.is_absolute()
            or ".." in path.parts
            or len(path.parts) > 2  # noqa: PLR2004 - FOLDER/FILE
            or len(folders) > 1
            or not _FILE_NAME.fullmatch(path.name)
        ):
            raise UnpackingError(
                f"{source} holds {name!r}, which is no file of one bundle's folder. Pack the "
                "bundle's folder alone: tar -czf model.tar.gz FOLDER."
            )
        yield path.name, stream


def _files_of_folder(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    # The manifest lists all files of a bundle; others are ignored.
    for name in (MANIFEST, *read_manifest(source).files):
        try:
            descriptor = os.open(source / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise UnpackingError(
                f"{source / name} cannot be read ({error.strerror}); a bundle's files are plain "
                "files, no links."
            ) from None
        stream = os.fdopen(descriptor, "rb")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            stream.close()
            raise UnpackingError(f"{source / name} is no plain file.")
        yield name, stream


def _entries_of_tar(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(source, "r:*") as archive:
        for member in archive:
            if member.isdir():
                continue
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is None:
                raise UnpackingError(
                    f"{source} holds {member.name!r}, which is a link or a device."
                )
            yield member.name, stream


def _entries_of_zip(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise UnpackingError(
                    f"{source} holds {member.filename!r}, which is a link or a device."
                )
            yield member.filename, archive.open(member)
