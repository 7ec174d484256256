"""Everything a broker does to a rig in a year: nothing is lost, nothing comes out of order.

Against a real Mosquitto, a real outbox on disk and real sockets. What matters to a consumer is
said once, in `consumed`: it passes over what it has seen, by `boot_id` and `seq`.
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
from tests.faults.rig import AIR, settings
from tests.sandbox import (
    ROOT,
    Mosquitto,
    ServiceProcess,
    Subscriber,
    free_port,
    retained,
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


def consumed(ear: Subscriber) -> list[int]:
    """Return the sequence numbers as a consumer keeps them: each pair of boot and seq once."""
    seen: dict[tuple[str, int], None] = {}
    for text in ear.texts(TOPIC):
        payload = json.loads(text)
        seen.setdefault((payload["boot_id"], payload["seq"]))
    return [seq for _, seq in seen]


def await_messages(ear: Subscriber, number: int) -> None:
    wait_until(lambda: len(consumed(ear)) >= number, f"{number} messages")


@dataclass
class Rig:
    """A publisher and its outbox on disk."""

    outbox: Outbox
    publisher: Publisher

    def say(self, numbers: range) -> None:
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


def test_a_broker_absent_at_start_gets_everything_once_it_is_there(
    absent_broker: Mosquitto, tmp_path: Path
) -> None:
    with rig_at(tmp_path, absent_broker.port) as rig:
        rig.await_state(BrokerState.UNREACHABLE)
        rig.say(range(300))
        assert rig.outbox.depth == 300
        absent_broker.start()
        rig.await_delivery()
        assert rig.outbox.report().dropped == dict.fromkeys(rig.outbox.report().dropped, 0)
    kept = retained(absent_broker.port, TOPIC)
    assert kept is not None
    assert json.loads(kept) == {"boot_id": BOOT, "seq": 299, "buffered": True}


def test_a_broker_killed_and_restarted_again_and_again_misses_nothing(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """What it had not acknowledged when it died comes in its next life, in order."""
    said, waiting = 0, list[int]()
    with Relay(broker.port) as relay, rig_at(tmp_path, relay.port) as rig:
        for _ in range(4):
            # Mosquitto forgets its subscribers with its life: the consumer must be there first.
            with Subscriber(broker.port) as ear:
                relay.open()
                await_messages(ear, len(waiting))
                assert consumed(ear)[: len(waiting)] == waiting
                rig.await_state(BrokerState.CONNECTED)
                rig.say(range(said, said + 30))
                await_messages(ear, len(waiting) + 1)
                broker.stop()
            rig.await_state(BrokerState.UNREACHABLE, BrokerState.CONNECTING)
            relay.fail(Mode.REFUSING)
            rig.say(range(said + 30, said + 60))
            said += 60
            waiting = list(range(said - rig.outbox.depth, said))
            assert len(waiting) >= 30
            broker.start()
        relay.open()
        rig.await_delivery()
    kept = retained(broker.port, TOPIC)
    assert kept is not None
    assert json.loads(kept)["seq"] == said - 1


def test_a_broker_that_takes_no_connections_yet_is_asked_again_soon(tmp_path: Path) -> None:
    """The refusal of a broker that starts is not that of a wrong password, which waits a minute."""
    port = free_port()
    connack_server_unavailable = bytes((0x20, 0x03, 0x00, 0x88, 0x00))
    asked = 0
    with socket.create_server(("127.0.0.1", port)) as server, rig_at(tmp_path, port) as rig:
        rig.say(range(5))
        server.settimeout(60.0)
        while asked < 3:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(connack_server_unavailable)
                asked += 1
        server.close()
        with Mosquitto(tmp_path, port=port):
            rig.await_delivery()


def test_a_message_too_large_for_the_broker_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path, "allow_anonymous true\nmax_packet_size 2000") as broker,
        Subscriber(broker.port) as ear,
        rig_at(tmp_path, broker.port) as rig,
    ):
        rig.say(range(3))
        rig.publisher.publish(
            Message("response/enroll", json.dumps({"data": "x" * 3000}), 1, False)
        )
        rig.say(range(3, 6))
        rig.await_delivery()
        wait_until(lambda: consumed(ear) == list(range(6)), "the others")
        assert rig.publisher.report().rejected == 1
        assert rig.publisher.report().connections == 1


def test_a_slow_broker_gets_everything_in_its_own_time(broker: Mosquitto, tmp_path: Path) -> None:
    with (
        Subscriber(broker.port) as ear,
        Relay(broker.port, bytes_per_s=8_000) as relay,
        rig_at(tmp_path, relay.port) as rig,
    ):
        rig.await_state(BrokerState.CONNECTED)
        rig.say(range(200))
        rig.await_delivery()
        await_messages(ear, 200)
        assert consumed(ear) == list(range(200))
        assert rig.publisher.report().connections == 1


def test_samples_do_not_pile_up_before_a_slow_broker(broker: Mosquitto, tmp_path: Path) -> None:
    with Relay(broker.port, bytes_per_s=1_000) as relay, rig_at(tmp_path, relay.port) as rig:
        rig.await_state(BrokerState.CONNECTED)
        before_mb = resident_mb()
        sample = "x" * 100_000
        for number in range(1_000):
            rig.publisher.send_unqueued("sample", sample)
            if number % 20 == 0:
                time.sleep(0.02)
        assert rig.publisher.report().fleeting_dropped > 500
        # A hundred megabytes were said; all but what the kernel took is given up.
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


def test_a_half_open_connection_is_noticed_and_healed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packets to the rig vanish: no end of the connection, no refusal, only silence."""
    monkeypatch.setattr("daemon.mqtt.connection.TCP_USER_TIMEOUT_MS", 2000)
    with broker_beyond(tmp_path) as (host, namespace):

        def answers(*, lost: bool) -> None:
            action = "add" if lost else "del"
            subprocess.run(
                ["ip", "-n", namespace, "route", action, "blackhole", "10.231.7.1/32"], check=True
            )

        with rig_at(tmp_path, 1883, host=host) as rig:
            rig.await_state(BrokerState.CONNECTED)
            rig.say(range(20))
            rig.await_delivery()
            answers(lost=True)
            rig.say(range(20, 60))
            rig.await_state(BrokerState.UNREACHABLE)
            assert rig.outbox.depth == 40
            rig.say(range(60, 80))
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


