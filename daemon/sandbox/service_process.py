"""Daemon: the real service, `scentd run`, as a child process; its log is read while it runs.

Knows the configuration file and the log's event `ready`; nothing of boards and brokers.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Self

from daemon.sandbox import process_usage
from daemon.sandbox.child_environment import child_environment
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATIENCE_S = 60.0
"""Longest start or end. A service needs under two seconds; a busy machine may need much longer."""

_POLL_S = 0.02
_LINES_IN_ERROR = 5


class ServiceProcessError(ScentdError):
    """The child process does not start, run or end as a service should."""


class ServiceProcess:
    """A service that runs while its block runs, and is killed at its end.

    Parameters
    ----------
    folder: for its configuration, `scentd.yaml`; relative paths in `settings` start there.
    settings: the configuration: a mapping, to which `state_dir: state` is added, or YAML text.
    environ: additional environment variables.
    command_prefix: a command that starts it, such as `unshare -m`.

    Attributes
    ----------
    config: path of the configuration file.
    ready_s: seconds from the latest start to readiness.
    lines: the log so far. Copy it (`list(...)`) before a loop over it.

    Raises
    ------
    ServiceProcessError: if it ended or was not ready in time; with the end of its log.
    """

    lines_kept: int | None = None
    """Lines of the log kept at most; None keeps all."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any] | str,
        environ: Mapping[str, str] = MappingProxyType({}),
        command_prefix: tuple[str, ...] = (),
    ) -> None:
        self.config = folder / "scentd.yaml"
        self.ready_s = 0.0
        self.lines: deque[str] = deque(maxlen=self.lines_kept)
        self._settings, self._environ = settings, environ
        self._command_prefix = command_prefix
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process(self) -> subprocess.Popen[str]:
        """The child process; it stays available after its end."""
        if self._process is None:
            raise RuntimeError("the service has not been started")
        return self._process

    @property
    def pid(self) -> int:
        """Id of the child process."""
        return self.process.pid

    @property
    def log(self) -> str:
        """The log as one text."""
        return "".join(list(self.lines))

    def start(self) -> None:
        """Write the configuration, start, and return once the service is ready."""
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.configure({})
        program = (sys.executable, "-P", "-m", "daemon.cli", "run", "--config", str(self.config))
        self._ready.clear()
        started_s = time.monotonic()
        self._process = subprocess.Popen(
            [*self._command_prefix, *program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**child_environment(), **self._environ},
        )
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name="service log", daemon=True
        )
        self._reader.start()
        while not self._ready.wait(_POLL_S):
            self.check()
            if time.monotonic() - started_s > PATIENCE_S:
                raise self.error(f"was not ready within {PATIENCE_S:.0f} s")
        self.ready_s = time.monotonic() - started_s

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Write the configuration with some of its settings changed."""
        settings = self._settings
        if not isinstance(settings, str):
            # Every JSON text is YAML.
            settings = json.dumps({"state_dir": "state", **settings, **changes})
        self.config.write_text(settings, encoding="utf-8")

    def check(self) -> None:
        """Raise `ServiceProcessError` if it has ended by itself."""
        if self.process.poll() is not None:
            self._join()
            raise self.error(f"ended by itself (exit code {self.process.returncode})")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, read the log to its end and return the exit code."""
        self.process.send_signal(number)
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise self.error(f"did not end within {PATIENCE_S:.0f} s of {number.name}") from None
        self._join()
        return code

    def close(self) -> None:
        """Kill it if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGKILL)

    def resident_mb(self) -> float:
        """Return its resident memory in megabytes (10^6 bytes)."""
        return process_usage.resident_mb(self.pid)

    def processor_s(self) -> float:
        """Return the processor time of all its threads in seconds."""
        return process_usage.processor_s(self.pid)

    def error(self, what: str) -> ServiceProcessError:
        """Return an error that quotes the end of the log."""
        quoted = "".join(f"\n  {line.rstrip()}" for line in list(self.lines)[-_LINES_IN_ERROR:])
        return ServiceProcessError(f"The service {what}. Its log ends with:{quoted or ' nothing'}")

    def add_line(self, line: str) -> None:
        """Keep one line of the log; called in the thread that reads it."""
        self.lines.append(line)
        if '"ready"' in line:
            self._ready.set()

    def _read(self, log: IO[str]) -> None:
        with log:
            for line in log:
                self.add_line(line)

    def _join(self) -> None:
        if self._reader is not None:
            self._reader.join()
