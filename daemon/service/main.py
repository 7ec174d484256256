"""Daemon: the running service: its threads, its loop and its orderly end.

Threads: one reads the port (`daemon.board.reader`), this one is the pipeline, one writes the
outbox (`daemon.mqtt.outbox`), one is the MQTT client's (`daemon.mqtt.publisher`); further ones work
on the disk (`daemon.system.disk_thread`), for which the pipeline never waits. A bounded queue
lies between reader and pipeline. Recognition and recording need no broker. Readings are processed
by `daemon.service.pipeline`. Requests (`daemon.service.handlers`) are handled in the pipeline's
thread, between two readings; so is a reload (`daemon.service.reload`), which changes nothing until
everything that it needs is ready.
"""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from daemon.board.monitor import BoardState
from daemon.board.reader import Reader
from daemon.installed_models.loading import load_models
from daemon.installed_models.requests import MODELS, ModelRequests
from daemon.mqtt.discovery import Discovery
from daemon.mqtt.messages import Messages
from daemon.mqtt.outbox import Outbox
from daemon.mqtt.outbox_values import OUTBOX_FILE, limits_from
from daemon.mqtt.payloads import Gauges, RigEventType
from daemon.mqtt.publisher import Publisher
from daemon.mqtt.topics import OFFLINE, ONLINE
from daemon.recording.live import LiveRecorder
from daemon.recording.requests import RECORD, RecordingRequests
from daemon.request_fields import Action, number
from daemon.requests import Request
from daemon.review.requests import FEEDBACK, Review
from daemon.service.events import EventPublisher
from daemon.service.handlers import ServiceRequests
from daemon.service.pipeline import Pipeline
from daemon.service.reload import RELOAD, ReloadError, prepare_reload
from daemon.service.report import STATUS, status_line, status_summary
from daemon.service.runtime import Runtime
from daemon.service.samples import SAMPLE, SAMPLE_SECONDS, Samples
from daemon.system.disk_thread import DiskThread
from daemon.system.logs import configure_logs, get_logger
from daemon.system.memory import drop_startup_pages, resident_mb
from daemon.system.state_lock import held_state
from daemon.system.systemd import ServiceManager
from hardware.errors import ScentdError
from hardware.files import sweep
from hardware.version import installed_version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daemon.config.settings import Config
    from daemon.mqtt.outbox import Entry
    from daemon.service.reload import PreparedReload
    from daemon.system.background import Data, Steps
    from daemon.system.signals import ReloadSignal, StopEvent
    from models.bundle import Bundle

TICK_S = 0.25
RELOADING_TICK_S = 0.01
"""Longest wait for a reading during a reload, which then does its next step."""

READINGS_FIRST_S = 0.25
"""Readings that wait are processed before anything else for this long: a reload, or another program
on a small computer, must not let them wait until they are dropped."""

HEALTH_EVERY_S = 10.0
LAST_WRITE_S = 0.5
"""How long the end waits for the outbox: with FLUSH_S and FAREWELL_S of `daemon.mqtt.session` it
must stay within the two seconds after SIGTERM."""

END_S = 0.9
"""How long the end waits for the outbox's disk, in all."""

LAST_TASK_S = 0.3
"""How long the end waits for other files of state."""


def serve(config: Config, path: Path, stop: StopEvent, reload: ReloadSignal) -> None:
    """Load the models and run the service."""
    manager = ServiceManager()
    configure_logs(config.log)
    manager.status("Loading the models.")
    with held_state(config.state_dir, config.rig_id):
        with suppress(OSError):  # an outbox that cannot be written says so itself
            sweep(config.state_dir)
        bundles = load_models(config)
        service = Service(config, bundles, manager, path=path, version=installed_version())
        service.run(stop, reload)


