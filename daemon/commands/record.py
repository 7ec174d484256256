"""Daemon: `scentd record`: write a board's readings to a CSV that `replay` and the trainer read.

With a label, the readings are labelled for the trainer. While the service holds the port, it
records, and this command labels what it has recorded.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from daemon.board.diagnosis import BoardError, explain_no_reading, rejected_lines
from daemon.board.port import Chunk, PortClosed, PortOpened, SourceError, read_port
from daemon.commands._options import CONFIG_DEFAULT, positive_seconds
from daemon.commands._service import ANSWER_TIMEOUT_S, as_owner
from daemon.config.loading import load_config, source_from_options
from daemon.config.settings import BOARD_BAUD
from daemon.mqtt.service_client import send_request, service_is_online
from daemon.recording.requests import AUTHOR, RECORD
from daemon.system.progress import Progress
from daemon.system.signals import StopEvent
from hardware.counting import counted
from hardware.errors import UsageError
from hardware.labels import checked_label
from hardware.protocol import LineDecoder
from hardware.recording import RecordingWriter
from hardware.recording_labels import LabelledStretch, change_labels
from models.timing import Timeline

if TYPE_CHECKING:
    from daemon.config.settings import Config, SourceConfig
    from daemon.system.background import Data

STANDARD_OUTPUT = "-"

EPILOG = """Examples:
  scentd record coffee --seconds 180
  scentd record --port /dev/ttyUSB0 --seconds 600 --output coffee.csv
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Write a board's readings to a CSV until Ctrl-C, or for some seconds. With LABEL they are "
        "labelled for the trainer: begin in clean air, then bring the sample to the sensors. "
        "While the service holds the port, it records into its own segments."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("label", nargs="?", metavar="LABEL", help="name of the smell")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--port", metavar="PATH", help="the serial port, for example /dev/ttyUSB0")
    where.add_argument(
        "--usb", metavar="VID:PID[:SERIAL]", help="the USB adapter, for example 10c4:ea60"
    )
    where.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"take source and folder from this file ({CONFIG_DEFAULT})",
    )
    parser.add_argument(
        "--baud", type=int, default=BOARD_BAUD, help="bits per second (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="the CSV to write, which must not exist yet; - for standard output (default with "
        "LABEL: a file of its own in the rig's recordings folder)",
    )
    parser.add_argument(
        "--seconds", type=positive_seconds, metavar="N", help="stop after N seconds"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object about the file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Record until a signal or `--seconds` ends it."""
    label = None if args.label is None else checked_label(args.label)
    if label is None and args.output is None:
        raise UsageError(
            "Name the smell (scentd record LABEL), or a file for readings without a label "
            "(--output FILE)."
        )
    if label is not None and args.output == STANDARD_OUTPUT:
        raise UsageError(
            "A label is kept in a file beside the recording, so a recording on standard output "
            "has none. Name a file, or give no label."
        )
    config = None
    if args.port is None and args.usb is None:
        config = as_owner(load_config(args.config))
        source = config.source
    else:
        source = source_from_options(port=args.port, usb=args.usb, baud=args.baud)
    if label is not None and config is not None and args.output is None:
        result = _record_by_service(config, label, args.seconds)
        if result is not None:
            _print_result(result, as_json=args.json)
            return 0
    result = _record_here(source, _target(args.output, label, config), label, args.seconds)
    if args.json:
        print(json.dumps(result), file=sys.stderr if args.output == STANDARD_OUTPUT else sys.stdout)
    return 0


def _target(output: str | None, label: str | None, config: Config | None) -> Path | BinaryIO:
    """Return the file to write, or standard output."""
    if output == STANDARD_OUTPUT:
        return sys.stdout.buffer
    if output is not None:
        return Path(output)
    folder = Path.cwd() if config is None else config.recordings_dir
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9_]+", "_", str(label)).strip("_") or "smell"
    return folder / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.csv"


def _record_here(
    source: SourceConfig, target: Path | BinaryIO, label: str | None, seconds: float | None
) -> Data:
    """Read the port, and return what was recorded."""
    stop = StopEvent(after_s=seconds)
    decoder, written = LineDecoder(), _Written()
    with stop.on_signals(), RecordingWriter(target) as recording:
        try:
            received_bytes, listened_s = _record(source, decoder, recording, written, stop)
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
    if label is not None and isinstance(target, Path) and written.last_ms > written.first_ms:
        stretch = LabelledStretch(written.first_ms, written.last_ms, label, AUTHOR)
        change_labels(target.absolute(), lambda labels: labels.with_stretch(stretch))
    file = str(target) if isinstance(target, Path) else STANDARD_OUTPUT
    rejected = sum(rejected_lines(counts).values())
    labelled = "" if label is None else f", labelled {label}"
    print(
        f"{counted(counts.frames, 'reading')} in {file}{labelled}; "
        f"{counted(rejected, 'line')} rejected, "
        f"{counted(counts.lost, 'reading')} lost.",
        file=sys.stderr,
    )
    return {
        "file": file,
        "label": label,
        "readings": counts.frames,
        "rejected": rejected,
        "lost": counts.lost,
    }


class _Written:
    """Times of the first and the last row that were written."""

    first_ms = last_ms = 0

    def add(self, t_ms: int, *, is_first: bool) -> None:
        self.last_ms = t_ms
        if is_first:
            self.first_ms = t_ms


def _record(
    source: SourceConfig,
    decoder: LineDecoder,
    recording: RecordingWriter,
    written: _Written,
    stop: StopEvent,
) -> tuple[int, float]:
    """Write every frame; return the bytes received and the seconds since the port opened."""
    timeline = Timeline()
    received_bytes = 0
    opened_s: float | None = None
    is_first = True
    for arrival in read_port(source, stop):
        if isinstance(arrival, Chunk):
            received_bytes += len(arrival.data)
            for frame in decoder.feed(arrival.data):
                t_ms = timeline.stamp(frame, arrival.arrival_ms)
                recording.write(t_ms, frame.values)
                written.add(t_ms, is_first=is_first)
                is_first = False
        elif isinstance(arrival, PortClosed):
            decoder.finish()
            if opened_s is None:
                raise SourceError(arrival.reason)
            print(f"scentd: {arrival.reason}", file=sys.stderr)
        elif isinstance(arrival, PortOpened):
            opened_s = opened_s or time.monotonic()
            print(f"Recording from {arrival.path}; Ctrl-C ends it.", file=sys.stderr)
    return received_bytes, time.monotonic() - (opened_s or time.monotonic())


def _record_by_service(config: Config, label: str, seconds: float | None) -> Data | None:
    """Let the running service record, and label what it has recorded; None where none runs."""
    if not service_is_online(config):
        return None
    if seconds is not None:
        with Progress() as progress:
            return send_request(
                config,
                RECORD,
                {"action": "label", "label": label, "seconds": seconds},
                timeout_s=ANSWER_TIMEOUT_S,
                on_progress=lambda data: progress.show(
                    float(data.get("share", 0.0)), str(data.get("doing", ""))
                ),
            )
    was_off = send_request(config, RECORD, {})["recording"]["state"] == "off"
    if was_off:
        send_request(config, RECORD, {"action": "start"})
    try:
        stop, began_s = StopEvent(), time.monotonic()
        print("The service records; Ctrl-C ends it.", file=sys.stderr)
        with stop.on_signals():
            while not stop.wait(1.0):
                pass
        last_s = time.monotonic() - began_s
        return send_request(config, RECORD, {"action": "label", "label": label, "last_s": last_s})
    finally:
        if was_off:
            send_request(config, RECORD, {"action": "stop"})


def _print_result(result: Data, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    for part in result["labelled"]:
        seconds = (part["end_ms"] - part["start_ms"]) / 1000.0
        print(f"{seconds:.0f} s of {part['label']} in {part['file']}", file=sys.stderr)
