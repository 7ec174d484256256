"""Leaf: `scentd bench`: what this machine makes of scentd, measured on the real parts.

Needs no board, no broker and no data: the readings come from the simulator.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from daemon.mqtt.outbox import FILE_NAME, Message, Outbox
from daemon.sandbox.service_process import ServiceProcess
from hardware.protocol import LineDecoder, encode_scent
from hardware.recording import RecordingWriter, read_recording
from hardware.simulator.board import SimulatedBoard
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import MIXTURE_BOARD
from models.bundle import Bundle, load_bundle
from models.nose import Nose

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from hardware.command_line import Subparsers
    from models.bundle import Outputs

MODELS = ("substances-50", "mixtures-12")
"""The first one's inference is reported by `--json`, as is its replay."""

RATE_HZ = 10.0
"""The faster of the two rates that models run at, and so the dearer one."""

ODOURS = "air:60,banana:120,air:60"
"""What the board smells: air and odours cost the same, so any scenario would do."""

STRETCH = 50
"""Readings between two inferences: five seconds at 10 Hz."""

REPEATS = 3
INFERENCES = 300
OUTBOX_MESSAGES = 300
OUTBOX_PAYLOAD_BYTES = 900
"""What a prediction of the shipped models takes."""

OUTBOX_PATIENCE_S = 10.0
IDLE_S = 60.0
"""Real seconds that the service is watched at the board's own pace: a dozen predictions."""

SERVICE_SPEED = 20.0
SERVICE_BOARD_S = 240.0
"""Four minutes of the board's time fill every window and buffer."""

_PATIENCE = 4.0
"""How much longer than at full speed the service may take on a busy machine."""

PRECISIONS: tuple[Literal["int8", "fp32"], ...] = ("int8", "fp32")

RunTimes = dict[str, list[float]]
"""Milliseconds of every run of a full window, per precision."""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed and memory on this machine",
        description=(
            "Measure on this machine, with the shipped models: the cost of a sample outside "
            "inference, inference in int8 and float32, the outbox, the service's start and memory, "
            "the throughput of a replay, and what the service costs at the board's own pace. Takes "
            "about two minutes."
        ),
        epilog="Example: scentd bench --json",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure everything and print it."""
    _tell("the cost of a sample")
    rows = _readings()
    per_sample_us = measure_sample_us(rows)
    inferences = {}
    for model in MODELS:
        _tell(f"inference of {model}")
        inferences[model] = measure_inference(model)
    _tell("the outbox")
    outbox_ms = measure_outbox()
    _tell("a replay")
    replay_samples_per_s = measure_replay(rows)
    _tell("the service")
    ready_s, rss_mb = measure_service()
    _tell(f"the service at {RATE_HZ:g} Hz, for {IDLE_S:.0f} s")
    idle_cpu_percent = measure_idle()
    result = {
        "per_sample_us": round(per_sample_us, 2),
        "inference_ms": _percentiles(inferences[MODELS[0]]),
        "outbox_ms": {name: _shares(times, digits=4) for name, times in outbox_ms.items()},
        "ready_s": round(ready_s, 3),
        "rss_mb": round(rss_mb, 1),
        "idle_cpu_percent": round(idle_cpu_percent, 2),
        "replay_samples_per_s": round(replay_samples_per_s),
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(_table(result, {model: _percentiles(inferences[model]) for model in MODELS}))
    return 0


class _TimedBundle(Bundle):
    """A model that knows how long it has run, so that the rest can be told apart."""

    def __init__(self, bundle: Bundle) -> None:
        vars(self).update(vars(bundle))  # the very same model, its session included
        self.spent_s = 0.0

    def run(self, x: NDArray[np.float32], mask: NDArray[np.float32]) -> Outputs:
        """Run the network and add up this thread's processor time."""
        started_s = time.thread_time()
        outputs = super().run(x, mask)
        self.spent_s += time.thread_time() - started_s
        return outputs


def _readings() -> list[NDArray[np.float32]]:
    return list(SyntheticSignal(ODOURS, rate_hz=RATE_HZ, board=MIXTURE_BOARD))


