"""What a broker refuses, for now or for ever, and what it forgets, lacks or sends too much of."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from paho.mqtt import publish

from daemon.config.settings import MqttConfig
from daemon.mqtt import publisher as publisher_module
from daemon.mqtt import refusals
from daemon.mqtt.connection import (
    IN_FLIGHT_LIMIT,
    LARGEST_PACKET_BYTES,
    BrokerRefusedError,
    try_broker,
)
from daemon.mqtt.outbox import Limits, Message, Outbox
from daemon.mqtt.publisher import Publisher
from tests.sandbox import Mosquitto, Subscriber, retained, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

OPEN = "topic readwrite #\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry after fractions of a second."""
    monkeypatch.setattr(refusals, "FIRST_RETRY_S", 0.1)
    monkeypatch.setattr(refusals, "LONGEST_RETRY_S", 0.2)
    monkeypatch.setattr(publisher_module, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(publisher_module, "RETRY_EVERY_S", 0.2)


@contextmanager
def rig(
    port: int, limits: Limits | None = None, path: Path | None = None, **settings: object
) -> Iterator[tuple[Outbox, Publisher]]:
    config = MqttConfig(host="127.0.0.1", port=port, **settings)  # type: ignore[arg-type]
    with (
        Outbox(path, limits) as outbox,
        Publisher(
            rig_id="rig", config=config, outbox=outbox, on_request=lambda *_: None
        ) as publisher,
    ):
        wait_until(lambda: publisher.report().connections, "the connection")
        yield outbox, publisher


def message(topic: str, number: int, *, retain: bool = False) -> Message:
    return Message(topic, json.dumps({"seq": number, "buffered": False}), 1, retain=retain)


def numbers(subscriber: Subscriber, topic: str) -> list[int]:
    return [json.loads(text)["seq"] for text in subscriber.texts(f"scent/rig/{topic}")]


@pytest.fixture
def with_rules(tmp_path: Path) -> Iterator[tuple[Mosquitto, Callable[[str], None]]]:
    """Run a Mosquitto with an access list, and give a function that changes the list."""
    rules = tmp_path / "acl"
    rules.write_text(OPEN, encoding="utf-8")
    rules.chmod(0o644)

    def change(text: str) -> None:
        rules.write_text(text, encoding="utf-8")
        (log,) = tmp_path.glob("*.log")
        reloads = log.read_text(encoding="utf-8").count("Reloading config")
        os.kill(broker.pid, signal.SIGHUP)
        wait_until(
            lambda: log.read_text(encoding="utf-8").count("Reloading config") > reloads, "the rules"
        )

    with Mosquitto(tmp_path, f"allow_anonymous true\nacl_file {rules}") as broker:
        yield broker, change


def test_refused_messages_are_kept_and_sent_in_order_once_they_are_allowed(
    with_rules: tuple[Mosquitto, Callable[[str], None]],
) -> None:
    broker, change = with_rules
    with Subscriber(broker.port) as subscriber, rig(broker.port) as (outbox, publisher):
        change("topic read #\n")
        for number in range(60):
            publisher.publish(message("substance", number, retain=True))
            publisher.publish(message("event", number))
        wait_until(lambda: publisher.report().rejected > 4, "refusals")
        assert outbox.depth == 120
        publisher.publish(message("event", 60))
        change(OPEN)
        wait_until(lambda: outbox.depth == 0, "the acknowledgements")
        wait_until(lambda: len(numbers(subscriber, "event")) == 61, "the events")
        assert numbers(subscriber, "event") == list(range(61))
        assert numbers(subscriber, "substance") == list(range(60))
        assert json.loads(retained(broker.port, "scent/rig/substance") or "{}")["seq"] == 59
        assert sum(outbox.report().dropped.values()) == 0


def test_a_topic_that_stays_forbidden_does_not_hold_up_the_others(
    with_rules: tuple[Mosquitto, Callable[[str], None]],
) -> None:
    broker, change = with_rules
    limits = Limits(messages=40, size_bytes=1 << 20, age_s=1000)
    with Subscriber(broker.port) as subscriber, rig(broker.port, limits) as (_, publisher):
        change("topic read #\ntopic write scent/rig/substance\n")
        for number in range(100):
            publisher.publish(message("event", number))
            publisher.publish(message("substance", number))
        wait_until(lambda: len(numbers(subscriber, "substance")) == 100, "the other topic")
        assert numbers(subscriber, "substance") == list(range(100))
        assert numbers(subscriber, "event") == []


def test_what_was_refused_still_obeys_the_limits_of_the_outbox(
    with_rules: tuple[Mosquitto, Callable[[str], None]], tmp_path: Path
) -> None:
    broker, change = with_rules
    limits = Limits(messages=20, size_bytes=1 << 20, age_s=1000)
    with (
        Subscriber(broker.port) as subscriber,
        rig(broker.port, limits, tmp_path / "outbox.sqlite") as (outbox, publisher),
    ):
        change("topic read #\n")
        for number in range(50):
            publisher.publish(message("event", number))
            outbox.flush(5.0)
        wait_until(lambda: publisher.report().rejected > 4, "refusals")
        wait_until(lambda: outbox.depth <= 21, "the limit")
        change(OPEN)
        publisher.publish(message("event", 50))
        wait_until(lambda: outbox.depth == 0, "the acknowledgements")
        # The broker acknowledges a message before its subscribers have it.
        wait_until(lambda: numbers(subscriber, "event")[-1:] == [50], "the last message")
        came, lost = numbers(subscriber, "event"), outbox.report().dropped["events"]
    assert came == sorted(came)
    assert len(came) + lost == 51


def test_refused_states_and_subscriptions_are_tried_again(
    with_rules: tuple[Mosquitto, Callable[[str], None]],
) -> None:
    broker, change = with_rules
    received: list[str] = []
    change("topic read nothing\n")
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with (
        Outbox(None) as outbox,
        Publisher(
            rig_id="rig",
            config=config,
            outbox=outbox,
            on_request=lambda command, *_: received.append(command),
        ) as publisher,
    ):
        publisher.set_state("info", "{}")
        wait_until(lambda: publisher.report().rejected > 1, "refusals")
        change(OPEN)
        wait_until(lambda: retained(broker.port, "scent/rig/info") == "{}", "the state")
        wait_until(lambda: retained(broker.port, "scent/rig/status") == "online", "the status")
        publish.single("scent/rig/request/first", "{}", qos=1, port=broker.port)
        wait_until(lambda: received == ["first"], "a request, after the refused subscription")


def test_requests_are_subscribed_again_on_every_connection(broker: Mosquitto) -> None:
    received: list[str] = []
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with (
        Outbox(None) as outbox,
        Publisher(
            rig_id="rig",
            config=config,
            outbox=outbox,
            on_request=lambda command, *_: received.append(command),
        ) as publisher,
    ):
        for number in range(1, 4):
            wait_until(lambda n=number: publisher.report().connections == n, "a connection")
            wait_until(lambda: retained(broker.port, "scent/rig/status") == "online", "the status")
            publish.single(f"scent/rig/request/after-{number}", "{}", qos=1, port=broker.port)
            wait_until(lambda n=number: len(received) == n, "the request")
            broker.stop()
            broker.start()
    assert received == ["after-1", "after-2", "after-3"]


class PickyBroker:
    """Speaks just enough MQTT 5 to one client, and refuses each message of `refused` once."""

    def __init__(self, server: socket.socket, refused: set[int]) -> None:
        self.received: list[tuple[int, bool]] = []
        """Number, and whether it was accepted, of every message in order of arrival."""
        self._server, self._refused = server, refused
        self.open = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, suppress(OSError, EOFError):
            stream = connection.makefile("rb")
            while True:
                head, body = self._packet(stream)
                kind = head >> 4
                if kind == 1:
                    connection.sendall(bytes([0x20, 3, 0, 0, 0]))
                elif kind == 8:
                    connection.sendall(bytes([0x90, 4, body[0], body[1], 0, 1]))
                elif kind == 3:
                    connection.sendall(self._answer(body))

    def _packet(self, stream: BinaryIO) -> tuple[int, bytes]:
        (head,) = stream.read(1) or self._end()
        length = shift = 0
        while True:
            (digit,) = stream.read(1) or self._end()
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                return head, stream.read(length)

    def _end(self) -> bytes:
        raise EOFError

    def _answer(self, body: bytes) -> bytes:
        topic_end = 2 + int.from_bytes(body[:2])
        mid, payload = body[topic_end : topic_end + 2], body[topic_end + 3 :]
        reason = 0
        if body[2:topic_end] == b"scent/rig/event":
            self.open.wait()
            number = json.loads(payload)["seq"]
            reason = 0x97 if number in self._refused else 0
            self._refused.discard(number)
            self.received.append((number, reason == 0))
        return bytes([0x40, 3, *mid, reason])


def test_messages_refused_out_of_those_in_flight_go_out_again_in_order_before_later_ones() -> None:
    """Later ones of those in flight are accepted first, which MQTT does not let a client undo."""
    refused = {3, 4, 7, 15}
    with socket.create_server(("127.0.0.1", 0)) as server:
        picky = PickyBroker(server, set(refused))
        with rig(server.getsockname()[1], protocol="5") as (outbox, publisher):
            for number in range(60):
                publisher.publish(message("event", number))
            outbox.flush(60.0)
            picky.open.set()
            wait_until(lambda: outbox.depth == 0, "the acknowledgements")
    accepted = [number for number, is_accepted in picky.received if is_accepted]
    assert sorted(accepted) == list(range(60))
    others = [number for number in accepted if number not in refused]
    assert others == sorted(others)
    assert [number for number in accepted if number in refused] == sorted(refused)
    # Each acknowledgement before the first refusal lets one more message go.
    sent_before = min(refused) + IN_FLIGHT_LIMIT
    assert set(accepted[: accepted.index(max(refused))]) <= set(range(sent_before))


def test_a_message_that_can_never_be_delivered_is_given_up_and_counted(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path, "allow_anonymous true\nmax_packet_size 2000") as broker,
        Subscriber(broker.port) as subscriber,
        rig(broker.port) as (outbox, publisher),
    ):
        publisher.publish(Message("event", json.dumps({"x": "x" * 3000}), 1, retain=False))
        publisher.publish(message("event", 1))
        wait_until(lambda: outbox.depth == 0, "the acknowledgements")
        wait_until(lambda: numbers(subscriber, "event") == [1], "the other message")
        assert outbox.report().dropped["undeliverable"] == 1


