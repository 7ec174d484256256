"""Daemon: `scentd soak`: inject faults into the real service and report what was delivered.

The work is done in `daemon.soak`, which is loaded only when the command is called.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.system.progress import Progress
from daemon.system.signals import StopEvent
from hardware.errors import ScentdError, UsageError

if TYPE_CHECKING:
    import argparse


FAULTS = 500


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Start a simulated board, a broker (Mosquitto if it is installed, else the demo's) and "
        "the real service; inject faults of board, broker, process and disk one after the "
        "other, faster than real time; and report how many messages were made, delivered, "
        "repeated and lost. Exits with 1 if a message is unaccounted for. A fault takes about "
        "a second, so that 500 take some ten minutes."
    )
    parser.epilog = "Example: scentd soak --faults 50 --seed 7"
    parser.add_argument(
        "--faults", type=int, default=FAULTS, metavar="N", help="number of faults (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of kinds, order and lengths (0)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Inject the faults; Ctrl-C ends the run early, with a report on what was done."""
    if args.faults < 1:
        raise UsageError(f"--faults must be at least 1, got {args.faults}.")
    catalogue = import_module("daemon.soak.faults")
    soak = import_module("daemon.soak.main")
    faults = catalogue.draw_faults(args.faults, args.seed)
    folder = Path(tempfile.mkdtemp(prefix="scentd-soak-"))
    stop = StopEvent()
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
            raise SoakError(f"{error}\nIts files are in {folder}.") from None
    shutil.rmtree(folder, ignore_errors=True)
    result = report.as_json()
    if args.json:
        print(json.dumps(result))
    else:
        print(_table(result, catalogue.summarise(report.faults)))
    return 0 if result["holds"] else 1


class SoakError(ScentdError):
    """The service did not recover from a fault, or a part of the run failed."""


def _table(result: dict[str, Any], faults: str) -> str:
    undecoded = result["sent"] - result["decoded"]
    unwritten_s = f"{result['unwritten_s']:.2f} s"
    board_h = f"{result['board_s'] / 3600:.1f} h"
    rows = [
        ("faults", result["faults"]["total"], faults),
        ("lines sent", result["sent"], f"{undecoded} damaged, or lost at the end of a process"),
        ("readings decoded", result["decoded"], ""),
        ("lines rejected", result["rejected"], "of a killed process, up to its last report"),
        ("predictions and events made", result["made"], f"in {result['boots']} boots"),
        ("  delivered", result["delivered"], f"{result['late']} of them late"),
        (
            "  unwritten",
            result["unwritten"],
            f"made at most {unwritten_s} before one of {result['kills']} kill -9",
        ),
        ("  dropped and counted", result["dropped"], "for lack of room"),
        ("  lost", result["lost"], ""),
        ("delivered once more", result["again"], "with the same boot_id and seq"),
        ("duplicated after seq", result["duplicated"], ""),
        ("out of order", result["disordered"], ""),
        *(
            (
                f"recovery, {part}",
                f"{times['median']:.2f} s",
                f"longest {times['longest']:.2f} s, of {times['count']}",
            )
            for part, times in result["recovery_s"].items()
        ),
        (
            "duration",
            f"{result['real_s']:.0f} s",
            f"for {board_h} of the board's time, over {result['broker']}",
        ),
    ]
    indent = "\n" + " " * 42
    lines = [
        f"{what:<30} {figure:>8}   {note.replace(chr(10), indent)}".rstrip()
        for what, figure, note in rows
    ]
    complaints = "; ".join(result["complaints"])
    lines.append(f"Wrong: {complaints}." if complaints else "Every message is accounted for.")
    return "\n".join(lines)
