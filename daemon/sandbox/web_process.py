"""Daemon: the real web server, `scentd web`, as a child process on a free port.

Knows its command line and the lines that it prints; nothing of brokers and pages.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Self

from daemon.sandbox.child_environment import child_environment
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PATIENCE_S = 60.0
"""Longest start or end; it needs about a second, and a busy machine much longer."""

_ADDRESS = "The page: "


class WebProcessError(ScentdError):
    """The child process does not start."""


class WebProcess:
    """A web server that runs while its block runs.

    Parameters
    ----------
    config: the configuration of a rig.
    options: of the command line, beyond the configuration and a free port.

    Attributes
    ----------
    address: at which a browser finds the page.
    lines: what it printed and logged so far.
    """

    def __init__(self, config: Path, options: Sequence[str] = ()) -> None:
        self.address = ""
        self.lines: list[str] = []
        self._command = ("web", "--config", str(config), "--listen", "127.0.0.1:0", *options)
        self._process: subprocess.Popen[str] | None = None
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "daemon.cli", *self._command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**child_environment(), "PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        started_s = time.monotonic()
        while not self._ready.wait(0.02):
            if self._process.poll() is not None or time.monotonic() - started_s > PATIENCE_S:
                self.close()
                why = " ".join(self.lines[-3:]) or "it printed nothing"
                raise WebProcessError(f"The web server did not start: {why}")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill it if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Id of the child process."""
        if self._process is None:
            raise RuntimeError("the web server has not been started")
        return self._process.pid

    def end(self) -> int:
        """Send SIGTERM and return the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        assert self._process is not None  # noqa: S101 - `pid` has checked it
        return self._process.wait(PATIENCE_S)

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.lines.append(line.rstrip())
                if line.startswith(_ADDRESS):
                    self.address = line.removeprefix(_ADDRESS).strip().partition("#")[0]
                    self._ready.set()
