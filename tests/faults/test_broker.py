"""Faults of the broker: no message is lost or arrives out of order.

With a real Mosquitto, a real outbox on disk and real sockets. `consumed` is what a consumer keeps:
it ignores messages that it has seen, by `boot_id` and `seq`.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from daemon.config.settings import LogConfig, MqttConfig, TlsConfig
from daemon.mqtt import publisher as publisher_module
from daemon.mqtt.outbox import Message, Outbox, Priority
from daemon.mqtt.outgoing import BrokerState
from daemon.mqtt.publisher import Publisher
from daemon.sandbox.relay import Mode, Relay
from daemon.system.logs import configure_logs
from daemon.system.memory import resident_mb
from hardware.simulator.board import SimulatedBoard
from tests.faults.rig import AIR
from tests.sandbox import (
    ROOT,
    Mosquitto,
    ServiceProcess,
    Subscriber,
    free_port,
    retained,
    settings,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOOT = "0123456789abcdef"
TOPIC = "scent/rig/substance"


def prediction(seq: int, boot_id: str = BOOT) -> Message:
    text = json.dumps({"boot_id": boot_id, "seq": seq, "buffered": False})
    return Message("substance", text, 1, retain=True, priority=Priority.CHANGE)


def consumed(subscriber: Subscriber) -> list[int]:
    """Return the sequence numbers as a consumer keeps them: each pair of boot and seq once."""
    seen: dict[tuple[str, int], None] = {}
    for text in subscriber.texts(TOPIC):
        payload = json.loads(text)
        seen.setdefault((payload["boot_id"], payload["seq"]))
    return [seq for _, seq in seen]


def await_messages(subscriber: Subscriber, number: int) -> None:
    wait_until(lambda: len(consumed(subscriber)) >= number, f"{number} messages")


@dataclass
class Rig:
    """A publisher and its outbox on disk."""

    outbox: Outbox
    publisher: Publisher

    def publish(self, numbers: range) -> None:
        for number in numbers:
            self.publisher.publish(prediction(number))

    def await_state(self, *states: BrokerState) -> None:
        wait_until(lambda: self.publisher.report().state in states, f"{states}")

    def await_delivery(self) -> None:
        wait_until(lambda: self.outbox.depth == 0, "the acknowledgements")


@contextmanager
def rig_at(
    folder: Path, port: int, *, host: str = "127.0.0.1", tls: TlsConfig | None = None
) -> Iterator[Rig]:
    config = MqttConfig(host=host, port=port, tls=tls)
    with (
        Outbox(folder / "outbox.sqlite") as outbox,
        Publisher(rig_id="rig", config=config, outbox=outbox) as publisher,
    ):
        yield Rig(outbox, publisher)


def test_a_broker_absent_at_start_receives_everything_once_it_runs(
    absent_broker: Mosquitto, tmp_path: Path
) -> None:
    with rig_at(tmp_path, absent_broker.port) as rig:
        rig.await_state(BrokerState.UNREACHABLE)
        rig.publish(range(300))
        assert rig.outbox.depth == 300
        absent_broker.start()
        rig.await_delivery()
        assert rig.outbox.report().dropped == dict.fromkeys(rig.outbox.report().dropped, 0)
    kept = retained(absent_broker.port, TOPIC)
    assert kept is not None
    assert json.loads(kept) == {"boot_id": BOOT, "seq": 299, "buffered": True}


def test_a_broker_killed_and_restarted_several_times_misses_nothing(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """What it had not acknowledged when it was killed arrives after its restart, in order."""
    published, waiting = 0, list[int]()
    with Relay(broker.port) as relay, rig_at(tmp_path, relay.port) as rig:
        for _ in range(4):
            # Mosquitto forgets its subscribers at its end: the consumer must connect first.
            with Subscriber(broker.port) as subscriber:
                relay.open()
                await_messages(subscriber, len(waiting))
                assert consumed(subscriber)[: len(waiting)] == waiting
                rig.await_state(BrokerState.CONNECTED)
                rig.publish(range(published, published + 30))
                await_messages(subscriber, len(waiting) + 1)
                broker.stop()
            rig.await_state(BrokerState.UNREACHABLE, BrokerState.CONNECTING)
            relay.fail(Mode.REFUSING)
            rig.publish(range(published + 30, published + 60))
            published += 60
            waiting = list(range(published - rig.outbox.depth, published))
            assert len(waiting) >= 30
            broker.start()
        relay.open()
        rig.await_delivery()
    kept = retained(broker.port, TOPIC)
    assert kept is not None
    assert json.loads(kept)["seq"] == published - 1


def test_a_broker_that_refuses_connections_is_tried_again_soon(tmp_path: Path) -> None:
    """A broker that is starting refuses for another reason than a wrong password: no long wait."""
    port = free_port()
    connack_server_unavailable = bytes((0x20, 0x03, 0x00, 0x88, 0x00))
    attempts = 0
    with socket.create_server(("127.0.0.1", port)) as server, rig_at(tmp_path, port) as rig:
        rig.publish(range(5))
        server.settimeout(60.0)
        while attempts < 3:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(connack_server_unavailable)
                attempts += 1
        server.close()
        with Mosquitto(tmp_path, port=port):
            rig.await_delivery()


def test_a_message_too_large_for_the_broker_does_not_delay_the_others(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path, "allow_anonymous true\nmax_packet_size 2000") as broker,
        Subscriber(broker.port) as subscriber,
        rig_at(tmp_path, broker.port) as rig,
    ):
        rig.publish(range(3))
        rig.publisher.publish(
            Message("response/enroll", json.dumps({"data": "x" * 3000}), 1, False)
        )
        rig.publish(range(3, 6))
        rig.await_delivery()
        wait_until(lambda: consumed(subscriber) == list(range(6)), "the others")
        assert rig.publisher.report().rejected == 1
        assert rig.publisher.report().connections == 1


def test_a_slow_broker_receives_everything(broker: Mosquitto, tmp_path: Path) -> None:
    with (
        Subscriber(broker.port) as subscriber,
        Relay(broker.port, bytes_per_s=8_000) as relay,
        rig_at(tmp_path, relay.port) as rig,
    ):
        rig.await_state(BrokerState.CONNECTED)
        rig.publish(range(200))
        rig.await_delivery()
        await_messages(subscriber, 200)
        assert consumed(subscriber) == list(range(200))
        assert rig.publisher.report().connections == 1


def test_samples_for_a_slow_broker_do_not_accumulate(broker: Mosquitto, tmp_path: Path) -> None:
    with Relay(broker.port, bytes_per_s=1_000) as relay, rig_at(tmp_path, relay.port) as rig:
        rig.await_state(BrokerState.CONNECTED)
        before_mb = resident_mb()
        sample = "x" * 100_000
        for number in range(1_000):
            rig.publisher.send_unqueued("sample", sample)
            if number % 20 == 0:
                time.sleep(0.02)
        assert rig.publisher.report().fleeting_dropped > 500
        # A hundred megabytes were published; all but what the kernel took is dropped.
        assert resident_mb() - before_mb < 50


@contextmanager
def broker_beyond(folder: Path) -> Iterator[tuple[str, str]]:
    """Run Mosquitto in a network namespace of its own; yield its address and the namespace."""
    name, near = f"scentd{os.getpid()}", f"near{os.getpid()}"
    ours, theirs = "10.231.7.1", "10.231.7.2"

    def ip(*args: str) -> bool:
        return subprocess.run(["ip", *args], check=False, capture_output=True).returncode == 0

    if shutil.which("ip") is None or not ip("netns", "add", name):
        pytest.skip("network namespaces are not permitted here")
    try:
        assert ip("link", "add", near, "type", "veth", "peer", "name", "far0", "netns", name)
        assert ip("addr", "add", f"{ours}/30", "dev", near)
        assert ip("link", "set", "dev", near, "up")
        assert ip("-n", name, "addr", "add", f"{theirs}/30", "dev", "far0")
        assert ip("-n", name, "link", "set", "dev", "far0", "up")
        enter = ("ip", "netns", "exec", name)
        with Mosquitto(folder, port=1883, host=theirs, command_prefix=enter):
            yield theirs, name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_half_open_connection_is_detected_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets to the rig are lost: the connection neither ends nor is refused."""
    monkeypatch.setattr("daemon.mqtt.connection.TCP_USER_TIMEOUT_MS", 2000)
    with broker_beyond(tmp_path) as (host, namespace):

        def answers(*, lost: bool) -> None:
            action = "add" if lost else "del"
            subprocess.run(
                ["ip", "-n", namespace, "route", action, "blackhole", "10.231.7.1/32"], check=True
            )

        with rig_at(tmp_path, 1883, host=host) as rig:
            rig.await_state(BrokerState.CONNECTED)
            rig.publish(range(20))
            rig.await_delivery()
            answers(lost=True)
            rig.publish(range(20, 60))
            rig.await_state(BrokerState.UNREACHABLE)
            assert rig.outbox.depth == 40
            rig.publish(range(60, 80))
            answers(lost=False)
            rig.await_delivery()
            assert rig.publisher.report().connections >= 2


