"""Access: the promises of docs/security.md, tested with a real broker and the real service."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from daemon.cli import main
from tests.faults.rig import AIR
from tests.sandbox import (
    PATIENCE_S,
    ROOT,
    Board,
    Mosquitto,
    ServiceProcess,
    Subscriber,
    needs_mosquitto,
    settings,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = ("kitchen", "cellar", "homeassistant", "dashboard")
CANARY = "c4nary-pAssw0rd-in-a-c0al-mine"


def documented(kind: str) -> str:
    """Return a file's text as docs/security.md shows it, without its first line."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    file = rf"```text\n# /etc/mosquitto/\S*{re.escape(kind)}\n(.*?)```"
    (text,) = re.findall(file, page, re.DOTALL)
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
    text = documented("scentd.conf").removeprefix("listener 1883\n")  # on a free port instead
    text = text.replace("/etc/mosquitto/passwd", str(passwords))
    text = text.replace("/etc/mosquitto/scentd.acl", str(rules))
    with Mosquitto(tmp_path, text) as mosquitto:
        yield mosquitto


def test_the_broker_is_set_up_for_other_computers_and_may_read_its_files(tmp_path: Path) -> None:
    """The commands of the page, in a folder in place of /etc/mosquitto, by a strict root.

    Without a listener Mosquitto 2 serves its own computer only; as a service it reads the files
    as the user `mosquitto`.
    """
    if os.getuid() != 0 or shutil.which("runuser") is None:
        pytest.skip("only root can give files to the user mosquitto")
    try:
        pwd.getpwnam("mosquitto")
    except KeyError:
        pytest.skip("there is no user mosquitto")
    needs_mosquitto()
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ sudo (.*?)(?: +#.*)?$", page, re.MULTILINE)
    assert documented("scentd.conf").startswith("listener 1883\n")
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "scentd.acl").write_text(documented("scentd.acl"), encoding="utf-8")
        ran = []
        for command in commands:
            if "/etc/mosquitto/" not in command:
                continue
            words = shlex.split(command.replace("/etc/mosquitto", place))
            ran.append(words[0])
            secret = f"{CANARY}\n{CANARY}\n"
            subprocess.run(words, input=secret, text=True, check=True, umask=0o077)
        assert ran == ["mosquitto_passwd", "chown", "chmod"]
        for name in ("passwd", "scentd.acl"):
            subprocess.run(
                ["runuser", "-u", "mosquitto", "--", "cat", str(folder / name)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            assert stat.S_IMODE((folder / name).stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR


class User(Subscriber):
    """A client of the guarded broker, under a user's name; MQTT 5 says what it may not publish."""

    def __init__(self, port: int, user: str, topic: str = "#") -> None:
        super().__init__(port, topic=topic, protocol=MQTTProtocolVersion.MQTTv5)
        self._reasons: dict[int, Any] = {}
        self._client.username_pw_set(user, CANARY)
        self._client.on_publish = lambda _client, _data, mid, reason, _properties: (
            self._reasons.update({mid: reason})
        )

    def may_publish(self, topic: str, text: str = "{}") -> bool:
        """Publish, and return whether the broker permitted it."""
        sent = self._client.publish(topic, text, qos=1)
        wait_until(lambda: sent.mid in self._reasons, f"the broker's answer on {topic}")
        return not self._reasons[sent.mid].is_failure

    def topics(self) -> set[str]:
        return {message.topic for message in list(self.received)}

    def messages(self) -> list[tuple[str, str]]:
        return [(message.topic, message.text) for message in list(self.received)]


def kitchen(folder: Path, board: Board, model: Path, port: int, *lines: str) -> ServiceProcess:
    """Return the service of the rig `kitchen`, which connects as its own user."""
    (folder / "password").write_text(f"{CANARY}\n", encoding="utf-8")
    secret = f", username: kitchen, password_file: {folder / 'password'}, sample: true"
    text = settings(board.link, [model], port, *lines, mqtt=secret)
    return ServiceProcess(folder, text.replace("rig_id: rig", "rig_id: kitchen"))


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


def test_the_access_list_permits_everything_that_a_rig_publishes_and_answers(
    guarded: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    from hardware.simulator.board import SimulatedBoard

    board = Board(tmp_path / "ttySIM")
    with (
        User(guarded.port, "homeassistant") as home,
        SimulatedBoard(AIR, link=board.link, speed=20, faults="stuck:VOC@30:9999"),
        kitchen(tmp_path, board, toy_substances, guarded.port) as service,
    ):
        wait_until(lambda: "scent/kitchen/substance" in home.topics(), "a prediction")
        assert home.may_publish("scent/kitchen/request/status")
        wait_until(lambda: "scent/kitchen/response/status" in home.topics(), "the answer")
        assert home.may_publish("homeassistant/status", "online")
        discovery = "homeassistant/device/scentd_kitchen/config"
        wait_until(lambda: discovery in home.topics(), "the discovery payload")
        published = {"status", "sensor/status", "info", "health", "sample"}
        wait_until(
            lambda: {f"scent/kitchen/{one}" for one in published} <= home.topics(), "the rest"
        )
        service.end()
        wait_until(lambda: ("scent/kitchen/status", "offline") in home.messages(), "offline")
    health = [json.loads(text) for text in home.texts("scent/kitchen/health")]
    assert health[-1]["broker"]["rejected"] == 0
    assert "rejected a message" not in service.log


def test_the_access_list_keeps_rigs_apart(guarded: Mosquitto) -> None:
    with (
        User(guarded.port, "homeassistant") as home,
        User(guarded.port, "cellar") as cellar,
        User(guarded.port, "kitchen", "scent/kitchen/request/+") as rig,
    ):
        for topic in RIGS_TOPICS:
            assert rig.may_publish(f"scent/kitchen/{topic}", "true")
            assert not cellar.may_publish(f"scent/kitchen/{topic}", "forged")
            assert cellar.may_publish(f"scent/cellar/{topic}", "true")
        assert not cellar.may_publish("scent/kitchen/request/status")
        assert not cellar.may_publish("homeassistant/device/scentd_kitchen/config")
        assert not cellar.may_publish("homeassistant/status", "online")
        assert not cellar.may_publish("scent/cellar2/substance", "true")
        assert home.may_publish("scent/kitchen/request/status", "request")
        wait_until(lambda: rig.received, "the request")
        own = {f"scent/kitchen/{topic}" for topic in RIGS_TOPICS}
        wait_until(lambda: own <= home.topics(), "all topics of the rig")
    assert "forged" not in {text for _, text in home.messages()}
    assert rig.messages() == [("scent/kitchen/request/status", "request")]
    assert not any(topic.startswith("scent/kitchen/") for topic in cellar.topics())


def test_the_access_list_lets_a_dashboard_read_only(guarded: Mosquitto) -> None:
    with (
        User(guarded.port, "dashboard") as dashboard,
        User(guarded.port, "kitchen", "scent/kitchen/request/+") as rig,
    ):
        assert not dashboard.may_publish("scent/kitchen/request/status")
        assert not dashboard.may_publish("scent/kitchen/substance")
        assert rig.may_publish("scent/kitchen/response/status", "private")
        assert rig.may_publish("scent/kitchen/substance", "public")
        wait_until(lambda: dashboard.received, "the prediction")
    assert dashboard.messages() == [("scent/kitchen/substance", "public")]
    assert not rig.received


def listening(pid: int) -> list[str]:
    """Return the sockets on which a process accepts connections or datagrams from anyone."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        # The service opens and closes files all the time: one may be gone since the listing.
        with contextlib.suppress(FileNotFoundError):
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
    text = settings(board.link, [toy_substances], broker.port, "record: true")
    with ServiceProcess(tmp_path, text) as service:
        wait_until(lambda: "connected to the broker" in service.log, "the connection")
        wait_until(lambda: "port opened" in service.log, "the port")
        assert listening(service.pid) == []
        # This search finds sockets that are there: the broker does listen.
        assert [one.partition(" ")[0] for one in listening(broker.pid)] == ["tcp"]


def command(*words: str | Path) -> str:
    """Return everything that a command printed, however it ended."""
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    return done.stdout + done.stderr


def test_no_output_holds_the_password(
    guarded: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    with (
        User(guarded.port, "homeassistant") as home,
        kitchen(tmp_path, board, toy_substances, guarded.port, "log: {level: debug}") as service,
    ):
        wait_until(lambda: "connected to the broker" in service.log, "the connection")
        assert home.may_publish("scent/kitchen/request/status")
        wait_until(lambda: "scent/kitchen/response/status" in home.topics(), "the answer")
        process = Path(f"/proc/{service.pid}")
        started_with = [process.joinpath(file).read_text() for file in ("cmdline", "environ")]
        status = command("status", "--config", service.config)
        service.end()
    checked = command("check", "--config", service.config, "--json", "--listen", "1")
    assert "speaks MQTT 5" in checked
    assert "rig kitchen" in status
    everything = [
        service.log,
        status,
        checked,
        *started_with,
        *(text for _, text in home.messages()),
    ]
    state = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    everything += [path.read_bytes().decode("latin-1") for path in state]
    assert state
    assert not any(CANARY in text for text in everything)


def test_no_error_message_holds_the_password(
    guarded: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    """With a wrong password, one in the wrong place, and tracebacks requested."""
    service = kitchen(tmp_path, board, toy_substances, guarded.port)
    wrong = tmp_path / "wrong"
    wrong.write_text(f"{CANARY}-not\n", encoding="utf-8")
    refused = tmp_path / "refused.yaml"
    service.configure({})
    text = service.config.read_text(encoding="utf-8")
    refused.write_text(text.replace(str(tmp_path / "password"), str(wrong)), encoding="utf-8")
    output = command("check", "--config", refused, "--listen", "1", "--debug")
    assert "FAILED  broker:" in output
    assert CANARY not in output
    misplaced = tmp_path / "misplaced.yaml"
    for place in (f"mqtt: {{password: {CANARY}}}", f"mqtt: {{password_file: {{it: {CANARY}}}}}"):
        misplaced.write_text(
            f"rig_id: kitchen\nsource: {{port: /dev/null}}\nmodels: [x]\n{place}\n", "utf-8"
        )
        for words in (("run",), ("check",), ("run", "--debug")):
            output = command(*words, "--config", misplaced)
            assert "mqtt.password" in output
            assert CANARY not in output


def test_requests_reach_no_file_outside_the_state_folder(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    from daemon.config.loading import load_config
    from daemon.mqtt.service_client import RequestRefusedError, send_request

    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "air.csv").write_text("timestamp_ms,NO2\n0,100\n", encoding="utf-8")
    text = settings(board.link, [toy_substances], broker.port)
    with ServiceProcess(tmp_path, text) as service:
        wait_until(lambda: "connected to the broker" in service.log, "the connection")
        config = load_config(service.config)
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
