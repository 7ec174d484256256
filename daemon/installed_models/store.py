"""Daemon: the model bundles that a rig was given beside the shipped ones, below its state folder.

    models/NAME/VERSION/     a bundle, verified and run once before it got its name
    models/NAME/active.json  which version is in force (null: the shipped one), and those before

May import hardware and models. Knows no broker and no pipeline: it says where a model lies, and
changes that atomically. Whatever a bundle's files are called, nothing is written beside its folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.system.logs import get_logger
from hardware.errors import ScentdError
from hardware.files import sync_folder, write_atomically
from models.bundle import bundle_folder, load_bundle, shipped_bundles
from models.manifest import MANIFEST, BundleError, BundleMissingError, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.bundle import Bundle
    from models.manifest import Manifest

FOLDER = "models"
ACTIVE = "active.json"
LOCK = ".lock"

SHIPPED = "shipped"
"""What the version that came with scentd is called; no bundle's version may be."""

VERSIONS_KEPT = 6
"""Of one model; the oldest that is neither in force nor the one before gives way."""

HISTORY_KEPT = 16

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class StoreError(ScentdError):
    """A model cannot be installed, or not be switched to."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which version of a model is in force.

    Attributes
    ----------
    active: the version, None for the shipped one.
    before: versions in force before, the latest last; what `rollback` goes back through.
    """

    active: str | None = None
    before: tuple[str | None, ...] = ()

    def then(self, version: str | None) -> Choice:
        """Return the choice after a switch."""
        return Choice(version, (*self.before, self.active)[-HISTORY_KEPT:])