PUBLISH_AND_WAIT = """
import sys, time
from pathlib import Path
from daemon.config.settings import MqttConfig
from daemon.mqtt.publisher import Publisher
from daemon.mqtt.outbox import Outbox
from tests.faults.test_broker import prediction
config = MqttConfig(host="127.0.0.1", port=int(sys.argv[2]))
with (
    Outbox(Path(sys.argv[1])) as outbox,
    Publisher(rig_id="rig", config=config, outbox=outbox) as publisher,
):
    for number in range(int(sys.argv[3]), int(sys.argv[4])):
        publisher.publish(prediction(number))
    time.sleep(600)
"""


def test_messages_unacknowledged_before_kill_9_are_sent_again_under_the_same_number(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """A consumer that compares `boot_id` and `seq` has everything once, in order."""
    arguments = [sys.executable, "-c", PUBLISH_AND_WAIT, str(tmp_path / "outbox.sqlite")]
    with Subscriber(broker.port) as subscriber:
        with Relay(broker.port) as relay:
            process = subprocess.Popen([*arguments, str(relay.port), "0", "50"], cwd=ROOT)
            wait_until(lambda: len(consumed(subscriber)) == 50, "the first fifty")
            process.kill()
            process.wait()
        with Relay(broker.port) as relay:
            process = subprocess.Popen([*arguments, str(relay.port), "50", "80"], cwd=ROOT)
            wait_until(lambda: len(consumed(subscriber)) > 50, "more")
            relay.fail(Mode.NO_ANSWERS)
            process.send_signal(signal.SIGKILL)
            process.wait()
        with rig_at(tmp_path, broker.port) as rig:
            rig.publish(range(80, 100))
            rig.await_delivery()
            wait_until(lambda: 99 in consumed(subscriber), "the last")
        numbers = consumed(subscriber)
    assert numbers == sorted(numbers)
    # What the second process had not written yet is lost with it.
    assert set(numbers) >= {*range(50), *range(80, 100)}
    assert len(subscriber.texts(TOPIC)) > len(numbers)


def certificate(folder: Path, authority: str, *, days: int) -> None:
    """Make an authority where there is none, and the broker's certificate, signed by it."""

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    if not (folder / f"{authority}.pem").exists():
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", f"/CN={authority}", "-keyout", f"{authority}.key"),
            *("-out", f"{authority}.pem"),
        )
    openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"),
        *("-keyout", "broker.key", "-out", "broker.csr"),
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n", encoding="utf-8")
    openssl(
        *("x509", "-req", "-in", "broker.csr", "-CA", f"{authority}.pem", "-CAcreateserial"),
        *("-CAkey", f"{authority}.key", "-days", str(days), "-extfile", "names"),
        *("-out", "broker.pem"),
    )


