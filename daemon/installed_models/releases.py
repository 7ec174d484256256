"""Daemon: the bundles that this version of scentd was released with, known by their hashes.

A wheel leaves some of them out, and the float32 models of all. They are installed from a file that
came by any way; a bundle that calls itself one of them must have its hash.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from models.bundle import bundle_folder, shipped_bundles
from models.manifest import BundleDamagedError, read_manifest

if TYPE_CHECKING:
    from models.manifest import Manifest

PINS = "releases.json"
"""In an installed `models.bundles`, written when the wheel was built (setup.py)."""


@dataclass(frozen=True, slots=True)
class ReleasedBundle:
    """Version and hash (`Manifest.sha256`) of a bundle."""

    version: str
    sha256: str


def released_bundles() -> dict[str, ReleasedBundle]:
    """Return the bundles of this release by name; in a checkout, those that lie there."""
    pins = resources.files("models.bundles") / PINS
    if pins.is_file():
        content = json.loads(pins.read_text(encoding="utf-8"))
        return {name: ReleasedBundle(**pin) for name, pin in content.items()}
    manifests = [read_manifest(bundle_folder(name)) for name in shipped_bundles()]
    return {one.name: ReleasedBundle(one.version, one.sha256) for one in manifests}


def check_release(manifest: Manifest) -> None:
    """Refuse a bundle that has name and version of a released one, but is another.

    Raises
    ------
    BundleDamagedError: naming both hashes.
    """
    released = released_bundles().get(manifest.name)
    if released is None or released.version != manifest.version:
        return
    if released.sha256 != manifest.sha256:
        raise BundleDamagedError(
            f"This is not {manifest.name} {manifest.version} as it was released with this version "
            f"of scentd: its hash is {manifest.sha256[:16]}..., and {released.sha256[:16]}... was "
            "expected. Fetch it again, or export your own under another name or version."
        )
