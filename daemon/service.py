"""Daemon: the running service: threads, queues, counters and their orderly end.

Three threads: one reads the port, this one is the pipeline, one is the MQTT
client's (`daemon.mqtt`). Between reader and pipeline lies one bounded queue.
The service works without a broker: it infers and records all the same. What is asked of it
(`daemon.requests`) is done in the pipeline's thread, between two readings.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

from daemon.announcer import Announcer
from daemon.board_watch import BoardState, BoardWatch, Recovery, Trouble
from daemon.calibrating import CALIBRATE, Calibrating
from daemon.clock import resident_mb
from daemon.discovery import Discovery
from daemon.history import History
from daemon.logs import configure_logs, get_logger
from daemon.memory import drop_startup_pages
from daemon.mqtt import OFFLINE, ONLINE, BrokerState, Publisher
from daemon.notify import ServiceManager
from daemon.outbox import FILE_NAME, Outbox
from daemon.payloads import Gauges, RigEvent, RigEventType, finite
from daemon.pipeline import live_pipeline, load_models, nose_settings
from daemon.recorder import Recorder
from daemon.requests import Inbox, Requests, only
from daemon.sources import Arrival, Chunk, PortClosed, PortOpened, SerialSource, monotonic_ms
from daemon.stopping import Stop
from daemon.teaching import ENROLL, Teaching, stores_of
from hardware.version import installed_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.config import Config
    from daemon.pipeline import Step
    from daemon.requests import Data
    from models.bundle import Bundle
    from models.head import Head
    from models.nose import Prediction

QUEUE_LIMIT = 256
"""Reads that may wait for the pipeline: half a minute of a 10 Hz board. A read that finds no
room is thrown away and counted; the lines it breaks are counted by the decoder."""

TICK_S = 0.25
HEALTH_EVERY_S = 10.0
LATENCIES_KEPT = 500


class _Reader:
    """Owns the thread that reads the port; a context manager."""

    def __init__(self, source: SerialSource) -> None:
        self._source = source
        self._stop = Stop()
        self._queue: queue.Queue[Arrival | None] = queue.Queue(QUEUE_LIMIT)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._work: Future[None] | None = None
        self.dropped = 0

    def __enter__(self) -> Self:
        self._work = self._executor.submit(self._read)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._executor.shutdown()

    def next(self, timeout_s: float) -> Arrival | None:
        """Return the next arrival, None in vain or on `wake`; raise what ended the thread."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            if self._work is not None and self._work.done():
                self._work.result()
            return None

    def wake(self) -> None:
        """Let `next` return at once: somebody asks something."""
        with contextlib.suppress(queue.Full):  # then `next` has no reason to wait
            self._queue.put_nowait(None)

    def _read(self) -> None:
        for arrival in self._source.arrivals(self._stop):
            if isinstance(arrival, Chunk):
                try:
                    self._queue.put_nowait(arrival)
                except queue.Full:
                    self.dropped += 1
            else:
                self._put_patiently(arrival)

    def _put_patiently(self, arrival: Arrival) -> None:
        """Wait for room: an opening or a loss of the port must not be missed."""
        while not self._stop.is_set():
            try:
                self._queue.put(arrival, timeout=TICK_S)
            except queue.Full:
                continue
            return


def serve(config: Config, stop: Stop) -> None:
    """Do everything that `scentd run` does once the configuration is known.

    Raises
    ------
    ScentdError
        If a model or the port can never be used; before anything is opened wherever possible.
    """
    manager = ServiceManager()
    configure_logs(config.log)
    manager.status("Loading the models.")
    bundles = load_models(config.models, config.decision)
    Service(config, bundles, manager, version=installed_version()).run(stop)


