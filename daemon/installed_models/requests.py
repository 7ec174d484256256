"""Daemon: the actions of `request/models` on a running rig.

Joins the store of models and the service's reload; runs in the pipeline's thread, and long work in
another one. Knows no broker and no board.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.installed_models.store import SHIPPED, ModelStore, StoreError
from daemon.request_fields import Action, Actions, flag, path_below, text
from daemon.system.background import Short, at_once, in_thread
from models.bundle import shipped_bundles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon.config.settings import Config
    from daemon.installed_models.store import Choice
    from daemon.system.background import Data, OnDisk, Steps

MODELS = "models"
"""Name of the request."""


class ModelRequests:
    """Changes the installed models, and lets the service apply the change.

    Parameters
    ----------
    config: returns the active configuration.
    reload: begins a reload, by which the service applies the content of the store.
    on_disk: calls what uses the disk for a moment.

    Attributes
    ----------
    handle: the actions of `request/models`.
    available: the versions that each configured model can be switched to, by name.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        reload: Callable[[], Steps],
        on_disk: OnDisk = at_once,
    ) -> None:
        self._config = config
        self._reload = reload
        state_dir = config().state_dir
        self._store = ModelStore(state_dir)
        self.available: dict[str, tuple[str, ...]] = {}
        self._list_versions()
        self.handle = Actions(
            "list",
            list=Action(
                lambda: Short(on_disk(list_models, self._store, config().models, doing="listing"))
            ),
            install=Action(self._install, path=path_below(state_dir), switch=flag(default=True)),
            switch=Action(self._switch, name=text(), version=text()),
            rollback=Action(self._rollback, name=text(None)),
        )

    def _list_versions(self) -> None:
        self.available = {name: self._store.available(name) for name in self._config().models}

    def _install(self, path: Callable[[], Path], *, switch: bool) -> Steps:
        store = self._store
        manifest = yield from in_thread(lambda: store.install(path()), doing="installing")
        yield from in_thread(self._list_versions, doing="listing")
        if not switch:
            return (yield from self._described(manifest.name, in_force=False))
        return (yield from self._switch(manifest.name, manifest.version))

    def _switch(self, name: str, version: str) -> Steps:
        return self._change(name, lambda: self._store.switch(name, parse_version(version)))

    def _rollback(self, name: str | None) -> Steps:
        store = self._store
        model = name or (yield from in_thread(switched_model, store, doing="listing"))
        return (yield from self._change(model, lambda: store.rollback(model)))

    def _change(self, name: str, change: Callable[[], Choice]) -> Steps:
        """Change the active version on disk and apply it; undo the change if that fails."""
        store = self._store

        def changed() -> tuple[Choice, Choice]:
            before = change()
            return before, store.choice(name)

        before, now = yield from in_thread(changed, doing="verifying")
        # Before it is applied: Home Assistant must know a version before the rig names it.
        yield from in_thread(self._list_versions, doing="listing")
        runs = name in self._config().models
        if runs and now.active != before.active:
            try:
                yield from self._reload()
            except Exception:
                yield from in_thread(store.restore, name, before, doing="undoing")
                raise
        return (yield from self._described(name, in_force=runs))

    def _described(self, name: str, *, in_force: bool) -> Steps:
        described = yield from in_thread(self._store.describe, name, doing="listing")
        return {**described, "in_force": in_force}


def list_models(store: ModelStore, configured: tuple[str, ...]) -> Data:
    """Return the versions of every shipped or installed model."""
    names = sorted({*shipped_bundles(), *store.names()})
    return {
        "models": [{**store.describe(name), "configured": name in configured} for name in names]
    }


def parse_version(text: str) -> str | None:
    """Return a version as the store names it: None for the shipped one."""
    return None if text == SHIPPED else text


def switched_model(store: ModelStore) -> str:
    """Return the only model that was ever switched; raise `StoreError` for several or none."""
    names = [name for name in store.names() if store.choice(name).before]
    if len(names) == 1:
        return names[0]
    raise StoreError(
        f"Name the model to roll back: {', '.join(names)}."
        if names
        else "No model was ever switched on this rig, so there is no previous version."
    )