def test_retained_messages_said_once_return_to_a_broker_that_forgot_them(
    broker: Mosquitto,
) -> None:
    with rig(broker.port) as (outbox, publisher):
        publisher.publish(message("mixture", 7, retain=True))
        wait_until(lambda: outbox.depth == 0, "the acknowledgement")
        broker.stop()
        broker.start()
        wait_until(lambda: publisher.report().connections > 1, "the second connection")
        wait_until(lambda: retained(broker.port, "scent/rig/mixture"), "the prediction")
        again = json.loads(retained(broker.port, "scent/rig/mixture") or "{}")
    assert again == {"seq": 7, "buffered": True}


def test_a_broker_without_retained_messages_is_used_and_check_says_so(tmp_path: Path) -> None:
    settings = "allow_anonymous true\nretain_available false"
    with Mosquitto(tmp_path, settings) as broker, Subscriber(broker.port) as subscriber:
        assert "keeps no retained messages" in try_broker(
            "rig", MqttConfig(host="127.0.0.1", port=broker.port)
        )
        with rig(broker.port) as (outbox, publisher):
            publisher.publish(message("substance", 1, retain=True))
            wait_until(lambda: outbox.depth == 0, "the acknowledgement")
            wait_until(lambda: numbers(subscriber, "substance") == [1], "the message")
            assert publisher.report().connections == 1


