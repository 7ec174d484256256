"""Daemon: `scentd demo`: show simulated boards, a broker and the real service, with no set-up.

The demo itself is in `daemon.demo` and needs the extra `demo`; missing packages are reported here.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.commands._options import positive_seconds
from daemon.system.signals import StopEvent
from hardware.errors import UsageError
from hardware.extras import require_extra

if TYPE_CHECKING:
    import argparse


EXTRA = ("amqtt", "rich", "prometheus_client", "starlette", "uvicorn", "websockets")
"""What the extra `demo` installs."""

_SEEDS = 1000
_LEAST_PACE, _LARGEST_PACE = 0.05, 5.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Teach two simulated rigs some smells, start an MQTT broker and a real scentd service per "
        "rig, and show over MQTT which odours are played and which are recognised, faster than "
        "real time. Needs no root, no Mosquitto and no data. At the end it prints a table of what "
        "was played and what was recognised."
    )
    parser.epilog = "Example: scentd demo --plain --seconds 60"
    parser.add_argument("--plain", action="store_true", help="print lines, for pipes")
    parser.add_argument("--seconds", type=positive_seconds, metavar="N", help="end after N seconds")
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="seed of the choice of odours (default: a random one)",
    )
    parser.add_argument(
        "--pace",
        type=float,
        default=1.0,
        metavar="X",
        help=f"run the boards X times as fast as usual, {_LEAST_PACE:g} to {_LARGEST_PACE:g}",
    )
    parser.add_argument(
        "--svg", type=Path, metavar="FILE", help="save a picture of the screen at its best moment"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play until Ctrl-C, SIGTERM or the deadline."""
    if not _LEAST_PACE <= args.pace <= _LARGEST_PACE:
        raise UsageError(
            f"--pace lies between {_LEAST_PACE:g} and {_LARGEST_PACE:g}, got {args.pace:g}; "
            "1 is the usual pace."
        )
    has_broker = import_module("daemon.sandbox.broker").mosquitto_program() is not None
    # Mosquitto takes the place of amqtt, as in the Debian package.
    require_extra("The demo", "demo", [name for name in EXTRA if name != "amqtt" or not has_broker])
    plain = args.plain or _needs_plain_output()
    seed = random.randrange(_SEEDS) if args.seed is None else args.seed
    stop = StopEvent()
    # A closed terminal window ends the demo as well, unless nohup keeps it.
    hang_up = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    with stop.on_signals(*hang_up):
        _print_note("Teaching the rigs, then starting boards, broker and services ...")
        if plain:
            _print_note(_naming_time())
        rigs = import_module("daemon.demo.main").run_demo(
            stop,
            plain=plain,
            seed=seed,
            seconds=args.seconds,
            pace=args.pace,
            picture=args.svg,
            on_page=_print_page,
        )
    print(import_module("daemon.demo.plain").summary(rigs))
    _print_note(f"To play the same odours again: scentd demo --seed {seed}")
    return 0


def _naming_time() -> str:
    """Return how long a name takes, for who reads lines; the screen says it where it is empty."""
    rig = import_module("daemon.demo.scenario").RIGS[0]
    return (
        f"A name takes {rig.named_after} of the board's time after an odour begins, which is "
        f"{rig.speed:g} times less here."
    )


def _needs_plain_output() -> bool:
    """Return whether the output cannot show a screen, and report why."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if not sys.stdout.isatty():
        why = "standard output is not a terminal"
    elif os.environ.get("TERM", "dumb") in {"dumb", "unknown"}:
        why = "this terminal cannot draw (TERM)"
    elif encoding != "utf8":
        why = f"this terminal's encoding is {sys.stdout.encoding}, not UTF-8"
    else:
        return False
    _print_note(f"Printing lines instead of drawing a screen, because {why}.")
    return True


def _print_page(address: str) -> None:
    _print_note(f"The page of both rigs, to see and teach them: {address}")


def _print_note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
