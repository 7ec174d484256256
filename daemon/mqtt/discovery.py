"""Daemon: announces a rig to Home Assistant, and changes or removes what was announced.

Joins the payload (`daemon.mqtt.home_assistant`) and the publisher. Keeps on disk what was
announced, so that components that no longer exist are removed even after a restart. Belongs to the
pipeline's thread, except `on_birth`, which the MQTT thread calls.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daemon.mqtt.home_assistant import (
    AnnouncedModel,
    birth_topic,
    config_topic,
    device_payload,
    is_config_topic,
)
from daemon.mqtt.payloads import encode
from daemon.mqtt.topics import ONLINE
from daemon.system.logs import get_logger
from hardware.files import read_regular, remove, write_atomically
from hardware.safe_json import read_state, write_state
from models.taught_head import HIDDEN_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from daemon.config.settings import Config
    from daemon.mqtt.publisher import Publisher
    from models.bundle import Bundle
    from models.manifest import Manifest
    from models.taught_head import TaughtHead

ANNOUNCEMENT_FILE = "home_assistant.json"
"""Below `state_dir`: the topic and the components of the latest payload."""

REPEAT_AFTER_S = 5.0
"""Shortest time between two repetitions of the payload: others may write on the birth topic too."""

REPEAT_WITHIN_S = 4.0
"""A repetition comes after a random part of this time: all rigs of a broker are asked at once."""


@dataclass(slots=True)
class _Announced:
    """What was announced: its topic, and the platform of every component ever."""

    topic: str | None = None
    components: dict[str, str] = field(default_factory=dict)


class Discovery:
    """One rig's device in Home Assistant.

    Parameters
    ----------
    config: the rig's; `mqtt.home_assistant` gives the prefix of the topics, or disables it.
    version: of scentd.
    clock: seconds of a monotonic clock.
    write: calls a function that uses the disk, in another thread where a disk may hang.
    source: of randomness.
    """

    def __init__(
        self,
        config: Config,
        *,
        version: str,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[Callable[[], None]], object] = lambda task: task(),
        source: random.Random | None = None,
    ) -> None:
        self._config = config
        self._version = version
        self._clock = clock
        self._write = write
        self._prefix = config.mqtt.discovery_prefix
        self._path: Path = config.state_dir / ANNOUNCEMENT_FILE
        self._models: tuple[AnnouncedModel, ...] | None = None
        self._publisher: Publisher | None = None
        self._source = random.Random() if source is None else source
        self._asked_s = -math.inf
        self._repeat_at_s = math.inf
        self._log = get_logger("discovery")
        self._announced = self._load()

    @property
    def birth_topic(self) -> str | None:
        """The topic on which Home Assistant announces its start; None if discovery is disabled."""
        return None if self._prefix is None else birth_topic(self._prefix)

    def use_publisher(self, publisher: Publisher) -> None:
        """Publish through this; remove what an earlier configuration announced elsewhere."""
        self._publisher = publisher
        topic = None if self._prefix is None else config_topic(self._prefix, self._config.rig_id)
        if self._announced.topic not in (None, topic):
            self._log.info("taken back from Home Assistant", topic=self._announced.topic)
            publisher.set_state_at(str(self._announced.topic), "")
            self._announced = _Announced()
            self._save()
        self._announced.topic = topic

    def announce(
        self,
        bundles: Iterable[Bundle],
        heads: Mapping[str, TaughtHead],
        taught: Iterable[str],
        versions: Mapping[str, tuple[str, ...]],
    ) -> None:
        """Announce the models that run, if they have changed or Home Assistant has asked.

        Parameters
        ----------
        bundles: the models.
        heads: what they were taught, by name.
        taught: labels that the rig knows by what it was taught, of all models' topics.
        versions: those that each can be switched to, by name, the newest last.
        """
        if self._publisher is None or self._announced.topic is None:
            return
        if self._clock() >= self._repeat_at_s:
            self._repeat_at_s = math.inf
            self._publisher.repeat(self._announced.topic)
        taught = tuple(taught)
        models = tuple(
            _announced_model(
                bundle.manifest,
                heads.get(bundle.manifest.name),
                taught,
                versions.get(bundle.manifest.name, ()),
            )
            for bundle in bundles
        )
        if models == self._models:
            return
        self._models = models
        payload = device_payload(
            rig_id=self._config.rig_id,
            version=self._version,
            models=models,
            live_stride_s=self._config.live_stride_s,
            announced=self._announced.components,
        )
        self._publisher.set_state_at(self._announced.topic, encode(payload))
        # Removed ones stay in the payload for good: Home Assistant may not be running now.
        self._announced.components = {
            key: component["platform"] for key, component in payload["components"].items()
        }
        self._save()

    def on_birth(self, payload: bytes) -> None:
        """Let `announce` repeat the announcement soon: Home Assistant has started."""
        now_s = self._clock()
        if (
            payload.decode("utf-8", "replace") != ONLINE
            or self._publisher is None
            or self._announced.topic is None
            or now_s - self._asked_s < REPEAT_AFTER_S
        ):
            return
        self._asked_s = now_s
        self._log.info("Home Assistant is there")
        self._repeat_at_s = now_s + self._source.uniform(0.0, REPEAT_WITHIN_S)

    def _load(self) -> _Announced:
        try:
            return _announced(read_state(read_regular(self._path)))
        except FileNotFoundError:
            return _Announced()  # nothing was announced
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._log.warning(
                f"{self._path} cannot be used ({error}): what Home Assistant shows of an earlier "
                "configuration is not removed."
            )
            return _Announced()

    def _save(self) -> None:
        """Write what was announced; if the disk fails, it may not be removed after a restart."""
        topic = self._announced.topic
        content = write_state({"topic": topic, "gone": self._announced.components})

        def save() -> None:
            try:
                if topic is None:
                    remove(self._path)
                else:
                    write_atomically(self._path, content)
            except OSError as error:
                self._log.warning(f"{self._path} could not be written: {error.strerror or error}.")

        self._write(save)


def _announced(data: dict[str, Any]) -> _Announced:
    """Return what a file says was announced; ValueError or another error if it says nothing."""
    if not is_config_topic(data["topic"]):
        raise ValueError(f"{data['topic']!r} is no topic of Home Assistant's discovery")
    return _Announced(data["topic"], {str(key): str(name) for key, name in data["gone"].items()})


def _announced_model(
    manifest: Manifest,
    head: TaughtHead | None,
    taught: tuple[str, ...],
    versions: tuple[str, ...],
) -> AnnouncedModel:
    """Return a model with the labels that its topic may show on this rig, and its versions."""
    labels = manifest.labels if head is None else head.labels(manifest.labels)
    shown = tuple(label for label in labels if not label.endswith(HIDDEN_SUFFIX))
    shown = tuple(dict.fromkeys((*shown, *taught)))
    known = versions or (manifest.version,)
    return AnnouncedModel(manifest.name, manifest.task, shown, known)
