"""Daemon: the names of a rig's MQTT topics, and the two words of its status topics."""

from __future__ import annotations

from daemon.config.settings import TOPIC_ROOT

STATUS = "status"
SENSOR_STATUS = "sensor/status"
SUBSTANCE = "substance"
MIXTURE = "mixture"
EVENT = "event"
SAMPLE = "sample"
HEALTH = "health"
INFO = "info"
REQUEST = "request"
RESPONSE = "response"
"""All of them below the rig's prefix."""

ONLINE = "online"
OFFLINE = "offline"


def topic_prefix(rig_id: str) -> str:
    """Return the start of all topics of a rig, slash included."""
    return f"{TOPIC_ROOT}/{rig_id}/"
