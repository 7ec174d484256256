"""Daemon: loading the models again, and applying a new configuration, while recognition runs.

Long functions here are work in steps (`daemon.system.background.Steps`): they yield while something
is read, and nothing of the running service has changed when they fail.
"""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.installed_models.loading import load_models, with_decision
from daemon.installed_models.store import ModelStore
from daemon.system.background import Task, in_thread
from hardware.errors import ScentdError
from models.bundle import verify_bundle

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from daemon.config.settings import Config
    from daemon.system.background import Data, Steps
    from models.bundle import Bundle


NEEDS_A_RESTART = ("state_dir", "outbox")
"""Settings that a running service cannot change."""


class ReloadError(ScentdError):
    """The configuration cannot be taken on while the service runs; the one in force stays."""


def models_again(config: Config, running: Sequence[Bundle]) -> Generator[Data, None, list[Bundle]]:
    """Load the configured models; one that runs and is the same on disk is not loaded twice.

    Parameters
    ----------
    config : Config
        Which models, and how the rig's owner wants them to decide.
    running : sequence of Bundle
        What runs now.

    Raises
    ------
    BundleError
        The first that cannot be used, and why.
    """
    bundles = []
    store = ModelStore(config.state_dir)
    for name in config.models:
        # All of it, also of what runs already: a damaged bundle would end the next start.
        manifest = yield from in_thread(
            lambda name: verify_bundle(store.folder(name)),
            name,
            doing=f"checking {name}",
        )
        same = next((b for b in running if b.manifest.files == manifest.files), None)
        if same is not None:
            as_shipped = copy(same)
            as_shipped.manifest = manifest
            bundles.append(with_decision(as_shipped, config.decision))
            continue
        loaded = yield from in_thread(
            load_models, [name], config.decision, store, doing=f"loading {name}"
        )
        bundles += loaded
    return bundles


def check_replaceable(running: Config, wanted: Config) -> None:
    """Refuse what a running service cannot take on, before anything of it is changed.

    Raises
    ------
    ReloadError
        Naming the setting.
    """
    for name in NEEDS_A_RESTART:
        if getattr(wanted, name) != getattr(running, name):
            raise ReloadError(
                f"{name} cannot change while scentd runs: what is not delivered yet lies there. "
                "Take the change back, or restart scentd: sudo systemctl restart scentd."
            )
    port = None if wanted.source.port is None else Path(wanted.source.port)
    if wanted.source != running.source and port is not None and port.exists():
        if port.is_char_device():
            return
        raise ReloadError(
            f"source.port is {port}, which is no serial port. Name the board's port, for example "
            "/dev/ttyUSB0."
        )


class ReloadTask:
    """One reload at a time, whoever asked for it; worked on between two readings."""

    def __init__(self) -> None:
        self._steps: Task[Data, Data] | None = None
        self._outcome: Data | ScentdError = {}
        self._told: Data = {}

    @property
    def under_way(self) -> bool:
        """Whether one is."""
        return self._steps is not None

    def begin(self, steps: Steps) -> None:
        """Take one on; `work` does it.

        Raises
        ------
        ReloadError
            One is under way already.
        """
        if self.under_way:
            raise ReloadError("The configuration is being read again already. Wait for it to end.")
        self._steps, self._told = Task(steps), {}

    def work(self) -> Data | ScentdError | None:
        """Do one step; return how it ended when that was the last one, the error included."""
        if self._steps is None:
            return None
        try:
            progress = self._steps.step()
            if progress is not None:
                self._told = progress
                return None
            self._outcome = self._steps.result
        except (ScentdError, OSError) as error:
            self._outcome = error if isinstance(error, ScentdError) else ReloadError(str(error))
        self._steps = None
        return self._outcome

    def followed(self) -> Steps:
        """Wait for the one under way as the work of a request, and answer as it ends."""
        while self.under_way:
            yield self._told
        if isinstance(self._outcome, ScentdError):
            raise self._outcome
        return self._outcome

    def close(self) -> None:
        """Give up what is under way; nothing has changed."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None
            self._outcome = ReloadError("The service is stopping; nothing was changed.")
