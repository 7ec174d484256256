"""Daemon: keeps Home Assistant up to date about a rig: announced, changed, removed.

Joins the payload (`daemon.mqtt.home_assistant`) and whoever publishes; remembers on disk what Home
Assistant was told, so that what is no longer there is taken back even after a restart. Belongs to
the pipeline's thread, but for `heard`, which the broker's thread calls.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from daemon.mqtt.home_assistant import AnnouncedModel, birth_topic, config_topic, device_payload
from daemon.mqtt.payloads import encode
from daemon.mqtt.topics import ONLINE
from daemon.system.logs import get_logger
from hardware.files import write_atomically
from models.taught_head import HIDDEN_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from daemon.config.settings import Config
    from models.bundle import Bundle
    from models.manifest import Manifest
    from models.taught_head import TaughtHead

FILE_NAME = "home_assistant.json"
"""Below `state_dir`: the topic and the components of the latest payload."""

REPEAT_AFTER_S = 5.0
"""Home Assistant is born once; whoever else writes on its topic makes the rig repeat itself no
faster."""


class StatePublisher(Protocol):
    """Who publishes retained states on topics of others."""

    def set_state_at(self, topic: str, payload: str) -> None:
        """Set a retained message by its whole topic; an empty one removes it."""

    def repeat(self, topic: str) -> None:
        """Send once more what is held on a topic."""


@dataclass(slots=True)
class _Announcement:
    """What Home Assistant was told: where, and the platform of every component ever."""

    topic: str | None = None
    components: dict[str, str] = field(default_factory=dict)


class Discovery:
    """One rig's device in Home Assistant.

    Parameters
    ----------
    config : Config
        The rig's; `mqtt.home_assistant` says whether and below which prefix.
    version : str
        Of scentd.
    clock : callable
        Seconds of a steady clock.
    """

    def __init__(
        self, config: Config, *, version: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._version = version
        self._clock = clock
        self._prefix = config.mqtt.discovery_prefix
        self._path: Path = config.state_dir / FILE_NAME
        self._told = self._remembered()
        self._speakers: tuple[AnnouncedModel, ...] | None = None
        self._holder: StatePublisher | None = None
        self._repeated_s = float("-inf")
        self._log = get_logger("discovery")

    @property
    def birth_topic(self) -> str | None:
        """Where Home Assistant says that it is there; None where nobody asks."""
        return None if self._prefix is None else birth_topic(self._prefix)

    def begin(self, holder: StatePublisher) -> None:
        """Know who publishes; take back what an earlier configuration had announced elsewhere."""
        self._holder = holder
        topic = None if self._prefix is None else config_topic(self._prefix, self._config.rig_id)
        if self._told.topic not in (None, topic):
            self._log.info("taken back from Home Assistant", topic=self._told.topic)
            holder.set_state_at(str(self._told.topic), "")
            self._told = _Announcement()
            self._remember()
        self._told.topic = topic

    def announce(self, bundles: Iterable[Bundle], heads: Mapping[str, TaughtHead]) -> None:
        """Tell Home Assistant of the models that run, if it was told of others.

        Parameters
        ----------
        bundles : iterable of Bundle
            The models.
        heads : mapping
            By model, what the rig's owner taught it, hid and renamed.
        """
        if self._holder is None or self._told.topic is None:
            return
        speakers = tuple(
            _speaker(bundle.manifest, heads.get(bundle.manifest.name)) for bundle in bundles
        )
        if speakers == self._speakers:
            return
        self._speakers = speakers
        payload = device_payload(
            rig_id=self._config.rig_id,
            version=self._version,
            speakers=speakers,
            live_stride_s=self._config.live_stride_s,
            gone=self._told.components,
        )
        self._holder.set_state_at(self._told.topic, encode(payload))
        # Those gone stay in the payload for good: nobody says when Home Assistant was listening.
        self._told.components = {
            key: component["platform"] for key, component in payload["components"].items()
        }
        self._remember()

    def on_birth(self, payload: bytes) -> None:
        """Repeat the payload when Home Assistant is born; called by the broker's thread."""
        now_s = self._clock()
        if (
            payload.decode("utf-8", "replace") != ONLINE
            or self._holder is None
            or self._told.topic is None
            or now_s - self._repeated_s < REPEAT_AFTER_S
        ):
            return
        self._repeated_s = now_s
        self._log.info("Home Assistant is there")
        self._holder.repeat(self._told.topic)

    def _remembered(self) -> _Announcement:
        try:
            data = json.loads(self._path.read_bytes())
            return _Announcement(
                str(data["topic"]), {str(k): str(v) for k, v in data["gone"].items()}
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return _Announcement()  # nothing was told, or nobody can know any more what

    def _remember(self) -> None:
        """Write down what was told; a disk that refuses costs no more than a later taking back."""
        data = {"topic": self._told.topic, "gone": self._told.components}
        try:
            if self._told.topic is None:
                self._path.unlink(missing_ok=True)
            else:
                write_atomically(self._path, json.dumps(data).encode())
        except OSError as error:
            self._log.warning(f"{self._path} could not be written: {error.strerror or error}.")


def _speaker(manifest: Manifest, head: TaughtHead | None) -> AnnouncedModel:
    """Return a model by the labels that it may announce on this rig."""
    labels = manifest.labels if head is None else head.labels(manifest.labels)
    said = tuple(label for label in labels if not label.endswith(HIDDEN_SUFFIX))
    return AnnouncedModel(manifest.name, manifest.task, said)
