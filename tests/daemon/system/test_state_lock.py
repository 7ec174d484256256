"""One service at a time on a state folder."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.sandbox.service_process import ServiceProcessError
from daemon.system.state_lock import SERVICE_LOCK, StateHeldError, held_state, holder_of
from tests.sandbox import Mosquitto, ServiceProcess, settings


def service(folder: Path, model: Path, port: int, state: Path) -> ServiceProcess:
    text = settings(folder / "ttyNONE", [model], port, f"state_dir: {state}")
    return ServiceProcess(folder, text.replace("state_dir: state\n", ""))


def test_a_second_service_on_a_state_folder_is_refused_and_told_who_holds_it(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    state = tmp_path / "state"
    with service(tmp_path / "one", toy_substances, broker.port, state) as first:
        second = service(tmp_path / "two", toy_substances, broker.port, state)
        with pytest.raises(ServiceProcessError, match=rf"process {first.pid}, rig rig, since 20"):
            second.start()
        assert second.process.returncode == 1
        assert "Traceback" not in second.log
        first.end(signal.SIGKILL)
        with second:
            assert second.end() == 0


def test_a_change_that_an_unreachable_service_would_not_notice_is_refused(
    tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with service(tmp_path, toy_substances, 1, tmp_path / "state") as running:
        assert main(["models", "rollback", "m", "--config", str(running.config)]) == 1
        assert f"process {running.pid}, rig rig" in capsys.readouterr().err


def test_the_lock_is_free_after_the_end_and_survives_whatever_the_file_holds(
    tmp_path: Path,
) -> None:
    assert holder_of(tmp_path) is None
    (tmp_path / SERVICE_LOCK).write_bytes(b"[" * 100_000)
    assert holder_of(tmp_path) is None
    with held_state(tmp_path, "kitchen"):
        holder = json.loads((tmp_path / SERVICE_LOCK).read_text(encoding="utf-8"))
        assert (holder["pid"], holder["rig_id"]) == (os.getpid(), "kitchen")
        with pytest.raises(StateHeldError, match="rig kitchen"), held_state(tmp_path, "other"):
            pass
        (tmp_path / SERVICE_LOCK).write_bytes(b"")
        assert "could not write its name" in str(holder_of(tmp_path))
    assert holder_of(tmp_path) is None


def test_a_folder_that_cannot_be_written_is_used_without_a_lock(tmp_path: Path) -> None:
    (tmp_path / SERVICE_LOCK).mkdir()
    with held_state(tmp_path, "kitchen"):
        assert holder_of(tmp_path) is None
