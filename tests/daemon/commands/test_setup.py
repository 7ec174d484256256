"""`scentd setup`: what is found is written and checked; nobody else's port is opened."""

from __future__ import annotations

import os
import pty
from typing import TYPE_CHECKING

import pytest

from daemon.board import known_boards, port
from daemon.cli import main
from daemon.commands import setup
from daemon.config.loading import load_config
from hardware.simulator.board import SimulatedBoard
from tests.sandbox import Mosquitto, Odours, free_port

if TYPE_CHECKING:
    from pathlib import Path

FILE = "etc/scentd.yaml"
NO2 = 0
SCRIPT = Odours(((None, 60), (NO2, 100)) * 50)


class Adapter:
    """A serial port, as pyserial describes it."""

    serial_number = None

    def __init__(self, device: object, vid: int | None = 0x1A86, pid: int | None = 0x7523) -> None:
        self.device, self.vid, self.pid = str(device), vid, pid


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(known_boards, "LINK_FOLDERS", (tmp_path / "by-id", tmp_path / "by-path"))
    return tmp_path


def plug_in(monkeypatch: pytest.MonkeyPatch, *adapters: Adapter) -> None:
    monkeypatch.setattr(port, "list_ports", lambda: list(adapters))


def options(folder: Path, model: Path, broker_port: int) -> list[str]:
    place = f"127.0.0.1:{broker_port}"
    config = ["--config", str(folder / FILE), "--state", "state"]
    rig = ["--rig-id", "kitchen", "--models", str(model), "--look", "1.5", "--yes"]
    return ["setup", "--broker", place, *config, *rig]


def test_the_known_board_is_found_written_checked_and_smelled(
    broker: Mosquitto,
    folder: Path,
    toy_substances: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    link = folder / "ttySIM"
    plug_in(monkeypatch, Adapter("/dev/ttyS0", None, None), Adapter(link))
    with SimulatedBoard(SCRIPT, link=link, speed=20):
        assert main(options(folder, toy_substances, broker.port)) == 0
    out = capsys.readouterr().out
    assert f"Found a CH340 at {link}" in out
    assert "ok      broker" in out
    assert "toy-substance: " in out
    config = load_config(folder / FILE)
    assert (config.rig_id, config.source.port, config.clips) == ("kitchen", "auto", True)
    assert config.state_dir == folder / "state"
    assert (config.mqtt.host, config.mqtt.port) == ("127.0.0.1", broker.port)


def test_an_existing_file_is_not_replaced(
    folder: Path, toy_substances: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch)
    (folder / FILE).parent.mkdir()
    (folder / FILE).write_text("rig_id: mine\n")
    assert main(options(folder, toy_substances, 1)) == 2
    assert (folder / FILE).read_text() == "rig_id: mine\n"


def test_of_several_known_ports_the_one_that_sends_readings_is_taken(
    folder: Path,
    toy_substances: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(setup, "PROBE_S", 1.5)
    link = folder / "ttySIM"
    leader, follower = pty.openpty()
    silent = os.ttyname(follower)
    plug_in(monkeypatch, Adapter(link), Adapter(silent))
    try:
        with SimulatedBoard(SCRIPT, link=link, speed=20):
            # Nobody answers at the broker's port: the file is written, and the exit code says so.
            assert main(options(folder, toy_substances, free_port())) == 1
    finally:
        os.close(leader)
        os.close(follower)
    assert "FAILED  broker" in capsys.readouterr().out
    assert load_config(folder / FILE).source.port == str(link)


def test_ports_that_are_no_known_boards_are_named_and_not_opened(
    folder: Path,
    toy_substances: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plug_in(monkeypatch, Adapter("/dev/ttyS7", 0x1234, 0x5678))
    assert main(options(folder, toy_substances, 1)) == 2
    assert "/dev/ttyS7" in capsys.readouterr().err
    assert not (folder / FILE).exists()


def test_a_bad_answer_leaves_no_file(
    folder: Path, toy_substances: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch)
    arguments = options(folder, toy_substances, 1)
    arguments[arguments.index("kitchen")] = "Not a name"
    assert main(arguments) == 1
    assert list((folder / FILE).parent.iterdir()) == []
