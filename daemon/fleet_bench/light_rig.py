"""Daemon: a simulated rig that costs little: the service's own MQTT code, and played predictions.

Publisher, outbox (in memory), messages and requests are those of the service. Serial port and model
are replaced by a `Script`: what a real model made once of simulated readings, played in a loop.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from daemon.board.monitor import BoardState
from daemon.config.settings import Config, SourceConfig
from daemon.mqtt import topics
from daemon.mqtt.discovery import Discovery
from daemon.mqtt.messages import Messages
from daemon.mqtt.outbox import Outbox
from daemon.mqtt.payloads import Gauges
from daemon.mqtt.publisher import Publisher
from daemon.recording.recorder import RecorderReport, RecorderState
from daemon.request_fields import Action
from daemon.requests import Inbox, Requests
from daemon.service.answers import describe_answer
from daemon.service.main import HEALTH_EVERY_S
from daemon.service.reload import RELOAD
from daemon.service.report import STATUS, status_summary
from daemon.system.memory import resident_mb
from hardware.encoding import encode_scent
from hardware.protocol import LineCounts, LineDecoder
from hardware.simulator.signals import SyntheticSignal
from hardware.version import installed_version
from models.bundle import load_bundle
from models.nose import Nose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.config.settings import MqttConfig
    from daemon.mqtt.outbox_values import Message
    from daemon.system.background import Data
    from models.bundle import Bundle
    from models.results import Event, Prediction

RATE_HZ = 1.0
DIALECT = "scent"
"""The dialect of the simulated board."""

SCENARIO = "air:120,banana:90,air:90"
"""What the board plays; odours and air cost the same, so that the scenario does not matter."""

NO_FOLDER = Path("/nonexistent/scentd")
"""Stands for the folder of state, of which these rigs have none."""

ANNOUNCE_EVERY_S = 1.0
"""How often a rig looks whether Home Assistant has asked for its announcement."""

LEFT_OUT_S = 60.0
"""The beginning, in which a service finds out rate and board and predicts more rarely."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a reading at `at_s` seconds of the script led to."""

    at_s: float
    predictions: Sequence[Prediction]
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Script:
    """What a rig with one model publishes, `length_s` seconds long, to be played in a loop.

    Attributes
    ----------
    quality: uint8[12] of the last reading's channels, as numbers.
    """

    bundle: Bundle
    moments: Sequence[Moment]
    length_s: float
    quality: Sequence[int]


def write_script(model: str) -> Script:
    """Return what a model, by name or folder, makes of simulated readings at the usual stride."""
    bundle = load_bundle(model)
    nose, decoder = Nose([bundle], skip_warm_up=True), LineDecoder()
    moments: list[Moment] = []
    quality: list[int] = []
    at_s = 0.0
    for seq, row in enumerate(SyntheticSignal(SCENARIO, rate_hz=RATE_HZ)):
        at_s = seq / RATE_HZ - LEFT_OUT_S
        for frame in decoder.feed(encode_scent(seq, round(seq * 1000 / RATE_HZ), row)):
            step = nose.process(frame)
            quality = step.quality.tolist()
            if at_s >= 0 and (step.predictions or step.events):
                moments.append(Moment(at_s, step.predictions, step.events))
    return Script(bundle, moments, at_s + 1 / RATE_HZ, quality)


