"""Soak: the service under test, with faults of process and disk, and the events of its log.

The delivery report uses the service's log, which holds every message at level debug.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import signal
import time
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

from daemon.mqtt.outbox_database import OutboxFile
from daemon.mqtt.outbox_values import OUTBOX_FILE
from daemon.sandbox.service_process import PATIENCE_S, ServiceProcess
from daemon.soak.observed import DURABLE, Boot, MadeMessage, MessageId, Opening, Reload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from daemon.sandbox.service_process import ServiceProcessError
    from daemon.soak.hanging_disk import HangingDisk
    from daemon.soak.power_cut import SyncedFiles

CONNECTED = "connected to the broker"
PORT_OPENED = "port opened"
DISK_FAILED = "the outbox cannot be written to disk; messages wait in memory meanwhile"
DISK_RECOVERED = "the outbox is written to disk again"
CONTESTED = "again and again as soon as it is made"
"""A part of the event, which names the broker."""

RELOADED = "reloaded"
RELOAD_REFUSED = "The configuration before stays in force."
"""Only the end of the event, which begins with the reason."""

PRELOADED = "LD_PRELOAD"

_POLL_S = 0.01


class ServiceUnderTest(ServiceProcess):
    """A service that is started repeatedly with the same state folder; counts its log events.

    Parameters
    ----------
    synced: copies of the outbox's files for power cuts; None without any.
    disk: lets the disk hang; None without.
    """

    lines_kept = 200

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        synced: SyncedFiles | None = None,
        disk: HangingDisk | None = None,
    ) -> None:
        log = {"level": "debug", "format": "json"}
        built = [part.build() for part in (synced, disk) if part is not None]
        environ = {name: text for each in built for name, text in each.items()}
        if built:
            environ[PRELOADED] = ":".join(each[PRELOADED] for each in built)
        super().__init__(folder, {**settings, "log": log}, environ)
        self.disk = disk
        self._folder = folder
        self._synced = synced
        self._outbox = folder / "state" / OUTBOX_FILE
        self._changes: Mapping[str, Any] = {}
        self._from_ms: int | None = None
        self.events: Counter[str] = Counter()
        self.boots: list[Boot] = []

    def start(self) -> None:
        """Start the next boot."""
        self.boots.append(Boot())
        super().start()

    def end(self, number: signal.Signals = signal.SIGTERM, *, power_cut: bool = False) -> int:
        """End the boot, in order unless by SIGKILL, and store the ids in its outbox.

        A power cut, by SIGKILL, also takes what was not synchronised to the disk.
        """
        boot = self.boots[-1]
        started_s = time.time()
        if number is signal.SIGKILL:
            boot.killed_s = started_s
        code = super().end(number)
        boot.ended_s = (started_s, time.time())
        boot.stored = boot.written = self._stored()
        if power_cut and self._synced is not None:
            self._synced.cut_power()
            boot.power_cut, boot.stored = True, self._stored()
        elif self._synced is not None:
            self._synced.write_back()
        if number is not signal.SIGKILL and code != 0:
            raise self.error(f"ended with exit code {code} after {number.name}")
        return code

    @property
    def running_pid(self) -> int | None:
        """Id of the running process, None between two boots."""
        return self.pid if self._process is not None and self._process.poll() is None else None

    def _stored(self) -> frozenset[MessageId]:
        return stored_ids(self._outbox, self._folder / "copy of the outbox")

    def reload(self, changes: Mapping[str, Any]) -> None:
        """Let it read its configuration again, with some settings changed."""
        self._changes = changes
        self.configure(changes)
        self.process.send_signal(signal.SIGHUP)

    def configured(self, changes: Mapping[str, Any]) -> Path:
        """Write the configuration with some settings changed; return its path."""
        self.configure(changes)
        return self.config

    def freeze(self, duration_s: float) -> None:
        """Stop the process for a while, as on a machine out of memory."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(duration_s)
        self.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Let every write to a file fail, as on a full disk, while the block runs."""
        before = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            yield
        finally:
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, before)

    def tear_outbox(self, junk: bytes) -> None:
        """Append half-written bytes to the outbox's write-ahead log, as a power cut leaves them."""
        wal = self._outbox.with_name(f"{OUTBOX_FILE}-wal")
        if wal.exists():
            with wal.open("ab") as log:
                log.write(junk)

    def made_ids(self) -> set[MessageId]:
        """Return the messages made so far that must arrive."""
        return {(boot.boot_id, message.seq) for boot in self.boots for message in boot.durable}

    def wait_until(self, happened: Callable[[], bool], failure: str) -> float:
        """Wait until `happened()`, with `failure` as the error; return the seconds it took."""
        started_s = time.monotonic()
        while not happened():
            self.check()
            if time.monotonic() - started_s > PATIENCE_S:
                raise self.error(f"{failure} within {PATIENCE_S:.0f} s")
            time.sleep(_POLL_S)
        return time.monotonic() - started_s

    def wait_for_event(self, event: str, before: int) -> float:
        """Wait until `event` is logged more often than `before`; return the seconds it took."""
        return self.wait_until(lambda: self.events[event] > before, f'did not log "{event}"')

    def error(self, what: str) -> ServiceProcessError:
        """Return an error that quotes the end of the log; write more of it to a file."""
        (self._folder / "scentd.log").write_text(self.log, encoding="utf-8")
        return super().error(what)

    def add_line(self, line: str) -> None:
        """Count an event of the log; keep the line if its level is above debug."""
        try:
            entry = json.loads(line)
        except ValueError:  # most likely a traceback
            super().add_line(line)
            return
        event = entry["event"]
        if entry["level"] != "debug":
            super().add_line(line)
        self._note(event, entry)
        parts = (part for part in (RELOAD_REFUSED, CONTESTED) if part in event)
        self.events[next(parts, event)] += 1

    def _note(self, event: str, entry: Mapping[str, Any]) -> None:
        """Note what a replay or the delivery report needs of a log entry."""
        boot = self.boots[-1]
        place = len(boot.made)
        match event:
            case "message made":
                boot.boot_id = entry["boot_id"]
                boot.made.append(
                    MadeMessage(entry["topic"], entry["seq"], _at_s(entry), entry.get("frame_seq"))
                )
            case "port opened":
                boot.openings.append(Opening(place, _at_s(entry)))
            case "the last minutes are processed":
                self._from_ms = entry["from_ms"]
            case "reloaded":
                boot.reloads.append(Reload(place, self._changes, self._from_ms))
                self._from_ms = None


def _at_s(entry: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(entry["ts"]).timestamp()


def stored_ids(path: Path, copy: Path) -> frozenset[MessageId]:
    """Return the ids of the messages in an outbox's file, read from a copy."""
    if not path.exists():
        return frozenset()
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, copy)
    with contextlib.closing(OutboxFile(copy / path.name)) as database:
        payloads = [
            json.loads(entry.message.payload)
            for entry in database.entries()
            if entry.message.topic in DURABLE
        ]
    return frozenset((payload["boot_id"], payload["seq"]) for payload in payloads)