def measure_sample_us(rows: Sequence[NDArray[np.float32]]) -> float:
    """Return microseconds a line takes through decoder, health and nose, inference left out.

    In processor time, which a busy machine blurs little. Both models listen at 10 Hz, and every
    line comes alone, as from a port. The median over stretches of `STRETCH` lines: in each, every
    model turns its samples into features once, so that a stretch is a fair mean.
    """
    period_ms = 1000.0 / RATE_HZ
    lines = [encode_scent(seq, round(seq * period_ms), row) for seq, row in enumerate(rows)]
    bundles = [_TimedBundle(load_bundle(model)) for model in MODELS]
    decoder, nose = LineDecoder(), Nose(bundles)
    costs = []
    for start in range(0, len(lines) - STRETCH + 1, STRETCH):
        started_s = time.thread_time()
        before_s = sum(bundle.spent_s for bundle in bundles)
        for line in lines[start : start + STRETCH]:
            for frame in decoder.feed(line):
                nose.process(frame)
        taken_s = time.thread_time() - started_s
        spent_s = sum(bundle.spent_s for bundle in bundles) - before_s
        costs.append((taken_s - spent_s) / STRETCH * 1e6)
    return statistics.median(costs)


def measure_inference(model: str) -> RunTimes:
    """Time full windows in int8 and float32, in turn, so that a busy moment meets both."""
    bundles = {name: load_bundle(model, name) for name in PRECISIONS}
    spec = bundles["int8"].manifest.preprocessing
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, spec.window, spec.n_features)).astype(np.float32)
    mask = np.ones((1, spec.window), dtype=np.float32)
    times: RunTimes = {name: [] for name in PRECISIONS}
    for _ in range(INFERENCES):
        for name, bundle in bundles.items():
            started_s = time.perf_counter()
            bundle.run(x, mask)
            times[name].append((time.perf_counter() - started_s) * 1000)
    return times


def measure_outbox() -> dict[str, list[float]]:
    """Time messages on their way into a durable outbox below the folder for temporary files.

    Returns
    -------
    dict
        Milliseconds of every message: `put`, what the pipeline waits for; `written`, until it is
        safe on disk and may be sent. Each is an event, which is synchronised by itself; predictions
        share the disk's work.
    """
    payload = json.dumps({"seq": 0, "text": "x" * OUTBOX_PAYLOAD_BYTES})
    times: dict[str, list[float]] = {"put": [], "written": []}
    with (
        tempfile.TemporaryDirectory(prefix="scentd-") as folder,
        Outbox(Path(folder, FILE_NAME)) as outbox,
    ):
        for _ in range(OUTBOX_MESSAGES):
            started_s = time.perf_counter()
            outbox.put(Message("event", payload, 1, retain=False))
            times["put"].append((time.perf_counter() - started_s) * 1000)
            outbox.flush(OUTBOX_PATIENCE_S)
            times["written"].append((time.perf_counter() - started_s) * 1000)
            if (entry := outbox.take()) is not None:
                outbox.acknowledge(entry.id)
    return times


def measure_replay(rows: Sequence[NDArray[np.float32]]) -> float:
    """Return samples a second from a recording's file to predictions, inference included."""
    bundle = load_bundle(MODELS[0])
    with tempfile.TemporaryDirectory(prefix="scentd-") as folder:
        path = Path(folder, "recording.csv")
        with RecordingWriter(path) as writer:
            for reading, row in enumerate(rows):
                writer.write(round(reading * 1000 / RATE_HZ), row)
        rates = []
        for _ in range(REPEATS):
            started_s = time.perf_counter()
            recording = read_recording(path)
            nose = Nose([bundle], skip_warm_up=True)
            for frame in recording.frames():
                nose.process(frame)
            rates.append(len(recording) / (time.perf_counter() - started_s))
    return statistics.median(rates)


