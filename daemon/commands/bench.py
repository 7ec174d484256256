"""Daemon: `scentd bench`: measures speed and memory of scentd on this machine, with the real parts.

Needs no board and no data: the readings come from the simulator. The time to a subscriber is
measured where Mosquitto is installed.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.installed_models.onnx_runtime import remember_runtime
from daemon.mqtt.outbox import Message, Outbox
from daemon.mqtt.outbox_values import OUTBOX_FILE
from daemon.sandbox.broker import LOOPBACK, Mosquitto, mosquitto_program
from daemon.sandbox.service_process import ServiceProcess
from daemon.sandbox.subscriber import Subscriber
from hardware.encoding import encode_scent
from hardware.protocol import LineDecoder
from hardware.recording import RecordingWriter, read_recording
from hardware.simulator.board import PseudoTerminal, SimulatedBoard
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import MIXTURE_BOARD
from models.bundle import Bundle, available_precisions, bundle_folder, load_bundle
from models.nose import Nose

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from models.bundle import Outputs

MODELS = ("substances-50", "mixtures-12")
"""`--json` reports inference and replay of the first."""

RATE_HZ = 10.0
"""The faster of the two rates that models run at, and so the more expensive one."""

SCENARIO = "air:60,banana:120,air:60"
"""What the board plays; air and odours cost the same, so the scenario does not matter."""

STRETCH = 50
"""Readings between two inferences: five seconds at 10 Hz."""

REPEATS = 3
INFERENCES = 300
OUTBOX_MESSAGES = 300
OUTBOX_PAYLOAD_BYTES = 900
"""Size of a prediction of the shipped models."""

OUTBOX_TIMEOUT_S = 10.0
IDLE_S = 60.0
"""Real seconds of the measurement at the board's own pace: a dozen predictions."""

SERVICE_SPEED = 20.0
SERVICE_BOARD_S = 240.0
"""Four minutes of the board's time fill every window and buffer."""

PUBLISHED = 40
READINGS_PER_PREDICTION = 5
"""The usual stride of five seconds, at 1 Hz."""

READING_S = 0.25
"""Four times as fast as the board. Predictions stay more than a second apart, as on a rig, so that
none waits until the previous one is written to disk."""

WARM_UP_READINGS = 150
"""Sent fast, before the measurement; after them clean air is known and the state is `ambient`."""

_BUSY_FACTOR = 4.0
"""On a busy machine the service may take this many times as long as at full speed."""

RunTimes = dict[str, list[float]]
"""Milliseconds of every run, by the name of the measurement."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Measure on this machine, with the shipped models: the cost of a sample outside "
        "inference, inference in int8 and float32, the outbox, the time from a reading to its "
        "prediction at a subscriber of Mosquitto (where that is installed), the service's "
        "start and memory, the throughput of a replay, and the cost of the service at the "
        "board's own pace. Takes about three minutes."
    )
    parser.epilog = "Example: scentd bench --json"
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure everything and print it."""
    _report("the cost of a sample")
    rows = list(SyntheticSignal(SCENARIO, rate_hz=RATE_HZ, board=MIXTURE_BOARD))
    per_sample_us = measure_sample_us(rows)
    inference_ms = {}
    for model in MODELS:
        _report(f"inference of {model}")
        inference_ms[model] = _percentiles(measure_inference(model), digits=3)
    _report("the outbox")
    outbox_ms = _percentiles(measure_outbox(), digits=4)
    _report("the time from a reading to a subscriber")
    publish_ms = _percentiles(measure_publish(), digits=2)
    _report("the throughput of a replay")
    replay_samples_per_s = measure_replay(rows)
    _report("start and memory of the service")
    ready_s, rss_mb = measure_service()
    _report(f"the service at {RATE_HZ:g} Hz, for {IDLE_S:.0f} s")
    idle_cpu_percent = measure_idle()
    result = {
        "per_sample_us": round(per_sample_us, 2),
        "inference_ms": inference_ms[MODELS[0]],
        "outbox_ms": outbox_ms,
        "publish_ms": publish_ms.get("whole"),
        "ready_s": round(ready_s, 3),
        "rss_mb": round(rss_mb, 1),
        "idle_cpu_percent": round(idle_cpu_percent, 2),
        "replay_samples_per_s": round(replay_samples_per_s),
    }
    print(json.dumps(result) if args.json else _table(result, inference_ms, publish_ms))
    return 0


