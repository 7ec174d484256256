"""Leaf: `scentd status`: a running rig in one look.

Asks the service over the broker, as anybody may who is allowed to; opens no port and no file but
the configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.config.loading import load_config
from daemon.mqtt.service_client import send_request

if TYPE_CHECKING:
    import argparse

    from hardware.command_line import Subparsers

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "status",
        help="show how the running service is",
        description=(
            "Show how a rig's running service is: board, models, recording, broker, calibration. "
            "Exits 1 where none runs, or where something is wrong with it."
        ),
        epilog="Example: scentd status --config /etc/scentd/scentd.yaml",
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the rig's YAML file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask and print; return 1 if anything is wrong."""
    told = send_request(load_config(args.config), "status", {})
    if args.json:
        print(json.dumps(told))
    else:
        print("\n".join(lines_of(told)))
    return 1 if told["troubles"] else 0


def lines_of(told: dict[str, Any]) -> list[str]:
    """Return what people want to read of an answer to `request/status`."""
    rate = "" if told["rate_hz"] is None else f" at {told['rate_hz']:.3g} Hz"
    dialect = "" if told["dialect"] is None else f", dialect {told['dialect']}"
    outbox, recording = told["outbox"], told["recording"]
    lines = [
        f"rig {told['rig_id']}: scentd {told['scentd_version']}, up for "
        f"{_duration(told['uptime_s'])}, {told['rss_mb']:.0f} MB",
        f"  board        {told['board']}{rate}{dialect}; {told['frames_ok']} readings, "
        f"{told['frames_lost']} lost",
        f"  broker       MQTT {told['broker']['protocol']}, connection "
        f"{told['broker']['connections']}; {outbox['depth']} messages wait, "
        f"{outbox['dropped']} lost",
        f"  recording    {recording['state']}"
        + ("" if recording["segment"] is None else f" to {recording['segment']}"),
        f"  calibration  {told['calibration']['state']}"
        + _named(" ", told["calibration"]["profile"]),
    ]
    for name, model in told["models"].items():
        said = model["state"] or "nothing yet"
        sure = "" if model["probability"] is None else f" ({model['probability']:.0%})"
        lines.append(
            f"  {name:<12} {model['version']}: {said}{_named(' ', model['label'])}{sure}"
            f"{_named(': ', model['reason'])}"
        )
    lines += [f"  TROUBLE      {trouble}" for trouble in told["troubles"]]
    return lines


def _named(before: str, text: str | None) -> str:
    return "" if text is None else f"{before}{text}"


def _duration(seconds: float) -> str:
    """Return a time as people say it, its two largest units."""
    parts = []
    left = int(seconds)
    for unit, length_s in (("d", DAY_S), ("h", HOUR_S), ("min", MINUTE_S), ("s", 1)):
        count, left = divmod(left, length_s)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
