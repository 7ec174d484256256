"""Daemon: `scentd fleet`: show and change many rigs of one broker."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from daemon.commands._options import add_config_option
from daemon.config.loading import load_config
from daemon.fleet.connection import connect_fleet
from daemon.fleet.selection import (
    FIELDS,
    choose_rigs,
    model_versions,
    parse_condition,
    scentd_version,
)
from daemon.fleet.waves import Plan, send_in_waves
from daemon.mqtt.topics import ONLINE
from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.fleet.connection import FleetConnection
    from daemon.fleet.rig_state import WatchedRig
    from daemon.fleet.waves import RigAnswer, Rollout

EPILOG = """Examples:
  scentd fleet status --where online=no
  scentd fleet models --where 'rig=lab-*'
  scentd fleet run models '{"action": "rollback"}' --where model=substances-50@0.3.0
  scentd fleet run reload --canary 2 --wave 20 --pause 30
"""

NONE = "-"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their options."""
    parser.description = (
        "Show many rigs of one broker, and send requests to them: first to a canary, then in "
        "waves, until one fails. The configuration of any rig of the broker names the broker. "
        f"--where chooses rigs by {', '.join(FIELDS)}; * and ? stand for any text."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    status = commands.add_parser(
        "status",
        help="a line for each rig",
        epilog="Example: scentd fleet status --where online=no",
    )
    models = commands.add_parser(
        "models",
        help="which rigs run which version of each model",
        epilog="Example: scentd fleet models --where rig=lab-*",
    )
    run_one = commands.add_parser(
        "run",
        help="send a request to each rig, in waves",
        epilog="Example: scentd fleet run reload --canary 2 --wave 20 --pause 30",
    )
    run_one.add_argument("command", metavar="CMD", help="request, as below request/: reload ...")
    run_one.add_argument(
        "fields", nargs="?", default="{}", metavar="JSON", help="its fields (default: none)"
    )
    plan = Plan()
    for option, default, text in (
        ("--canary", plan.canary, "rigs that are tried first, alone"),
        ("--wave", plan.wave, "rigs of every other wave"),
        ("--failures", plan.failures, "failures in all that stop what is not sent yet"),
    ):
        run_one.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    run_one.add_argument(
        "--pause",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds between two waves (default: %(default)g)",
    )
    for command, function in (
        (status, _run_status),
        (models, _run_models),
        (run_one, _run_command),
    ):
        command.add_argument(
            "--where",
            action="append",
            default=[],
            type=_condition,
            metavar="FIELD=PATTERN",
            help="only rigs for which it holds; can be given several times",
        )
        add_config_option(command)
        command.add_argument("--json", action="store_true", help="print one JSON object a line")
        command.set_defaults(run=function)


def _condition(text: str) -> Any:
    try:
        return parse_condition(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run_status(args: argparse.Namespace) -> int:
    """Print a line for each chosen rig; return 1 if one is offline or has no board."""
    with connect_fleet(load_config(args.config).mqtt) as fleet:
        rows = [_status(rig) for rig in choose_rigs(fleet.rigs, args.where)]
    _print_rows(rows, as_json=args.json)
    return 0 if all(row["online"] and row["board"] for row in rows) else 1


def _status(rig: WatchedRig) -> dict[str, Any]:
    health, newest = rig.health or {}, list(rig.predictions.values())
    named = [str(payload["label"]) for payload in newest if payload.get("label")]
    return {
        "rig": rig.rig_id,
        "online": rig.is_online,
        "board": rig.is_online and rig.sensor_status == ONLINE,
        "version": scentd_version(rig),
        "rate_hz": health.get("rate_hz"),
        "waiting": health.get("outbox_depth"),
        "memory_mb": health.get("rss_mb"),
        "state": ", ".join(str(payload.get("state")) for payload in newest) or None,
        "label": ", ".join(named) or None,
    }


def _run_models(args: argparse.Namespace) -> int:
    """Print the versions of every model, with the number and names of the rigs that run them."""
    with connect_fleet(load_config(args.config).mqtt) as fleet:
        chosen = choose_rigs(fleet.rigs, args.where)
    running: dict[tuple[str, str], list[str]] = {}
    for rig in chosen:
        for item in model_versions(rig).items():
            running.setdefault(item, []).append(rig.rig_id)
    rows = [
        {"model": name, "version": version, "rigs": len(rigs), "names": ", ".join(rigs)}
        for (name, version), rigs in sorted(running.items())
    ]
    _print_rows(rows, as_json=args.json)
    return 0


def _run_command(args: argparse.Namespace) -> int:
    """Send the request in waves and print what became of it; return 1 unless every rig did it."""
    plan, fields = _plan(args), _fields(args.fields)
    with connect_fleet(load_config(args.config).mqtt) as fleet:
        rigs = [rig.rig_id for rig in choose_rigs(fleet.rigs, args.where) if rig.is_online]
        if not rigs:
            raise UsageError("No rig that is online fulfils --where; see scentd fleet status.")
        rollout = send_in_waves(
            rigs,
            plan,
            lambda wave: _send_wave(fleet, wave, args, fields),
            lambda: time.sleep(args.pause),
        )
    _print_rows([dataclasses.asdict(outcome) for outcome in rollout.outcomes], as_json=args.json)
    _report(rollout)
    return 0 if rollout.ok else 1


def _send_wave(
    fleet: FleetConnection, wave: list[str], args: argparse.Namespace, fields: dict[str, Any]
) -> list[RigAnswer]:
    print(f"request/{args.command} to {', '.join(wave)} ...", file=sys.stderr)
    return fleet.send(wave, args.command, fields)


def _plan(args: argparse.Namespace) -> Plan:
    if args.canary < 0 or args.wave < 1 or args.failures < 1 or args.pause < 0:
        raise UsageError("--wave and --failures must be at least 1, --canary and --pause 0.")
    return Plan(args.canary, args.wave, args.failures)


def _fields(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise UsageError(
            f'The fields of the request must be a JSON object such as \'{{"action": "list"}}\', '
            f"and got {text!r}."
        )
    return fields


def _report(rollout: Rollout) -> None:
    failed = sum(not outcome.ok for outcome in rollout.outcomes)
    print(f"{len(rollout.outcomes) - failed} done, {failed} failed", file=sys.stderr)
    if rollout.left_out:
        print(f"not asked: {', '.join(rollout.left_out)}", file=sys.stderr)


def _print_rows(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows of the same fields as JSON lines, or as a table."""
    if as_json:
        for row in rows:
            print(json.dumps(row, allow_nan=False))
        return
    if not rows:
        print("No rig fulfils the conditions.", file=sys.stderr)
        return
    table = [
        [name.upper() for name in rows[0]],
        *([_cell(v) for v in row.values()] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print("\n".join(_line(cells, widths) for cells in table))


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return NONE if value is None else str(value).replace("\n", " ")