class _TimedBundle(Bundle):
    """A model that adds up how long its network has run."""

    def __init__(self, bundle: Bundle) -> None:
        vars(self).update(vars(bundle))  # shares the session
        self.spent_s = 0.0

    def run(self, x: NDArray[np.float32], mask: NDArray[np.float32]) -> Outputs:
        """Run the network and add up this thread's processor time."""
        started_s = time.thread_time()
        outputs = super().run(x, mask)
        self.spent_s += time.thread_time() - started_s
        return outputs


def measure_sample_us(rows: Sequence[NDArray[np.float32]]) -> float:
    """Return microseconds a line takes through decoder, health and nose, without inference.

    In processor time, which a busy machine changes little. Both models run at 10 Hz, and lines are
    fed one by one, as from a port. The median over stretches of `STRETCH` lines: in each, every
    model makes features of its samples once.
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
    """Time full windows in int8 and float32, in turn, so that a busy moment affects both."""
    bundles = {
        name: load_bundle(model, name) for name in available_precisions(bundle_folder(model))
    }
    spec = bundles["int8"].manifest.preprocessing
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, spec.window, spec.n_features)).astype(np.float32)
    mask = np.ones((1, spec.window), dtype=np.float32)
    times: RunTimes = {name: [] for name in bundles}
    for _ in range(INFERENCES):
        for name, bundle in bundles.items():
            started_s = time.perf_counter()
            bundle.run(x, mask)
            times[name].append((time.perf_counter() - started_s) * 1000)
    return times


def measure_outbox() -> RunTimes:
    """Time `put` into an outbox on disk, and `written`, until the message may be sent.

    The messages are events: each is synchronised to disk alone, while predictions share a write.
    """
    payload = json.dumps({"seq": 0, "text": "x" * OUTBOX_PAYLOAD_BYTES})
    times: RunTimes = {"put": [], "written": []}
    with (
        tempfile.TemporaryDirectory(prefix="scentd-") as folder,
        Outbox(Path(folder, OUTBOX_FILE)) as outbox,
    ):
        for _ in range(OUTBOX_MESSAGES):
            started_s = time.perf_counter()
            outbox.put(Message("event", payload, 1, retain=False))
            times["put"].append((time.perf_counter() - started_s) * 1000)
            outbox.flush(OUTBOX_TIMEOUT_S)
            times["written"].append((time.perf_counter() - started_s) * 1000)
            if (entry := outbox.take()) is not None:
                outbox.acknowledge(entry.id)
    return times


def measure_publish(predictions: int = PUBLISHED) -> RunTimes:
    """Time readings from the pseudo-terminal through a real service and Mosquitto to a subscriber.

    `whole` is the time from a reading's last byte to its prediction at the subscriber; `beyond` is
    the same without `latency_ms`, which the service takes from the decoded reading to the
    prediction. Empty where Mosquitto is not installed.
    """
    if mosquitto_program() is None:
        _report("without a subscriber: Mosquitto is not installed (sudo apt install mosquitto)")
        return {}
    times: RunTimes = {"whole": [], "beyond": []}
    written_s: list[float] = []
    readings = WARM_UP_READINGS + (predictions + 1) * READINGS_PER_PREDICTION
    air = SyntheticSignal(f"air:{readings}", rate_hz=1.0)
    with (
        tempfile.TemporaryDirectory(prefix="scentd-") as folder,
        Mosquitto(Path(folder)) as broker,
        Subscriber(broker.port, topic="scent/bench/substance") as subscriber,
        closing(PseudoTerminal(None)) as terminal,
        _service(terminal.name, MODELS[:1], broker.port) as service,
    ):
        for seq, row in enumerate(air):
            time.sleep(READING_S if seq > WARM_UP_READINGS else READING_S / 50)
            terminal.send(encode_scent(seq, seq * 1000, row))
            written_s.append(time.monotonic())
        service.end()
        subscriber.catch_up()
    for message in subscriber.take():
        payload = message.value
        if payload["frame_seq"] > WARM_UP_READINGS and payload["state"] == "ambient":
            whole_ms = (message.at_s - written_s[payload["frame_seq"]]) * 1000
            times["whole"].append(whole_ms)
            times["beyond"].append(whole_ms - payload["latency_ms"])
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
    with _board() as board, _service(board.port) as service:
        ready_s.append(service.ready_s)
        wanted = SERVICE_BOARD_S * RATE_HZ
        give_up_s = time.monotonic() + _BUSY_FACTOR * SERVICE_BOARD_S / SERVICE_SPEED
        while board.report.readings < wanted and time.monotonic() < give_up_s:
            service.check()
            time.sleep(0.1)
        return statistics.median(ready_s), service.resident_mb()


def measure_idle() -> float:
    """Return the percentage of one core that the service takes at 10 Hz and its usual stride.

    A real `scentd run` with one model, a board in real time and no broker; processor time of the
    process, over all of its threads.
    """
    with _board(speed=1.0) as board, _service(board.port, MODELS[1:]) as service:
        while board.report.readings < RATE_HZ:  # leaves out the cost of the start
            time.sleep(0.1)
        started_s, spent_s = time.monotonic(), service.processor_s()
        while time.monotonic() < started_s + IDLE_S:
            service.check()
            time.sleep(1.0)
        return 100.0 * (service.processor_s() - spent_s) / (time.monotonic() - started_s)


def _board(speed: float = SERVICE_SPEED) -> SimulatedBoard:
    signal = SyntheticSignal(SCENARIO, rate_hz=RATE_HZ, loop=True, board=MIXTURE_BOARD)
    return SimulatedBoard(signal, speed=speed, wait_for_listener=True)


@contextmanager
def _service(
    port: str = "/dev/scentd-bench", models: Sequence[str] = MODELS, broker_port: int | None = None
) -> Iterator[ServiceProcess]:
    """Run a service, by default without board and broker."""
    with socket.socket() as reserved, tempfile.TemporaryDirectory(prefix="scentd-") as folder:
        # Bound but not listening: no broker can start on this port.
        reserved.bind((LOOPBACK, 0))
        settings = {
            "rig_id": "bench",
            "source": {"port": port},
            "models": list(models),
            "mqtt": {"host": LOOPBACK, "port": broker_port or reserved.getsockname()[1]},
        }
        # As after the first start, which tries ONNX Runtime in a child.
        remember_runtime(Path(folder, "state"))
        with ServiceProcess(Path(folder), settings) as service:
            yield service


def _percentiles(times: RunTimes, *, digits: int) -> dict[str, dict[str, float]]:
    return {
        name: {f"p{share}": round(float(np.percentile(runs, share)), digits) for share in (50, 99)}
        for name, runs in times.items()
    }


def _table(
    result: dict[str, Any],
    inference_ms: dict[str, dict[str, dict[str, float]]],
    publish_ms: dict[str, dict[str, float]],
) -> str:
    put, written = result["outbox_ms"]["put"], result["outbox_ms"]["written"]
    rows = [
        ("cost of a sample outside inference", f"{result['per_sample_us']:.1f} us", "<= 50 us"),
        *(
            (f"{model}, inference {name}", _median_and_p99(times[name]), target)
            for model, times in inference_ms.items()
            for name, target in (("int8", "<= 1.5 ms, below fp32"), ("fp32", ""))
            if name in times
        ),
        ("outbox: handing over a message", f"{put['p50'] * 1000:.0f} us", "<= 1 ms"),
        ("outbox: until an event is safe on disk", f"{written['p50']:.2f} ms", ""),
        ("a reading to its prediction at a client", _median_and_p99(publish_ms.get("whole")), ""),
        ("  beyond inference", _median_and_p99(publish_ms.get("beyond")), "<= 10 ms"),
        ("service: start to ready", f"{result['ready_s']:.2f} s", "<= 0.7 s"),
        ("service: resident memory, both models", f"{result['rss_mb']:.1f} MB", "<= 80 MB"),
        ("service: processor at 10 Hz", f"{result['idle_cpu_percent']:.2f} %", "<= 1 %"),
        ("replay", f"{result['replay_samples_per_s']} samples/s", ""),
    ]
    heading = ("", "here", "target (x86 server, one core)")
    return "\n".join(f"{what:<40} {here:<26} {target}" for what, here, target in (heading, *rows))


def _median_and_p99(times: dict[str, float] | None) -> str:
    return f"{times['p50']:.2f} ms, p99 {times['p99']:.2f} ms" if times else "no Mosquitto here"


def _report(what: str) -> None:
    print(f"Measuring {what} ...", file=sys.stderr, flush=True)
