"""Daemon: what a program that watches many rigs subscribes to, and in what portions.

Pure. Mosquitto drops what it has for a client beyond 1,000 messages (`max_queued_messages`),
retained ones included. So the two words of every rig's status come first, which are few bytes, and
then the objects that the broker retains, of so many rigs at a time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from daemon.config.settings import RIG_ID_PATTERN, TOPIC_ROOT
from daemon.mqtt import topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STATUS_TOPICS = (topics.STATUS, topics.SENSOR_STATUS)
STATE_TOPICS = frozenset({topics.INFO, topics.HEALTH, topics.SUBSTANCE, topics.MIXTURE})
"""What the broker keeps of every rig: two words, and objects of up to 20 kB."""

PASSING_TOPICS = (topics.EVENT, topics.SAMPLE, f"{topics.RESPONSE}/+")
"""What it does not keep."""

FILTERS_AT_ONCE = 100
"""Topics of one portion."""

_RIG_TOPIC = re.compile(rf"{TOPIC_ROOT}/({RIG_ID_PATTERN})/(.+)")


def of_all_rigs(names: Iterable[str]) -> list[str]:
    """Return filters that match some topics, below a rig's prefix, of every rig."""
    return [f"{TOPIC_ROOT}/+/{name}" for name in names]


def portions(rigs: Iterable[str], names: Iterable[str]) -> Iterator[list[str]]:
    """Yield the topics of these names of these rigs, each in full, `FILTERS_AT_ONCE` at a time."""
    wanted = sorted(names)
    filters = [f"{TOPIC_ROOT}/{rig}/{name}" for rig in rigs for name in wanted]
    for first in range(0, len(filters), FILTERS_AT_ONCE):
        yield filters[first : first + FILTERS_AT_ONCE]


def split_topic(topic: str) -> tuple[str, str] | None:
    """Return the rig and the rest of one of its topics; None for a topic of none."""
    match = _RIG_TOPIC.fullmatch(topic)
    return None if match is None else (match[1], match[2])
