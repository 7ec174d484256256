"""Shared subscriptions (`$share/GROUP/...`) of a real Mosquitto, as docs/fleet.md states them."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from itertools import chain

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from tests.sandbox import Mosquitto, Subscriber, wait_until

RIGS = 20
MESSAGES = 200

SHARED = "$share/archive/scent/+/substance"


def member(stack: ExitStack, port: int, topic: str = SHARED) -> Subscriber:
    return stack.enter_context(Subscriber(port, topic=topic, protocol=MQTTProtocolVersion.MQTTv5))


def publish(publisher: Subscriber) -> set[str]:
    texts = [f'{{"seq": {number}}}' for number in range(MESSAGES)]
    for number, text in enumerate(texts):
        publisher.publish(f"scent/rig-{number % RIGS}/substance", text)
    return set(texts)


def test_each_message_comes_to_exactly_one_member_of_a_group(broker: Mosquitto) -> None:
    with ExitStack() as stack:
        group = [member(stack, broker.port) for _ in range(3)]
        other = member(stack, broker.port, "$share/judge/scent/+/substance")
        alone = member(stack, broker.port, "scent/+/substance")
        made = publish(alone)
        wait_until(lambda: len(alone.received) == MESSAGES, "all messages")
        for one in (*group, other):
            one.catch_up()
        shares = [[message.text for message in one.received] for one in group]
        assert sorted(chain.from_iterable(shares)) == sorted(made)
        assert all(shares)
        assert {message.text for message in other.received} == made
        assert len(other.received) == MESSAGES


def test_a_member_that_leaves_leaves_the_rest_to_the_others(broker: Mosquitto) -> None:
    with ExitStack() as stack:
        staying, publisher = member(stack, broker.port), member(stack, broker.port, "none")
        with ExitStack() as leaving:
            member(leaving, broker.port)
        made = publish(publisher)
        wait_until(lambda: len(staying.received) == MESSAGES, "all messages")
        assert {message.text for message in staying.received} == made


def test_a_retained_message_is_never_taken_for_a_live_one(broker: Mosquitto) -> None:
    """Mosquitto 2.0.11 sends it to every member, later versions to none, as the standard says."""
    with ExitStack() as stack:
        publisher = member(stack, broker.port, "none")
        publisher.publish("scent/rig-1/substance", '{"seq": 1}', retain=True)
        publisher.catch_up()
        shared = member(stack, broker.port)
        alone = member(stack, broker.port, "scent/+/substance")
        for one in (shared, alone):
            one.catch_up()
        assert [message.text for message in alone.received] == ['{"seq": 1}']
        assert all(message.retained for message in shared.received)
        live = publish(publisher)
        publisher.catch_up()
        shared.catch_up()
        assert {message.text for message in shared.received if not message.retained} == live


def test_members_with_sessions_share_what_came_while_none_was_connected(broker: Mosquitto) -> None:
    program = shutil.which("mosquitto_sub")
    if program is None:
        pytest.skip("mosquitto_sub is not installed: sudo apt install mosquitto-clients")

    def run(member: str, *options: str) -> list[str]:
        command = [
            *(program, "-p", str(broker.port), "-V", "5", "-q", "1", "-R"),
            *("-c", "-x", "600", "-i", member, "-t", SHARED, *options),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout.split("\n")[:-1]

    members = ("archive-1", "archive-2")
    for one in members:
        run(one, "-E")  # until the subscription is confirmed
    with Subscriber(broker.port, topic="none") as publisher:
        made = publish(publisher)
        publisher.catch_up()
    shares = [run(one, "-W", "2") for one in members]
    assert sorted(chain.from_iterable(shares)) == sorted(made)
    assert all(shares)
