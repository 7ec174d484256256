"""Access: what docs/security.md promises, against a real broker and the real service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from daemon.cli import main
from tests.faults.rig import AIR, settings
from tests.sandbox import (
    PATIENCE_S,
    ROOT,
    Board,
    Mosquitto,
    ServiceProcess,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = ("kitchen", "cellar", "homeassistant", "dashboard")
CANARY = "c4nary-pAssw0rd-in-a-c0al-mine"


def documented(kind: str) -> str:
    """Return a file's text as docs/security.md shows it, without its first line."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"```\n# /etc/mosquitto/\S*{re.escape(kind)}\n(.*?)```", page, re.DOTALL)
    return str(text)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    """Run Mosquitto with the access list of docs/security.md; all users have one password."""
    passwords, rules = tmp_path / "passwd", tmp_path / "acl"
    passwords.touch(mode=0o600)
    for user in USERS:
        subprocess.run(["mosquitto_passwd", "-b", passwords, user, CANARY], check=True)
    rules.write_text(documented("scentd.acl"), encoding="utf-8")
    rules.chmod(0o600)
    text = documented("scentd.conf")
    text = text.replace("/etc/mosquitto/passwd", str(passwords))
    text = text.replace("/etc/mosquitto/scentd.acl", str(rules))
    mosquitto = Mosquitto(tmp_path, text).start()
    yield mosquitto
    mosquitto.stop()


