"""Daemon: `scentd record`: write a board's readings to a CSV that `replay` and the trainer read."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from daemon.board.diagnosis import BoardError, explain_no_reading, rejected_lines
from daemon.board.port import Chunk, PortClosed, PortOpened, SourceError, read_port
from daemon.commands._options import positive_seconds
from daemon.config.loading import load_config, source_from_options
from daemon.config.settings import BOARD_BAUD
from daemon.system.signals import StopEvent
from hardware.protocol import LineDecoder
from hardware.recording import RecordingWriter
from models.timing import Timeline

if TYPE_CHECKING:
    import argparse

    from daemon.config.settings import SourceConfig

STANDARD_OUTPUT = "-"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = "Write a board's readings to a CSV until Ctrl-C, or for some seconds."
    parser.epilog = "Example: scentd record --port /dev/ttyUSB0 --seconds 600 --output coffee.csv"
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", metavar="PATH", help="the serial port, for example /dev/ttyUSB0")
    where.add_argument(
        "--usb", metavar="VID:PID[:SERIAL]", help="the USB adapter, for example 10c4:ea60"
    )
    where.add_argument("--config", type=Path, metavar="FILE", help="take the source from this file")
    parser.add_argument(
        "--baud", type=int, default=BOARD_BAUD, help="bits per second (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="the CSV to write, which must not exist yet; - for standard output",
    )
    parser.add_argument(
        "--seconds", type=positive_seconds, metavar="N", help="stop after N seconds"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Record until a signal or `--seconds` ends it."""
    source = (
        source_from_options(port=args.port, usb=args.usb, baud=args.baud)
        if args.config is None
        else load_config(args.config).source
    )
    stop = StopEvent(after_s=args.seconds)
    target: Path | BinaryIO = (
        sys.stdout.buffer if args.output == STANDARD_OUTPUT else Path(args.output)
    )
    decoder = LineDecoder()
    with stop.on_signals(), RecordingWriter(target) as recording:
        try:
            received_bytes, listened_s = _record(source, decoder, recording, stop)
        finally:
            if isinstance(target, Path) and decoder.counts.frames == 0:
                target.unlink()  # only a header; the file would block the next attempt
    counts = decoder.counts
    trouble = explain_no_reading(
        counts,
        received_bytes=received_bytes,
        listened_s=listened_s,
        baud=source.baud,
        problem=decoder.problem,
    )
    if trouble is not None:
        raise BoardError(f"{trouble} Nothing was recorded.")
    rejected = sum(rejected_lines(counts).values())
    print(
        f"{counts.frames} readings in {args.output}; {rejected} lines rejected, "
        f"{counts.lost} readings lost.",
        file=sys.stderr,
    )
    return 0


def _record(
    source: SourceConfig, decoder: LineDecoder, recording: RecordingWriter, stop: StopEvent
) -> tuple[int, float]:
    """Write every frame; return the bytes received and the seconds since the port opened."""
    timeline = Timeline()
    received_bytes = 0
    opened_s: float | None = None
    for arrival in read_port(source, stop):
        if isinstance(arrival, Chunk):
            received_bytes += len(arrival.data)
            for frame in decoder.feed(arrival.data):
                recording.write(timeline.stamp(frame, arrival.arrival_ms), frame.values)
        elif isinstance(arrival, PortClosed):
            decoder.finish()
            if opened_s is None:
                raise SourceError(arrival.reason)
            print(f"scentd: {arrival.reason}", file=sys.stderr)
        elif isinstance(arrival, PortOpened):
            opened_s = opened_s or time.monotonic()
            print(f"Recording from {arrival.path}; Ctrl-C ends it.", file=sys.stderr)
    return received_bytes, time.monotonic() - (opened_s or time.monotonic())