def test_what_was_sent_but_not_acknowledged_before_kill_9_comes_again_under_the_same_number(
    broker: Mosquitto, tmp_path: Path
) -> None:
    """A consumer that goes by `boot_id` and `seq` has everything once, in order."""
    arguments = [sys.executable, "-c", PUBLISH_AND_WAIT, str(tmp_path / "outbox.sqlite")]
    with Subscriber(broker.port) as ear:
        with Relay(broker.port) as relay:
            process = subprocess.Popen([*arguments, str(relay.port), "0", "50"], cwd=ROOT)
            wait_until(lambda: len(consumed(ear)) == 50, "the first fifty")
            process.kill()
            process.wait()
        with Relay(broker.port) as relay:
            process = subprocess.Popen([*arguments, str(relay.port), "50", "80"], cwd=ROOT)
            wait_until(lambda: len(consumed(ear)) > 50, "more")
            relay.fail(Mode.NO_ANSWERS)
            process.send_signal(signal.SIGKILL)
            process.wait()
        with rig_at(tmp_path, broker.port) as rig:
            rig.say(range(80, 100))
            rig.await_delivery()
            wait_until(lambda: 99 in consumed(ear), "the last")
        numbers = consumed(ear)
    assert numbers == sorted(numbers)
    # Of the second life what had not been written yet is not known to anybody.
    assert set(numbers) >= {*range(50), *range(80, 100)}
    assert len(ear.texts(TOPIC)) > len(numbers)


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


def test_a_certificate_expired_or_of_a_stranger_is_said_and_the_next_good_one_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: sudo apt install openssl")
    monkeypatch.setattr(publisher_module, "LONGEST_RETRY_S", 0.5)
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
        for authority, days, said in (
            ("home", -1, "expired"),
            ("stranger", 2, "verify failed"),
        ):
            certificate(tmp_path, authority, days=days)
            broker.stop()
            broker.start()
            rig.say(range(seq, seq + 10))
            wait_until(lambda said=said: said in capfd.readouterr().out, said)
            assert rig.outbox.depth == 10
            certificate(tmp_path, "home", days=2)
            broker.stop()
            broker.start()
            rig.await_delivery()
            seq += 10


def test_recovery_is_as_loud_as_the_failure(broker: Mosquitto, tmp_path: Path) -> None:
    """Whoever filters the log by level and hears of the one hears of the other."""
    log = io.StringIO()
    configure_logs(LogConfig(level="warning", format="json"), stream=log)
    with rig_at(tmp_path, broker.port) as rig:
        rig.await_state(BrokerState.CONNECTED)
        broker.stop()
        rig.await_state(BrokerState.UNREACHABLE)
        broker.start()
        wait_until(lambda: "connected to the broker" in log.getvalue(), "the recovery in the log")
    assert "connection to the broker lost" in log.getvalue()


def said_on(daemon: ServiceProcess, topic: str) -> list[tuple[str, int]]:
    """Return boot and seq of all that a service says in its log to have made for a topic."""
    lines = [json.loads(line) for line in daemon.log.splitlines() if '"message made"' in line]
    return [(line["boot_id"], line["seq"]) for line in lines if line["topic"] == topic]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_service_found_out_without_a_broker_outlives_it(
    absent_broker: Mosquitto, tmp_path: Path, toy_substances: Path, end: signal.Signals
) -> None:
    link = tmp_path / "ttyBOARD"
    text = settings(
        f"port: {link}", toy_substances, absent_broker.port, "log: {level: debug, format: json}"
    )
    with SimulatedBoard(AIR, link=link, speed=20.0), ServiceProcess(tmp_path, text) as first:
        wait_until(lambda: len(said_on(first, "substance")) > 30, "thirty predictions")
        first.end(end)
        made = said_on(first, "substance")
    absent_broker.start()
    with Subscriber(absent_broker.port) as ear, ServiceProcess(tmp_path, text) as second:
        ear.await_text("scent/rig/status", "online")
        wait_until(lambda: len(ear.texts(TOPIC)) >= 10, "the late predictions")
        assert second.end() == 0
        ear.await_text("scent/rig/status", "offline")
        payloads = [json.loads(one) for one in ear.texts(TOPIC)]
    boot = made[0][0]
    heard = [(one["boot_id"], one["seq"]) for one in payloads if one["boot_id"] == boot]
    assert heard == made[: len(heard)]
    if end is signal.SIGTERM:
        assert heard == made
    else:  # what a killed service had not written in its last second is all that may be missing
        assert len(heard) > 0
    assert all(one["buffered"] for one in payloads if one["boot_id"] == boot)
    times = [one["ts"] for one in payloads]
    assert times == sorted(times)
