"""Daemon: what several commands share: work by the running service or here, and its printing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from daemon.config.loading import load_config
from daemon.config.settings import LogConfig
from daemon.mqtt.service_client import send_request, service_is_online
from daemon.system.logs import configure_logs
from daemon.system.owner import act_as_owner
from daemon.system.progress import Progress
from daemon.system.state_lock import StateHeldError, holder_of
from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from daemon.config.settings import Config
    from daemon.system.background import Data

ANSWER_TIMEOUT_S = 120.0
"""Longest silence of a service that works on a request: it reports its progress every second."""


def log_warnings_only() -> None:
    """Log warnings and errors, to standard error: standard output holds the answer."""
    configure_logs(LogConfig(level="warning"))


def load_rig(path: Path | None) -> Config:
    """Return a rig's configuration, for a command that logs warnings only."""
    log_warnings_only()
    return as_owner(load_config(path))


def as_owner(config: Config) -> Config:
    """Let this command act as the owner of the rig's state folder; return how it reaches that."""
    return replace(config, state_dir=act_as_owner(config.state_dir))


def do_by_service_or_here(
    config: Config,
    command: str,
    payload: Data,
    do_here: Callable[[], Data],
    describe: Callable[[Data], tuple[float, str]],
) -> Data:
    """Send a request to the rig's running service, or call `do_here` if none runs.

    `describe` returns the share done and a text for the data of a progress report.

    Raises
    ------
    StateHeldError: a service runs that cannot be reached; it would not notice the change.
    """
    if not service_is_online(config):
        holder = holder_of(config.state_dir)
        if holder is not None:
            raise StateHeldError(
                f"A service runs on state_dir {config.state_dir} ({holder}) and is not reached "
                f"through the broker at {config.mqtt.host}:{config.mqtt.port}, so it would not "
                "notice the change. Start the broker, or stop the service first."
            )
        return do_here()
    with Progress() as progress:
        return send_request(
            config,
            command,
            payload,
            timeout_s=ANSWER_TIMEOUT_S,
            on_progress=lambda data: progress.show(*describe(data)),
        )


def refuse_last(last_s: float | None, instead: str) -> None:
    """Raise `UsageError` if `--last` was given, which only a running service can answer."""
    if last_s is not None:
        raise UsageError(
            "Only a running service remembers the last seconds, and none answers. Start it "
            f"(scentd run --config FILE), or leave --last out to {instead} now."
        )


def print_answer(answer: Data, describe: Callable[[Data], Iterable[str]], *, as_json: bool) -> None:
    """Print an answer as one JSON object, or the lines that describe it."""
    print(json.dumps(answer, allow_nan=False) if as_json else "\n".join(describe(answer)))


def print_notes(file: str | Path, notes: Sequence[str]) -> None:
    """Say what the columns of a file were taken for, where they are not plain."""
    if notes:
        print(f"{file}: {'; '.join(notes)}", file=sys.stderr)
