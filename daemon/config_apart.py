"""Daemon: the configuration, validated by a child process that then goes away.

pydantic costs 10 MB of resident memory and 0.1 s, for one use at the start of a
process that runs for months. The child pays the memory, and on a machine with a
second core also the time, while the parent loads what it needs next.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.config.settings import Config


class ConfigInPreparation:
    """A configuration being read by a child; make it before any thread is started.

    Parameters
    ----------
    path : Path
        The YAML file.
    """

    def __init__(self, path: Path) -> None:
        self._answer, question = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._answer)
            _answer_and_exit(path, question)
        os.close(question)

    def result(self) -> Config:
        """Wait for the child and return the configuration.

        Raises
        ------
        ConfigError
            As `daemon.config.loading.load_config` does.
        """
        # Only our own child writes here: unpickling its answer is safe.
        with os.fdopen(self._answer, "rb") as stream:
            data = stream.read()
        os.waitpid(self._child, 0)
        if not data:
            raise ScentdError(
                "The process that reads the configuration ended without an answer; the system's "
                "log may say why (out of memory?). Start scentd again."
            )
        answer = pickle.loads(data)  # noqa: S301 - see above
        if isinstance(answer, ScentdError):
            raise answer
        config: Config = answer
        return config


def _answer_and_exit(path: Path, question: int) -> None:
    """Validate, send the configuration or the error, and leave: the rest is the parent's."""
    # Ctrl-C reaches the whole terminal's group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 1
    try:
        answer: object
        try:
            answer = import_module("daemon.config.loading").load_config(path)
        except ScentdError as error:
            answer = error
        with os.fdopen(question, "wb") as stream:
            stream.write(pickle.dumps(answer))
        status = 0
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)