def test_an_invalid_certificate_is_reported_and_the_next_valid_one_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: sudo apt install openssl")
    monkeypatch.setattr(publisher_module, "RETRY_EVERY_S", 0.5)
    certificate(tmp_path, "home", days=2)
    broker = Mosquitto(
        tmp_path,
        f"allow_anonymous true\ncertfile {tmp_path / 'broker.pem'}\n"
        f"keyfile {tmp_path / 'broker.key'}",
    )
    tls = TlsConfig(ca=tmp_path / "home.pem")
    seq = 0
    with broker, rig_at(tmp_path, broker.port, tls=tls) as rig:
        rig.await_state(BrokerState.CONNECTED)
        for authority, days, reason in (
            ("home", -1, "expired"),
            ("stranger", 2, "verify failed"),
        ):
            certificate(tmp_path, authority, days=days)
            broker.stop()
            broker.start()
            rig.publish(range(seq, seq + 10))
            wait_until(lambda reason=reason: reason in capfd.readouterr().out, reason)
            assert rig.outbox.depth == 10
            certificate(tmp_path, "home", days=2)
            broker.stop()
            broker.start()
            rig.await_delivery()
            seq += 10


def test_recovery_is_logged_at_the_level_of_the_failure(broker: Mosquitto, tmp_path: Path) -> None:
    """A reader who filters the log by level and sees the failure sees the recovery too."""
    log = io.StringIO()
    configure_logs(LogConfig(level="warning", format="json"), stream=log)
    with rig_at(tmp_path, broker.port) as rig:
        rig.await_state(BrokerState.CONNECTED)
        broker.stop()
        rig.await_state(BrokerState.UNREACHABLE)
        broker.start()
        wait_until(lambda: "connected to the broker" in log.getvalue(), "the recovery in the log")
    assert "connection to the broker lost" in log.getvalue()


