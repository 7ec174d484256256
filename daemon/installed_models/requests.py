"""Daemon: what `request/models` asks of a running rig.

Joins the store of models and the service's own reload; lives in the pipeline's
thread. What takes long is done beside it. Knows no broker and no board.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.installed_models.store import SHIPPED, ModelStore, StoreError
from daemon.requests import RequestError, only, text_of
from daemon.system.background import in_thread
from hardware.errors import ScentdError
from models.bundle import shipped_bundles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon.config.settings import Config
    from daemon.installed_models.store import Choice
    from daemon.system.background import Data, Steps

MODELS = "models"
"""The request's name."""


class ModelRequests:
    """Does what is asked of the installed models, and lets the service take them on.

    Parameters
    ----------
    config : callable
        Returns the configuration in force.
    reload : callable
        Begins a reload, by which the service takes on what is in force on disk.
    """

    def __init__(self, config: Callable[[], Config], reload: Callable[[], Steps]) -> None:
        self._config = config
        self._reload = reload
        self._actions: dict[str, Callable[[Data], Data | Steps]] = {
            "list": self._list,
            "install": self._install,
            "switch": self._switch,
            "rollback": self._rollback,
        }

    def handle(self, payload: Data) -> Data | Steps:
        """Do what `request/models` asks.

        Raises
        ------
        ScentdError
            If it cannot be done; the models in force stay.
        """
        action = text_of(payload, "action", "list")
        if action not in self._actions:
            raise RequestError(
                f"action must be one of {', '.join(self._actions)}, and {action!r} came."
            )
        return self._actions[action]({k: v for k, v in payload.items() if k != "action"})

    @property
    def _store(self) -> ModelStore:
        return ModelStore(self._config().state_dir)

    def _list(self, payload: Data) -> Data:
        only(payload, ())
        return listed(self._store, self._config().models)

    def _install(self, payload: Data) -> Steps:
        only(payload, ("path", "switch"))
        path = self._own_path(text_of(payload, "path"))
        switch = payload.get("switch", True)
        if not isinstance(switch, bool):
            raise RequestError("switch must be true or false.")
        return self._installed(path, switch=switch)

    def _installed(self, path: Path, *, switch: bool) -> Steps:
        store = self._store
        manifest = yield from in_thread(store.install, path, doing="installing")
        if not switch:
            return {**store.described(manifest.name), "in_force": False}
        return (
            yield from self._changed(
                manifest.name, lambda: store.switch(manifest.name, manifest.version)
            )
        )

    def _switch(self, payload: Data) -> Steps:
        only(payload, ("name", "version"))
        name, version = text_of(payload, "name"), text_of(payload, "version")
        return self._changed(name, lambda: self._store.switch(name, version_of(version)))

    def _rollback(self, payload: Data) -> Steps:
        only(payload, ("name",))
        store = self._store
        name = text_of(payload, "name") if "name" in payload else switched_model(store)
        return self._changed(name, lambda: store.rollback(name))

    def _changed(self, name: str, change: Callable[[], Choice]) -> Steps:
        """Change what is in force on disk, then take it on; undo the first if the second fails."""
        store = self._store
        before = yield from in_thread(change, doing="verifying")
        runs = name in self._config().models
        if runs and store.choice(name).active != before.active:
            try:
                yield from self._reload()
            except ScentdError:
                yield from in_thread(store.restore, name, before, doing="undoing")
                raise
        return {**store.described(name), "in_force": runs}

    def _own_path(self, name: str) -> Path:
        """Return a bundle's path below the state folder: a broker may have no others read."""
        root = self._config().state_dir.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise RequestError(
                f"path must lie below the rig's state_dir, and {name} does not. Copy the bundle "
                "there, or install it on the rig: scentd models install FILE --config FILE."
            )
        return path


def listed(store: ModelStore, configured: tuple[str, ...]) -> Data:
    """Return every model by its name: shipped, installed, and which version is in force."""
    names = sorted({*shipped_bundles(), *store.names()})
    return {
        "models": [{**store.described(name), "configured": name in configured} for name in names]
    }


def version_of(text: str) -> str | None:
    """Return a version as the store knows it: None for the shipped one."""
    return None if text == SHIPPED else text


def switched_model(store: ModelStore) -> str:
    """Return the one model that can be rolled back, where none is named.

    Raises
    ------
    StoreError
        There are more, or none.
    """
    names = [name for name in store.names() if store.choice(name).before]
    if len(names) == 1:
        return names[0]
    raise StoreError(
        f"Say which model is to go back: {', '.join(names)}."
        if names
        else "No model was ever switched on this rig, so there is nothing to go back to."
    )
