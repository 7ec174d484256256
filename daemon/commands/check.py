"""Daemon: `scentd check`: test what a rig needs, and explain how to repair what fails."""

from __future__ import annotations

import json
from functools import partial
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

from daemon.board.listening import LISTEN_S, FoundBoard, listen_to_board
from daemon.calibrate.actions import active_profile
from daemon.commands._options import add_config_option, positive_seconds
from daemon.commands._service import as_owner, log_warnings_only
from daemon.config.loading import load_config
from daemon.installed_models.loading import load_models
from daemon.installed_models.onnx_runtime import (
    note_on_hidden_processors,
    processor,
    require_runtime,
)
from daemon.mqtt.connection import try_broker
from hardware.counting import counted
from hardware.errors import ScentdError
from models.board_identity import FOREIGN_BOARD
from models.correction import correction_for
from models.requirements import CannotFeedError, feeding_problem, is_resampled

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from daemon.config.settings import Config
    from models.bundle import Bundle

_T = TypeVar("_T")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Test a rig's configuration, its port and board, its broker and its models, and print "
        "for each that it is ok, or how to repair it. Stop the service first: it holds the port."
    )
    parser.epilog = "Example: scentd check --config /etc/scentd/scentd.yaml"
    add_config_option(parser)
    parser.add_argument(
        "--listen",
        type=positive_seconds,
        default=LISTEN_S,
        metavar="N",
        help="seconds to listen to the board at most (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Test everything; return 1 if anything fails."""
    log_warnings_only()
    report = _Report(quiet=args.json)
    config = report.attempt(
        "config",
        lambda: as_owner(load_config(args.config)),
        lambda config: f"rig {config.rig_id}, models {', '.join(config.models)}",
    )
    if config is not None:
        board = report.attempt(
            "board", lambda: listen_to_board(config.source, args.listen), FoundBoard.describe
        )
        report.attempt(
            "broker",
            lambda: try_broker(config.rig_id, config.mqtt),
            lambda version: f"{config.mqtt.host}:{config.mqtt.port} speaks MQTT {version}",
        )
        usable = report.attempt("ONNX Runtime", partial(_check_runtime, config), str)
        for name in config.models if usable else ():
            report.attempt(f"model {name}", partial(_check_model, name, config, board), str)
        report.attempt("state_dir", lambda: _check_writable(config.state_dir), str)
        if config.record:
            report.attempt("recordings", lambda: _check_writable(config.recordings_dir), str)
    if args.json:
        print(json.dumps(report.results))
    return 0 if all(result["ok"] for result in report.results) else 1


class _Report:
    """Results of the tests; each is printed at once, because some take seconds."""

    def __init__(self, *, quiet: bool) -> None:
        self.results: list[dict[str, Any]] = []
        self._quiet = quiet

    def attempt(
        self, what: str, work: Callable[[], _T], describe: Callable[[_T], str]
    ) -> _T | None:
        """Do one test; return its result, None if it failed."""
        result: _T | None = None
        try:
            result = work()
            text, ok = describe(result), True
        except ScentdError as error:
            text, ok = str(error), False
        self.results.append({"what": what, "ok": ok, "detail": text})
        if not self._quiet:
            print(f"{'ok    ' if ok else 'FAILED'}  {what}: {text}", flush=True)
        return result


def _check_runtime(config: Config) -> str:
    """Try ONNX Runtime in a child: where it cannot run, it may end this process."""
    require_runtime(config.state_dir)
    return ". ".join(filter(None, (f"works on {processor()}", note_on_hidden_processors())))


def _check_model(name: str, config: Config, board: FoundBoard | None) -> str:
    """Load a model, compare its needs with the board if one was found, and describe it."""
    (bundle,) = load_models(config, [name])
    manifest = bundle.manifest
    labels = counted(len(manifest.labels), f"{manifest.task} label")
    description = f"{manifest.name} {manifest.version}, {labels}, runs as {bundle.precision}"
    if board is None:
        return description
    problem = feeding_problem(manifest, board.channels, board.rate_hz)
    if problem is not None:
        raise CannotFeedError(
            f"{description}, but this board cannot feed it: {problem}. Leave it out of models, "
            "or set the board to another rate (firmware) or give it the channels."
        )
    if is_resampled(manifest, board.rate_hz):
        rate_hz = manifest.preprocessing.rate_hz
        description += f", with readings interpolated to {rate_hz:g} Hz"
    if _is_foreign(bundle, config, board):
        description += f"; if the sensors are warm: {FOREIGN_BOARD}"
    return description


def _is_foreign(bundle: Bundle, config: Config, board: FoundBoard) -> bool:
    """Whether a board is unlike that of a model's training, and no calibration leads there."""
    profile, _ = active_profile(config)
    correction = None if profile is None else profile.rig_correction()
    if bundle.board is None or correction_for(bundle.manifest.name, correction) is not None:
        return False
    return bundle.board.distance_of(board.values) > 1.0


def _check_writable(folder: Path) -> str:
    """Make a folder of the service as it would, and write a file there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ScentdError(
            f"The folder {folder} cannot be made or written ({error.strerror}). Set state_dir to a "
            "folder that scentd's user may write, or give this one to that user."
        ) from None
    return str(folder)
