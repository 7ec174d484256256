"""Soak: what the service announced, against a replay of the readings that the board sent.

The replay gives each reading to a runtime of the same configuration, as the service does, and
replaces it where the service reloaded. It runs after the service has ended. Every prediction of the
replay must have been made, and what was delivered must say the same.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from daemon.board.history import History
from daemon.config.loading import load_config
from daemon.installed_models.loading import load_models
from daemon.mqtt import payloads, topics
from daemon.mqtt.payloads import Envelope
from daemon.service.runtime import Runtime
from daemon.soak.observed import DURABLE, PREDICTIONS
from models.decision_spec import State
from models.results import EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from daemon.soak.observed import Boot, DeliveredMessage, MadeMessage, MessageId
    from daemon.soak.readings import BootReading
    from models.bundle import Bundle
    from models.results import Step

_NOT_COMPARED = frozenset(
    {"ts", "clock_synced", "boot_id", "seq", "latency_ms", "buffered", "segment"}
)
_OF_THE_AIR = frozenset(str(kind) for kind in EventType)
_NOWHERE = Envelope(0, clock_synced=False, boot_id="", seq=0)


@dataclass(slots=True, kw_only=True)
class AnnouncementReport:
    """The announcements of a run and those of its replay.

    Attributes
    ----------
    replayed: predictions and events of the replay that the service should have made.
    missing: of them, predictions that it never made.
    missing_events: of them, events that it never made.
    unexpected: predictions that it made and the replay did not.
    compared: announcements that were delivered and compared in content.
    different: of them, those that say something else.
    example: of one that is different, in words.
    predicted: by model, the delivered predictions that come from a window of readings.
    named: by model, those of them that name a smell or a mixture.
    """

    replayed: int = 0
    missing: int = 0
    missing_events: int = 0
    unexpected: int = 0
    compared: int = 0
    different: int = 0
    example: str = ""
    predicted: dict[str, int] = field(default_factory=dict)
    named: dict[str, int] = field(default_factory=dict)

    @property
    def complaints(self) -> list[str]:
        """A sentence for everything wrong."""
        wrong = {
            f"{self.missing} of {self.replayed} predictions of a replay were never announced": (
                self.missing
            ),
            f"{self.missing_events} events of a replay were never announced": self.missing_events,
            f"{self.unexpected} predictions were announced that a replay does not make": (
                self.unexpected
            ),
            f"{self.different} of {self.compared} announcements differ from a replay's, such as "
            f"{self.example}": self.different,
            "no announcement was compared with a replay": self.compared == 0,
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]

    def as_json(self) -> dict[str, Any]:
        """Return everything by name."""
        return asdict(self)


class Replay:
    """Replays boots and adds what they announced to a report.

    Parameters
    ----------
    configure: writes the service's configuration with some settings changed; returns its path.
    arrivals: everything delivered.
    """

    def __init__(
        self,
        configure: Callable[[Mapping[str, Any]], Path],
        arrivals: Iterable[DeliveredMessage],
    ) -> None:
        self._configure = configure
        self._bundles: dict[str, Bundle] = {}
        self._delivered: dict[MessageId, dict[str, Any]] = {}
        self.report = AnnouncementReport()
        for message in arrivals:
            if message.topic in DURABLE:
                self._delivered.setdefault(message.id, message.payload)
        predictions = [
            payload for payload in self._delivered.values() if payload.get("window_s", 0) > 0
        ]
        self.report.predicted = dict(Counter(payload["model"] for payload in predictions))
        self.report.named = dict(
            Counter(
                payload["model"] for payload in predictions if payload["state"] == State.RECOGNISED
            )
        )

    def compare(self, boot: Boot, readings: Sequence[BootReading]) -> None:
        """Replay the readings of one boot and compare what they lead to."""
        history = History()
        runtime = self._runtime({}, history)
        reloads = list(boot.reloads)
        made_after = _by_sample(boot)
        latest = max(made_after, default=-1)
        for frame, place in readings:
            while reloads and place is not None and reloads[0].place <= place:
                reload = reloads.pop(0)
                if reload.from_ms is not None:
                    runtime = self._replaced(runtime, reload.changes, history, reload.from_ms)
            step = runtime.nose.process(frame)
            history.push(step.t_ms, frame.values)
            # The kill may have come between the latest reading and what it led to.
            if place is not None and not (boot.killed_s is not None and place == latest):
                self._compare_step(boot, step, made_after[place])

    def _runtime(self, changes: Mapping[str, Any], history: History) -> Runtime:
        config = load_config(self._configure(changes))
        for bundle in load_models(config, [n for n in config.models if n not in self._bundles]):
            self._bundles[bundle.manifest.name] = bundle
        runtime = Runtime.build(config, [self._bundles[name] for name in config.models], history)
        runtime.load()
        return runtime

    def _replaced(
        self, runtime: Runtime, changes: Mapping[str, Any], history: History, from_ms: int
    ) -> Runtime:
        """Return the runtime of another configuration, which has processed the last minutes."""
        recent, span = History(), history.since(from_ms - 1)
        for t_ms, values in zip(span.t_ms.tolist(), span.values, strict=True):
            recent.push(t_ms, values)
        new = self._runtime(changes, history)
        for _ in new.process_history(recent):
            pass
        new.nose.take_over(runtime.nose)
        return new

    def _compare_step(self, boot: Boot, step: Step, made: Sequence[MadeMessage]) -> None:
        self._compare_events(boot, step, [m for m in made if m.topic == topics.EVENT])
        for topic in PREDICTIONS:
            expected = [
                payloads.prediction_payload(prediction, _NOWHERE)
                for prediction in step.predictions
                if prediction.task == topic
            ]
            of_topic = [message for message in made if message.topic == topic]
            self.report.replayed += len(expected)
            self.report.missing += max(0, len(expected) - len(of_topic))
            self.report.unexpected += max(0, len(of_topic) - len(expected))
            if len(expected) == len(of_topic):
                for payload, message in zip(expected, of_topic, strict=True):
                    self._compare_content(payload, self._payload(boot, message))

    def _compare_events(self, boot: Boot, step: Step, made: Sequence[MadeMessage]) -> None:
        """Compare the events of the air; those of the rig come in between."""
        expected = [payloads.event_payload(event, None, _NOWHERE) for event in step.events]
        delivered = [self._payload(boot, message) for message in made]
        self.report.replayed += len(expected)
        if None in delivered:
            self.report.missing_events += max(0, len(expected) - len(made))
            return
        of_the_air = [
            payload for payload in delivered if payload and payload["type"] in _OF_THE_AIR
        ]
        self.report.missing_events += max(0, len(expected) - len(of_the_air))
        for payload, found in zip(expected, of_the_air, strict=False):
            self._compare_content(payload, found)

    def _payload(self, boot: Boot, message: MadeMessage) -> dict[str, Any] | None:
        return self._delivered.get((boot.boot_id, message.seq))

    def _compare_content(self, expected: dict[str, Any], found: dict[str, Any] | None) -> None:
        if found is None:
            return
        self.report.compared += 1
        different = {
            name: [value, found.get(name)]
            for name, value in json.loads(payloads.encode(expected)).items()
            if name not in _NOT_COMPARED and value != found.get(name)
        }
        if different:
            self.report.different += 1
            name, (expected_value, found_value) = next(iter(different.items()))
            self.report.example = self.report.example or (
                f"{name} {found_value!s:.80} instead of {expected_value!s:.80} (different are "
                f"{', '.join(different)})"
            )


def _by_sample(boot: Boot) -> dict[int, list[MadeMessage]]:
    """Return, by the place of a boot's `sample`, the messages made after it, before the next."""
    found: defaultdict[int, list[MadeMessage]] = defaultdict(list)
    sample = -1
    for place, message in enumerate(boot.made):
        if message.topic == topics.SAMPLE:
            sample = place
            found[sample] = []
        else:
            found[sample].append(message)
    return found
