"""Daemon: a bundle that nobody vouches for, unpacked and run once in a child process with bounds.

The child opens everything that the service will ever open of a bundle, and runs it. What ends the
child is an error here. Knows no store and no broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.installed_models.archive import OpenedSource, UnpackingError, unpack_bundle
from daemon.installed_models.usable import check_usable
from daemon.system.bounded import Bounds, OutOfBoundsError, call_bounded
from daemon.system.owner import inherited_by_path
from models.bundle import (
    BundleMismatchError,
    BundleRunError,
    available_precisions,
    load_bundle,
)
from models.manifest import (
    BundleDamagedError,
    BundleMissingError,
    BundleVersionError,
    ManifestError,
)

if TYPE_CHECKING:
    from pathlib import Path

BOUNDS = Bounds(memory_mb=384, cpu_s=60, wall_s=300.0, file_mb=257)
"""Loading and running the largest shipped model takes 90 MiB and a second on a server; with the
service's 80 MB this stays below the 600 MB of its unit."""

_ERRORS = {
    kind.__name__: kind
    for kind in (
        *(UnpackingError, ManifestError, BundleDamagedError, BundleMissingError),
        *(BundleVersionError, BundleRunError, BundleMismatchError),
    )
}
_MODULE = "daemon.installed_models.trial"


def receive_bundle(source: OpenedSource, folder: Path) -> None:
    """Unpack a bundle into an empty folder and try it, in a child.

    Raises
    ------
    UnpackingError, BundleError: it cannot be used, or not within `BOUNDS`.
    """
    descriptors = (*source.descriptors, *inherited_by_path(folder))
    _call("receive", source, folder, name=source.name, descriptors=descriptors)


def try_bundle(folder: Path) -> None:
    """Try an installed bundle in a child, as `receive_bundle` does."""
    # The child's own folder is another one.
    _call("use", folder.absolute(), name=folder, descriptors=inherited_by_path(folder))


def _call(
    function: str, *arguments: object, name: Path | str, descriptors: tuple[int, ...]
) -> None:
    try:
        call_bounded(
            f"{_MODULE}:{function}",
            *arguments,
            bounds=BOUNDS,
            errors=_ERRORS,
            descriptors=descriptors,
        )
    except OutOfBoundsError as error:
        raise BundleRunError(
            f"{name} cannot be used: {error}. Nothing was changed. Install another bundle."
        ) from None


def receive(source: OpenedSource, folder: Path) -> None:
    """Unpack and use a bundle; called in the child."""
    unpack_bundle(source, folder)
    use(folder)


def use(folder: Path) -> None:
    """Open and run all of a bundle, in every precision; called in the child."""
    for precision in available_precisions(folder):
        check_usable(load_bundle(folder, precision))