def test_a_broker_of_qos_0_only_is_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path, "allow_anonymous true\nmax_qos 0") as broker,
        pytest.raises(BrokerRefusedError, match="max_qos 1"),
    ):
        try_broker("rig", MqttConfig(host="127.0.0.1", port=broker.port))


def test_mqtt_5_brokers_are_told_the_largest_packet(broker: Mosquitto) -> None:
    received: list[bytes] = []
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with (
        Outbox(None) as outbox,
        Subscriber(broker.port) as subscriber,
        Publisher(
            rig_id="rig",
            config=config,
            outbox=outbox,
            on_request=lambda _command, payload, _retained: received.append(payload),
        ) as publisher,
    ):
        subscriber.await_text("scent/rig/status", "online")
        for text in ("x" * (LARGEST_PACKET_BYTES + 1), "small"):
            publish.single("scent/rig/request/status", text, qos=1, port=broker.port)
        wait_until(lambda: received, "the small request")
        assert received == [b"small"]
        assert publisher.report().connections == 1


def test_a_connection_whose_packet_is_too_long_is_cut_before_it_is_read() -> None:
    """The broker sends the head of a packet of 200 MB and a few bytes of it."""
    cut = threading.Event()
    head = b"\x30" + bytes([0x80 | 0x7F, 0xFF, 0xFF, 0x5F])
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(struct.pack(">BBBB", 0x20, 2, 0, 0) + head + b"xxxx")
                connection.settimeout(30.0)
                try:
                    while connection.recv(4096):
                        pass
                except ConnectionError:
                    pass
                cut.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with rig(server.getsockname()[1], protocol="3.1.1"):
            wait_until(cut.is_set, "the end of the connection", 20.0)
