"""Daemon: the running service: threads, queues, counters and their orderly end.

Four threads: one reads the port, this one is the pipeline, one writes the outbox
(`daemon.mqtt.outbox`), one is the MQTT client's (`daemon.mqtt.publisher`). Between reader and
pipeline lies one bounded queue. The service works without a broker: it infers and records all the
same. What is asked of it (`daemon.requests`) is done in the pipeline's thread, between two
readings; so is a reload, of which nothing is seen until everything that it needs is ready.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections import deque
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from daemon.board.history import History
from daemon.board.monitor import BoardMonitor, BoardState, Recovery, Trouble
from daemon.board.port import Chunk, PortClosed, PortOpened, SerialSource, monotonic_ms
from daemon.board.reader import Reader
from daemon.calibrate.live import CALIBRATE
from daemon.config.loading import load_config
from daemon.enroll import ENROLL
from daemon.installed_models.loading import load_models
from daemon.installed_models.requests import MODELS, ModelRequests
from daemon.installed_models.store import ModelStore
from daemon.mqtt.discovery import Discovery
from daemon.mqtt.messages import Messages
from daemon.mqtt.outbox import FILE_NAME, Outbox, limits_from
from daemon.mqtt.payloads import Gauges, RigEvent, RigEventType
from daemon.mqtt.publisher import BrokerState, Publisher
from daemon.mqtt.topics import OFFLINE, ONLINE
from daemon.recording.recorder import Recorder
from daemon.recording.requests import RECORD, recording_actions
from daemon.request_fields import Action
from daemon.requests import Inbox, Requests
from daemon.service.reload import (
    ReloadError,
    ReloadTask,
    check_replaceable,
    models_again,
)
from daemon.service.report import STATUS, status_summary
from daemon.service.runtime import Runtime
from daemon.system.logs import configure_logs, get_logger
from daemon.system.memory import drop_startup_pages, resident_mb
from daemon.system.systemd import ServiceManager
from hardware.errors import ScentdError
from hardware.protocol import LineDecoder
from hardware.version import installed_version
from models.results import EventType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from daemon.board.port import Arrival
    from daemon.config.settings import Config
    from daemon.system.background import Data, Steps
    from daemon.system.signals import Hangup, Stop
    from models.bundle import Bundle
    from models.results import Prediction, Step

TICK_S = 0.25
RELOADING_TICK_S = 0.01
"""While something is read again the pipeline looks for it this often, readings or not."""

RELOAD = "reload"
"""The request's name."""

NEEDS_A_MIND = {
    "rig_id",
    "source",
    "models",
    "live_stride_s",
    "decision",
    "exposure",
}
"""Settings by which smells are recognised otherwise, or that calibration and teaching hold."""

HEALTH_EVERY_S = 10.0
LAST_WRITE_S = 0.5
"""How long the end waits for the outbox: SIGTERM has two seconds in all, FLUSH_S and FAREWELL_S of
`daemon.mqtt.publisher` among them."""

LATENCIES_KEPT = 500


