"""Daemon: fetches the files of a bundle from the Hugging Face hub into a folder of its own.

Knows the hub, but no store: what was fetched is installed like any other folder, that is, verified
and tried in a child. Nothing of a repository is executed, and only the files that the manifest
names are fetched. The sizes that the hub states are limited before anything comes.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.installed_models.archive import FILES_LIMIT, SIZE_LIMIT
from daemon.system.owner import with_own_rights
from hardware.hub import LIBRARY, LOG_IN, HubError, explained_hub_errors, require_hub_client
from models.manifest import FP32_MODEL, MANIFEST, MANIFEST_BYTES, BundleError, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from huggingface_hub import HfApi

    from hardware.hub import HubAddress

_AGAIN = "Nothing was installed. Run the same command again."
_NO_BUNDLE = "Name a repository that `scent-train publish` wrote."


@dataclass(frozen=True, slots=True)
class FetchedBundle:
    """The files of a bundle from the hub.

    Attributes
    ----------
    folder: that holds them, not verified yet.
    address: with the commit that they are of.
    """

    folder: Path
    address: HubAddress


@contextmanager
def fetched_bundle(address: HubAddress) -> Iterator[FetchedBundle]:
    """Fetch a bundle's files; they are removed when the block is left.

    The network and the user's token are used with the rights of who calls the command.

    Raises
    ------
    ExtraNotInstalledError: the hub's client is not installed.
    UsageError: there is no such repository or revision.
    HubError: the repository holds no bundle, or not all came.
    BundleError: its manifest cannot be read.
    """
    require_hub_client("A model from the hub")
    with with_own_rights():
        place = tempfile.TemporaryDirectory(prefix="scentd-model-")
    try:
        with with_own_rights():
            exact = _fetch(address, Path(place.name))
        yield FetchedBundle(Path(place.name), exact)
    finally:
        with with_own_rights():
            place.cleanup()


def _fetch(address: HubAddress, folder: Path) -> HubAddress:
    """Fetch manifest and files; return the address with the commit."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - of the extra `hub`
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    disable_progress_bars()
    with explained_hub_errors(
        f"the model {address}",
        again=_AGAIN,
        unknown=f"Check the name; if it is private, {LOG_IN}.",
    ):
        api = HfApi(library_name=LIBRARY)
        commit = api.model_info(address.repository, revision=address.revision, expand=["sha"]).sha
        exact = replace(address, revision=commit)
        _fetch_files(api, exact, (MANIFEST,), folder, MANIFEST_BYTES)
        names = _listed_files(exact, folder)
        if len(names) >= FILES_LIMIT:
            raise HubError(
                f"The manifest of {exact} names {len(names)} files, and a bundle has about ten. "
                f"{_NO_BUNDLE}"
            )
        _fetch_files(api, exact, tuple(names), folder, SIZE_LIMIT)
    return exact


def _listed_files(exact: HubAddress, folder: Path) -> Mapping[str, str]:
    """Return the files that the fetched manifest lists, which are plain names."""
    try:
        return read_manifest(folder).files
    except BundleError as error:
        # The folder is gone when this is read.
        text = str(error).replace(str(folder / MANIFEST), f"{MANIFEST} of {exact}")
        raise type(error)(text) from error


def _fetch_files(
    api: HfApi, exact: HubAddress, names: tuple[str, ...], folder: Path, most_bytes: int
) -> None:
    """Fetch files of a commit, if together they have at most so many bytes."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    listed = api.get_paths_info(exact.repository, list(names), revision=exact.revision)
    sizes = {entry.path: entry.size for entry in listed if isinstance(entry, RepoFile)}
    missing = [name for name in names if name not in sizes and name != FP32_MODEL]
    if missing:
        raise HubError(f"{exact} holds no scentd bundle: it has no {missing[0]}. {_NO_BUNDLE}")
    size_bytes = sum(sizes.get(name, 0) for name in names)
    if size_bytes > most_bytes:
        raise HubError(
            f"{', '.join(sizes)} of {exact} take {size_bytes / 1e6:.0f} MB, and at most "
            f"{most_bytes / 1e6:.0f} MB are expected. {_NO_BUNDLE}"
        )
    for name in names:
        if name not in sizes:
            continue
        path = hf_hub_download(
            exact.repository,
            name,
            revision=exact.revision,
            local_dir=folder,
            endpoint=api.endpoint,
            library_name=LIBRARY,
        )
        came_bytes = Path(path).stat().st_size
        if came_bytes != sizes[name]:
            raise HubError(
                f"{name} of {exact} came with {came_bytes} bytes, and the hub lists "
                f"{sizes[name]}. {_AGAIN}"
            )
