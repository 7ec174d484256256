"""Waits and checks that the fault tests share."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tests.sandbox import ROOT, Odours, Subscriber, wait_until

if TYPE_CHECKING:
    from tests.sandbox import ServiceProcess

SCHEMAS = ROOT / "daemon" / "schemas"
AIR = Odours(((None, 100_000),))
"""Clean air without end."""


def await_event(subscriber: Subscriber, kind: str, number: int = 1) -> dict[str, Any]:
    """Wait for the `number`th event of a type and return it."""
    wait_until(lambda: len(subscriber.events(kind)) >= number, f"event {kind} number {number}")
    return subscriber.events(kind)[number - 1]


def await_board(subscriber: Subscriber, state: str) -> None:
    """Wait until the newest `sensor/status` is `state`."""
    wait_until(
        lambda: subscriber.texts("scent/rig/sensor/status")[-1:] == [state], f"board {state}"
    )


def await_more_predictions(subscriber: Subscriber, number: int = 3) -> None:
    """Wait for `number` more predictions."""
    before = len(subscriber.payloads("substance"))
    wait_until(lambda: len(subscriber.payloads("substance")) >= before + number, "more predictions")


def last_health(service: ServiceProcess, subscriber: Subscriber) -> dict[str, Any]:
    """End the service and return its last `health`.

    Whatever happened, it ends cleanly, and everything it published matches its schema.
    """
    assert service.end() == 0
    subscriber.await_text("scent/rig/status", "offline")
    assert "Traceback" not in service.log
    for topic in ("event", "health", "info", "substance"):
        schema = json.loads((SCHEMAS / f"{topic}.json").read_text(encoding="utf-8"))
        for payload in subscriber.payloads(topic):
            jsonschema.validate(payload, schema)
    return subscriber.payloads("health")[-1]


def logged(service: ServiceProcess, words: str) -> dict[str, Any]:
    """Return the first log entry that holds `words`."""
    entries = [json.loads(line) for line in service.log.splitlines() if line.startswith("{")]
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