class ModelStore:
    """Installed bundles of one rig.

    Parameters
    ----------
    state_dir : Path
        The rig's.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.root = state_dir / FOLDER
        self._log = get_logger("models")

    def names(self) -> tuple[str, ...]:
        """Return the names of all models that are installed, sorted."""
        if not self.root.is_dir():
            return ()
        return tuple(sorted(path.name for path in self.root.iterdir() if self.versions(path.name)))

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the installed versions of a model, the oldest installation first."""
        if not _NAME.fullmatch(name) or not (self.root / name).is_dir():
            return ()
        folders = [path for path in (self.root / name).iterdir() if (path / MANIFEST).is_file()]
        folders = [path for path in folders if _VERSION.fullmatch(path.name)]
        folders.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        return tuple(path.name for path in folders)

    def choice(self, name: str) -> Choice:
        """Return which version is in force; one that cannot be read is the shipped one."""
        if not _NAME.fullmatch(name):
            return Choice()
        try:
            data = json.loads((self.root / name / ACTIVE).read_bytes())
            return Choice(
                _version_or_none(data["active"]), tuple(map(_version_or_none, data["before"]))
            )
        except FileNotFoundError:
            return Choice()
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._log.error(
                f"{self.root / name / ACTIVE} cannot be used ({error!r}); {name} runs as shipped."
            )
            return Choice()

    def folder(self, name: str) -> Path:
        """Return where the model of a configuration lies: installed, shipped, or a folder's path.

        Raises
        ------
        BundleMissingError
            There is none of the three.
        """
        active = self.choice(name).active
        if active is not None and active in self.versions(name):
            return self.root / name / active
        return self._shipped(name)

    def load(self, name: str) -> Bundle:
        """Load the version in force; where it cannot be used, the one before it, and say so.

        A damaged file must not keep a rig from smelling: a version that worked is better than none.

        Raises
        ------
        BundleError
            If none can be used: what is wrong with the one in force.
        """
        choice = self.choice(name)
        tried: list[str] = []
        first: BundleError | None = None
        for version in (choice.active, *reversed(choice.before), None):
            called = SHIPPED if version is None else version
            if called in tried or (version is not None and version not in self.versions(name)):
                continue
            tried.append(called)
            try:
                folder = self._shipped(name) if version is None else self.root / name / version
                bundle = load_bundle(folder)
            except BundleError as error:
                first = first or error
                continue
            if first is not None:
                self._log.error(
                    f"{first} {name} runs in version {bundle.manifest.version} instead."
                )
            return bundle
        raise first or BundleMissingError(f"There is no model called {name!r}.")

    def describe(self, name: str) -> dict[str, Any]:
        """Return what there is of a model, as plain data."""
        choice = self.choice(name)
        versions = []
        for version in self.versions(name):
            with contextlib.suppress(BundleError):  # `load` says what is wrong with it
                manifest = read_manifest(self.root / name / version)
                versions.append({"version": version, "sha256": manifest.sha256})
        shipped = None
        if name in shipped_bundles():
            shipped = read_manifest(bundle_folder(name)).version
        return {
            "name": name,
            "active": choice.active or (SHIPPED if shipped is not None else None),
            "previous": (choice.before[-1] or SHIPPED) if choice.before else None,
            "shipped": shipped,
            "installed": versions,
        }

    def install(self, source: Path) -> Manifest:
        """Take a bundle in: a folder, or a .tar, .tar.gz or .zip of one; not yet in force.

        Raises
        ------
        UnpackingError
            If it is no such thing, too large, or would write beside its folder.
        StoreError
            If this version is there already and is another bundle.
        BundleError
            If its files are not those of its manifest, or it does not run here.
        """
        # Only an installation pays for the archives' libraries.
        from daemon.installed_models.archive import take_in  # noqa: PLC0415

        with self._locked():
            fresh = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.root))
            try:
                take_in(source, fresh)
                manifest = load_bundle(fresh).manifest
                for path in fresh.iterdir():
                    if path.name != MANIFEST and path.name not in manifest.files:
                        path.unlink()
                self._put(fresh, manifest)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
            self._make_room(manifest.name, keep=manifest.version)
            self._give_to_owner()
        self._log.info("installed", model=manifest.name, version=manifest.version)
        return manifest

    def switch(self, name: str, version: str | None) -> Choice:
        """Put a version in force, None for the shipped one; return the choice before.

        Raises
        ------
        StoreError
            There is no such version.
        BundleError
            It is damaged.
        """
        if version is None:
            self._shipped(name)
        elif version in self.versions(name):
            load_bundle(self.root / name / version)
        else:
            there = ", ".join(self.versions(name)) or "none"
            raise StoreError(
                f"{name} {version} is not installed. Installed: {there}. Install it (scentd models "
                f"install FILE), or name one of these, or {SHIPPED}."
            )
        with self._locked():
            before = self.choice(name)
            if before.active != version:
                self._choose(name, before.then(version))
        return before

    def rollback(self, name: str) -> Choice:
        """Put the version before in force again; return the choice that this undid.

        Raises
        ------
        StoreError
            There is none before, or it is gone.
        """
        before = self.choice(name)
        if not before.before:
            raise StoreError(
                f"{name} was never switched, so there is nothing to go back to. Choose a version "
                f"instead: scentd models switch {name} VERSION."
            )
        version = before.before[-1]
        if version is not None and version not in self.versions(name):
            raise StoreError(
                f"{name} {version}, the version before, is no longer installed. Choose another: "
                f"{', '.join((*self.versions(name), SHIPPED))}."
            )
        with self._locked():
            self._choose(name, Choice(version, before.before[:-1]))
        return before

    def restore(self, name: str, choice: Choice) -> None:
        """Put back what `switch` or `rollback` returned: the change was not taken on."""
        with self._locked():
            self._choose(name, choice)

    def _shipped(self, name: str) -> Path:
        try:
            return bundle_folder(name)
        except BundleMissingError as error:
            there = ", ".join(self.names())
            raise BundleMissingError(
                f"{error} Installed: {there}." if there else str(error)
            ) from None

    def _put(self, fresh: Path, manifest: Manifest) -> None:
        """Give a verified folder its name; a version that is there already must be the same."""
        if not _VERSION.fullmatch(manifest.version) or manifest.version == SHIPPED:
            raise StoreError(
                f"A version is of letters, digits and . _ + -, and not {SHIPPED!r}; this bundle's "
                f"is {manifest.version!r}. Export it with another."
            )
        folder = self.root / manifest.name / manifest.version
        if folder.exists():
            try:
                known = load_bundle(folder).manifest.sha256
            except BundleError:
                shutil.rmtree(folder)  # damaged: the fresh one mends it
            else:
                if known == manifest.sha256:
                    return
                raise StoreError(
                    f"{manifest.name} {manifest.version} is installed already, and is another "
                    "bundle. Give the new one another version."
                )
        folder.parent.mkdir(exist_ok=True)
        fresh.chmod(0o755)  # mkdtemp's folders are private
        fresh.rename(folder)
        sync_folder(folder.parent)

    def _make_room(self, name: str, *, keep: str) -> None:
        choice = self.choice(name)
        wanted = {keep, choice.active, *choice.before[-1:]}
        spare = [version for version in self.versions(name) if version not in wanted]
        for version in spare[: max(0, len(self.versions(name)) - VERSIONS_KEPT)]:
            shutil.rmtree(self.root / name / version)
            self._log.info("removed to make room", model=name, version=version)

    def _choose(self, name: str, choice: Choice) -> None:
        data = {"active": choice.active, "before": list(choice.before)}
        write_atomically(self.root / name / ACTIVE, json.dumps(data).encode())
        self._give_to_owner()
        self._log.info("in force", model=name, version=choice.active or SHIPPED)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let the service and a command change the store one after the other."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _give_to_owner(self) -> None:
        """Let the service own what root put below its state folder."""
        if os.geteuid() != 0:
            return
        owner = self._state_dir.stat()
        for path in (self.root, *self.root.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _version_or_none(value: object) -> str | None:
    if value is None or (isinstance(value, str) and _VERSION.fullmatch(value)):
        return value
    raise ValueError(value)
