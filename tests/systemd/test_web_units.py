"""The units of the page are valid, as closed as the service's, and start it on their socket."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.sandbox import free_port
from tests.systemd.test_units import HIGHEST_EXPOSURE, INSTALLED, SYSTEMD, analyze, settings

UNITS = ("scentd-web.service", "scentd-web.socket")

NOT_OF_THE_PAGE = re.compile(
    r"(Device|DevicePolicy|SupplementaryGroups|Watchdog|Runtime|Logs|Memory|Tasks|ExecReload"
    r"|ExecStart|Description|Wants|After|Timeout|WantedBy|Private)"
)
"""Settings in which the page's unit may differ: it needs no board and less memory."""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    program = tmp_path / "current" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    for unit in UNITS:
        text = (SYSTEMD / unit).read_text(encoding="utf-8")
        there = text.replace(INSTALLED, str(tmp_path / "current"))
        (tmp_path / unit).write_text(there, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_units_of_the_page(units: Path, unit: str) -> None:
    done = analyze("verify", *(str(units / name) for name in UNITS))
    assert (done.returncode, done.stderr) == (0, ""), unit


def test_the_page_is_no_more_exposed_than_the_service(units: Path) -> None:
    threshold = f"--threshold={round(10 * HIGHEST_EXPOSURE)}"
    done = analyze("security", "--offline=true", threshold, str(units / "scentd-web.service"))
    assert done.returncode == 0, done.stdout


def test_the_page_keeps_every_protection_of_the_service() -> None:
    service = [line for line in settings("scentd.service") if not line.startswith("[")]
    wanted = {line for line in service if not NOT_OF_THE_PAGE.match(line)}
    assert len(wanted) > 25
    assert wanted - set(settings("scentd-web.service")) == set()


def test_it_listens_on_its_own_computer() -> None:
    assert "ListenStream=127.0.0.1:8733" in settings("scentd-web.socket")


def test_the_page_is_served_on_a_socket_that_was_handed_over(tmp_path: Path) -> None:
    config = tmp_path / "scentd.yaml"
    broker = {"host": "127.0.0.1", "port": free_port()}
    rig = {"rig_id": "rig", "source": {"port": "./board"}, "models": ["substances-50"]}
    config.write_text(json.dumps({**rig, "mqtt": broker, "state_dir": "state"}))
    program = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
        "os.execv(sys.executable, [sys.executable, '-m', 'daemon.cli', 'web', '--config',"
        " sys.argv[2]])"
    )
    with socket.create_server(("127.0.0.1", 0)) as handed:
        number = handed.fileno()
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(number), str(config)],
            cwd=SYSTEMD.parent,
            pass_fds=[number],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        address = f"http://127.0.0.1:{handed.getsockname()[1]}/healthz"
        try:
            # Nobody refuses a connection while it starts: the socket is there already.
            with pytest.raises(urllib.error.HTTPError) as answer:
                urllib.request.urlopen(address, timeout=60)
            assert answer.value.code == 503  # no broker
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert process.returncode == 0