def measure_service() -> tuple[float, float]:
    """Return seconds to ready (the median of several starts) and resident megabytes.

    A real `scentd run` with both models, a board on a pseudo-terminal and no broker; its memory
    is read after minutes of the board's time.
    """
    ready_s = []
    for _ in range(REPEATS - 1):
        with _service() as service:
            ready_s.append(service.ready_s)
    with _board() as board, _service(board) as service:
        ready_s.append(service.ready_s)
        wanted = SERVICE_BOARD_S * RATE_HZ
        give_up_s = time.monotonic() + _PATIENCE * SERVICE_BOARD_S / SERVICE_SPEED
        while board.report.readings < wanted and time.monotonic() < give_up_s:
            service.check()
            time.sleep(0.1)
        return statistics.median(ready_s), service.resident_mb()


def measure_idle() -> float:
    """Return the percentage of one core that the service takes at 10 Hz and its usual stride.

    A real `scentd run` with one model, a board in real time and no broker; processor time of the
    process, over all of its threads.
    """
    with _board(speed=1.0) as board, _service(board, MODELS[1:]) as service:
        while board.report.readings < RATE_HZ:  # past the start's own cost
            time.sleep(0.1)
        began_s, spent_s = time.monotonic(), service.processor_s()
        while time.monotonic() < began_s + IDLE_S:
            service.check()
            time.sleep(1.0)
        return 100.0 * (service.processor_s() - spent_s) / (time.monotonic() - began_s)


def _board(speed: float = SERVICE_SPEED) -> SimulatedBoard:
    signal = SyntheticSignal(ODOURS, rate_hz=RATE_HZ, loop=True, board=MIXTURE_BOARD)
    return SimulatedBoard(signal, speed=speed, wait_for_listener=True)


@contextmanager
def _service(
    board: SimulatedBoard | None = None, models: Sequence[str] = MODELS
) -> Iterator[ServiceProcess]:
    """Run a service that finds no broker, and no board either where none is given."""
    with socket.socket() as taken, tempfile.TemporaryDirectory(prefix="scentd-") as folder:
        # Bound but not listening: nobody else can become a broker there meanwhile.
        taken.bind(("127.0.0.1", 0))
        settings = {
            "rig_id": "bench",
            "source": {"port": "/dev/scentd-bench" if board is None else board.port},
            "models": list(models),
            "mqtt": {"host": "127.0.0.1", "port": taken.getsockname()[1]},
        }
        with ServiceProcess(Path(folder), settings) as service:
            yield service


def _percentiles(times: RunTimes) -> dict[str, dict[str, float]]:
    """Return the median and the 99th percentile of each precision, in milliseconds."""
    return {name: _shares(runs, digits=3) for name, runs in times.items()}


def _shares(runs: list[float], *, digits: int) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile(runs, share)), digits) for share in (50, 99)}


def _table(result: dict[str, Any], inferences: dict[str, Any]) -> str:
    """Return the figures with their targets, for people."""
    rows = [("cost of a sample outside inference", f"{result['per_sample_us']:.1f} us", "<= 50 us")]
    for model, times in inferences.items():
        for name in PRECISIONS:
            told = f"{times[name]['p50']:.2f} ms, p99 {times[name]['p99']:.2f} ms"
            target = "<= 1.5 ms, below fp32" if name == "int8" else ""
            rows.append((f"{model}, inference {name}", told, target))
    put, written = result["outbox_ms"]["put"], result["outbox_ms"]["written"]
    rows += [
        ("outbox: handing over a message", f"{put['p50'] * 1000:.0f} us", "<= 1 ms"),
        ("outbox: until an event is safe on disk", f"{written['p50']:.2f} ms", ""),
        ("service: start to ready", f"{result['ready_s']:.2f} s", "<= 0.7 s"),
        ("service: resident memory, both models", f"{result['rss_mb']:.1f} MB", "<= 80 MB"),
        ("service: processor at 10 Hz", f"{result['idle_cpu_percent']:.2f} %", "<= 1 %"),
        ("replay", f"{result['replay_samples_per_s']} samples/s", ""),
    ]
    heading = f"{'':<40} {'here':<26} target (x86 server, one core)"
    lines = [heading, *(f"{what:<40} {here:<26} {target}" for what, here, target in rows)]
    return "\n".join(lines)


def _tell(what: str) -> None:
    print(f"Measuring {what} ...", file=sys.stderr, flush=True)
