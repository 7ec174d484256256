"""The app for Home Assistant: its files fit the documentation, and it runs beside a Supervisor.

The schema below holds those fields of https://developers.home-assistant.io/docs/apps/configuration
that the app uses. The Supervisor here is a local server that gives the answer which
https://developers.home-assistant.io/docs/api/supervisor/endpoints#service documents.
"""

from __future__ import annotations

import http.client
import json
import os
import pwd
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import tomllib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Self

import jsonschema
import pytest
import yaml

from daemon.config.loading import load_config
from daemon.mqtt.outbox_values import OUTBOX_FILE
from daemon.sandbox.broker import free_port
from tests.project.source_tree import ROOT
from tests.sandbox import PATIENCE_S, Board, Mosquitto, Subscriber, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = ROOT / "packaging" / "home-assistant"
APP = FOLDER / "scentd"
CONFIG: dict[str, Any] = yaml.safe_load((APP / "config.yaml").read_text("utf-8"))
LANGUAGES = ("en", "de")
INGRESS = "172.30.32.2"
"""https://developers.home-assistant.io/docs/apps/presentation#ingress"""

FLAG = {"type": "boolean"}
TEXT = {"type": "string", "minLength": 1}
OPTION_TYPE = (
    r"^(str|bool|int|float|email|url|password|port)(\(\d*,?\d*\))?\??$"
    r"|^match\(.+\)\??$|^list\(.+\)\??$|^device(\(subsystem=\w+\))?\??$"
)
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "version", "slug", "description", "arch"],
    "properties": {
        "name": TEXT,
        "version": TEXT,
        "slug": {"type": "string", "pattern": r"^[-_.A-Za-z0-9]+$"},
        "description": TEXT,
        "arch": {"type": "array", "items": {"enum": ["aarch64", "amd64"]}, "uniqueItems": True},
        "startup": {"enum": ["initialize", "system", "services", "application", "once"]},
        "services": {
            "type": "array",
            "items": {"type": "string", "pattern": "^(mqtt|mysql):(provide|want|need)$"},
        },
        "uart": FLAG,
        "ingress": FLAG,
        "ingress_port": {"type": "integer", "minimum": 0, "maximum": 65535},
        "ingress_stream": FLAG,
        "panel_icon": {"type": "string", "pattern": "^mdi:[a-z-]+$"},
        "panel_title": TEXT,
        "watchdog": {
            "type": "string",
            "pattern": r"^(https?|\[PROTO:\w+\]|tcp)://\[HOST\]:(\[PORT:\d+\]|\d+).*$",
        },
        "tmpfs": FLAG,
        "map": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["type"],
                "properties": {
                    "type": {
                        "enum": [
                            "homeassistant_config",
                            "app_config",
                            "all_app_configs",
                            "local_apps",
                            "ssl",
                            "backup",
                            "share",
                            "media",
                            "data",
                        ]
                    },
                    "read_only": FLAG,
                    "path": TEXT,
                },
            },
        },
        "backup_exclude": {"type": "array", "items": TEXT},
        "options": {"type": "object"},
        "schema": {
            "type": "object",
            "additionalProperties": {
                "anyOf": [
                    {"type": "string", "pattern": OPTION_TYPE},
                    {"type": "array", "items": {"type": "string", "pattern": OPTION_TYPE}},
                ]
            },
        },
    },
}

PASSWORD = "of-the-broker"  # noqa: S105 - of the broker of this test
SERVICE = {
    "addon": "core_mosquitto",
    "host": "127.0.0.1",
    "port": "1883",
    "ssl": False,
    "username": "addons",
    "password": PASSWORD,
    "protocol": "3.1.1",
}
TOKEN = "of-the-supervisor"  # noqa: S105 - of the server of this test
OPTIONS = {**CONFIG["options"], "rig_id": "rig"}


