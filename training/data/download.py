"""training/: the published data set, fetched from the Hugging Face hub and verified.

By default only the parts to train on: the published test splits are for the final judgement.
Every file is compared with the hub's hash (git's SHA-1 of small files, SHA-256 of large ones),
because the client checks sizes only. May import huggingface_hub (inside functions) and nothing of
networks or recordings.
"""

from __future__ import annotations

import glob
import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.errors import ScentdError
from hardware.hub import LIBRARY, explained_hub_errors, require_hub_client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

DATASET = "DeweiFeng/SmellNet"
TRAINING_FOLDERS = {
    "base": ("base_data/training/",),
    "mixture": ("mixture_data/training_new/", "mixture_data/training_seen/"),
}
TEST_FOLDERS = {
    "base": ("base_data/testing/",),
    "mixture": ("mixture_data/test_seen/", "mixture_data/test_unseen/"),
}
METADATA_SUFFIXES = (".md", ".txt", ".json", ".yaml", ".csv")
"""Of files at the root: the data set's card, GC-MS tables, descriptions, an index."""
WORKERS = 4
"""Files fetched at once."""
_SHOWN = 3
_SHA256_CHARACTERS = 64


class DownloadError(ScentdError):
    """The data set could not be fetched completely; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of the data set, as the hub lists it: its path below the root and size in bytes."""

    path: str
    size: int
    digest: str
    """Hex; SHA-256 of a large file, git's SHA-1 of a small one."""

    def matches(self, file: Path) -> bool:
        """Tell whether a local file has these bytes."""
        if not file.is_file() or file.stat().st_size != self.size:
            return False
        data = file.read_bytes()
        if len(self.digest) == _SHA256_CHARACTERS:
            return hashlib.sha256(data).hexdigest() == self.digest
        head = f"blob {len(data)}\0".encode()
        # Git's name of a file's content, no protection against an attacker.
        return hashlib.sha1(head + data, usedforsecurity=False).hexdigest() == self.digest


@dataclass(frozen=True, slots=True)
class Download:
    """A verified data set on this machine."""

    folder: Path
    revision: str
    """Commit of the data set."""
    files: int
    size: int
    """In bytes."""
    fetched: int
    """Files that were not there before."""


def subset_folders(subset: str, *, with_test_splits: bool) -> tuple[str, ...]:
    """Return the folders of a subset ("base", "mixture" or "all"), test splits only on request."""
    names = ("base", "mixture") if subset == "all" else (subset,)
    sources = (TRAINING_FOLDERS, TEST_FOLDERS) if with_test_splits else (TRAINING_FOLDERS,)
    return tuple(folder for source in sources for name in names for folder in source[name])


def fetch(
    output: Path,
    *,
    subset: str = "all",
    with_test_splits: bool = False,
    endpoint: str | None = None,
    dataset: str = DATASET,
) -> Download:
    """Fetch the data set into `output`; files that are there already are not fetched again.

    Parameters
    ----------
    output: becomes the data set's root.
    subset: "base", "mixture" or "all".
    with_test_splits: fetch the published test splits too.
    endpoint: address of the hub or of a mirror; None takes HF_ENDPOINT, else the hub.
    dataset: owner/name.

    Raises
    ------
    ExtraNotInstalledError: the hub's client is not installed.
    UsageError: there is no such data set, or it is not public.
    HubError: the hub or the network refused, or the disk became full.
    DownloadError: no room on the disk, no such files there, or a wrong checksum.
    """
    require_hub_client("Fetching the data set")
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - of the extra `hub`

    revision, listed = _listing(dataset, endpoint)
    folders = subset_folders(subset, with_test_splits=with_test_splits)
    wanted = list(_wanted(listed, folders))
    if not any(file.path.startswith(folders) for file in wanted):
        raise DownloadError(
            f"Expected recordings of {dataset} in {', '.join(folders)}; the listing has none among "
            f"its {len(listed)} files. Its layout has changed, or --endpoint is another hub."
        )
    missing = [file for file in wanted if not file.matches(output / file.path)]
    if missing:
        _check_room(output, sum(file.size for file in missing))
        for file in missing:
            # The client records which files it has finished, so it would keep a damaged one.
            (output / file.path).unlink(missing_ok=True)
        with _explained(dataset):
            snapshot_download(
                dataset,
                repo_type="dataset",
                revision=revision,
                local_dir=output,
                endpoint=endpoint,
                token=False,
                library_name=LIBRARY,
                allow_patterns=_patterns(wanted),
                max_workers=WORKERS,
            )
    _verify(missing, output)
    return Download(output, revision, len(wanted), sum(f.size for f in wanted), len(missing))


def _listing(dataset: str, endpoint: str | None) -> tuple[str, list[RemoteFile]]:
    """Return the commit that the data set is at and its files."""
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    # No token: the data set is public, and no stored credential leaves this machine.
    api = HfApi(endpoint=endpoint, token=False, library_name=LIBRARY)
    with _explained(dataset):
        revision = str(api.repo_info(dataset, repo_type="dataset").sha)
        tree = list(
            api.list_repo_tree(dataset, recursive=True, revision=revision, repo_type="dataset")
        )
    files = [entry for entry in tree if isinstance(entry, RepoFile)]
    return revision, [
        RemoteFile(file.path, file.size, file.lfs.sha256 if file.lfs else file.blob_id)
        for file in files
    ]


def _wanted(files: Sequence[RemoteFile], folders: tuple[str, ...]) -> Iterator[RemoteFile]:
    for file in files:
        at_root = "/" not in file.path and not file.path.startswith(".")
        about = file.path.endswith(METADATA_SUFFIXES) or file.path.startswith("LICENSE")
        if file.path.startswith(folders) or (at_root and about and "test" not in file.path):
            yield file


def _patterns(files: Sequence[RemoteFile]) -> list[str]:
    """Return patterns of these files' folders, and of those at the root by name.

    The client tries every pattern on every file: by names alone it would take minutes.
    """
    paths = [file.path.rpartition("/") for file in files]
    folders = {f"{glob.escape(folder)}/*" for folder, _, _ in paths if folder}
    return sorted(folders | {glob.escape(name) for folder, _, name in paths if not folder})


def _check_room(output: Path, needed: int) -> None:
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DownloadError(
            f"Expected {needed / 1e6:.0f} MB of free disk for {output}, there are "
            f"{free / 1e6:.0f} MB. Make room or choose another --output; fetched files are kept."
        )


def _verify(files: Sequence[RemoteFile], output: Path) -> None:
    wrong = [file.path for file in files if not file.matches(output / file.path)]
    if not wrong:
        return
    for path in wrong:
        (output / path).unlink(missing_ok=True)
    shown = ", ".join(wrong[:_SHOWN]) + (" ..." if len(wrong) > _SHOWN else "")
    raise DownloadError(
        f"Expected the hub's checksums, {len(wrong)} of {len(files)} files have others: {shown}."
        " They were removed; run the same command again. If this happens again, the mirror or a "
        "proxy changes the files."
    )


def _explained(dataset: str) -> AbstractContextManager[None]:
    """Turn the hub client's errors into ours, with what to do."""
    return explained_hub_errors(
        f"the public data set {dataset}",
        again="Run the same command again: finished files are not fetched twice.",
        unknown="Check the name, or --endpoint.",
    )
