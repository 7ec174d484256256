"""Daemon: `scentd simulate`: put a simulated board behind a serial port.

May import the simulator and recordings. Opens no real port, connects to no broker, runs no model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from daemon.system.signals import StopEvent
from hardware.errors import UsageError
from hardware.recording import read_recording
from hardware.simulator.board import BoardReport, SimulatedBoard
from hardware.simulator.board_firmware import Dialect
from hardware.simulator.faults import describe_faults
from hardware.simulator.other_rig import FIXED_RIG, OtherRig, OtherRigSignal, read_rig
from hardware.simulator.scenario import AIR, find_substance, parse_scenario
from hardware.simulator.signals import ReplaySignal, SyntheticSignal
from hardware.simulator.tables import BOARD_NAMES, MIXTURE_BOARD, SUBSTANCE_BOARD, load_board

if TYPE_CHECKING:
    from hardware.simulator.signals import Signal

_CHECK_EVERY_S = 0.2
_MIXTURE_RATE_HZ = 5.0
"""From this rate on, the default is the board of the 10 Hz mixture recordings."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Put a simulated board on a pseudo-terminal that any serial program can open."
    )
    parser.epilog = (
        "example:\n"
        "  scentd simulate --synthetic almond:120,air:60,lemon:120 --speed 10 --link ./board\n"
        "  scentd simulate --replay almond.csv --rig other.yaml --link ./board\n"
        "  scentd run --config rig.yaml      # with source: {port: ./board}\n\n"
        "faults, as KIND[:CHANNEL]@START[:DURATION] in seconds of board time:\n"
        + indent(describe_faults(), "  ")
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--replay", type=Path, metavar="FILE", help="play a recording (CSV)")
    source.add_argument(
        "--synthetic",
        metavar="SCENARIO",
        help="play odours from the response model: almond:60,air:30,banana=.5+mango=.5:60",
    )
    source.add_argument(
        "--list", action="store_true", help="list the substances that can be played, and end"
    )
    parser.add_argument(
        "--rate", type=float, metavar="HZ", help="readings per second of board time"
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, metavar="X", help="board seconds per second (1)"
    )
    parser.add_argument("--loop", action="store_true", help="start again at the end, without limit")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of all that is random (0)"
    )
    parser.add_argument(
        "--day",
        type=int,
        default=0,
        metavar="N",
        help=(
            "play another day of the same rig: clean air and fingerprints differ as days of real "
            "rigs do (0: the day of the tables)"
        ),
    )
    parser.add_argument(
        "--faults", default="", metavar="SCHEDULE", help="which faults happen, and when"
    )
    parser.add_argument(
        "--dialect",
        choices=[dialect.value for dialect in Dialect],
        default=Dialect.SCENT.value,
        help="the board's line protocol (scent: checksums, sequence and clock)",
    )
    parser.add_argument(
        "--board",
        choices=BOARD_NAMES,
        help=(
            "fingerprints of the 50 substances at 1 Hz, or of the mixture recordings (the default "
            f"from {_MIXTURE_RATE_HZ:g} Hz on, if it knows all substances of the scenario)"
        ),
    )
    parser.add_argument(
        "--rig",
        metavar="FILE|SEED",
        help=(
            "play it as another rig would send it: the rig of a YAML file, one drawn at random by "
            f"this seed, or {FIXED_RIG.name!r}, the rig of the documented figures"
        ),
    )
    parser.add_argument("--link", type=Path, metavar="PATH", help="where to put the port's link")
    parser.add_argument(
        "--once",
        action="store_true",
        help="stop at the end of the signal (the default without --loop; explicit for scripts)",
    )
    parser.add_argument(
        "--no-wait",
        action="store_true",
        help="start at once; otherwise a signal without --loop starts when the port is opened",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play until the signal ends, Ctrl-C or SIGTERM.

    The link is removed in every case: it would soon lead to another terminal.
    """
    if args.list:
        for name in BOARD_NAMES:
            print(f"{name}: {', '.join((AIR, *load_board(name).substances))}")
        return 0
    if args.once and args.loop:
        raise UsageError("--once ends with the signal and --loop never ends; choose one of them.")
    board = SimulatedBoard(
        signal_of(args),
        dialect=args.dialect,
        link=args.link,
        speed=args.speed,
        faults=args.faults or (),
        seed=args.seed,
        wait_for_listener=not (args.loop or args.no_wait),
    )
    stop = StopEvent()
    with stop.on_signals(), board:
        print(board.port, flush=True)
        waits = "" if args.loop or args.no_wait else " It begins when the port is opened."
        announcement = f"A simulated board is at {board.port}.{waits} Ctrl-C unplugs it."
        print(announcement, file=sys.stderr, flush=True)
        while not (stop.is_set() or board.wait(timeout_s=_CHECK_EVERY_S)):
            pass
    print(_summary(board.report), file=sys.stderr)
    return 0


def signal_of(args: argparse.Namespace) -> Signal:
    """Return what the options ask to be played.

    Raises
    ------
    ScentdError: an unreadable scenario, recording or rig, or an impossible rate.
    """
    signal = _training_rig_signal(args)
    if args.rig is None:
        return signal
    if args.rig == FIXED_RIG.name:
        rig = FIXED_RIG
    else:
        rig = OtherRig.random(int(args.rig)) if args.rig.isdecimal() else read_rig(Path(args.rig))
    return OtherRigSignal(signal, rig)


def _training_rig_signal(args: argparse.Namespace) -> Signal:
    if args.replay is not None:
        if args.board is not None:
            raise UsageError("--board chooses fingerprints for --synthetic; --replay needs none.")
        if args.day != 0:
            raise UsageError("--day shifts what --synthetic plays; a recording has its own day.")
        return ReplaySignal(read_recording(args.replay), rate_hz=args.rate, loop=args.loop)
    board = args.board or _board_playing(args.synthetic, args.rate)
    return SyntheticSignal(
        args.synthetic,
        rate_hz=args.rate,
        seed=args.seed,
        day=args.day,
        loop=args.loop,
        board=board,
    )


def _board_playing(scenario: str, rate_hz: float | None) -> str:
    """Return the board of that rate; the other one where only it knows every substance."""
    by_rate = [SUBSTANCE_BOARD, MIXTURE_BOARD]
    if rate_hz is not None and rate_hz >= _MIXTURE_RATE_HZ:
        by_rate.reverse()
    known = {name: load_board(name).fingerprints for name in by_rate}
    episodes = parse_scenario(scenario, {one for some in known.values() for one in some})
    played = {substance for episode in episodes for substance, _ in episode.components}
    knowing = [name for name in by_rate if all(find_substance(one, known[name]) for one in played)]
    # With neither, the first one's error names what it cannot play.
    board = (knowing or by_rate)[0]
    if board != by_rate[0]:
        print(
            f"The board {by_rate[0]!r}, usual at this rate, has no fingerprint of everything in "
            f"the scenario, so the board {board!r} plays it.",
            file=sys.stderr,
        )
    return board


def _summary(report: BoardReport) -> str:
    counts = {
        "readings": report.readings,
        "bytes sent": report.sent_bytes,
        "lines without a listener": report.lines_without_listener,
        "bytes overrun": report.overrun_bytes,
        "readings missed": report.missed_readings,
        "boots": report.boots,
        "faults": report.faults,
    }
    return (
        "The simulated board was unplugged: "
        + ", ".join(f"{n} {what}" for what, n in counts.items() if n)
        + "."
    )