def accepts(kind: Any, value: Any) -> bool:
    """Whether an option's value has the type that `schema` states."""
    if isinstance(kind, list):
        return isinstance(value, list) and all(accepts(kind[0], item) for item in value)
    name, _, of = kind.rstrip("?").partition("(")
    of = of.removesuffix(")")
    if name == "bool":
        return isinstance(value, bool)
    if name == "match":
        return re.match(of, value) is not None
    if name == "list":
        return value in of.split("|")
    return isinstance(value, str)


def test_the_configuration_of_the_app_has_the_documented_fields() -> None:
    jsonschema.validate(CONFIG, SCHEMA)


def test_every_option_has_a_type_and_a_default_unless_it_may_be_left_out() -> None:
    types, defaults = CONFIG["schema"], CONFIG["options"]
    assert {name for name, kind in types.items() if not str(kind).endswith("?")} == set(defaults)
    for name, value in defaults.items():
        assert accepts(types[name], value), name
    assert not accepts(types["rig_id"], "My Rig")
    assert not accepts(types["log_level"], "loud")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_option_is_translated(language: str) -> None:
    text = (APP / "translations" / f"{language}.yaml").read_text("utf-8")
    words = yaml.safe_load(text)
    assert set(words) == {"configuration"}
    assert list(words["configuration"]) == list(CONFIG["schema"])
    assert all(set(entry) == {"name", "description"} for entry in words["configuration"].values())


def test_the_documentation_names_every_option() -> None:
    text = (APP / "DOCS.md").read_text("utf-8")
    assert re.findall(r"^\| .*\(`(\w+)`\)", text, re.MULTILINE) == list(CONFIG["schema"])


def test_the_version_is_that_of_scentd_and_has_an_entry() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert CONFIG["version"] == project["version"]
    assert f"\n## {CONFIG['version']}\n" in (APP / "CHANGELOG.md").read_text("utf-8")


def test_the_repository_states_its_name() -> None:
    jsonschema.validate(
        yaml.safe_load((FOLDER / "repository.yaml").read_text("utf-8")),
        {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {"name": TEXT, "url": TEXT, "maintainer": TEXT},
        },
    )


@pytest.mark.parametrize(("name", "size"), [("icon.png", (128, 128)), ("logo.png", (250, 100))])
def test_the_pictures_have_the_recommended_size(name: str, size: tuple[int, int]) -> None:
    """https://developers.home-assistant.io/docs/apps/presentation#app-icon--logo."""
    data = (APP / name).read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == size


def test_the_image_needs_nothing_that_the_supervisor_no_longer_gives() -> None:
    """Neither `build.yaml` nor its BUILD_FROM, since the Supervisor of April 2026."""
    text = (APP / "Dockerfile").read_text("utf-8")
    assert "BUILD_FROM" not in text
    assert not (APP / "build.yaml").exists()
    for label in ("io.hass.version", 'io.hass.type="app"', 'io.hass.arch="aarch64|amd64"'):
        assert label in text


def test_make_app_provides_what_the_image_is_made_of() -> None:
    recipe = (ROOT / "Makefile").read_text("utf-8")
    used = re.findall(r"/packages/([\w.-]+\.(?:sh|txt))", (APP / "Dockerfile").read_text("utf-8"))
    assert len(set(used)) == 3
    used.append("trim-environment")  # which make-environment.sh calls
    (copied,) = re.findall(r"\tcp (.*) \$\(APP\)/scentd/packages/", recipe)
    assert {Path(path).name for path in copied.split()} == set(used)
    assert all((ROOT / path).exists() for path in copied.split())


def test_a_backup_holds_what_was_taught_and_no_messages_or_recordings() -> None:
    """The Supervisor compares paths below `data` with `PurePath.match`."""

    def left_out(name: str) -> bool:
        path = PurePath("data", "state", name)
        return any(path.match(pattern) for pattern in CONFIG["backup_exclude"])

    assert left_out("recordings")
    assert left_out(OUTBOX_FILE)
    assert left_out(f"{OUTBOX_FILE}-wal")
    assert not any(map(left_out, ("smells", "calibration.yaml", "calibration", "models")))


