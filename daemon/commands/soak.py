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

from daemon.commands._service import log_warnings_only
from daemon.system.progress import Progress
from daemon.system.signals import StopEvent
from hardware.command_line import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from hardware.errors import ScentdError, UsageError

if TYPE_CHECKING:
    import argparse


FAULTS = 300


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Start simulated boards of 1 and 10 readings a second, a broker (Mosquitto if it is "
        "installed, else the demo's) and the real service with both models; inject faults of "
        "board, broker, process and disk one after the other, faster than real time; and judge "
        "each claim of docs/reliability.md: messages, readings, a replay of what the boards "
        "sent, delays, requests, retained topics, recovery times and power cuts. Exits with 1 if "
        "one does not hold. A fault takes about two seconds, so that 300 take some ten minutes."
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
    """Inject the faults; Ctrl-C ends the run early, with a report on what was done.

    The exit code is then 130, unless a message is unaccounted for.
    """
    if args.faults < 1:
        raise UsageError(f"--faults must be at least 1, got {args.faults}.")
    log_warnings_only()  # of the replay, which runs in this process
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
    if not result["holds"]:
        return EXIT_FAILED
    return EXIT_INTERRUPTED if stop.is_set() else EXIT_OK


class SoakError(ScentdError):
    """The service did not recover from a fault, or a part of the run failed."""


def _table(result: dict[str, Any], faults: str) -> str:
    rows = [
        ("faults", result["faults"]["total"], faults),
        *_reading_rows(result["readings"]),
        *_message_rows(result),
        *_judgement_rows(result),
        *(
            (
                f"recovery, {part}",
                f"{times['median']:.2f} s",
                f"longest {times['longest']:.2f} s, of {times['count']}; "
                f"{times['claimed']:g} s claimed",
            )
            for part, times in result["recovery_s"].items()
        ),
        (
            "duration",
            f"{result['real_s']:.0f} s",
            f"for {result['board_s'] / 3600:.1f} h of the boards' time, over {result['broker']}; "
            f"waited {result['lateness_s']:.1f} s for a processor",
        ),
    ]
    indent = "\n" + " " * 42
    lines = [
        f"{what:<30} {figure:>8}   {note.replace(chr(10), indent)}".rstrip()
        for what, figure, note in rows
    ]
    lines += [f"Not tested: {note}." for note in result["notes"]]
    lines += [f"Wrong: {complaint}." for complaint in result["complaints"]]
    return "\n".join([*lines, *([] if result["complaints"] else ["Every claim holds."])])


Row = tuple[str, int | str, str]


def _reading_rows(readings: dict[str, Any]) -> list[Row]:
    destroyed = readings["destroyed"]
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(destroyed.items()))
    return [
        ("lines sent", readings["sent"], ""),
        ("  decoded", readings["decoded"], ""),
        ("  destroyed by a fault", sum(destroyed.values()), kinds),
        ("  unread", readings["unread"], "as a port or a process ended or began"),
        ("  missing", readings["missing"], ""),
    ]


def _message_rows(result: dict[str, Any]) -> list[Row]:
    return [
        ("predictions and events made", result["made"], f"in {result['boots']} boots"),
        ("  delivered", result["delivered"], f"{result['late']} of them late"),
        (
            "  unwritten",
            result["unwritten"],
            f"made at most {result['unwritten_s']:.2f} s before one of {result['kills']} kill -9, "
            f"of which {result['power_cuts']} were power cuts",
        ),
        ("  dropped and counted", result["dropped"], "for lack of room"),
        ("  lost", result["lost"], ""),
        ("delivered once more", result["again"], "with the same boot_id and seq"),
        ("duplicated after seq", result["duplicated"], ""),
        ("out of order", result["disordered"], ""),
    ]


def _judgement_rows(result: dict[str, Any]) -> list[Row]:
    replay, delays, requests = (result[name] for name in ("announcements", "delays", "requests"))
    predicted = ", ".join(
        f"{model} {count} (with a name {replay['named'].get(model, 0)})"
        for model, count in sorted(replay["predicted"].items())
    )
    return [
        ("announcements of a replay", replay["replayed"], f"from windows: {predicted}"),
        ("  never made", replay["missing"] + replay["missing_events"], ""),
        ("  different", replay["different"], f"of {replay['compared']} that were delivered"),
        (
            "delay of predictions",
            f"{delays['prediction_s']:.2f} s",
            f"the longest of {delays['predictions']} undisturbed",
        ),
        (
            "delay of events",
            f"{delays['event_usual_s']:.2f} s",
            f"three in four; longest {delays['event_s']:.2f} s, of {delays['events']} undisturbed",
        ),
        (
            "requests answered",
            requests["answered"],
            f"of {requests['asked']}; {requests['undisturbed']} undisturbed, of which "
            f"{requests['unanswered']} unanswered, longest {requests['answer_s']:.2f} s",
        ),
        (
            "retained topics checked",
            result["retained"]["checks"],
            f"{len(result['retained']['problems'])} times wrong",
        ),
    ]
