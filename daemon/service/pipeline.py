"""Daemon: the way of a reading in the running service: decoded, recorded, recognised, published.

All of it happens in the pipeline's thread. Knows no port and no request: `daemon.service.main`
gives it what arrives from the port, and replaces its runtime at a reload.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from daemon.board.history import History
from daemon.board.monitor import BoardMonitor
from daemon.board.port import Chunk, PortClosed, PortOpened, monotonic_ms
from daemon.system.logs import get_logger
from hardware.protocol import LineDecoder
from models.results import EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.board.port import Arrival
    from daemon.mqtt.messages import Messages
    from daemon.mqtt.outbox import Outbox
    from daemon.recording.live import LiveRecorder
    from daemon.service.events import EventPublisher
    from daemon.service.runtime import Runtime
    from models.results import Prediction, Step

LATENCIES_KEPT = 500


class Pipeline:
    """Processes what arrives from the port, reading by reading.

    Parameters
    ----------
    baud: of the port, for the diagnosis of what cannot be decoded.
    outbox: of the messages; what one reading makes is written with one commit.
    samples_wanted: whether raw readings are to be published now.

    Attributes
    ----------
    board: whether readings come, and why not.
    decoder: of the board's lines.
    history: the readings of the last minutes.
    runtime: recognises; set it with `use`.
    latest: the latest prediction of every model, by its name.
    inference_ms: how long the latest inferences of every model took, by its name.
    quality: of the channels at the latest reading, None before the first.
    channel_faults: events of this kind so far.
    """

    runtime: Runtime

    def __init__(
        self,
        baud: int,
        *,
        messages: Messages,
        events: EventPublisher,
        recorder: LiveRecorder,
        outbox: Outbox,
        samples_wanted: Callable[[], bool],
    ) -> None:
        self._messages = messages
        self._events = events
        self._recorder = recorder
        self._outbox = outbox
        self._samples_wanted = samples_wanted
        self._log = get_logger("service")
        self.board = BoardMonitor(baud)
        self.decoder = LineDecoder()
        self.history = History()
        self.latest: dict[str, Prediction] = {}
        self.inference_ms: dict[str, deque[float]] = {}
        self.quality: Sequence[int] | None = None
        self.channel_faults = 0

    def use(self, runtime: Runtime) -> None:
        """Process the next reading by this runtime."""
        self.runtime = runtime
        names = [bundle.manifest.name for bundle in runtime.bundles]
        self.latest = {name: self.latest[name] for name in names if name in self.latest}
        self.inference_ms = {
            name: self.inference_ms.get(name, deque(maxlen=LATENCIES_KEPT)) for name in names
        }

    def process(self, arrival: Arrival) -> None:
        """Process what the port's reader delivered."""
        now_s = time.monotonic()
        if isinstance(arrival, Chunk):
            self.board.add_bytes(len(arrival.data))
            for frame in self.decoder.feed(arrival.data):
                self._process_step(self.runtime.nose.process(frame, arrival.arrival_ms))
        elif isinstance(arrival, PortOpened):
            self._log.info("port opened", port=arrival.path)
            self.board.port_opened(now_s, self.decoder.counts)
        elif isinstance(arrival, PortClosed):
            for frame in self.decoder.finish():
                self._process_step(self.runtime.nose.process(frame, monotonic_ms()))
            self._events.board_changed(self.board.port_closed(now_s, arrival.reason))

    def check_silence(self) -> None:
        """Publish that the board sends no readings, if that is so now."""
        self._events.board_changed(
            self.board.check_silence(
                time.monotonic(),
                self.decoder.counts,
                self.runtime.nose.rate_hz,
                self.decoder.problem,
            )
        )

    def _process_step(self, step: Step) -> None:
        """Record a reading and publish what the nose returned for it."""
        self.quality = step.quality.tolist()
        self.history.push(step.t_ms, step.frame.values)
        self.runtime.calibration.observe(step)
        self._recorder.write(step.t_ms, step.frame.values)
        self._events.add_reading(step)
        self._events.board_changed(self.board.add_reading(time.monotonic(), self.decoder.counts))
        if self._samples_wanted():
            self._messages.publish_sample(step.frame, step.t_ms)
        with self._outbox.one_commit():
            for event in step.events:
                self.channel_faults += event.type is EventType.CHANNEL_FAULT
                self._events.publish(event)
            for prediction in step.predictions:
                self._events.model_changed(prediction, self.latest.get(prediction.model))
                self.latest[prediction.model] = prediction
                if prediction.window_s > 0 and prediction.model in self.inference_ms:
                    self.inference_ms[prediction.model].append(prediction.latency_ms)
                self._messages.publish_prediction(prediction)