def test_ingress_reaches_the_page() -> None:
    text = (APP / "run.py").read_text("utf-8")
    assert f'"0.0.0.0:{CONFIG["ingress_port"]}"' in text
    assert f'INGRESS = "{INGRESS}"' in text
    assert CONFIG["watchdog"] == f"tcp://[HOST]:{CONFIG['ingress_port']}"


class _Supervisor(BaseHTTPRequestHandler):
    """Answers for the broker that `server.service` describes, or that there is none."""

    def do_GET(self) -> None:
        service = self.server.service  # type: ignore[attr-defined]
        known = self.headers["Authorization"] == f"Bearer {TOKEN}"
        if self.path != "/services/mqtt" or not known or service is None:
            status, body = 400, {"result": "error", "message": "Service not enabled"}
        else:
            status, body = 200, {"result": "ok", "data": service}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def supervisor(service: dict[str, Any] | None) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Supervisor) as server:
        server.service = service  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Started:
    """The app's program in folders of its own, as the current user.

    Attributes
    ----------
    port: of the page, which answers to 127.0.0.2 alone, as if ingress had that address.
    config: the configuration that it makes.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        options: dict[str, Any],
        own: str | None = None,
        programs: Path | None = None,
    ) -> None:
        self.port, self.config = free_port(), folder / "made" / "scentd.yaml"
        (folder / "options.json").write_text(json.dumps(options))
        if own is not None:
            (folder / "own.yaml").write_text(own)
        places = {"--data": folder, "--own": folder / "own.yaml", "--made": folder / "made"}
        page = {"--listen": f"0.0.0.0:{self.port}", "--trust": "127.0.0.2"}
        user = pwd.getpwuid(os.geteuid()).pw_name
        words = {**places, **page, "--supervisor": address, "--user": user}
        path = f"{programs or Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.process = subprocess.Popen(
            [
                sys.executable,
                APP / "run.py",
                *(str(word) for pair in words.items() for word in pair),
            ],
            env={**os.environ, "PATH": path, "SUPERVISOR_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> tuple[int, str]:
        """Send SIGTERM if it still runs, and return the exit status and what was printed."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait for its end, and return the exit status and what was printed."""
        if self.process.stdout is None or self.process.stdout.closed:
            return self.process.returncode, ""
        text, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, text

    def get(self, path: str, caller: str, **headers: str) -> tuple[int, bytes] | None:
        """Return status and body of a request from an address of this computer."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=PATIENCE_S, source_address=(caller, 0)
        )
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            return None  # it does not listen yet
        finally:
            connection.close()


class Account(Subscriber):
    """A client of that broker, with the account of the Supervisor's answer."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._client.username_pw_set(SERVICE["username"], PASSWORD)


@pytest.fixture
def locked_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Run a broker that knows the user and the password of the Supervisor's answer."""
    program = shutil.which("mosquitto_passwd") or pytest.skip(
        "Mosquitto is not installed: sudo apt install mosquitto"
    )
    folder = tmp_path / "broker"
    folder.mkdir()
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run([program, "-b", passwords, SERVICE["username"], PASSWORD], check=True)
    with Mosquitto(folder, f"allow_anonymous false\npassword_file {passwords}") as broker:
        yield broker


