"""Daemon: copies a bundle from a folder or an archive into an empty folder.

Knows archives and the valid names of a bundle's files; does not verify their content. The source is
opened by the process that was asked to install it, and read in a child with bounds
(`daemon.installed_models.trial`): what an archive says of itself can take any memory and time.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from hardware.errors import ScentdError
from hardware.files import open_plain
from models.front_matter import without_front_matter
from models.manifest import CARD, FP32_MODEL, MANIFEST, BundleError, read_manifest

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


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A bundle's folder or archive, opened with the rights of who named it.

    Attributes
    ----------
    name: of the source, for messages.
    files: of a folder: descriptor by name.
    archive: descriptor of an archive, None of a folder.
    """

    name: str
    files: dict[str, int]
    archive: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All descriptors."""
        return (*self.files.values(), *(() if self.archive is None else (self.archive,)))


@contextmanager
def open_source(path: Path, name: str | None = None) -> Iterator[OpenedSource]:
    """Open a bundle's folder or archive, without reading it.

    `name` is what messages call it, by default its path.

    Raises
    ------
    UnpackingError: it is neither, or holds links.
    """
    called = name or str(path)
    with ExitStack() as stack:

        def opened(file: Path, *, follow: bool) -> int:
            try:
                descriptor = open_plain(file, follow=follow)
            except OSError as error:
                raise UnpackingError(
                    f"{file} cannot be read ({error.strerror}); a bundle's files are plain files, "
                    "no links."
                ) from None
            stack.callback(os.close, descriptor)
            return descriptor

        if not path.is_dir():
            if not path.exists():
                raise UnpackingError(
                    f"There is no bundle at {path}. Name its folder, or a .tar.gz or .zip of it."
                )
            yield OpenedSource(called, {}, opened(path, follow=True))
            return
        # The manifest lists all files of a bundle; others are ignored when they are copied.
        names = [file.name for file in path.iterdir() if _FILE_NAME.fullmatch(file.name)]
        if MANIFEST not in names:
            raise UnpackingError(f"There is no model bundle at {called}: it has no {MANIFEST}.")
        if len(names) > FILES_LIMIT:
            raise UnpackingError(_too_many(called))
        yield OpenedSource(called, {name: opened(path / name, follow=False) for name in names})


def unpack_bundle(source: OpenedSource, fresh: Path) -> None:
    """Copy a bundle's files from a folder or an archive into an empty folder."""
    try:
        _copy(source, fresh)
    except (*_UNREADABLE, FileExistsError) as error:
        raise UnpackingError(
            f"{source.name} cannot be unpacked ({error}). Copy it again, or pack the "
            "bundle's folder as .tar.gz or .zip."
        ) from None
    _restore_card(fresh)


def _restore_card(fresh: Path) -> None:
    """Take the hub's front matter off a card that is the bundle's own behind it."""
    card = fresh / CARD
    with suppress(OSError, BundleError):  # verification says what is wrong with a bundle
        wanted = read_manifest(fresh).files.get(CARD)
        whole = card.read_bytes()
        own = without_front_matter(whole)
        if own != whole and hashlib.sha256(own).hexdigest() == wanted:
            card.write_bytes(own)


def _copy(source: OpenedSource, fresh: Path) -> None:
    left = SIZE_LIMIT
    for name, stream in _files(source, fresh):
        with stream, (fresh / name).open("xb") as target:
            while chunk := stream.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise UnpackingError(
                        f"{source.name} unpacks to more than {SIZE_LIMIT >> 20} MiB, too much for "
                        "a bundle."
                    )
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())


def _files(source: OpenedSource, fresh: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield every file of a bundle with its plain name."""
    if source.archive is None:
        yield MANIFEST, os.fdopen(source.files[MANIFEST], "rb", closefd=False)
        for name in read_manifest(fresh).files:
            if name not in source.files:
                if name == FP32_MODEL:
                    continue  # a small installation leaves it out
                raise UnpackingError(f"{source.name} has no {name}, which its manifest lists.")
            yield name, os.fdopen(source.files[name], "rb", closefd=False)
        return
    folders: set[PurePosixPath] = set()
    with os.fdopen(source.archive, "rb", closefd=False) as archive:
        read = _entries_of_zip if zipfile.is_zipfile(archive) else _entries_of_tar
        archive.seek(0)
        for number, (name, stream) in enumerate(read(source.name, archive), start=1):
            # Folders count too: a list of half a million fits into a few kilobytes.
            if number > FILES_LIMIT:
                raise UnpackingError(_too_many(source.name))
            if stream is None:
                continue
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
                    f"{source.name} holds {name!r}, which is no file of one bundle's folder. Pack "
                    "the bundle's folder alone: tar -czf model.tar.gz FOLDER."
                )
            yield path.name, stream


def _too_many(source: str) -> str:
    return f"{source} holds more than {FILES_LIMIT} files; a bundle has about ten."


def _entries_of_tar(source: str, archive: IO[bytes]) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yield name and content of every entry; a folder without content."""
    with tarfile.open(fileobj=archive, mode="r:*") as entries:
        for member in entries:
            if member.isdir():
                yield member.name, None
                continue
            stream = entries.extractfile(member) if member.isreg() else None
            if stream is None:
                raise UnpackingError(
                    f"{source} holds {member.name!r}, which is a link or a device."
                )
            yield member.name, stream


def _entries_of_zip(source: str, archive: IO[bytes]) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yield name and content of every entry; a folder without content."""
    with zipfile.ZipFile(archive) as entries:
        for member in entries.infolist():
            if member.is_dir():
                yield member.filename, None
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise UnpackingError(
                    f"{source} holds {member.filename!r}, which is a link or a device."
                )
            yield member.filename, entries.open(member)
