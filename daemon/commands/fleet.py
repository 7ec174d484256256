"""Daemon: `scentd fleet`: show and change many rigs of one broker."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
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
    topics_compared,
)
from daemon.fleet.waves import Plan, send_in_waves
from daemon.mqtt.topics import INFO, ONLINE
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
  scentd fleet bench --rigs 200 --services 4
"""

NONE = "-"

NAMES_SHOWN = 8
"""Rigs of a longer list that are named in a text for people; `--json` names all."""


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
    _add_bench_options(
        commands.add_parser(
            "bench",
            help="measure a fleet of simulated rigs, and real services, on this machine",
            epilog="Example: scentd fleet bench --rigs 200 --services 4 --outage 10",
        )
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


def _add_bench_options(bench: argparse.ArgumentParser) -> None:
    bench.description = (
        "Start a Mosquitto, and simulated rigs with the service's own MQTT code (last will, "
        "retained messages, payloads, requests): count messages, time scentd fleet over all of "
        "them, kill the broker, and time the return of all rigs. Then the same with real "
        "services on simulated boards. Prints a table in Markdown. 1,000 rigs and 20 services "
        "need about 2 GB of memory and six minutes. Exits 1 if a message was lost or a target "
        "was missed."
    )
    for option, default, text in (
        ("--rigs", 1000, "simulated rigs"),
        ("--services", 20, "real services"),
    ):
        bench.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    bench.add_argument(
        "--outage",
        type=float,
        action="append",
        metavar="S",
        help="seconds without the broker; can be given several times (default: 0 and 30)",
    )
    bench.add_argument(
        "--seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="length of the measurement of messages and processor time (default: %(default)g)",
    )
    bench.add_argument(
        "--model",
        default="substances-50",
        metavar="MODEL",
        help="bundle of every rig, by name or folder (default: %(default)s)",
    )
    bench.add_argument("--json", action="store_true", help="print one JSON object")
    bench.set_defaults(run=_run_bench)


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
    well = sum(row["online"] and row["board"] for row in rows)
    if len(rows) > NAMES_SHOWN:
        print(f"{well} of {len(rows)} rigs are online with their boards", file=sys.stderr)
    return 0 if well == len(rows) else 1


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
    wanted = topics_compared(args.where) | {INFO}
    with connect_fleet(load_config(args.config).mqtt, wanted) as fleet:
        chosen = choose_rigs(fleet.rigs, args.where)
    running: dict[tuple[str, str], list[str]] = {}
    for rig in chosen:
        for item in model_versions(rig).items():
            running.setdefault(item, []).append(rig.rig_id)
    rows = [
        {
            "model": name,
            "version": version,
            "rigs": len(rigs),
            "names": ", ".join(rigs) if args.json else _names(rigs),
        }
        for (name, version), rigs in sorted(running.items())
    ]
    _print_rows(rows, as_json=args.json)
    return 0


def _run_command(args: argparse.Namespace) -> int:
    """Send the request in waves and print what became of it; return 1 unless every rig did it."""
    plan, fields = _plan(args), _fields(args.fields)
    with connect_fleet(load_config(args.config).mqtt, topics_compared(args.where)) as fleet:
        rigs = [rig.rig_id for rig in choose_rigs(fleet.rigs, args.where) if rig.is_online]
        if not rigs:
            raise UsageError("No rig that is online fulfils --where; see scentd fleet status.")
        rollout = send_in_waves(
            rigs,
            plan,
            lambda wave: _send_wave(fleet, wave, args, fields),
            lambda: fleet.wait(args.pause),
        )
    _print_rows([dataclasses.asdict(outcome) for outcome in rollout.outcomes], as_json=args.json)
    _report(rollout)
    return 0 if rollout.ok else 1


def _run_bench(args: argparse.Namespace) -> int:
    """Measure a fleet and print the table; return 1 if a target was missed."""
    # numpy and ONNX Runtime, which the other actions do not need.
    from daemon.fleet_bench.light_fleet import measure_fleet  # noqa: PLC0415
    from daemon.fleet_bench.real_rigs import measure_services  # noqa: PLC0415
    from daemon.fleet_bench.table import fleet_table, holds  # noqa: PLC0415

    outages_s = [0.0, 30.0] if args.outage is None else args.outage
    if min(args.rigs, args.services, args.seconds, *outages_s) < 0:
        raise UsageError("--rigs, --services, --seconds and --outage must be at least 0.")
    fleet = services = None
    if args.rigs:
        fleet = measure_fleet(
            args.rigs, args.model, outages_s=outages_s, load_s=args.seconds, progress=_report_bench
        )
    if args.services:
        services = measure_services(
            args.services,
            args.model,
            outage_s=max(outages_s),
            load_s=args.seconds,
            progress=_report_bench,
        )
    ok = holds(fleet, services)
    if args.json:
        figures = {
            "rigs": fleet and dataclasses.asdict(fleet),
            "services": services and dataclasses.asdict(services),
            "holds": ok,
        }
        print(json.dumps(figures))
    else:
        print(fleet_table(fleet, services))
    return 0 if ok else 1


def _report_bench(what: str) -> None:
    print(f"Measuring: {what} ...", file=sys.stderr, flush=True)


def _send_wave(
    fleet: FleetConnection, wave: list[str], args: argparse.Namespace, fields: dict[str, Any]
) -> list[RigAnswer]:
    print(f"request/{args.command} to {_names(wave)} ...", file=sys.stderr)
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
        print(f"not asked: {_names(rollout.left_out)}", file=sys.stderr)


def _names(rigs: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    if len(rigs) <= NAMES_SHOWN:
        return ", ".join(rigs)
    return f"{', '.join(rigs[:NAMES_SHOWN])} and {len(rigs) - NAMES_SHOWN} more"


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