def serve(config: Config, path: Path, stop: Stop, hangup: Hangup) -> None:
    """Do everything that `scentd run` does once the configuration is known.

    Parameters
    ----------
    config : Config
        As read.
    path : Path
        Where it was read, to be read again when that is asked for.
    stop : Stop
        Ends it.
    hangup : Hangup
        Asks for a reload.

    Raises
    ------
    ScentdError
        If a model or the port can never be used; before anything is opened wherever possible.
    """
    manager = ServiceManager()
    configure_logs(config.log)
    manager.status("Loading the models.")
    store = ModelStore(config.state_dir)
    bundles = load_models(config.models, config.decision, store)
    Service(config, bundles, manager, path=path, version=installed_version()).run(stop, hangup)


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
    path : Path
        The configuration's.
    version : str
        Of scentd.
    """

    def __init__(
        self,
        config: Config,
        bundles: Sequence[Bundle],
        manager: ServiceManager,
        *,
        path: Path,
        version: str,
    ) -> None:
        self._config = config
        self._path = path
        self._manager = manager
        self._version = version
        self._log = get_logger("service")
        self._outbox = Outbox(config.state_dir / FILE_NAME, limits_from(config.outbox))
        self._reader = Reader(SerialSource(config.source))
        self._inbox = Inbox(self._wake)
        self._discovery, self._publisher = self._connection(config)
        self._announcer = Messages(self._publisher, version=version)
        self._recorder = Recorder(
            config.recordings_dir,
            config.recording,
            wanted=config.record,
            tell=self._recording_changed,
        )
        self._decoder = LineDecoder()
        self._history = History()
        self._latest: dict[str, Prediction] = {}
        self._faults: dict[str, str] = {}
        self._inference_ms: dict[str, deque[float]] = {}
        self._requests = Requests(self._inbox, self._announcer.publish_response)
        self._take_on(Runtime.made(config, bundles, self._history))
        self._reloading = ReloadTask()
        self._trouble: str | None = None
        self._requests.register(
            {
                STATUS: Action(self._status),
                RELOAD: Action(self._begin_reload),
                MODELS: ModelRequests(lambda: self._config, self._begin_reload).handle,
                RECORD: recording_actions(self._recorder, config.recordings_dir),
            }
        )
        self._started_s = time.monotonic()
        self._board = BoardMonitor(config.source.baud)
        self._latest_reading: tuple[int, int] | None = None
        self._quality: Sequence[int] | None = None
        self._channel_faults = 0
        self._present: bool | None = None
        self._described: tuple[float | None, str | None, str | None] | None = None
        self._next_tick_s = self._next_health_s = 0.0

    def _connection(self, config: Config) -> tuple[Discovery, Publisher]:
        """Return the broker's side of a configuration, not begun yet."""
        discovery = Discovery(config, version=self._version)
        birth = discovery.birth_topic
        publisher = Publisher(
            rig_id=config.rig_id,
            config=config.mqtt,
            outbox=self._outbox,
            on_request=self._inbox.receive if config.mqtt.requests else None,
            listeners={} if birth is None else {birth: discovery.on_birth},
        )
        discovery.begin(publisher)
        return discovery, publisher

    def _take_on(self, mind: Runtime) -> None:
        """Recognise with `mind` from now on."""
        self._mind = mind
        self._bundles, self._nose = mind.bundles, mind.nose
        self._calibrating = mind.calibrating
        self._requests.register({CALIBRATE: mind.calibrating.handle, ENROLL: mind.teaching.handle})
        names = [bundle.manifest.name for bundle in mind.bundles]
        self._latest = {name: said for name, said in self._latest.items() if name in names}
        self._faults = {name: why for name, why in self._faults.items() if name in names}
        self._inference_ms = {
            name: self._inference_ms.get(name, deque(maxlen=LATENCIES_KEPT)) for name in names
        }

    def run(self, stop: Stop, hangup: Hangup) -> None:
        """Serve until `stop` is set; everything started here has ended when this returns.

        Raises
        ------
        NotAPortError
            If the configured port can never become one.
        """
        self._mind.begin()
        with self._outbox, self._connected(), self._recorder, self._listening():
            self._tick()
            drop_startup_pages()
            # Whatever broker and board do: they are waited for in here.
            self._manager.ready(self._in_a_line())
            self._log.info("ready", rig=self._config.rig_id, models=list(self._inference_ms))
            while not stop.is_set():
                arrival = self._reader.next(
                    RELOADING_TICK_S if self._reloading.under_way else TICK_S
                )
                if arrival is not None:
                    self._take(arrival)
                self._requests.work()
                if hangup.taken():
                    self._hung_up()
                self._go_on_reloading()
                self._tick()
                # Here everything that came has been taken: a loop that hangs feeds no watchdog.
                self._manager.alive()
            self._log.info("stopping")
            self._manager.stopping()
            self._reloading.close()
            self._requests.close()
            # What the outbox gives up for lack of room is counted when it is written.
            self._outbox.flush(LAST_WRITE_S)
            self._announcer.publish_health(self._gauges())

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """Run the publisher; after a reload that is another one."""
        self._publisher.__enter__()
        try:
            yield
        finally:
            self._publisher.close()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Run the reader; after a reload that is another one."""
        self._reader.__enter__()
        try:
            yield
        finally:
            self._reader.__exit__()

    def _take(self, arrival: Arrival) -> None:
        now_s = time.monotonic()
        if isinstance(arrival, Chunk):
            self._board.add_bytes(len(arrival.data))
            for frame in self._decoder.feed(arrival.data):
                self._step(self._nose.process(frame, arrival.arrival_ms))
        elif isinstance(arrival, PortOpened):
            self._log.info("port opened", port=arrival.path)
            self._board.port_opened(now_s, self._decoder.counts)
        elif isinstance(arrival, PortClosed):
            for frame in self._decoder.finish():
                self._step(self._nose.process(frame, monotonic_ms()))
            self._board_changed(self._board.port_closed(now_s, arrival.reason))

    def _step(self, step: Step) -> None:
        self._latest_reading = step.t_ms, step.frame.frame_seq
        self._quality = step.quality.tolist()
        self._history.push(step.t_ms, step.frame.values)
        self._calibrating.observe(step)
        self._recorder.write(step.t_ms, step.frame.values)
        self._board_changed(self._board.add_reading(time.monotonic(), self._decoder.counts))
        if self._config.mqtt.sample:
            self._announcer.publish_sample(step.frame, step.t_ms)
        for event in step.events:
            self._channel_faults += event.type is EventType.CHANNEL_FAULT
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
            self._announcer.publish_event(event, self._recorder.segment_at(event.t_ms))
        for prediction in step.predictions:
            self._predicted(prediction)

    def _predicted(self, prediction: Prediction) -> None:
        self._latest[prediction.model] = prediction
        if prediction.window_s > 0:
            self._inference_ms[prediction.model].append(prediction.latency_ms)
        self._fault_changed(prediction)
        self._announcer.publish_prediction(prediction)

    def _tick(self) -> None:
        """Do what depends on time rather than on readings."""
        now_s = time.monotonic()
        if now_s < self._next_tick_s:
            return
        self._next_tick_s = now_s + TICK_S
        self._publisher.check()
        self._board_changed(
            self._board.check_silence(now_s, self._decoder.counts, self._nose.rate_hz)
        )
        present = self._board.present
        if present is not self._present:
            self._present = present
            self._announcer.publish_board_status(present=present)
        self._discovery.announce(self._bundles, self._mind.heads)
        described = (
            self._nose.rate_hz,
            self._decoder.dialect,
            self._calibrating.profile_id,
        )
        if described != self._described:
            self._described = described
            self._announcer.publish_info(
                self._bundles, rate_hz=described[0], dialect=described[1], calibration=described[2]
            )
        if now_s >= self._next_health_s:
            self._next_health_s = now_s + HEALTH_EVERY_S
            self._announcer.publish_health(self._gauges())
        self._manager.status(self._in_a_line())

    def _board_changed(self, change: Trouble | Recovery | None) -> None:
        """Say that the board gives no readings, or gives them again, each once."""
        if isinstance(change, Trouble):
            self._log.warning(change.why)
            if change.is_new:
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
        self._announcer.publish_event(RigEvent(kind, detail, t_ms, frame_seq), segment)

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

    def _wake(self) -> None:
        self._reader.wake()

    def _hung_up(self) -> None:
        """Do what SIGHUP asks for."""
        self._log.info("the configuration is read again", file=str(self._path))
        try:
            self._reloading.begin(self._reload())
        except ReloadError as error:
            self._log.warning(str(error))

    def _begin_reload(self) -> Steps:
        self._reloading.begin(self._reload())
        return self._reloading.followed()

    def _go_on_reloading(self) -> None:
        """Do the next step of a reload, and say how it ended."""
        outcome = self._reloading.work()
        if outcome is None:
            return
        if isinstance(outcome, ScentdError):
            self._trouble = "The configuration in the file is not in force: see the log."
            self._log.error(f"{outcome} The configuration before stays in force.")
            self._rig_event(RigEventType.RELOAD_REFUSED, str(outcome))
        else:
            self._trouble = None
            self._log.warning("reloaded", **outcome)
            self._rig_event(RigEventType.RELOADED, ", ".join(outcome["changed"]) or None)
        self._manager.ready(self._in_a_line())

    def _reload(self) -> Steps:
        """Make everything that another configuration needs, then take it on between two readings.

        Raises
        ------
        ScentdError
            Something of it cannot be used; nothing has changed then.
        """
        self._manager.reloading()
        config = load_config(self._path)
        check_replaceable(self._config, config)
        bundles = yield from models_again(config, self._bundles)
        changed = self._changed(config, bundles)
        mind = None
        if changed & NEEDS_A_MIND:
            self._check_idle()
            mind = Runtime.made(config, bundles, self._history)
            mind.begin()
            yield from mind.process_history(self._history)
            self._check_idle()
        self._put_in_force(config, mind, changed)
        return {"changed": sorted(changed), "models": list(self._inference_ms)}

    def _changed(self, config: Config, bundles: Sequence[Bundle]) -> set[str]:
        """Return the settings that another configuration changes; models by their bytes, too."""
        changed = {
            item.name
            for item in fields(config)
            if getattr(config, item.name) != getattr(self._config, item.name)
        }
        running = [bundle.manifest.sha256 for bundle in self._bundles]
        if [bundle.manifest.sha256 for bundle in bundles] != running:
            changed.add("models")
        return changed

    def _check_idle(self) -> None:
        """Refuse to change what is being calibrated or taught this moment."""
        if self._requests.works_on(CALIBRATE, ENROLL):
            raise ReloadError(
                "The rig is being calibrated or taught a smell this moment. Let that end, then "
                "reload."
            )

    def _put_in_force(self, config: Config, mind: Runtime | None, changed: set[str]) -> None:
        """Replace what a configuration changes; bytes that came before are taken as before."""
        if "source" in changed:
            self._replace_reader(config)
        if mind is not None:
            mind.nose.take_over(self._nose)
            self._take_on(mind)
        self._config = config
        if "log" in changed:
            configure_logs(config.log)
        if changed & {"rig_id", "mqtt"}:
            self._publisher.close()
            self._discovery, self._publisher = self._connection(config)
            self._announcer.use_publisher(self._publisher)
            self._publisher.__enter__()
            self._present = None
        if changed & {"record", "recording"}:
            self._recorder.configure(config.recording, wanted=config.record)
        self._described = None
        self._next_health_s = 0.0
        # The mind before refers to itself in many ways, and holds its models' memory.
        gc.collect()
        drop_startup_pages()

    def _replace_reader(self, config: Config) -> None:
        """Listen to another port, after everything that the one before has brought."""
        self._reader.__exit__()
        while (arrival := self._reader.next(0.0)) is not None:
            self._take(arrival)
        self._reader = Reader(SerialSource(config.source))
        self._reader.__enter__()

    def _status(self) -> Data:
        """Answer `request/status`: the rig in one look."""
        return {
            "rig_id": self._config.rig_id,
            "scentd_version": self._version,
            "board": ONLINE if self._present else OFFLINE,
            "dialect": self._decoder.dialect,
            "history_s": round(self._history.seconds, 1),
            **status_summary(self._gauges(), self._bundles, self._latest, self._trouble),
            "requests": list(self._requests.commands),
            "busy": self._requests.busy,
        }

    def _in_a_line(self) -> str:
        """Return the rig in one line, for `systemctl status`."""
        said = [_in_words(prediction) for prediction in self._latest.values()]
        if self._trouble is not None:
            said.insert(0, self._trouble)
        rate_hz = self._nose.rate_hz
        board = "sends" if self._present else "is silent or away"
        rate = f" {rate_hz:.3g} readings a second" if self._present and rate_hz else ""
        broker = self._publisher.report().state
        depth = 0 if broker is BrokerState.CONNECTED else self._outbox.report().depth
        waiting = f", {depth} messages wait for it" if depth else ""
        return " ".join(
            [*said, f"The board {board}{rate}.", f"The broker is {broker.value}{waiting}."]
        )

    def _gauges(self) -> Gauges:
        report = self._publisher.report()
        return Gauges(
            counts=self._decoder.counts,
            port_open=self._board.state is not BoardState.ABSENT,
            port_reconnects=max(0, self._board.openings - 1),
            board={
                "state": self._board.state.value,
                "why": self._board.why,
                "losses": self._board.losses,
            },
            recording={**asdict(self._recorder.report), "state": self._recorder.report.state.value},
            chunks_dropped=self._reader.dropped,
            rate_hz=self._nose.rate_hz,
            quality=self._quality,
            channel_faults=self._channel_faults,
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
