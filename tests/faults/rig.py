"""One rig under test: its configuration, and what it said, in the words of the fault tests."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tests.sandbox import ROOT, Odours, Subscriber, wait_until

if TYPE_CHECKING:
    from tests.sandbox import ServiceProcess

SCHEMAS = ROOT / "daemon" / "schemas"
AIR = Odours(((None, 100_000),))


def settings(source: str, model: Path, broker_port: int, *lines: str) -> str:
    """Return a configuration; `source` is the inside of its section."""
    return "\n".join(
        [
            "rig_id: rig",
            f"source: {{{source}}}",
            f"models: [{model}]",
            f"mqtt: {{host: 127.0.0.1, port: {broker_port}}}",
            "state_dir: state",
            "live_stride_s: 2",
            *lines,
        ]
    )


def said(ear: Subscriber, topic: str) -> list[dict[str, Any]]:
    """Return the payloads of a topic so far."""
    return [json.loads(text) for text in ear.texts(f"scent/rig/{topic}")]


def events(ear: Subscriber, kind: str) -> list[dict[str, Any]]:
    """Return the events of one type so far."""
    return [event for event in said(ear, "event") if event["type"] == kind]


def await_event(ear: Subscriber, kind: str, number: int = 1) -> dict[str, Any]:
    """Wait for the `number`th event of a type and return it."""
    wait_until(lambda: len(events(ear, kind)) >= number, f"event {kind} number {number}")
    return events(ear, kind)[number - 1]


def await_board(ear: Subscriber, state: str) -> None:
    """Wait until the newest word about the board is `state`."""
    wait_until(lambda: ear.texts("scent/rig/sensor/status")[-1:] == [state], f"board {state}")


def await_more_predictions(ear: Subscriber, number: int = 3) -> None:
    """Wait until the rig has said more than it had."""
    before = len(said(ear, "substance"))
    wait_until(lambda: len(said(ear, "substance")) >= before + number, "more predictions")


def last_health(daemon: ServiceProcess, ear: Subscriber) -> dict[str, Any]:
    """End the daemon and return the health that it left behind.

    Whatever happened, it ends cleanly and everything it said obeyed its schema.
    """
    assert daemon.end() == 0
    ear.await_text("scent/rig/status", "offline")
    assert "Traceback" not in daemon.log
    for topic in ("event", "health", "info", "substance"):
        schema = json.loads((SCHEMAS / f"{topic}.json").read_text(encoding="utf-8"))
        for payload in said(ear, topic):
            jsonschema.validate(payload, schema)
    return said(ear, "health")[-1]


def logged(daemon: ServiceProcess, words: str) -> dict[str, Any]:
    """Return the first log entry that holds `words`."""
    entries = [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]
    return next(entry for entry in entries if words in entry["event"])


def needs_own_mounts() -> None:
    """Skip where this user may not have mounts of its own."""
    try:
        allowed = subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("needs unshare(1) of util-linux")
    if allowed.returncode != 0:
        pytest.skip(f"needs mounts of its own: {allowed.stderr.decode().strip()}")