class Service:
    """One rig's daemon.

    Parameters
    ----------
    config : Config
        What the rig was told.
    bundles : sequence of Bundle
        The models, ready to run.
    manager : ServiceManager
        Is told that it is ready, alive and stopping.
    version : str
        Of scentd.
    """

    def __init__(
        self, config: Config, bundles: Sequence[Bundle], manager: ServiceManager, *, version: str
    ) -> None:
        self._config = config
        self._manager = manager
        self._bundles = bundles
        self._log = get_logger("service")
        self._pipeline = live_pipeline(config, bundles)
        self._outbox = Outbox(config.state_dir / FILE_NAME)
        self._reader = _Reader(SerialSource(config.source))
        self._inbox = Inbox(self._reader.wake)
        self._discovery = Discovery(config, version=version)
        birth = self._discovery.birth_topic
        self._publisher = Publisher(
            rig_id=config.rig_id,
            config=config.mqtt,
            outbox=self._outbox,
            on_request=self._inbox.take_in if config.mqtt.requests else None,
            hears={} if birth is None else {birth: self._discovery.heard},
        )
        self._discovery.begin(self._publisher)
        self._announcer = Announcer(self._publisher, version=version)
        self._history = History()
        self._requests = Requests(self._inbox, self._announcer.response)
        self._requests.register("status", self._status)
        self._calibrating = Calibrating(
            config, bundles, self._pipeline.nose, self._history, self._recalibrated
        )
        self._requests.register(CALIBRATE, self._calibrating.handle)
        self._teaching = Teaching(
            stores_of(bundles, config.state_dir),
            self._head_changed,
            history=self._history,
            settings=nose_settings(config),
        )
        self._requests.register(ENROLL, self._teaching.handle)
        self._latest: dict[str, Prediction] = {}
        self._version = version
        self._recorder = Recorder(
            config.recordings_dir,
            config.recording,
            wanted=config.record,
            tell=self._recording_changed,
        )
        self._started_s = time.monotonic()
        self._board = BoardWatch(config.source.baud)
        self._faults: dict[str, str] = {}
        self._latest_reading: tuple[int, int] | None = None
        self._quality: Sequence[int] | None = None
        self._present: bool | None = None
        self._described: tuple[float | None, str | None, str | None] | None = None
        self._next_tick_s = self._next_health_s = 0.0
        self._inference_ms: dict[str, deque[float]] = {
            bundle.manifest.name: deque(maxlen=LATENCIES_KEPT) for bundle in bundles
        }

    def run(self, stop: Stop) -> None:
        """Serve until `stop` is set; everything started here has ended when this returns.

        Raises
        ------
        NotAPortError
            If the configured port can never become one.
        """
        self._calibrating.load()
        with self._outbox, self._publisher, self._recorder, self._reader:
            self._tick()
            drop_startup_pages()
            # Whatever broker and board do: they are waited for in here.
            self._manager.ready(self._in_a_line())
            self._log.info("ready", rig=self._config.rig_id, models=list(self._inference_ms))
            while not stop.is_set():
                arrival = self._reader.next(TICK_S)
                if arrival is not None:
                    self._take(arrival)
                self._requests.work()
                self._tick()
                # Here everything that came has been taken: a loop that hangs feeds no watchdog.
                self._manager.alive()
            self._log.info("stopping")
            self._manager.stopping()
            self._requests.close()
            self._announcer.health(self._gauges())

    def _head_changed(self, model: str, head: Head) -> None:
        """Let a model speak with other labels, and Home Assistant know them."""
        self._pipeline.nose.set_head(model, head)
        self._discovery.taught(model, head)

    def _recalibrated(self) -> None:
        """Let taught smells be heard through the correction now in force."""
        self._teaching.calibrate(self._calibrating.correction())

    def _take(self, arrival: Arrival) -> None:
        now_s = time.monotonic()
        if isinstance(arrival, Chunk):
            self._board.heard(len(arrival.data))
            for step in self._pipeline.feed(arrival.data, arrival.arrival_ms):
                self._step(step)
        elif isinstance(arrival, PortOpened):
            self._log.info("port opened", port=arrival.path)
            self._board.opened(now_s, self._pipeline.counts)
        elif isinstance(arrival, PortClosed):
            for step in self._pipeline.end_line(monotonic_ms()):
                self._step(step)
            self._board_changed(self._board.closed(now_s, arrival.reason))

    def _step(self, step: Step) -> None:
        self._latest_reading = step.t_ms, step.frame.frame_seq
        self._quality = step.quality.tolist()
        self._history.push(step.t_ms, step.frame.values)
        self._calibrating.observe(step)
        self._recorder.write(step.t_ms, step.frame.values)
        self._board_changed(self._board.reading(time.monotonic(), self._pipeline.counts))
        if self._config.mqtt.sample:
            self._announcer.sample(step.frame, step.t_ms)
        for event in step.events:
            # A channel's recovery is told as loudly as its fault was.
            tell = self._log.info if event.channel is None else self._log.warning
            tell(
                str(event.type).replace("_", " "),
                **{
                    name: value
                    for name, value in asdict(event).items()
                    if value is not None and name in {"model", "label", "channel", "detail"}
                },
            )
            self._announcer.event(event, self._recorder.segment_at(event.t_ms))
        for prediction in step.predictions:
            self._predicted(prediction)

    def _predicted(self, prediction: Prediction) -> None:
        self._latest[prediction.model] = prediction
        if prediction.window_s > 0:
            self._inference_ms[prediction.model].append(prediction.latency_ms)
        self._fault_changed(prediction)
        self._announcer.prediction(prediction)

    def _tick(self) -> None:
        """Do what depends on time rather than on readings."""
        now_s = time.monotonic()
        if now_s < self._next_tick_s:
            return
        self._next_tick_s = now_s + TICK_S
        self._publisher.check()
        self._board_changed(self._board.look(now_s, self._pipeline.counts, self._pipeline.rate_hz))
        present = self._board.present
        if present is not self._present:
            self._present = present
            self._announcer.board_present(present=present)
        self._discovery.describe(self._bundles)
        described = (
            self._pipeline.rate_hz,
            self._pipeline.dialect,
            self._calibrating.profile_id,
        )
        if described != self._described:
            self._described = described
            self._announcer.info(
                self._bundles, rate_hz=described[0], dialect=described[1], calibration=described[2]
            )
        if now_s >= self._next_health_s:
            self._next_health_s = now_s + HEALTH_EVERY_S
            self._announcer.health(self._gauges())
        self._manager.status(self._in_a_line())

    def _board_changed(self, change: Trouble | Recovery | None) -> None:
        """Say that the board gives no readings, or gives them again, each once."""
        if isinstance(change, Trouble):
            self._log.warning(change.why)
            if change.begins:
                self._rig_event(RigEventType.BOARD_LOST, change.why)
        elif isinstance(change, Recovery):
            told = f"readings come again after {change.after_s:.1f} s"
            self._log.warning(told)
            self._rig_event(RigEventType.BOARD_BACK, told)

    def _recording_changed(self, why: str | None) -> None:
        """Say that the recording pauses, or goes on."""
        kind = RigEventType.RECORDING_RESUMED if why is None else RigEventType.RECORDING_PAUSED
        self._rig_event(kind, why)

    def _rig_event(self, kind: RigEventType, detail: str | None) -> None:
        t_ms, frame_seq = self._latest_reading or (None, None)
        segment = None if t_ms is None else self._recorder.segment_at(t_ms)
        self._announcer.event(RigEvent(kind, detail, t_ms, frame_seq), segment)

    def _fault_changed(self, prediction: Prediction) -> None:
        """Log why a model cannot work when that begins, and that it can when it is over."""
        model, why = prediction.model, prediction.reason
        if why == self._faults.get(model):
            return
        if why is None:
            del self._faults[model]
            self._log.warning("model works again", model=model, state=str(prediction.state))
        else:
            self._faults[model] = why
            self._log.warning(f"{model} is {prediction.state}: {why}")

    def _status(self, payload: Data) -> Data:
        """Answer `request/status`: the rig in one look."""
        only(payload, ())
        return {
            "rig_id": self._config.rig_id,
            "scentd_version": self._version,
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "calibration": self._calibrating.report(),
            "board": ONLINE if self._present else OFFLINE,
            "dialect": self._pipeline.dialect,
            "rate_hz": finite(self._pipeline.rate_hz, 3),
            "history_s": round(self._history.seconds, 1),
            "models": {
                bundle.manifest.name: _in_short(self._latest.get(bundle.manifest.name))
                for bundle in self._bundles
            },
            "requests": list(self._requests.commands),
            "busy": self._requests.busy,
        }

    def _in_a_line(self) -> str:
        """Return the rig in one line, for `systemctl status`."""
        said = [_in_words(prediction) for prediction in self._latest.values()]
        rate_hz = self._pipeline.rate_hz
        board = "sends" if self._present else "is silent or away"
        rate = f" {rate_hz:.3g} readings a second" if self._present and rate_hz else ""
        broker = self._publisher.report().state
        waiting = ""
        if broker is not BrokerState.CONNECTED:
            waiting = f", {self._outbox.report().depth} messages wait for it"
        return " ".join(
            [*said, f"The board {board}{rate}.", f"The broker is {broker.value}{waiting}."]
        )

    def _gauges(self) -> Gauges:
        report = self._publisher.report()
        return Gauges(
            counts=self._pipeline.counts,
            port_open=self._board.state is not BoardState.ABSENT,
            port_reconnects=max(0, self._board.openings - 1),
            board={
                "state": self._board.state.value,
                "why": self._board.why,
                "losses": self._board.losses,
            },
            recording={**asdict(self._recorder.report), "state": self._recorder.report.state.value},
            chunks_dropped=self._reader.dropped,
            rate_hz=self._pipeline.rate_hz,
            quality=self._quality,
            inference_ms=self._inference_ms,
            outbox=self._outbox.report(),
            broker={
                "state": report.state.value,
                "protocol": report.protocol,
                "connections": report.connections,
                "rejected": report.rejected,
                "fleeting_dropped": report.fleeting_dropped,
            },
            calibration=self._calibrating.report(),
            requests=asdict(self._inbox.counts),
            rss_mb=resident_mb(),
            uptime_s=time.monotonic() - self._started_s,
        )


def _in_words(prediction: Prediction) -> str:
    """Return what a model last said, as a sentence."""
    if prediction.components:
        smell = " + ".join(part.label for part in prediction.components)
        return f"{prediction.model}: {smell}."
    if prediction.label is not None and prediction.probability is not None:
        return f"{prediction.model}: {prediction.label} ({prediction.probability:.0%})."
    return f"{prediction.model}: {prediction.state}."


def _in_short(prediction: Prediction | None) -> Data | None:
    """Return what a model last said, None before its first word."""
    if prediction is None:
        return None
    return {
        "state": str(prediction.state),
        "label": prediction.label,
        "probability": finite(prediction.probability, 4),
        "reason": prediction.reason,
    }
