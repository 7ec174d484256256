"""Logs: JSON for machines, text for people, and no secrets."""

from __future__ import annotations

import io
import json
import os
import pty
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from daemon.config.settings import LogConfig
from daemon.system.logs import MASK, configure_logs, get_logger


@pytest.fixture(autouse=True)
def _plain_structlog() -> object:
    yield
    structlog.reset_defaults()


def test_into_a_pipe_every_line_is_json() -> None:
    stream = io.StringIO()
    configure_logs(LogConfig(), stream=stream)
    get_logger("source").info("port opened", port="/dev/x")
    entry = json.loads(stream.getvalue())
    assert entry["event"] == "port opened"
    assert (entry["level"], entry["part"], entry["port"]) == ("info", "source", "/dev/x")
    assert entry["ts"].endswith("Z")


@pytest.mark.parametrize("variable", ["JOURNAL_STREAM", "INVOCATION_ID", None])
def test_on_a_terminal_a_line_is_text_unless_under_systemd(
    variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JOURNAL_STREAM", "INVOCATION_ID"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "8:1234")
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "w") as terminal:
            configure_logs(LogConfig(), stream=terminal)
            get_logger("service").info("ready")
            terminal.flush()
            line = os.read(master, 4096).decode()
    finally:
        os.close(master)
    assert line.startswith("{") is (variable is not None)
    assert "ready" in line


def test_events_below_the_level_are_not_logged() -> None:
    stream = io.StringIO()
    configure_logs(LogConfig(level="warning"), stream=stream)
    get_logger("service").info("hidden")
    get_logger("service").warning("shown")
    assert "hidden" not in stream.getvalue()
    assert "shown" in stream.getvalue()


def test_a_full_disk_loses_lines_and_does_not_end_the_service() -> None:
    with Path("/dev/full").open("w", encoding="utf-8", buffering=1) as full:
        configure_logs(LogConfig(), stream=full)
        for _ in range(1000):
            get_logger("service").warning("nobody reads this", detail="x" * 100)
        with suppress(OSError):  # what the stream still holds finds no room either
            full.close()


def test_values_whose_names_suggest_a_secret_are_masked() -> None:
    stream = io.StringIO()
    configure_logs(LogConfig(), stream=stream)
    get_logger("mqtt").info("connecting", password="hunter2", password_file="/etc/secret")  # noqa: S106
    entry = json.loads(stream.getvalue())
    assert entry["password"] == MASK
    assert entry["password_file"] == "/etc/secret"  # noqa: S105
