"""Daemon: what the commands about taught smells share: a rig's library, here or in its service."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from calibration.rig_profile import PROFILE
from calibration.smell_origin import RigIdentity
from calibration.smell_set import SmellError
from daemon.calibrate.actions import read_profile
from daemon.commands._service import as_owner, do_by_service_or_here
from daemon.config.loading import default_config_path, load_config
from daemon.config.settings import default_state_dir
from daemon.enroll import ENROLL, Enrolment, rig_smells
from daemon.enroll_answers import export_library
from daemon.installed_models.loading import load_models, nose_settings
from daemon.installed_models.onnx_runtime import require_runtime
from daemon.mqtt.service_client import service_is_online
from daemon.smell_files import import_file, plan_lines
from daemon.system.background import result_of
from daemon.system.owner import act_as_owner
from hardware.counting import counted
from models.bundle import RIG_BUNDLES, load_bundle

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from calibration.smell_store import SmellStore
    from daemon.system.background import Data
    from models.bundle import Bundle


class RigLibrary:
    """The rig that the options name: its configuration or state folder, service and stores."""

    def __init__(self, args: argparse.Namespace) -> None:
        path = args.config or (default_config_path() if args.state is None else None)
        self.config = None if path is None else as_owner(load_config(path))
        self._model: str | None = getattr(args, "model", None)
        if self.config is not None:
            self._state_dir = self.config.state_dir
        else:
            self._state_dir = act_as_owner((args.state or default_state_dir()).resolve())

    @cached_property
    def enrolment(self) -> Enrolment:
        """The enrolment that does here what a service would do."""
        config = self.config
        board_id = None if config is None else config.board_id
        profile, trouble = read_profile(self._state_dir / PROFILE, board_id)
        if trouble is not None:
            # Smells must be taught through the rig's correction, which cannot be used.
            raise SmellError(trouble)
        correction = None if profile is None else profile.rig_correction()
        store = rig_smells(self._bundles(), self._state_dir, correction)
        rig = "" if config is None else config.rig_id
        identity = RigIdentity(rig, board_id or "", profile)
        settings = None if config is None else nose_settings(config)
        return Enrolment(store, settings=settings, identity=lambda: identity)

    def _bundles(self) -> list[Bundle]:
        if self.config is not None:
            return load_models(self.config)
        require_runtime(self._state_dir)
        return [load_bundle(name) for name in ([self._model] if self._model else RIG_BUNDLES)]

    @property
    def store(self) -> SmellStore:
        """The library of the rig."""
        return self.enrolment.store

    def request(self, **payload: object) -> Data:
        """Send a request to the service, or do the same here where none runs."""

        def do_here() -> Data:
            return result_of(self.enrolment.handle(payload))

        if self.config is None:
            return do_here()
        return do_by_service_or_here(self.config, ENROLL, payload, do_here, show_progress)

    def notify_service(self) -> None:
        """Let a running service read the store again, which this command has changed."""
        if self.config is not None and service_is_online(self.config):
            self.request(action="reload")

    def export_file(self, path: Path) -> Data:
        """Write all taught smells into a file, by this command: the service may not write there."""
        enrolment = self.enrolment
        return export_library(enrolment.store, path, enrolment.identity(), str(path))

    def import_file(self, path: Path, *, check: bool = False, **choices: object) -> Data:
        """Import a file by this command, and notify the service; the fields of a request."""
        enrolment = self.enrolment
        plan = import_file(enrolment.store, path, enrolment.identity(), check=check, **choices)
        if check:
            return plan
        self.notify_service()
        return {**self.request(action="list"), "imported": plan}


def show_progress(data: Data) -> tuple[float, str]:
    """Return the share done and a text for the data of a progress report."""
    return float(data.get("share", 0.0)), str(data.get("doing", ""))


def list_lines(data: Data) -> Iterator[str]:
    """Describe what is taught, in lines, and what was imported, if anything was."""
    if "imported" in data:
        yield from plan_lines(data["imported"], done=True)
    yield f"version {data['version']} ({data['change']})"
    for smell in data["smells"]:
        in_use = "in use" if smell["negative"] else "announced"
        state = "in shadow" if smell["shadow"] else in_use
        yield (
            f"  {smell['label']:<24} {state:<10} {counted(smell['exposures'], 'exposure')} from "
            f"{counted(smell['sessions'], 'session')}, {smell['seconds']:.0f} s, last "
            f"{smell['taught']}{', of another board' if smell['other_board'] else ''}"
        )
    if not data["smells"]:
        yield "  nothing was taught yet"
    yield from (f"  {label:<24} hidden" for label in data["hidden"])
    yield from (f"  {label:<24} is called {name}" for label, name in data["renamed"].items())
    if "effect_ms" in data:
        yield f"in effect after {data['effect_ms']:.0f} ms"