class Visitor:
    """A client of the guarded broker, under a user's name."""

    def __init__(self, port: int, user: str, subscribe: str = "#") -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._ready = threading.Event()
        self._subscribe = subscribe
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.username_pw_set(user, CANARY)
        self._client.on_connect = lambda client, *_: client.subscribe(self._subscribe, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self.heard.append(
            (message.topic, bytes(message.payload))
        )
        self._reasons: dict[int, Any] = {}
        self._client.on_publish = lambda _client, _data, mid, reason, _properties: (
            self._reasons.update({mid: reason})
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(PATIENCE_S)

    def may_say(self, topic: str, text: str = "{}") -> bool:
        """Publish, and return whether the broker let it pass."""
        said = self._client.publish(topic, text, qos=1)
        wait_until(lambda: said.mid in self._reasons, f"the broker's word on {topic}")
        return not self._reasons[said.mid].is_failure

    def topics(self) -> set[str]:
        return {topic for topic, _ in list(self.heard)}

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def visitor(port: int, user: str, subscribe: str = "#") -> Iterator[Visitor]:
    guest = Visitor(port, user, subscribe)
    try:
        yield guest
    finally:
        guest.leave()


def kitchen(folder: Path, board: Board, model: Path, port: int, *lines: str) -> ServiceProcess:
    """Return the service of the rig `kitchen`, which enters with its own user."""
    (folder / "password").write_text(f"{CANARY}\n", encoding="utf-8")
    text = settings(f"port: {board.link}", model, port, *lines).replace(
        "rig_id: rig", "rig_id: kitchen"
    )
    secret = f"username: kitchen, password_file: {folder / 'password'}, sample: true"
    return ServiceProcess(folder, text.replace(f"port: {port}}}", f"port: {port}, {secret}}}"))


RIGS_TOPICS = (
    "status",
    "sensor/status",
    "substance",
    "mixture",
    "event",
    "sample",
    "health",
    "info",
    "response/status",
)


def test_a_rig_says_all_it_has_to_say_and_answers_under_the_access_list(
    guarded: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    from hardware.simulator.board import SimulatedBoard

    board = Board(tmp_path / "ttySIM")
    with (
        visitor(guarded.port, "homeassistant") as home,
        SimulatedBoard(AIR, link=board.link, speed=20, faults="stuck:VOC@30:9999"),
        kitchen(tmp_path, board, toy_substances, guarded.port) as daemon,
    ):
        wait_until(lambda: "scent/kitchen/substance" in home.topics(), "a prediction")
        assert home.may_say("scent/kitchen/request/status")
        wait_until(lambda: "scent/kitchen/response/status" in home.topics(), "the answer")
        assert home.may_say("homeassistant/status", "online")
        discovery = "homeassistant/device/scentd_kitchen/config"
        wait_until(lambda: discovery in home.topics(), "the discovery payload")
        heard = {"status", "sensor/status", "info", "health", "sample"}
        wait_until(lambda: {f"scent/kitchen/{one}" for one in heard} <= home.topics(), "the rest")
        daemon.end()
        wait_until(lambda: ("scent/kitchen/status", b"offline") in home.heard, "offline")
    health = [json.loads(data) for topic, data in home.heard if topic == "scent/kitchen/health"]
    assert health[-1]["broker"]["rejected"] == 0
    assert "rejected a message" not in daemon.log


def test_no_rig_writes_or_hears_what_is_anothers(guarded: Mosquitto) -> None:
    with (
        visitor(guarded.port, "homeassistant") as home,
        visitor(guarded.port, "cellar") as cellar,
        visitor(guarded.port, "kitchen", "scent/kitchen/request/+") as rig,
    ):
        for topic in RIGS_TOPICS:
            assert rig.may_say(f"scent/kitchen/{topic}", "true")
            assert not cellar.may_say(f"scent/kitchen/{topic}", "forged")
            assert cellar.may_say(f"scent/cellar/{topic}", "true")
        assert not cellar.may_say("scent/kitchen/request/status")
        assert not cellar.may_say("homeassistant/device/scentd_kitchen/config")
        assert not cellar.may_say("homeassistant/status", "online")
        assert not cellar.may_say("scent/cellar2/substance", "true")
        assert home.may_say("scent/kitchen/request/status", "asked")
        wait_until(lambda: rig.heard, "the request")
        own = {f"scent/kitchen/{topic}" for topic in RIGS_TOPICS}
        wait_until(lambda: own <= home.topics(), "all of the rig's words")
    assert b"forged" not in {data for _, data in home.heard}
    assert rig.heard == [("scent/kitchen/request/status", b"asked")]
    assert not any(topic.startswith("scent/kitchen/") for topic in cellar.topics())


def test_a_dashboard_looks_and_asks_nothing(guarded: Mosquitto) -> None:
    with (
        visitor(guarded.port, "dashboard") as dashboard,
        visitor(guarded.port, "kitchen", "scent/kitchen/request/+") as rig,
    ):
        assert not dashboard.may_say("scent/kitchen/request/status")
        assert not dashboard.may_say("scent/kitchen/substance")
        assert rig.may_say("scent/kitchen/response/status", "private")
        assert rig.may_say("scent/kitchen/substance", "public")
        wait_until(lambda: dashboard.heard, "the prediction")
    assert dashboard.heard == [("scent/kitchen/substance", b"public")]
    assert rig.heard == []


def listening(pid: int) -> list[str]:
    """Return the sockets on which a process takes connections or datagrams of strangers."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        match = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
        if match:
            inodes.add(match[1])
    found = []
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        table = Path(f"/proc/{pid}/net/{protocol}")
        for line in table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else []:
            _, local, _, state, *rest = line.split()
            connected = protocol.startswith("tcp") and state != "0A"
            if rest[5] in inodes and not connected:
                found.append(f"{protocol} {local}")
    for line in Path(f"/proc/{pid}/net/unix").read_text(encoding="ascii").splitlines()[1:]:
        _, _, _, flags, _, _, inode, *name = line.split()
        if inode in inodes and (int(flags, 16) & 0x10000 or name):
            found.append(f"unix {name}")
    return found


def test_the_running_service_listens_on_nothing(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    text = settings(f"port: {board.link}", toy_substances, broker.port, "record: true")
    with ServiceProcess(tmp_path, text) as daemon:
        wait_until(lambda: "connected to the broker" in daemon.log, "the connection")
        wait_until(lambda: "port opened" in daemon.log, "the port")
        assert listening(daemon.pid) == []
        # This search finds sockets that are there: the broker does listen.
        assert [one.partition(" ")[0] for one in listening(broker.pid)] == ["tcp"]


def command(*words: str | Path) -> str:
    """Return everything a command printed, whatever its end."""
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    return done.stdout + done.stderr


def test_no_password_is_told_anywhere(
    guarded: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    with (
        visitor(guarded.port, "homeassistant") as home,
        kitchen(tmp_path, board, toy_substances, guarded.port, "log: {level: debug}") as daemon,
    ):
        wait_until(lambda: "connected to the broker" in daemon.log, "the connection")
        assert home.may_say("scent/kitchen/request/status")
        wait_until(lambda: "scent/kitchen/response/status" in home.topics(), "the answer")
        process = Path(f"/proc/{daemon.pid}")
        told = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
        asked = command("status", "--config", daemon.config)
        daemon.end()
    checked = command("check", "--config", daemon.config, "--json", "--listen", "1")
    assert "speaks MQTT 5" in checked
    assert "rig kitchen" in asked
    everything = [daemon.log, asked, checked, told.decode(), *(str(data) for _, data in home.heard)]
    state = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    everything += [path.read_bytes().decode("latin-1") for path in state]
    assert state
    assert not any(CANARY in text for text in everything)


def test_no_password_is_told_when_things_fail(
    guarded: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    """A wrong password, one in the wrong place, and tracebacks asked for."""
    daemon = kitchen(tmp_path, board, toy_substances, guarded.port)
    wrong = tmp_path / "wrong"
    wrong.write_text(f"{CANARY}-not\n", encoding="utf-8")
    refused = tmp_path / "refused.yaml"
    daemon.configure({})
    text = daemon.config.read_text(encoding="utf-8")
    refused.write_text(text.replace(str(tmp_path / "password"), str(wrong)), encoding="utf-8")
    said = command("check", "--config", refused, "--listen", "1", "--debug")
    assert "FAILED  broker:" in said
    assert CANARY not in said
    misplaced = tmp_path / "misplaced.yaml"
    for place in (f"mqtt: {{password: {CANARY}}}", f"mqtt: {{password_file: {{it: {CANARY}}}}}"):
        misplaced.write_text(
            f"rig_id: kitchen\nsource: {{port: /dev/null}}\nmodels: [x]\n{place}\n", "utf-8"
        )
        for words in (("run",), ("check",), ("run", "--debug")):
            said = command(*words, "--config", misplaced)
            assert "mqtt.password" in said
            assert CANARY not in said


def test_requests_reach_no_file_outside_the_state_folder(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    from daemon.config.loading import load_config
    from daemon.mqtt.service_client import RequestRefusedError, send_request

    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "air.csv").write_text("timestamp_ms,NO2\n0,100\n", encoding="utf-8")
    text = settings(f"port: {board.link}", toy_substances, broker.port)
    with ServiceProcess(tmp_path, text) as daemon:
        wait_until(lambda: "connected to the broker" in daemon.log, "the connection")
        config = load_config(daemon.config)
        for name in ("../outside/air.csv", str(outside / "air.csv"), "/etc/passwd"):
            with pytest.raises(RequestRefusedError, match="below the rig's state_dir"):
                send_request(config, "calibrate", {"action": "score", "files": [name]})
        (tmp_path / "state" / "link.csv").symlink_to(outside / "air.csv")
        with pytest.raises(RequestRefusedError, match="below the rig's state_dir"):
            send_request(config, "calibrate", {"action": "score", "files": ["link.csv"]})


@pytest.mark.parametrize("name", ["mqtt.tls.insecure", "mqtt.password", "mqtt.tls.verify"])
def test_there_is_no_setting_that_turns_protection_off(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *sections, key = name.split(".")
    inner = f"{{{key}: true}}"
    for section in reversed(sections[1:]):
        inner = f"{{{section}: {inner}}}"
    path = tmp_path / "scentd.yaml"
    path.write_text(
        f"rig_id: kitchen\nsource: {{port: /dev/null}}\nmodels: [x]\nmqtt: {inner}\n", "utf-8"
    )
    assert main(["check", "--config", str(path)]) == 1
    assert name in capsys.readouterr().out