class CountingPublisher(Publisher):
    """Counts what it is given.

    Attributes
    ----------
    published: messages of all kinds.
    made: sequence numbers of predictions and events, which must not be lost.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.published = 0
        self.made: list[int] = []

    def publish(self, message: Message) -> None:
        """Put a message into the outbox."""
        self.published += 1
        if not message.topic.startswith(topics.RESPONSE):
            self.made.append(json.loads(message.payload)["seq"])
        super().publish(message)

    def set_state(self, topic: str, payload: str, *, qos: int = 1) -> None:
        """Set a retained state."""
        self.published += 1
        super().set_state(topic, payload, qos=qos)


class LightRig:
    """One rig; it connects when its block begins, and works whenever `work` is called.

    Parameters
    ----------
    rig_id: its name.
    mqtt: the broker.
    script: what it plays.
    offset_s: place in the script at which it begins; rigs of a fleet are not in step.

    Attributes
    ----------
    publisher: counts what was published.
    connections_s: when it was found connected anew, on the monotonic clock.
    """

    def __init__(self, rig_id: str, mqtt: MqttConfig, script: Script, offset_s: float) -> None:
        self._script = script
        self._outbox = Outbox(None)
        self._inbox = Inbox()
        config = Config(
            rig_id=rig_id,
            source=SourceConfig(port="none"),
            models=(script.bundle.manifest.name,),
            mqtt=mqtt,
            state_dir=NO_FOLDER,
        )
        version = installed_version()
        self._discovery = Discovery(config, version=version, write=lambda _task: None)
        birth = self._discovery.birth_topic
        self.publisher = CountingPublisher(
            rig_id=rig_id,
            config=mqtt,
            outbox=self._outbox,
            on_request=self._inbox.receive,
            listeners={} if birth is None else {birth: self._discovery.on_birth},
            delivered={},
        )
        self._discovery.use_publisher(self.publisher)
        self._messages = Messages(self.publisher, version=version)
        self._requests = Requests(self._inbox, self._respond)
        self._requests.register({STATUS: Action(self._status), RELOAD: Action(self._reload)})
        self._latest: dict[str, Prediction] = {}
        self._latencies: deque[float] = deque(maxlen=100)
        self._started_s = time.monotonic()
        self._next_announcement_s = self._started_s
        self._next_health_s = self._started_s + math.fmod(offset_s, HEALTH_EVERY_S)
        first = next(
            (n for n, moment in enumerate(script.moments) if moment.at_s >= offset_s),
            len(script.moments),
        )
        self._round, self._next = divmod(first, len(script.moments))
        self._begin_s = self._started_s - offset_s
        self.connections_s: list[float] = []

    def __enter__(self) -> Self:
        self._outbox.start()
        self.publisher.start()
        self._messages.publish_board_status(present=True)
        self._messages.publish_info(
            [self._script.bundle],
            rate_hz=RATE_HZ,
            dialect=DIALECT,
            calibration=None,
            foreign_boards={self._script.bundle.manifest.name: False},
        )
        self._messages.publish_health(self._gauges())
        return self

    def __exit__(self, *_: object) -> None:
        self.publisher.close()
        self._outbox.close()

    @property
    def boot_id(self) -> str:
        """Identifies this run: what the rig's payloads say as `boot_id`."""
        return self._messages.boot_id

    @property
    def depth(self) -> int:
        """Messages that the broker does not have yet."""
        return self._outbox.depth

    def work(self, now_s: float) -> None:
        """Publish what is due on the monotonic clock, and answer requests."""
        while self._due_s() <= now_s:
            self._play(self._script.moments[self._next])
            self._next += 1
            if self._next == len(self._script.moments):
                self._next, self._round = 0, self._round + 1
        if now_s >= self._next_health_s:
            self._next_health_s += HEALTH_EVERY_S
            self._messages.publish_health(self._gauges())
        if now_s >= self._next_announcement_s:
            self._next_announcement_s = now_s + ANNOUNCE_EVERY_S
            self._announce()
        self._requests.work()

    def note_connection(self, now_s: float) -> None:
        """Note the time if the rig has connected anew; for any one thread."""
        if self.publisher.report().connections > len(self.connections_s):
            self.connections_s.append(now_s)

    def _announce(self) -> None:
        """Tell Home Assistant of the rig, and again when it asks."""
        self._discovery.announce([self._script.bundle], {}, (), {})

    def _due_s(self) -> float:
        at_s = self._script.moments[self._next].at_s
        return self._begin_s + self._round * self._script.length_s + at_s

    def _play(self, moment: Moment) -> None:
        with self._outbox.one_commit():
            for event in moment.events:
                self._messages.publish_event(event)
            for prediction in moment.predictions:
                self._latest[prediction.model] = prediction
                self._latencies.append(prediction.latency_ms)
                self._messages.publish_prediction(prediction)

    def _respond(self, command: str, answer: Data) -> None:
        words = describe_answer(command, answer)
        self._messages.publish_response(command, {**answer, "words": words})

    def _status(self) -> Data:
        return status_summary(self._gauges(), [self._script.bundle], self._latest, None)

    def _reload(self) -> Data:
        """Answer as a rig whose configuration has not changed."""
        return {"changed": [], "models": [self._script.bundle.manifest.name]}

    def _gauges(self) -> Gauges:
        uptime_s = time.monotonic() - self._started_s
        recording = RecorderReport(
            state=RecorderState.OFF,
            why=None,
            segment=None,
            rows=0,
            rows_skipped=0,
            pauses=0,
            segments_removed=0,
            kept_mb=0.0,
        )
        return Gauges(
            counts=LineCounts(lines=int(uptime_s * RATE_HZ), frames=int(uptime_s * RATE_HZ)),
            port_open=True,
            port_reconnects=0,
            board={"state": BoardState.ONLINE.value, "why": None, "losses": 0},
            recording=asdict(recording),
            chunks_dropped=0,
            rate_hz=RATE_HZ,
            quality=self._script.quality,
            channel_faults=0,
            inference_ms={self._script.bundle.manifest.name: self._latencies},
            outbox=self._outbox.report(),
            broker=asdict(self.publisher.report()),
            calibration={"state": "none", "profile": None, "why": None, "drift": {}},
            requests=asdict(self._inbox.counts),
            rss_mb=resident_mb(),
            uptime_s=uptime_s,
        )
