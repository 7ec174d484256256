"""The publisher on real brokers: versions, last will, refusals, outages."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from daemon.config.settings import MqttConfig, TlsConfig
from daemon.mqtt import publisher as publisher_module
from daemon.mqtt.connection import (
    BrokerError,
    BrokerRefusedError,
    BrokerUnreachableError,
    try_broker,
)
from daemon.mqtt.outbox import Message, Outbox
from daemon.mqtt.outgoing import BrokerState
from daemon.mqtt.publisher import Publisher
from tests.sandbox import (
    Mosquitto,
    Subscriber,
    needs_mosquitto,
    retained,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def running_publisher(port: int, **settings: object) -> Iterator[Publisher]:
    config = MqttConfig(host="127.0.0.1", port=port, **settings)  # type: ignore[arg-type]
    with (
        Outbox(None) as outbox,
        Publisher(rig_id="rig", config=config, outbox=outbox) as publisher,
    ):
        yield publisher


def substance(number: int) -> Message:
    return Message("substance", json.dumps({"seq": number, "buffered": False}), 1, retain=True)


def retained_substance(port: int) -> dict[str, object]:
    return dict(json.loads(retained(port, "scent/rig/substance") or "{}"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry after fractions of a second."""
    monkeypatch.setattr(publisher_module, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(publisher_module, "RETRY_EVERY_S", 0.2)
    monkeypatch.setattr(publisher_module, "REFUSED_RETRY_S", 0.2)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Hold a port on which nothing listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def guarded_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Run a Mosquitto that accepts only user `rig` with password `right`."""
    passwords = tmp_path / "passwords"
    passwords.touch()
    tool = needs_mosquitto().replace("sbin/mosquitto", "bin/mosquitto_passwd")
    subprocess.run([tool, "-b", str(passwords), "rig", "right"], check=True)
    passwords.chmod(0o644)
    with Mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}") as broker:
        yield broker


def test_mqtt_5_is_used_with_mosquitto(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as ear, running_publisher(broker.port) as publisher:
        ear.await_text("scent/rig/status", "online")
        publisher.publish(substance(1))
        ear.await_text("scent/rig/substance", '{"seq": 1, "buffered": false}')
        assert publisher.report().protocol == "5"


def test_mqtt_3_1_1_is_used_with_an_old_broker(old_broker: int) -> None:
    with Subscriber(old_broker) as ear, running_publisher(old_broker) as publisher:
        publisher.publish(substance(1))
        ear.await_text("scent/rig/status", "online")
        wait_until(lambda: ear.texts("scent/rig/substance"), "the message")
        wait_until(lambda: publisher.report().protocol == "3.1.1", "the report")


def test_an_old_broker_refuses_a_rig_that_is_set_to_mqtt_5(old_broker: int) -> None:
    with pytest.raises(BrokerUnreachableError, match=r"only speaks 3\.1\.1, leave mqtt\.protocol"):
        try_broker("rig", MqttConfig(host="127.0.0.1", port=old_broker, protocol="5"))


def test_a_busy_broker_that_answers_late_is_not_taken_for_one_of_mqtt_3_1_1(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.mqtt.connection.GUESS_TIMEOUT_S", 0.2)
    levels: list[int] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        running_publisher(server.getsockname()[1]) as publisher,
    ):
        for late_s in (0.0, 0.6):
            connection, _ = server.accept()
            with connection:
                levels.append(connection.recv(4096).partition(b"MQTT")[2][0])
                time.sleep(late_s)
                connection.sendall(bytes([0x20, 3, 0, 0, 0]))
                wait_until(
                    lambda: publisher.report().state is BrokerState.CONNECTED, "the connection"
                )
        assert publisher.report().connections == 2
    assert levels == [5, 5]


def test_online_and_offline_are_retained_at_start_and_end(broker: Mosquitto) -> None:
    with running_publisher(broker.port):
        wait_until(lambda: retained(broker.port, "scent/rig/status") == "online", "online")
    wait_until(lambda: retained(broker.port, "scent/rig/status") == "offline", "offline")


def test_waiting_messages_are_sent_before_offline(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as ear:
        with running_publisher(broker.port) as publisher:
            ear.await_text("scent/rig/status", "online")
            for number in range(100):
                publisher.publish(substance(number))
        ear.await_text("scent/rig/status", "offline")
        numbers = [json.loads(text)["seq"] for text in ear.texts("scent/rig/substance")]
    assert numbers == list(range(100))


def test_states_are_sent_again_on_every_connection(
    absent_broker: Mosquitto, impatient: None
) -> None:
    with running_publisher(absent_broker.port) as publisher:
        publisher.set_state("info", '{"version": 1}')
        publisher.set_state("info", '{"version": 2}')
        for _ in range(2):
            absent_broker.start()
            wait_until(
                lambda: retained(absent_broker.port, "scent/rig/info") == '{"version": 2}', "info"
            )
            absent_broker.stop()
        assert publisher.report().connections == 2


def test_late_messages_come_in_order_and_only_the_newest_is_retained(
    absent_broker: Mosquitto, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The subscriber must be there before the rig returns.
    monkeypatch.setattr(publisher_module, "FIRST_RETRY_S", 3.0)
    monkeypatch.setattr(publisher_module, "RETRY_EVERY_S", 3.0)
    with running_publisher(absent_broker.port) as publisher:
        wait_until(lambda: publisher.report().state is BrokerState.UNREACHABLE, "a failed try")
        for number in range(50):
            publisher.publish(substance(number))
        absent_broker.start()
        with Subscriber(absent_broker.port) as ear:
            wait_until(lambda: len(ear.texts("scent/rig/substance")) == 50, "the late messages")
            publisher.publish(substance(50))
            wait_until(lambda: len(ear.texts("scent/rig/substance")) == 51, "a live message")
            payloads = [json.loads(text) for text in ear.texts("scent/rig/substance")]
        wait_until(
            lambda: retained_substance(absent_broker.port).get("seq") == 50, "the newest, retained"
        )
    assert [payload["seq"] for payload in payloads] == list(range(51))
    assert [payload["buffered"] for payload in payloads] == [True] * 50 + [False]


def test_the_outbox_is_emptied_after_the_broker_was_restarted(
    broker: Mosquitto, impatient: None
) -> None:
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    with (
        Outbox(None) as outbox,
        Publisher(rig_id="rig", config=config, outbox=outbox) as publisher,
    ):
        wait_until(lambda: publisher.report().connections == 1, "the connection")
        broker.stop()
        for number in range(40):
            publisher.publish(substance(number))
        assert outbox.depth == 40
        broker.start()
        wait_until(lambda: outbox.depth == 0, "the acknowledgements")
        wait_until(
            lambda: retained_substance(broker.port) == {"seq": 39, "buffered": True}, "the newest"
        )
    assert sum(outbox.report().dropped.values()) == 0


def test_a_wrong_password_is_reported_and_a_corrected_one_is_used(
    guarded_broker: Mosquitto, tmp_path: Path, impatient: None
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong\n", encoding="utf-8")
    with running_publisher(guarded_broker.port, username="rig", password_file=secret) as publisher:
        wait_until(lambda: publisher.report().state is BrokerState.REFUSED, "the refusal")
        secret.write_text("right\n", encoding="utf-8")
        wait_until(lambda: publisher.report().state is BrokerState.CONNECTED, "the connection")


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_a_refusal_names_the_user_and_the_file_to_check(
    guarded_broker: Mosquitto, tmp_path: Path, protocol: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong\n", encoding="utf-8")
    config = MqttConfig(
        host="127.0.0.1",
        port=guarded_broker.port,
        username="rig",
        password_file=secret,
        protocol=protocol,  # type: ignore[arg-type]
    )
    with pytest.raises(BrokerRefusedError, match=r"as user 'rig'.*mqtt\.password_file") as raised:
        try_broker("rig", config)
    assert "wrong" not in str(raised.value)


def test_the_error_for_a_closed_port_is_explained(closed_port: int) -> None:
    with pytest.raises(BrokerUnreachableError, match=r"No MQTT broker answers at 127\.0\.0\.1"):
        try_broker("rig", MqttConfig(host="127.0.0.1", port=closed_port))


def test_a_host_that_does_not_resolve_is_explained() -> None:
    with pytest.raises(BrokerUnreachableError, match="does not resolve"):
        try_broker("rig", MqttConfig(host="no-such-host.invalid"))


@pytest.mark.parametrize("host", ["broker..local", "a" * 70])
def test_a_host_that_is_no_name_is_explained(host: str) -> None:
    with pytest.raises(BrokerUnreachableError, match="is no host's name"):
        try_broker("rig", MqttConfig(host=host))


def test_samples_without_a_connection_are_dropped_and_counted(closed_port: int) -> None:
    with running_publisher(closed_port) as publisher:
        publisher.send_unqueued("sample", "{}")
        assert publisher.report().fleeting_dropped == 1


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Make an authority, and a broker's certificate for 127.0.0.1 that it signed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: sudo apt install openssl")

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=tmp_path, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={name}",
            ),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )
    openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"),
        *("-keyout", "broker.key", "-out", "broker.csr"),
    )
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n", encoding="utf-8")
    openssl(
        *("x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2"),
        *("-CAcreateserial", "-extfile", "names", "-out", "broker.pem"),
    )
    return tmp_path


@pytest.fixture
def tls_broker(certificates: Path) -> Iterator[Mosquitto]:
    """Run a Mosquitto that speaks TLS only."""
    settings = (
        f"allow_anonymous true\ncertfile {certificates / 'broker.pem'}\n"
        f"keyfile {certificates / 'broker.key'}"
    )
    with Mosquitto(certificates, settings) as broker:
        yield broker


def test_tls_with_the_rigs_own_authority(tls_broker: Mosquitto, certificates: Path) -> None:
    tls = TlsConfig(ca=certificates / "ca.pem")
    config = MqttConfig(host="127.0.0.1", port=tls_broker.port, tls=tls)
    with (
        Outbox(None) as outbox,
        Publisher(rig_id="rig", config=config, outbox=outbox) as publisher,
    ):
        for number in range(100):
            publisher.publish(substance(number))
        wait_until(lambda: publisher.report().connections == 1, "the connection")
        wait_until(lambda: outbox.depth == 0, "a hundred acknowledgements through TLS")
    assert try_broker("rig", config) == "5"


@pytest.mark.parametrize(
    ("ca", "said"), [("other.pem", r"not accepted.*mqtt\.tls\.ca"), ("none.pem", "does not exist")]
)
def test_a_certificate_that_does_not_fit_is_explained(
    tls_broker: Mosquitto, certificates: Path, ca: str, said: str
) -> None:
    tls = TlsConfig(ca=certificates / ca)
    with pytest.raises(BrokerError, match=said):
        try_broker("rig", MqttConfig(host="127.0.0.1", port=tls_broker.port, tls=tls))


def test_tls_to_a_plain_port_is_explained(broker: Mosquitto) -> None:
    config = MqttConfig(host="127.0.0.1", port=broker.port, tls=TlsConfig())
    with pytest.raises(BrokerUnreachableError, match=r"leave out mqtt\.tls"):
        try_broker("rig", config)


def test_tls_to_a_web_server_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, suppress(ConnectionError):
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        config = MqttConfig(host="127.0.0.1", port=server.getsockname()[1], tls=TlsConfig())
        with pytest.raises(BrokerUnreachableError, match="does not speak TLS"):
            try_broker("rig", config)
        thread.join()


def test_a_certificate_for_another_name_is_explained(
    tls_broker: Mosquitto, certificates: Path
) -> None:
    tls = TlsConfig(ca=certificates / "ca.pem")
    with pytest.raises(BrokerUnreachableError, match=r"'localhost'.*Write in mqtt\.host"):
        try_broker("rig", MqttConfig(host="localhost", port=tls_broker.port, tls=tls))


def test_a_byte_order_mark_is_no_part_of_the_password(
    guarded_broker: Mosquitto, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("right\r\n", encoding="utf-8-sig")
    config = MqttConfig(
        host="127.0.0.1", port=guarded_broker.port, username="rig", password_file=secret
    )
    assert try_broker("rig", config) == "5"


def test_plain_mqtt_to_a_tls_port_is_explained(tls_broker: Mosquitto) -> None:
    with pytest.raises(BrokerUnreachableError, match="whether it wants TLS"):
        try_broker("rig", MqttConfig(host="127.0.0.1", port=tls_broker.port))


def test_the_thread_ends_with_the_publisher(broker: Mosquitto) -> None:
    with running_publisher(broker.port):
        assert "mqtt" in {thread.name for thread in threading.enumerate()}
    assert "mqtt" not in {thread.name for thread in threading.enumerate()}