class Service:
    """One rig's service; a reload reads the configuration at `path` again."""

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
        self._disk = DiskThread("state")
        self._outbox = Outbox(config.state_dir / OUTBOX_FILE, limits_from(config.outbox))
        self._reader = Reader()
        self._requests = ServiceRequests(
            self._reader.wake,
            lambda: self._messages,
            lambda: self._outbox.files.hangs or self._recorder.hangs,
        )
        self._delivered: dict[str, Entry] = {}
        self._use_publisher(config, self._make_discovery(config))
        self._messages = Messages(
            self._publisher, version=version, folders={"state_dir": config.state_dir}
        )
        self._recorder = LiveRecorder(
            config.recordings_dir,
            config.recording,
            wanted=config.record,
            on_change=lambda why: self._events.recording_changed(why),  # noqa: PLW0108 - set below
        )
        self._events = EventPublisher(self._messages, self._recorder, lambda: self._review)
        self._samples = Samples()
        self._pipeline = Pipeline(
            config.source.baud,
            messages=self._messages,
            events=self._events,
            recorder=self._recorder,
            outbox=self._outbox,
            samples_wanted=lambda: self._config.mqtt.sample or self._samples.wanted(),
        )
        self._models = ModelRequests(lambda: self._config, self._reload, self._requests.on_disk)
        self._review = Review(
            config.state_dir,
            config.recordings_dir,
            self._pipeline.history,
            lambda: self._pipeline.runtime.enrolment,
            on_feedback=self._events.publish_feedback,
            boot_id=lambda: self._messages.boot_id,
            write=self._disk.submit,
            on_disk=self._requests.on_disk,
        )
        self._review.configure(config.recording, clips=config.clips)
        recording = RecordingRequests(self._recorder, config.recordings_dir, self._pipeline.history)
        self._requests.register(
            {
                STATUS: Action(self._status),
                RECORD: recording.handle,
                SAMPLE: Action(self._samples.extend, seconds=number(*SAMPLE_SECONDS)),
            }
        )
        self._requests.register_on_disk(
            {
                RELOAD: Action(self._reload),
                MODELS: self._models.handle,
                FEEDBACK: self._review.handle,
            }
        )
        self._has_settled = False
        self._use_runtime(self._build_runtime(config, bundles))
        self._reloading = False
        self._config_trouble: str | None = None
        self._started_s = time.monotonic()
        self._next_tick_s = self._next_health_s = 0.0
        self._published_info: tuple[object, ...] | None = None

    def _make_discovery(self, config: Config) -> Discovery:
        """Return the discovery of a configuration; reads the disk here."""
        return Discovery(config, version=self._version, write=self._disk.submit)

    def _use_publisher(self, config: Config, discovery: Discovery) -> None:
        """Publish by this configuration from now on, once the publisher is started."""
        birth = discovery.birth_topic
        self._discovery = discovery
        self._publisher = Publisher(
            rig_id=config.rig_id,
            config=config.mqtt,
            outbox=self._outbox,
            on_request=self._requests.inbox.receive if config.mqtt.requests else None,
            listeners={} if birth is None else {birth: discovery.on_birth},
            delivered=self._delivered,
        )
        discovery.use_publisher(self._publisher)

    def _build_runtime(self, config: Config, bundles: Sequence[Bundle]) -> Runtime:
        return Runtime.build(config, bundles, self._pipeline.history, self._requests.on_disk)

    def _use_runtime(self, runtime: Runtime) -> None:
        self._requests.use(runtime)
        self._pipeline.use(runtime)

    def run(self, stop: StopEvent, reload: ReloadSignal) -> None:
        """Serve until `stop` is set, then end all threads.

        Raises
        ------
        NotAPortError: if the configured port can never become one.
        """
        self._pipeline.runtime.load()
        self._review.load()
        self._disk.start()
        self._requests.start()
        with ExitStack() as stack:
            stack.callback(self._disk.close, LAST_TASK_S)
            stack.callback(self._requests.close_disk, LAST_TASK_S)
            stack.enter_context(self._outbox)
            self._publisher.start()
            stack.callback(lambda: self._publisher.close())  # noqa: PLW0108 - a reload replaces it
            stack.enter_context(self._recorder)
            self._reader.start(self._config.source)
            stack.callback(self._reader.close)
            self._tick()
            drop_startup_pages()
            # Ready without broker and board: the loop below waits for them.
            self._manager.ready(self._status_line())
            self._log.info(
                "ready", rig=self._config.rig_id, models=list(self._pipeline.inference_ms)
            )
            while not stop.is_set():
                wait_s = RELOADING_TICK_S if self._reloading else TICK_S
                for arrival in self._reader.arrivals(wait_s, READINGS_FIRST_S):
                    self._pipeline.process(arrival)
                if reload.received():
                    self._requests.begin(Request(RELOAD, answered=False))
                self._requests.work()
                self._tick()
                # A loop that hangs does not send this.
                self._manager.alive()
            self._log.info("stopping")
            self._requests.close()
            self._manager.stopping()
            self._outbox.files.deadline_s = time.monotonic() + END_S
            self._recorder.drain()
            # The outbox counts dropped messages when it writes.
            self._outbox.flush(LAST_WRITE_S)
            self._messages.publish_health(self._gauges())

    def _tick(self) -> None:
        """Do the work that depends on time instead of readings."""
        now_s = time.monotonic()
        if now_s < self._next_tick_s:
            return
        self._next_tick_s = now_s + TICK_S
        pipeline, runtime = self._pipeline, self._pipeline.runtime
        if not self._has_settled and all(pipeline.inference_ms.values()):
            # The first inferences of every model ran code that does not run again.
            self._has_settled = True
            gc.collect()
            drop_startup_pages()
        self._publisher.check()
        self._recorder.check()
        pipeline.check_silence()
        self._messages.publish_board_status(present=pipeline.board.present)
        self._discovery.announce(
            runtime.bundles, runtime.heads, runtime.taught, self._models.available
        )
        info = rate_hz, dialect, profile, foreign_boards = (
            runtime.nose.rate_hz,
            pipeline.decoder.dialect,
            runtime.calibration.profile_id,
            runtime.nose.foreign_boards,
        )
        if info != self._published_info:
            self._published_info = info
            self._messages.publish_info(
                runtime.bundles,
                rate_hz=rate_hz,
                dialect=dialect,
                calibration=profile,
                foreign_boards=foreign_boards,
            )
        if now_s >= self._next_health_s:
            self._next_health_s = now_s + HEALTH_EVERY_S
            self._messages.publish_health(self._gauges())
        self._manager.status(self._status_line())

    def _reload(self) -> Steps:
        """Read the configuration and the models again, and apply them between two readings.

        A `ReloadError` leaves everything unchanged.
        """
        if self._reloading:
            raise ReloadError("The configuration is being read again already. Wait for it to end.")
        self._reloading = True
        asked = self._requests.asked
        self._log.info("the configuration is read again", file=str(self._path))
        self._manager.reloading()
        try:
            prepared = yield from prepare_reload(
                self._path,
                self._config,
                self._pipeline.runtime.bundles,
                self._pipeline.history,
                build=self._build_runtime,
                on_disk=self._requests.on_disk,
                teaching=self._requests.teaching,
            )
            discovery = None
            if prepared.changed & {"rig_id", "mqtt"}:
                discovery = yield from self._requests.on_disk(
                    self._make_discovery, prepared.config, doing="reading the announcement"
                )
            self._apply(prepared, discovery)
            if self._requests.asked != asked:
                # Meanwhile the runtime before may have been taught something.
                yield from self._pipeline.runtime.renew()
            changed, models = sorted(prepared.changed), list(self._pipeline.inference_ms)
            self._config_trouble = None
            self._log.warning("reloaded", changed=changed, models=models)
            self._events.publish_rig_event(RigEventType.RELOADED, ", ".join(changed) or None)
        except (ScentdError, OSError) as error:
            self._config_trouble = "The configuration in the file is not in force: see the log."
            self._log.error(f"{error} The configuration before stays in force.")
            self._events.publish_rig_event(RigEventType.RELOAD_REFUSED, str(error))
            raise ReloadError(str(error)) from error
        except Exception:
            # A bug, which the log explains; what runs has not changed.
            self._config_trouble = "The configuration in the file is not in force: see the log."
            self._events.publish_rig_event(RigEventType.RELOAD_REFUSED, "an error of scentd")
            raise
        finally:
            self._reloading = False
            self._manager.ready(self._status_line())
        return {"changed": changed, "models": models}

    def _apply(self, prepared: PreparedReload, discovery: Discovery | None) -> None:
        """Apply another configuration, with its discovery if that is another one, too."""
        config, changed = prepared.config, prepared.changed
        if "source" in changed:
            self._reader.close()
            # The old runtime processes everything that was received from the old port.
            while (arrival := self._reader.next(0.0)) is not None:
                self._pipeline.process(arrival)
            self._reader.start(config.source)
        if prepared.runtime is not None:
            prepared.runtime.nose.take_over(self._pipeline.runtime.nose)
            self._use_runtime(prepared.runtime)
        self._config = config
        if "log" in changed:
            configure_logs(config.log)
        if discovery is not None:
            self._publisher.close()
            self._use_publisher(config, discovery)
            self._messages.use_publisher(self._publisher)
            self._publisher.start()
        if changed & {"clips", "recording"}:
            self._review.configure(config.recording, clips=config.clips)
        if changed & {"record", "recording"}:
            self._recorder.configure(config.recording, wanted=config.record)
        self._published_info = None
        self._next_health_s = 0.0
        # The old runtime holds its models' memory, and its parts refer to each other.
        gc.collect()
        drop_startup_pages()

    def _status(self) -> Data:
        pipeline = self._pipeline
        return {
            "rig_id": self._config.rig_id,
            "scentd_version": self._version,
            "board": ONLINE if pipeline.board.present else OFFLINE,
            "dialect": pipeline.decoder.dialect,
            "history_s": round(pipeline.history.seconds, 1),
            **status_summary(
                self._gauges(), pipeline.runtime.bundles, pipeline.latest, self._config_trouble
            ),
            "feedback": self._review.score(),
            "requests": list(self._requests.commands),
            "busy": self._requests.busy,
        }

    def _status_line(self) -> str:
        return status_line(self._gauges(), self._pipeline.latest.values(), self._config_trouble)

    def _gauges(self) -> Gauges:
        pipeline, board = self._pipeline, self._pipeline.board
        return Gauges(
            counts=pipeline.decoder.counts,
            port_open=board.state is not BoardState.ABSENT,
            port_reconnects=max(0, board.openings - 1),
            board={"state": board.state.value, "why": board.why, "losses": board.losses},
            recording=asdict(self._recorder.report),
            chunks_dropped=self._reader.dropped,
            rate_hz=pipeline.runtime.nose.rate_hz,
            quality=pipeline.quality,
            channel_faults=pipeline.channel_faults,
            inference_ms=pipeline.inference_ms,
            outbox=self._outbox.report(),
            broker=asdict(self._publisher.report()),
            calibration=pipeline.runtime.calibration.report(),
            requests=asdict(self._requests.inbox.counts),
            rss_mb=resident_mb(),
            uptime_s=time.monotonic() - self._started_s,
        )
