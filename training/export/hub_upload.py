"""training/: writes a bundle into a repository of the Hugging Face hub, as one commit.

May import huggingface_hub inside functions alone. Uploads the files of a bundle and nothing else:
never a recording. The client finds the user's token by itself, and no message holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hardware.errors import UsageError
from hardware.hub import LIBRARY, LOG_IN, HubError, explained_hub_errors
from models.bundle import available_precisions, load_bundle
from models.front_matter import with_front_matter
from models.manifest import (
    ARRAYS,
    CARD,
    FP32_MODEL,
    INT8_MODEL,
    MANIFEST,
    TRAINING_FILES,
    read_verified,
)
from training.export.hub_card import front_matter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    from hardware.hub import HubAddress
    from models.manifest import Manifest

BUNDLE_FILES = (MANIFEST, CARD, INT8_MODEL, FP32_MODEL, ARRAYS, TRAINING_FILES)
"""All that a bundle may consist of on the hub."""

_OF_THE_HUB = (".gitattributes", ".gitignore", "LICENSE", CARD)
"""Files of a repository that say nothing of what it is for."""


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """What will be uploaded.

    Attributes
    ----------
    manifest: of the bundle.
    files: content by name, the card with front matter.
    """

    manifest: Manifest
    files: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class RemoteState:
    """What the hub has under an address.

    Attributes
    ----------
    private: whether only its owner sees it.
    commit: the newest of the main branch, None where there is none.
    files: their names.
    """

    private: bool
    commit: str | None
    files: frozenset[str]


def prepare_upload(folder: Path, licence: str | None, datasets: Sequence[str]) -> Upload:
    """Verify a bundle, run it, and return what of it is uploaded.

    Raises
    ------
    BundleError: it is damaged, or does not run.
    UsageError: it has files that belong to no bundle.
    """
    precisions = available_precisions(folder)
    bundles = [load_bundle(folder, precision) for precision in precisions]
    manifest = bundles[0].manifest
    strange = sorted(set(manifest.files) - set(BUNDLE_FILES))
    if strange:
        raise UsageError(
            f"{folder} names {', '.join(strange)}, which belongs to no bundle, and only a bundle's "
            f"files are uploaded ({', '.join(BUNDLE_FILES)}). Export it again."
        )
    there = [name for name in manifest.files if name != FP32_MODEL or "fp32" in precisions]
    files = {name: read_verified(folder, manifest, name) for name in there}
    files[CARD] = with_front_matter(files[CARD], front_matter(manifest, licence, datasets))
    return Upload(manifest, {MANIFEST: (folder / MANIFEST).read_bytes(), **files})


def remote_state(address: HubAddress) -> RemoteState | None:
    """Return what the hub has under an address; None for nothing that this user may see.

    Raises
    ------
    UsageError: the repository holds something else than a bundle.
    HubError: the hub or the network refused.
    """
    from huggingface_hub import HfApi, errors  # noqa: PLC0415 - of the extra `hub`

    with _explained(address):
        api = HfApi(library_name=LIBRARY)
        try:
            info = api.model_info(address.repository)
        except errors.GatedRepoError:
            raise
        except errors.RepositoryNotFoundError:
            return None
        names = frozenset(api.list_repo_files(address.repository, revision=info.sha))
    if names - set(_OF_THE_HUB) and MANIFEST not in names:
        raise UsageError(
            f"{address} holds other files ({', '.join(sorted(names)[:3])}) and no bundle, so "
            "nothing is written there. Name another repository."
        )
    return RemoteState(bool(info.private), info.sha, names)


def upload_bundle(
    upload: Upload, address: HubAddress, state: RemoteState | None, *, private: bool
) -> HubAddress:
    """Write a bundle as one commit; return the address with that commit.

    Parameters
    ----------
    upload: what to write.
    address: of the repository.
    state: what the hub has there; where it has nothing, a repository is made.
    private: whether a repository that is made is private.

    Raises
    ------
    HubError: the hub, the network or the token's rights refused; nothing was changed but perhaps
        that an empty repository was made.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - of the extra `hub`

    manifest = upload.manifest
    with _explained(address):
        api = HfApi(library_name=LIBRARY)
        if state is None:
            api.create_repo(address.repository, private=private, exist_ok=False)
        try:
            commit = api.create_commit(
                address.repository,
                operations=_operations(upload, state),
                commit_message=f"{manifest.name} {manifest.version}",
                commit_description=f"Bundle {manifest.sha256}, by scent-train publish",
                parent_commit=None if state is None else state.commit,
            )
        except (RuntimeError, ValueError) as error:  # the client's, of large files
            cause = error.__cause__ or error
            raise HubError(
                f"The hub did not take a file of {address} ({cause}), and the hub's files are as "
                "before. Run the same command again."
            ) from error
    return replace(address, revision=commit.oid)


def _operations(
    upload: Upload, state: RemoteState | None
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Return what the commit does: write the files, remove those of an earlier version."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete  # noqa: PLC0415

    there = frozenset() if state is None else state.files
    old = sorted(there & set(BUNDLE_FILES) - set(upload.files))
    return [
        *(CommitOperationAdd(name, content) for name, content in upload.files.items()),
        *(CommitOperationDelete(name) for name in old),
    ]


def _explained(address: HubAddress) -> AbstractContextManager[None]:
    return explained_hub_errors(
        f"the repository {address} to write to",
        again="The hub's files are as before. Run the same command again.",
        unknown=f"Check the owner's name, and {LOG_IN}.",
    )
