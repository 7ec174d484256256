"""A counterpart of Home Assistant: receives discovery from a real broker and keeps entities.

What it does with a payload is what Home Assistant's documentation says of MQTT device discovery:
shared options at the root, a component with nothing but its platform is removed, an empty payload
removes the device, `availability` with its mode, templates rendered by sandboxed Jinja, enum
states only among their options. Expiry is left out: it needs a clock.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any, Self

import paho.mqtt.client as paho
from jinja2.sandbox import ImmutableSandboxedEnvironment
from paho.mqtt.enums import CallbackAPIVersion

from tests.sandbox import PATIENCE_S

UNKNOWN = "unknown"
UNAVAILABLE = "unavailable"

_ENVIRONMENT = ImmutableSandboxedEnvironment()


@dataclass
class Entity:
    """One entity: its configuration, shared options included, and its state."""

    config: dict[str, Any]
    state: str = UNKNOWN

    def follows(self, topic: str) -> bool:
        """Whether the entity's state comes from a topic."""
        pattern = self.config.get("state_topic")
        return pattern is not None and paho.topic_matches_sub(pattern, topic)

    def command(self, value: str | None = None) -> tuple[str, str]:
        """Return topic and payload of an action: a press, or setting the entity to a value."""
        template = self.config.get("command_template")
        fixed = {"button": "payload_press", "update": "payload_install"}
        if template is not None:
            payload = _ENVIRONMENT.from_string(template).render(value=value)
        elif self.config["platform"] == "switch":
            payload = self.config[f"payload_{value}"]
        else:
            payload = self.config[fixed[self.config["platform"]]]
        return self.config["command_topic"], payload

    def take(self, text: str) -> None:
        """Take a message of the state topic."""
        shown = self.rendered(text)
        platform = self.config["platform"]
        if platform == "event":
            told = json.loads(shown)
            if told["event_type"] in self.config["event_types"]:
                self.state = told["event_type"]
            return
        if shown == "None":
            self.state = UNKNOWN
        elif platform == "binary_sensor":
            words = {
                self.config.get("payload_on", "ON"): "on",
                self.config.get("payload_off", "OFF"): "off",
            }
            self.state = words[shown]
        else:
            options = self.config.get("options")
            assert options is None or shown in options, f"{shown} is none of {options}"
            if "state_class" in self.config or "unit_of_measurement" in self.config:
                float(shown)
            self.state = shown

    def rendered(self, text: str) -> str:
        template = self.config.get("value_template")
        if template is None:
            return text
        this = {"state": self.state}
        value = json.loads(text) if text.startswith("{") else None
        return (
            _ENVIRONMENT.from_string(template)
            .render(value=text, value_json=value, this=this)
            .strip()
        )


@dataclass
class HomeAssistant:
    """Entities by key, from discovery and the rig's topics; a context manager."""

    port: int
    prefix: str = "homeassistant"
    entities: dict[str, Entity] = field(default_factory=dict)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _client, _data, message: self._hear(message)
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()
        assert subscribed.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        assert self.trouble == [], self.trouble

    def be_born(self) -> None:
        """Say the birth message, as after a restart."""
        self._client.publish(f"{self.prefix}/status", "online", qos=1).wait_for_publish(PATIENCE_S)

    def act(self, key: str, value: str | None = None) -> None:
        """Press a button, or set an entity to a value."""
        topic, payload = self.entities[key].command(value)
        self._client.publish(topic, payload, qos=1).wait_for_publish(PATIENCE_S)

    def state(self, key: str) -> str | None:
        """Return what an entity shows; None where there is no such entity."""
        entity = self.entities.get(key)
        if entity is None:
            return None
        there = [
            self.texts.get(one["topic"]) == one["payload_available"]
            for one in entity.config["availability"]
        ]
        return entity.state if all(there) else UNAVAILABLE

    def _hear(self, message: paho.MQTTMessage) -> None:
        text = message.payload.decode()
        try:
            if message.topic.startswith(f"{self.prefix}/device/"):
                self._discover(text)
            else:
                self.texts[message.topic] = text
                for entity in list(self.entities.values()):
                    if entity.follows(message.topic):
                        entity.take(text)
        except Exception as error:  # noqa: BLE001 - paho's thread would swallow it: the test tells it
            self.trouble.append(f"{type(error).__name__} {error} at {message.topic} {text}")

    def _discover(self, text: str) -> None:
        if not text:
            self.removed += list(self.entities)
            self.entities.clear()
            return
        payload = json.loads(text)
        self.payloads.append(payload)
        shared = {key: payload[key] for key in ("availability", "availability_mode", "qos")}
        for key, component in payload["components"].items():
            if set(component) == {"platform"}:
                if self.entities.pop(key, None) is not None:
                    self.removed.append(key)
                continue
            before = self.entities.get(key)
            entity = Entity({**shared, **component}, before.state if before else UNKNOWN)
            self.entities[key] = entity
            if entity.config.get("state_topic") in self.texts:
                entity.take(self.texts[entity.config["state_topic"]])
