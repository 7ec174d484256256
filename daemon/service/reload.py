"""Daemon: a reload: reads configuration and models again while the recognition continues.

Long functions here work in steps (`daemon.system.background`): they yield while something is
loaded, and if they fail, the running service has not changed. The service applies the result
between two readings.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.config.loading import load_config
from daemon.installed_models.loading import load_models, with_decision
from daemon.installed_models.store import ModelStore
from daemon.system.background import in_thread
from hardware.errors import ScentdError
from models.bundle import verify_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from daemon.board.history import History
    from daemon.config.settings import Config
    from daemon.service.runtime import Runtime
    from daemon.system.background import Data, OnDisk
    from models.bundle import Bundle

RELOAD = "reload"
"""Name of the request."""

NEED_RESTART = ("state_dir", "outbox")
"""Settings that a running service cannot change."""

NEED_RUNTIME = {"rig_id", "source", "models", "live_stride_s", "decision", "exposure"}
"""Settings that change how smells are recognised, or that calibration and enrolment hold."""


class ReloadError(ScentdError):
    """The configuration cannot be applied while the service runs; the active one stays."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedReload:
    """Another configuration, and the runtime that it needs.

    Attributes
    ----------
    changed: names of the settings that differ from the active one's; `models` also if the files of
        a model differ.
    runtime: one that has processed the history, None if the running one can stay.
    """

    config: Config
    changed: set[str]
    runtime: Runtime | None


def prepare_reload(
    path: Path,
    active: Config,
    running: Sequence[Bundle],
    history: History,
    *,
    build: Callable[[Config, Sequence[Bundle]], Runtime],
    on_disk: OnDisk,
    teaching: Callable[[], bool],
) -> Generator[Data, None, PreparedReload]:
    """Read a configuration, load its models and build its runtime.

    Parameters
    ----------
    path: of the configuration.
    active: the active configuration.
    running: the models that run now.
    build: makes another runtime, which is loaded here.
    on_disk: calls what uses the disk for a moment.
    teaching: whether the rig is being calibrated or taught, when no runtime may be replaced.

    Raises
    ------
    ScentdError: if something cannot be used.
    """

    def check_idle() -> None:
        if teaching():
            raise ReloadError(
                "The rig is being calibrated or taught a smell. Reload when that has ended."
            )

    def read() -> Config:
        config = load_config(path)
        check_replaceable(active, config)
        return config

    config = yield from on_disk(read, doing="reading the configuration")
    bundles = yield from load_bundles(config, running)
    changed = {
        item.name
        for item in fields(config)
        if getattr(config, item.name) != getattr(active, item.name)
    }
    if [b.manifest.sha256 for b in bundles] != [b.manifest.sha256 for b in running]:
        changed.add("models")
    if not changed & NEED_RUNTIME:
        return PreparedReload(config, changed, None)
    check_idle()

    def loaded() -> Runtime:
        runtime = build(config, bundles)
        runtime.load()
        return runtime

    runtime = yield from on_disk(loaded, doing="reading what the rig was taught")
    yield from runtime.process_history(history)
    check_idle()
    return PreparedReload(config, changed, runtime)


def load_bundles(config: Config, running: Sequence[Bundle]) -> Generator[Data, None, list[Bundle]]:
    """Load the configured models; one that runs and is the same on disk is not loaded again."""
    bundles = []
    store = ModelStore(config.state_dir)
    for name in config.models:
        # Running models are verified too: a damaged bundle would prevent the next start.
        manifest = yield from in_thread(
            lambda name: verify_bundle(store.folder(name)), name, doing=f"checking {name}"
        )
        same = next((b for b in running if b.manifest.files == manifest.files), None)
        if same is not None:
            as_shipped = copy(same)
            as_shipped.manifest = manifest
            bundles.append(with_decision(as_shipped, config.decision))
        else:
            load = partial(load_models, config, [name], fall_back=False)
            bundles += yield from in_thread(load, doing=f"loading {name}")
    return bundles


def check_replaceable(active: Config, wanted: Config) -> None:
    """Raise `ReloadError` for a setting that a running service cannot apply."""
    for name in NEED_RESTART:
        if getattr(wanted, name) != getattr(active, name):
            raise ReloadError(
                f"{name} cannot change while scentd runs: undelivered messages lie there. "
                "Undo the change, or restart scentd: sudo systemctl restart scentd."
            )
    port = None if wanted.source.port is None else Path(wanted.source.port)
    if wanted.source == active.source or port is None or not port.exists():
        return
    if not port.is_char_device():
        raise ReloadError(
            f"source.port is {port}, which is no serial port. Name the board's port, for example "
            "/dev/ttyUSB0."
        )
