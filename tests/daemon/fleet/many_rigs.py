"""What a broker keeps of more rigs than it queues messages of for one client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from daemon.fleet.subscriptions import STATE_TOPICS, STATUS_TOPICS

if TYPE_CHECKING:
    from tests.sandbox import Subscriber

RIGS = 250
"""With six topics each, more than the 1,000 messages that Mosquitto queues for a client."""

STATE = {
    "scentd_version": "0.1.0",
    "models": [{"name": "m", "version": "1"}],
    "model": "m",
    "state": "ambient",
    "frames_ok": 1,
    "frames_lost": 0,
    "board": {"state": "online", "why": None},
    "broker": {"state": "connected", "protocol": "5", "connections": 1},
    "recording": {"state": "off", "kept_mb": 0},
    "outbox_depth": 0,
    "outbox_dropped": 0,
    "inference_ms": {},
    "calibration": {"state": "none"},
    "rss_mb": 80,
    "uptime_s": 60,
    "text": "x" * 3000,
}
"""Serves as the payload of every topic."""


def publish_rigs(publisher: Subscriber) -> None:
    """Let the broker keep all topics of all rigs."""
    for number in range(RIGS):
        prefix = f"scent/rig-{number:03d}"
        for topic in STATUS_TOPICS:
            publisher.publish(f"{prefix}/{topic}", "online", retain=True)
        for topic in STATE_TOPICS:
            publisher.publish(f"{prefix}/{topic}", json.dumps(STATE), retain=True)
    publisher.catch_up()