def test_the_app_joins_the_broker_and_shows_its_page_to_ingress_alone(
    tmp_path: Path, board: Board, toy_substances: Path, locked_broker: Mosquitto
) -> None:
    service = {**SERVICE, "port": str(locked_broker.port)}
    options = {**OPTIONS, "port": str(board.link), "models": [str(toy_substances)]}
    with (
        supervisor(service) as address,
        Account(locked_broker.port) as subscriber,
        Started(tmp_path, address, options) as app,
    ):
        subscriber.await_text("scent/rig/status", "online")
        # What Home Assistant adds: homeassistant/components/hassio/ingress.py
        headers = {
            "Host": "172.30.33.4:8099",
            "X-Forwarded-Host": "home.example:8123",
            "X-Forwarded-Proto": "https",
            "X-Ingress-Path": "/api/hassio_ingress/of-a-session",
        }
        wait_until(lambda: app.get("/", "127.0.0.2", **headers), "the page")
        shown = app.get("/", "127.0.0.2", **headers)
        assert shown is not None
        assert shown[0] == 200
        paths = re.findall(rb'(?:href|src)="([^#"]+)"', shown[1])
        assert paths
        for path in paths:
            assert not path.startswith(b"/"), "it would not lie below the path of ingress"
            answer = app.get(f"/{path.decode()}", "127.0.0.2", **headers)
            assert answer is not None
            assert answer[0] == 200
        assert app.get("/", "127.0.0.1", **headers) == (403, shown_refusal())
        status, text = app.end()
    assert status == 0, text
    assert "token" not in text
    assert PASSWORD not in text
    assert PASSWORD not in app.config.read_text()
    assert (app.config.parent / "mqtt-password").stat().st_mode & 0o077 == 0


def shown_refusal() -> bytes:
    return json.dumps(
        {"error": "This page answers only requests that come through its proxy."}
    ).encode()


def test_an_app_without_a_broker_says_what_to_install(tmp_path: Path) -> None:
    with supervisor(None) as address, Started(tmp_path, address, OPTIONS) as app:
        status, text = app.wait()
    assert status == 1
    assert "The Supervisor names no MQTT broker" in text
    assert "Mosquitto broker" in text


def test_an_app_without_a_supervisor_says_so(tmp_path: Path) -> None:
    with Started(tmp_path, f"http://127.0.0.1:{free_port()}", OPTIONS) as app:
        status, text = app.wait()
    assert status == 1
    assert "The Supervisor did not say where the MQTT broker is" in text


def program(folder: Path, text: str) -> Path:
    """Write a program `scentd` that takes the place of the real one, and return its folder."""
    folder.mkdir()
    path = folder / "scentd"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return folder


def test_the_app_ends_when_one_of_its_programs_ends(tmp_path: Path) -> None:
    programs = program(tmp_path / "bin", '[ "$1" = web ] && exit 3; exec sleep 600')
    with supervisor(SERVICE) as address, Started(tmp_path, address, OPTIONS, None, programs) as app:
        status, text = app.wait()
    assert status == 3
    assert "'scentd web' ended, and so the app ends." in text


OWN = """
live_stride_s: 2
record: true
mqtt: {keepalive_s: 20}
"""
OWN_BROKER = "mqtt: {host: broker.lan}"


@pytest.mark.parametrize(
    ("service", "own", "host"),
    [(SERVICE, None, "127.0.0.1"), (SERVICE, OWN, "127.0.0.1"), (None, OWN_BROKER, "broker.lan")],
    ids=["options", "own settings", "own broker"],
)
def test_the_configuration_is_made_of_options_broker_and_own_settings(
    tmp_path: Path, service: dict[str, Any] | None, own: str | None, host: str
) -> None:
    programs = program(tmp_path / "bin", "exit 0")
    with supervisor(service) as address, Started(tmp_path, address, OPTIONS, own, programs) as app:
        app.wait()
    config = load_config(app.config, environ={})
    assert config.rig_id == "rig"
    assert config.source.port == "auto"
    assert config.models == tuple(OPTIONS["models"])
    assert config.clips is OPTIONS["clips"]
    assert config.log.level == OPTIONS["log_level"]
    assert config.state_dir == tmp_path / "state"
    assert config.mqtt.host == host
    assert config.mqtt.username == (None if service is None else SERVICE["username"])
    assert config.record is (own == OWN)
    if own == OWN:
        assert (config.live_stride_s, config.mqtt.keepalive_s) == (2, 20)


@pytest.mark.parametrize("own", ["- record", "mqtt: broker.lan", "record: [", "\x00"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, own: str) -> None:
    with supervisor(SERVICE) as address, Started(tmp_path, address, OPTIONS, own) as app:
        status, text = app.wait()
    assert status == 1
    assert "own.yaml" in text
    assert "Traceback" not in text
