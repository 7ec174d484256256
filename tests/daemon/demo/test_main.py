"""The demo as a user starts it, with real parts; it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.demo.main import choose_broker
from daemon.sandbox.broker import Mosquitto
from tests.sandbox import PATIENCE_S, ROOT

NAMED_WITHIN_S = 95.0
"""Ten seconds suffice on an idle machine; this only ends a test that would hang."""


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo in its own process, its temporary folders below `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    try:
        yield process
    finally:
        # Not SIGKILL: it would leave the demo's services without a parent.
        process.terminate()
        process.communicate()


def test_demo_names_an_odour_rightly_and_ends_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    with demo(tmp_path, "--seed", "1") as process:
        assert process.stdout is not None
        late = threading.Timer(NAMED_WITHIN_S, process.terminate)
        late.start()
        shown = []
        for line in process.stdout:
            shown.append(line)
            if "(right," in line:
                break
        else:
            pytest.fail(f"no smell was named rightly in {NAMED_WITHIN_S:.0f} s: {shown}")
        late.cancel()
        process.send_signal(signal.SIGINT)
        table, remarks = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert re.search(r"^right +\w+", table, re.MULTILINE)
    assert "not a terminal" in remarks
    assert re.search(r"The page of both rigs.*: http://127\.0\.0\.1:\d+/$", remarks, re.MULTILINE)
    assert "A name takes mostly 10 to 60 s of the board's time" in remarks
    assert "Traceback" not in remarks
    assert list(tmp_path.glob("scentd*")) == []


def test_demo_ends_by_itself_and_leaves_a_picture(tmp_path: Path) -> None:
    folder, picture = tmp_path / "tmp", tmp_path / "demo.svg"
    folder.mkdir()
    options = ("--plain", "--seconds", "8", "--svg", str(picture))
    with demo(folder, *options) as process:
        table, remarks = process.communicate(timeout=100)
    assert process.returncode == 0, remarks
    assert "in the air clean air" in " ".join(table.split())
    svg = picture.read_text("utf-8")
    assert svg.startswith("<svg")
    assert "https://cdn" not in svg
    assert list(folder.glob("scentd*")) == []


def test_demo_without_its_extra_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)  # type: ignore[arg-type] - Python's own "not there"
    assert main(["demo", "--seconds", "1"]) == 1
    told = capsys.readouterr().err
    assert "rich" in told
    assert "pip install 'scentd[demo]'" in told


def test_mosquitto_takes_the_place_of_amqtt_where_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "amqtt", None)  # type: ignore[arg-type] - Python's own "not there"
    monkeypatch.setattr("daemon.sandbox.broker.mosquitto_program", lambda: None)
    assert main(["demo", "--seconds", "1"]) == 1
    assert "amqtt" in capsys.readouterr().err
    assert isinstance(choose_broker(tmp_path), Mosquitto)


@pytest.mark.parametrize("wrong", [("--pace", "50"), ("--seconds", "0"), ("--seconds", "soon")])
def test_demo_refuses_times_that_make_no_sense(wrong: tuple[str, str]) -> None:
    with demo(Path.cwd(), *wrong) as process:
        _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert wrong[0] in told
