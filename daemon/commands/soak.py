"""Leaf: `scentd soak`: a scripted storm of faults against the real service, and its balance.

Everything it does is in `daemon.soak`; loaded only when it is called.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.system.progress import Progress
from daemon.system.signals import Stop
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from hardware.command_line import Subparsers

FAULTS = 500


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "soak",
        help="let a storm of faults loose on the real service, and draw the balance",
        description=(
            "Start a simulated board, a broker (Mosquitto where it is installed, else the "
            "demo's) and the real service; let faults of board, broker, process and disk strike "
            "one after the other, faster than real time; and say what was made, what arrived, "
            "what came twice and what was lost. Ends with 1 if the balance does not hold. A "
            "fault takes about a second, so that 500 take some ten minutes."
        ),
        epilog="Example: scentd soak --faults 50 --seed 7",
    )
    parser.add_argument(
        "--faults", type=_count, default=FAULTS, metavar="N", help="how many (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="chance's seed (0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Let it storm; Ctrl-C ends it early, with the balance of what was."""
    drawing = import_module("daemon.soak.faults")
    soak = import_module("daemon.soak.main")
    faults = drawing.draw_faults(args.faults, args.seed)
    folder = Path(tempfile.mkdtemp(prefix="scentd-soak-"))
    stop = Stop()
    with stop.on_signals(), Progress() as progress:
        try:
            report = soak.run_soak(
                faults,
                folder,
                stop,
                seed=args.seed,
                on_fault=lambda number, fault: progress.show(number / len(faults), str(fault)),
            )
        except ScentdError as error:
            raise SoakError(
                f"{error}\nIts files are left in {folder} for you to look at."
            ) from None
    shutil.rmtree(folder, ignore_errors=True)
    result = report.as_json()
    if args.json:
        print(json.dumps(result))
    else:
        print(_table(result, drawing.summarise(report.faults)))
    return 0 if result["holds"] else 1


class SoakError(ScentdError):
    """The storm was not weathered."""


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def _table(result: dict[str, Any], faults: str) -> str:
    """Return the balance for people."""
    undecoded = result["sent"] - result["decoded"]
    rows = [
        ("faults", str(result["faults"]["total"]), faults),
        ("frames sent", str(result["sent"]), f"{undecoded} spoilt, unread at a kill, or cut off"),
        ("frames decoded", str(result["decoded"]), ""),
        ("lines rejected", str(result["rejected"]), "of a killed process, as far as it had told"),
        ("predictions and events made", str(result["made"]), f"in {result['boots']} boots"),
        ("  delivered", str(result["delivered"]), f"{result['late']} of them late"),
        (
            "  unwritten",
            str(result["unwritten"]),
            f"made at most {result['unwritten_s']:.2f} s before one of {result['kills']} kill -9",
        ),
        ("  dropped and counted", str(result["dropped"]), "for lack of room"),
        ("  lost", str(result["lost"]), ""),
        ("arrived once more", str(result["again"]), "told by boot_id and seq"),
        ("duplicated after seq", str(result["duplicated"]), ""),
        ("out of order", str(result["disordered"]), ""),
        *(
            (f"recovery, {side}", f"{took['median']:.2f} s", f"longest {took['longest']:.2f} s, "
             f"of {took['count']}")
            for side, took in result["recovery_s"].items()
        ),
        (
            "took",
            f"{result['real_s']:.0f} s",
            f"for {result['board_s'] / 3600:.1f} h of the board's time, over {result['broker']}",
        ),
    ]  # fmt: skip
    indent = "\n" + " " * 42
    lines = [
        f"{what:<30} {number:>8}   {told.replace(chr(10), indent)}".rstrip()
        for what, number, told in rows
    ]
    verdict = (
        "The balance holds."
        if result["holds"]
        else f"The balance does not hold: {'; '.join(result['complaints'])}."
    )
    return "\n".join([*lines, verdict])
