"""Soak: the service under the storm: started, killed, frozen, its files torn; its log read.

Runs the real `scentd run` in a process of its own. What it says at level debug is the ledger
that the balance is drawn from.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from daemon.mqtt.outbox import FILE_NAME
from daemon.mqtt.outbox_database import OutboxFile
from daemon.sandbox.service_process import spawn
from daemon.soak.accounting import DURABLE, Boot, Key, SentMessage
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

READY = "ready"
CONNECTED = "connected to the broker"
PORT_OPENED = "port opened"
DISK_FAILED = "the outbox cannot be written to disk; messages wait in memory meanwhile"
DISK_BACK = "the outbox is written to disk again"
RELOADED = "reloaded"
KEPT_OLD = "The configuration before stays in force."
"""The end of a paragraph that says why; the others are said as they stand here."""

HEALS_WITHIN_S = 60.0
"""Patience, not a measure: on a busy machine everything takes long. What it took is reported."""

STOPS_WITHIN_S = 20.0
_LINES_KEPT = 200
_POLL_S = 0.01


class ServiceUnderTestError(ScentdError):
    """The service under the storm did what it never may."""


class ServiceUnderTest:
    """One service, life after life, over one state folder.

    Parameters
    ----------
    folder : Path
        For its configuration, its state and the rig's latest words.
    settings : mapping
        The configuration, as its YAML file holds it.

    Attributes
    ----------
    boots: its lives so far, the present one last.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._state = folder / "state"
        self._config = folder / "scentd.yaml"
        self._settings = {
            **settings,
            "state_dir": str(self._state),
            "log": {"level": "debug", "format": "json"},
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._events: Counter[str] = Counter()
        self._last_words: list[str] = []
        self.boots: list[Boot] = []

    def start(self) -> float:
        """Start a life; return the seconds until it was ready."""
        self.configure({})
        ready = self.count(READY)
        started_s = time.monotonic()
        process = spawn(self._config, subprocess.PIPE)
        self._process = process
        boot = Boot()
        self.boots.append(boot)
        self._reader = threading.Thread(
            target=self._read, args=(process.stdout, boot), name="ledger", daemon=True
        )
        self._reader.start()
        self.await_(lambda: self.count(READY) > ready, "was not ready")
        return time.monotonic() - started_s

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Write the configuration with some of its settings changed."""
        # Every JSON text is YAML.
        self._config.write_text(json.dumps({**self._settings, **changes}), encoding="utf-8")

    def kill(self) -> None:
        """End the life as a power cut does."""
        process, boot = self._running(), self.boots[-1]
        process.kill()
        process.wait()
        boot.killed_s = time.time()
        self._buried(boot)

    def stop(self) -> None:
        """End the life by SIGTERM.

        Raises
        ------
        RigError
            It does not end, or not in order.
        """
        process, boot = self._running(), self.boots[-1]
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise self._error(f"did not end within {STOPS_WITHIN_S:.0f} s of SIGTERM") from None
        self._buried(boot)
        if code != 0:
            raise self._error(f"ended with exit code {code} after SIGTERM")

    def abandon(self) -> None:
        """End whatever runs: the storm itself is being ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self, lasts_s: float) -> None:
        """Stop the process for a while, as a machine without memory to spare does."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        time.sleep(lasts_s)
        process.send_signal(signal.SIGCONT)

    def hang_up(self) -> None:
        """Send SIGHUP."""
        self._running().send_signal(signal.SIGHUP)

    @contextlib.contextmanager
    def full_disk(self) -> Any:
        """Let nothing be written to any file, as on a full disk, while the block runs."""
        pid = self._running().pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    def tear(self, junk: bytes) -> None:
        """Leave half-written bytes at the end of the outbox's log, as a power cut does."""
        wal = self._state / f"{FILE_NAME}-wal"
        if wal.exists():
            with wal.open("ab") as log:
                log.write(junk)

    def count(self, event: str) -> int:
        """Return how often the log said `event`."""
        return self._events[event]

    @property
    def made(self) -> set[Key]:
        """What must arrive, as far as it was said."""
        return {
            (boot.boot_id, said.seq)
            for boot in self.boots
            for said in tuple(boot.said)
            if said.topic in DURABLE
        }

    def await_(self, happened: Callable[[], bool], what: str) -> float:
        """Wait until something has happened; return the seconds it took.

        Raises
        ------
        RigError
            The process ended by itself, or it never happened.
        """
        started_s = time.monotonic()
        while not happened():
            if self._running().poll() is not None:
                raise self._error(f"ended by itself (exit code {self._running().returncode})")
            if time.monotonic() - started_s > HEALS_WITHIN_S:
                raise self._error(f"{what} within {HEALS_WITHIN_S:.0f} s")
            time.sleep(_POLL_S)
        return time.monotonic() - started_s

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the rig has a process only between start and its end")
        return self._process

    def _buried(self, boot: Boot) -> None:
        """Read the ledger to its end, and what the outbox's file holds."""
        if self._reader is not None:
            self._reader.join()
        self._process = None
        boot.held = held(self._state / FILE_NAME, self._folder / "autopsy")

    def _read(self, log: IO[bytes], boot: Boot) -> None:
        with log:
            for line in log:
                self._note(line, boot)

    def _note(self, line: bytes, boot: Boot) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            # A traceback that no handler caught, most likely.
            self._last_words.append(line.decode(errors="replace").rstrip())
        else:
            event = entry["event"]
            self._events[KEPT_OLD if event.endswith(KEPT_OLD) else event] += 1
            if event == "message made":
                boot.boot_id = entry["boot_id"]
                at_s = datetime.fromisoformat(entry["ts"]).timestamp()
                boot.said.append(SentMessage(entry["topic"], entry["seq"], at_s))
            elif entry["level"] != "debug":
                self._last_words.append(line.decode(errors="replace").rstrip())
        del self._last_words[:-_LINES_KEPT]

    def _error(self, what: str) -> ServiceUnderTestError:
        words = self._folder / "last-words.log"
        words.write_text("\n".join(self._last_words) + "\n", encoding="utf-8")
        told = "\n  ".join(self._last_words[-5:]) or "nothing"
        return ServiceUnderTestError(f"The service under the storm {what}. It said last:\n  {told}")


def held(path: Path, scratch: Path) -> frozenset[Key]:
    """Return what an outbox's file holds, read from a copy of what a dead process left."""
    if not path.exists():
        return frozenset()
    scratch.mkdir(exist_ok=True)
    for file in scratch.iterdir():
        file.unlink()
    for file in path.parent.glob(f"{path.name}*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, scratch / file.name)
    store = OutboxFile(scratch / path.name)
    try:
        payloads = [
            json.loads(entry.message.payload)
            for entry in store.entries()
            if entry.message.topic in DURABLE
        ]
    finally:
        store.close()
    return frozenset((payload["boot_id"], payload["seq"]) for payload in payloads)
