"""Daemon: `scentd status`: show the state of a running service on a few lines.

Sends a request over the broker; opens no port, and of files the configuration alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.commands._options import add_config_option
from daemon.commands._service import print_answer
from daemon.config.loading import load_config
from daemon.mqtt.service_client import send_request
from hardware.counting import counted

if TYPE_CHECKING:
    import argparse

    from daemon.system.background import Data

UNLIKE_ITS_BOARD = (
    ", this board is unlike that of its training: it names only smells that the rig was taught, "
    "until the rig is calibrated"
)
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Show the state of a rig's running service: board, models, recording, broker, calibration. "
        "Exits 1 where none runs, or where something is wrong with it."
    )
    parser.epilog = "Example: scentd status --config /etc/scentd/scentd.yaml"
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Request the status and print it; return 1 if anything is wrong."""
    status = send_request(load_config(args.config), "status", {})
    print_answer(status, _lines, as_json=args.json)
    return 1 if status["troubles"] else 0


def _lines(status: Data) -> list[str]:
    rate = "" if status["rate_hz"] is None else f" at {status['rate_hz']:.3g} Hz"
    dialect = "" if status["dialect"] is None else f", dialect {status['dialect']}"
    outbox, recording = status["outbox"], status["recording"]
    lines = [
        f"rig {status['rig_id']}: scentd {status['scentd_version']}, up for "
        f"{_duration(status['uptime_s'])}, {status['rss_mb']:.0f} MB",
        f"  board        {status['board']}{rate}{dialect}; "
        f"{counted(status['frames_ok'], 'reading')}, {status['frames_lost']} lost",
        f"  broker       MQTT {status['broker']['protocol']}, connection "
        f"{status['broker']['connections']}; {counted(outbox['depth'], 'message')} waiting, "
        f"{outbox['dropped']} lost",
        f"  recording    {recording['state']}"
        + ("" if recording["segment"] is None else f" to {recording['segment']}"),
        f"  calibration  {status['calibration']['state']}"
        + _prefix(" ", status["calibration"]["profile"]),
    ]
    score = status["feedback"]
    if score["share_right"] is not None:
        judged = score["right"] + score["wrong"]
        lines.append(f"  feedback     {score['right']} right of {counted(judged, 'announcement')}")
    for name, model in status["models"].items():
        state = model["state"] or "nothing yet"
        probability = "" if model["probability"] is None else f" ({model['probability']:.0%})"
        lines.append(
            f"  {name:<12} {model['version']}: {state}{_prefix(' ', model['label'])}{probability}"
            f"{_prefix(': ', model['reason'])}"
            f"{', readings interpolated to its rate' if model['resampled'] else ''}"
            f"{UNLIKE_ITS_BOARD if model['foreign_board'] else ''}"
        )
    lines += [f"  TROUBLE      {trouble}" for trouble in status["troubles"]]
    return lines


def _prefix(prefix: str, text: str | None) -> str:
    return "" if text is None else f"{prefix}{text}"


def _duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    parts = []
    left = int(seconds)
    for unit, length_s in (("d", DAY_S), ("h", HOUR_S), ("min", MINUTE_S), ("s", 1)):
        count, left = divmod(left, length_s)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
