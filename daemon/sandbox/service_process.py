"""Daemon: the real service, `scentd run`, as a child process with a folder of its own.

For the commands that show or measure it: what they see is what a rig runs. Knows the
configuration file and the log's `ready`; nothing of boards and brokers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Mapping

READY_WITHIN_S = 60.0
"""A Raspberry Pi with a cold disk takes a few seconds; this is for the busiest of machines."""

_STOP_WITHIN_S = 5.0
"""SIGTERM ends the service within two; then it is killed."""

_POLL_S = 0.005
_ROOT = Path(__file__).resolve().parents[2]


def spawn(config: Path, log: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Start `scentd run`; everything it says goes to `log`, as `subprocess` takes it."""
    # The same code as this process runs, whatever the current folder holds.
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SCENTD_")}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "daemon.cli", "run", "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**ours, "PYTHONPATH": path},
    )


class ChildServiceError(ScentdError):
    """The service that a command started for itself does not run."""


class ChildService:
    """A running service; the block it manages is its life, and ends with its folder removed.

    Parameters
    ----------
    settings: the configuration, as its YAML file would hold it; `state_dir` and `log` are set here.

    Attributes
    ----------
    ready_s: seconds from its start to its word that it is ready.

    Raises
    ------
    ChildServiceError
        It ended, or did not become ready in time; with the last line it logged.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        self._cleanup = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path()
        self.ready_s = 0.0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scentd-")))
            self._log = folder / "scentd.log"
            config = folder / "scentd.yaml"
            # Every JSON text is YAML.
            config.write_text(json.dumps(self._whole(folder)), encoding="utf-8")
            started_s = time.monotonic()
            self._process = stack.enter_context(self._spawn(config))
            stack.callback(self._end, self._process)
            self._await_ready(started_s + READY_WITHIN_S)
            self.ready_s = time.monotonic() - started_s
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._process is None:
            raise RuntimeError("the service has a process only inside its block")
        return self._process.pid

    def resident_mb(self) -> float:
        """Return its resident memory in megabytes (10^6 bytes)."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        return int(kib) * 1024 / 1e6

    def processor_s(self) -> float:
        """Return the processor time that all of its threads have taken, in seconds."""
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        # The name, the second field, may hold blanks and brackets.
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def check(self) -> None:
        """Raise `ChildServiceError` if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise ChildServiceError(
                f"The service ended by itself (exit code {self._process.returncode}). "
                f"It said last: {self._last_words()}"
            )

    def _whole(self, folder: Path) -> dict[str, Any]:
        log = {"level": "info", "format": "json"}
        return {**self._settings, "state_dir": str(folder / "state"), "log": log}

    def _spawn(self, config: Path) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return spawn(config, log)

    def _await_ready(self, give_up_s: float) -> None:
        while b'"ready"' not in self._log.read_bytes():
            self.check()
            if time.monotonic() > give_up_s:
                raise ChildServiceError(
                    f"The service was not ready within {READY_WITHIN_S:.0f} s. "
                    f"It said last: {self._last_words()}"
                )
            time.sleep(_POLL_S)

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing."

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