def made_on(service: ServiceProcess, topic: str) -> list[tuple[str, int]]:
    """Return boot and seq of the messages that a service logged as made for a topic."""
    lines = [json.loads(line) for line in service.log.splitlines() if '"message made"' in line]
    return [(line["boot_id"], line["seq"]) for line in lines if line["topic"] == topic]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_predictions_made_without_a_broker_are_delivered_by_the_next_process(
    absent_broker: Mosquitto, tmp_path: Path, toy_substances: Path, end: signal.Signals
) -> None:
    link = tmp_path / "ttyBOARD"
    text = settings(link, [toy_substances], absent_broker.port, "log: {level: debug, format: json}")
    with SimulatedBoard(AIR, link=link, speed=20.0), ServiceProcess(tmp_path, text) as first:
        wait_until(lambda: len(made_on(first, "substance")) > 30, "thirty predictions")
        first.end(end)
        made = made_on(first, "substance")
    absent_broker.start()
    with Subscriber(absent_broker.port) as subscriber, ServiceProcess(tmp_path, text) as second:
        subscriber.await_text("scent/rig/status", "online")
        wait_until(lambda: len(subscriber.texts(TOPIC)) >= 10, "the late predictions")
        assert second.end() == 0
        subscriber.await_text("scent/rig/status", "offline")
        payloads = [json.loads(one) for one in subscriber.texts(TOPIC)]
    boot = made[0][0]
    received = [(one["boot_id"], one["seq"]) for one in payloads if one["boot_id"] == boot]
    assert received == made[: len(received)]
    if end is signal.SIGTERM:
        assert received == made
    else:  # a killed service loses what it had not written in its last second
        assert len(received) > 0
    assert all(one["buffered"] for one in payloads if one["boot_id"] == boot)
    times = [one["ts"] for one in payloads]
    assert times == sorted(times)
