"""Daemon: the model bundles installed on a rig, below its state folder.

    models/NAME/VERSION/     a bundle, verified and run once before it was moved there
    models/NAME/active.json  the active version (null: the shipped one), and earlier active ones

May import hardware and models. Knows no broker and no pipeline. Changes are atomic, and no file is
written outside a bundle's folder.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.installed_models.onnx_runtime import require_runtime
from daemon.system.logs import get_logger
from daemon.system.owner import acting_as_owner, with_own_rights
from hardware.errors import ScentdError
from hardware.files import (
    locked_folder,
    read_regular,
    remove,
    sync_folder,
    write_atomically,
)
from hardware.safe_json import read_state, write_state
from models.bundle import (
    BundleRunError,
    bundle_folder,
    load_bundle,
    shipped_bundles,
    verify_bundle,
)
from models.manifest import MANIFEST, BundleError, BundleMissingError, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.installed_models.archive import OpenedSource
    from models.bundle import Bundle
    from models.manifest import Manifest

FOLDER = "models"
ACTIVE = "active.json"

STARTS = "starts.json"
"""Beside `ACTIVE`: by version, how often in a row its loading began and did not end."""

STARTS_TRIED = 3
"""Starts that a version may end before the one before it is used. One or two may be a power cut."""

SHIPPED = "shipped"
"""Name of the version shipped with scentd; no bundle may have it as its version."""

VERSIONS_KEPT = 6
"""Versions of one model; the oldest others are removed, except the active and previous one."""

HISTORY_KEPT = 16

_INCOMING = ".incoming-"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


class StoreError(ScentdError):
    """A model cannot be installed, or its version cannot be changed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The active version of a model and earlier ones, the latest last; None is the shipped one."""

    active: str | None = None
    before: tuple[str | None, ...] = ()

    def switched(self, version: str | None) -> Choice:
        """Return the choice after a switch to another version."""
        return Choice(version, (*self.before, self.active)[-HISTORY_KEPT:])


class ModelStore:
    """Installed bundles of one rig."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.root = state_dir / FOLDER
        self._log = get_logger("models")

    def names(self) -> tuple[str, ...]:
        """Return the names of all models that are installed, sorted."""
        if not _is_folder(self.root):
            return ()
        return tuple(sorted(path.name for path in self.root.iterdir() if self.versions(path.name)))

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the installed versions of a model, the oldest installation first."""
        folder = self.root / name
        if not _NAME.fullmatch(name) or not (_is_folder(self.root) and _is_folder(folder)):
            return ()
        folders = [path for path in folder.iterdir() if _VERSION.fullmatch(path.name)]
        folders = [path for path in folders if _is_folder(path) and (path / MANIFEST).is_file()]
        folders.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        return tuple(path.name for path in folders)

    def choice(self, name: str) -> Choice:
        """Return the active version: the shipped one if the file cannot be read."""
        if not _NAME.fullmatch(name):
            return Choice()
        try:
            data = read_state(read_regular(self.root / name / ACTIVE))
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
        """Return the folder of a configured model: installed, shipped, or a path."""
        active = self.choice(name).active
        if active is not None and active in self.versions(name):
            return self.root / name / active
        return self._shipped(name)

    def load(self, name: str, *, fall_back: bool = True) -> Bundle:
        """Load the active version.

        If it cannot be used, log that and load an earlier one; without `fall_back` raise the error.

        Raises
        ------
        RuntimeUnusableError: ONNX Runtime itself does not work on this machine.
        BundleError: no version can be used.
        """
        require_runtime(self._state_dir)
        choice = self.choice(name)
        installed = self.versions(name)
        errors: list[BundleError] = []
        # None, the shipped one, comes last; a dictionary keeps the order and drops repetitions.
        for version in dict.fromkeys((choice.active, *reversed(choice.before), None)):
            try:
                if version is None:
                    bundle = load_bundle(self._shipped(name))
                elif version in installed:
                    with self._begun_start(name, version):
                        bundle = self._load_installed(name, version)
                else:
                    raise BundleMissingError(f"{name} {version} is no longer installed.")
            except BundleError as error:
                errors.append(error)
                if not fall_back:
                    break
                continue
            if errors:
                runs = bundle.manifest.version
                self._log.error(f"{errors[0]} {name} runs in version {runs} instead.")
            return bundle
        raise errors[0]

    @contextmanager
    def _begun_start(self, name: str, version: str) -> Iterator[None]:
        """Note on disk that a version is being loaded, until it has been or has raised an error.

        Raises
        ------
        BundleRunError: the process ended in the last `STARTS_TRIED` times.
        """
        path = self.root / name / STARTS
        begun: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            begun = {str(key): int(n) for key, n in read_state(read_regular(path)).items()}
        if begun.get(version, 0) >= STARTS_TRIED:
            raise BundleRunError(
                f"{name} {version} is not used: the last {begun[version]} times, the process ended "
                "while it was loaded. Install another version, or switch to this one to try it "
                "again."
            )
        with contextlib.suppress(OSError):  # a full disk: then nothing is noted
            noted = {**begun, version: begun.get(version, 0) + 1}
            write_atomically(path, write_state(noted))
        try:
            yield
        finally:
            others = {key: number for key, number in begun.items() if key != version}
            with contextlib.suppress(OSError):
                write_atomically(path, write_state(others)) if others else remove(path)

    def _load_installed(self, name: str, version: str) -> Bundle:
        # Only an installed model needs this: the shipped ones are tested.
        from daemon.installed_models.usable import check_usable  # noqa: PLC0415

        bundle = load_bundle(self.root / name / version)
        check_usable(bundle)
        return bundle

    def describe(self, name: str) -> dict[str, Any]:
        """Return a model's versions as plain data."""
        choice = self.choice(name)
        versions = []
        for version in self.versions(name):
            with contextlib.suppress(BundleError):  # `load` reports what is wrong with it
                manifest = read_manifest(self.root / name / version)
                versions.append({"version": version, "sha256": manifest.sha256})
        shipped = read_manifest(bundle_folder(name)).version if name in shipped_bundles() else None
        without = None if shipped is None else SHIPPED
        return {
            "name": name,
            "active": choice.active or without,
            "previous": (choice.before[-1] or without) if choice.before else None,
            "shipped": shipped,
            "installed": versions,
        }

    def available(self, name: str) -> tuple[str, ...]:
        """Return the versions that a model can be switched to, the shipped one's too, by age."""
        described = self.describe(name)
        found = [one["version"] for one in described["installed"]]
        if described["shipped"] is not None:
            found.append(described["shipped"])
        return tuple(sorted(set(found), key=_version_order))

    def install(self, source: Path, name: str | None = None) -> Manifest:
        """Install a bundle, a folder or a .tar, .tar.gz or .zip of one, without activating it.

        `name` is what messages call the source, by default its path.

        Raises
        ------
        UnpackingError: if it is none of these, too large, or would write outside its folder.
        StoreError: if another bundle of the same version is installed.
        BundleError: if its files are not those of its manifest, or it does not run here.
        """
        # Only an installation needs the archive libraries.
        from daemon.installed_models.archive import open_source  # noqa: PLC0415

        # The source is opened with the rights of who named it, all else done with the owner's.
        with ExitStack() as stack:
            with with_own_rights():
                opened = stack.enter_context(open_source(source, name))
            store = stack.enter_context(self._as_owner())
            return store._install(opened)  # noqa: SLF001 - of the same class

    def _install(self, source: OpenedSource) -> Manifest:
        from daemon.installed_models.releases import check_release  # noqa: PLC0415
        from daemon.installed_models.trial import receive_bundle  # noqa: PLC0415

        with locked_folder(self.root):
            for left in self.root.glob(f"{_INCOMING}*"):
                shutil.rmtree(left, ignore_errors=True)  # of an installation that was killed
            fresh = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self.root))
            try:
                receive_bundle(source, fresh)
                manifest = read_manifest(fresh)
                check_release(manifest)
                for path in fresh.iterdir():
                    if path.name != MANIFEST and path.name not in manifest.files:
                        path.unlink()
                self._move(fresh, manifest)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
            self._make_room(manifest.name, keep=manifest.version)
        self._log.info("installed", model=manifest.name, version=manifest.version)
        return manifest

    @contextmanager
    def _as_owner(self) -> Iterator[ModelStore]:
        """Act as the owner of the state folder, if root runs this; yields the store to use."""
        with acting_as_owner(self._state_dir) as reached:
            yield self if reached == self._state_dir else ModelStore(reached)

    def _try(self, name: str, version: str | None) -> None:
        """Raise `BundleError` for a version that cannot be run here."""
        from daemon.installed_models.trial import try_bundle  # noqa: PLC0415

        if version is None:
            self._shipped(name)
        else:
            try_bundle(self.root / name / version)

    def switch(self, name: str, version: str | None) -> Choice:
        """Activate a usable version, None for the shipped one; return the previous choice.

        The shipped one may also be named by its version, unless that is installed too.
        """
        if version not in self.versions(name) and version == self.describe(name)["shipped"]:
            version = None
        if version is not None and version not in self.versions(name):
            installed = ", ".join(self.versions(name)) or "none"
            raise StoreError(
                f"{name} {version} is not installed. Installed: {installed}. Install it (scentd "
                f"models install FILE), or name one of these, or {SHIPPED}."
            )
        with locked_folder(self.root):
            self._try(name, version)
            before = self.choice(name)
            if before.active != version:
                self._choose(name, before.switched(version))
        return before

    def rollback(self, name: str) -> Choice:
        """Activate the previous version again, if it can be used; return the choice before that."""
        with locked_folder(self.root):
            before = self.choice(name)
            # The first installation of a model that is not shipped follows no version.
            if not before.before or (before.before[-1] is None and name not in shipped_bundles()):
                raise StoreError(
                    f"{name} was never switched from another version, so there is none to go back "
                    f"to. Choose a version instead: scentd models switch {name} VERSION."
                )
            version = before.before[-1]
            if version is not None and version not in self.versions(name):
                raise StoreError(
                    f"{name} {version}, the previous version, is no longer "
                    f"installed. Choose "
                    f"another: {', '.join((*self.versions(name), SHIPPED))}."
                )
            if version is not None:
                self._try(name, version)
            self._choose(name, Choice(version, before.before[:-1]))
            return before

    def restore(self, name: str, choice: Choice) -> None:
        """Restore a choice that `switch` or `rollback` returned."""
        with locked_folder(self.root):
            self._choose(name, choice)

    def _shipped(self, name: str) -> Path:
        try:
            return bundle_folder(name)
        except BundleMissingError as error:
            installed = ", ".join(self.names())
            raise BundleMissingError(
                f"{error} Installed: {installed}." if installed else str(error)
            ) from None

    def _move(self, fresh: Path, manifest: Manifest) -> None:
        """Move a verified bundle to its place; one already there must be the same."""
        if not _VERSION.fullmatch(manifest.version) or manifest.version == SHIPPED:
            raise StoreError(
                f"A version consists of letters, digits and . _ + -, and is not {SHIPPED!r}; this "
                f"bundle's is {manifest.version!r}. Export it with another."
            )
        folder = self.root / manifest.name / manifest.version
        if folder.exists():
            try:
                known = verify_bundle(folder).sha256
            except BundleError:
                shutil.rmtree(folder)  # damaged: the new one replaces it
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
        write_atomically(self.root / name / ACTIVE, write_state(data))
        remove(self.root / name / STARTS)
        self._log.info("in force", model=name, version=choice.active or SHIPPED)


def _is_folder(path: Path) -> bool:
    """Tell whether a path is a folder, and no link to one: links in a state folder are ignored."""
    return path.is_dir() and not path.is_symlink()


def _version_or_none(value: object) -> str | None:
    if value is None or (isinstance(value, str) and _VERSION.fullmatch(value)):
        return value
    raise ValueError(value)


def _version_order(version: str) -> tuple[tuple[int, ...], str]:
    """Return what sorts versions by their numbers, and equal ones by their text."""
    return tuple(int(part) for part in re.findall(r"[0-9]+", version)), version
