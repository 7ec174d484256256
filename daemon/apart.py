"""Daemon: work that would stop the recognition, or cost it memory, in a process that goes away.

A fit takes seconds of a Raspberry Pi's core, scoring loads every model once more: the service
has one core's share and 80 MB. The child is niced, gets what it needs on its standard input,
and is killed when nobody wants its answer any more.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from daemon.system.background import answer_of
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.config.settings import Config
    from daemon.system.background import Steps

NICENESS = 10


def run_in_child(config: Config, action: str, payload: Mapping[str, Any]) -> Steps:
    """Do one action of `daemon.calibrate.actions` in a child; yields while it works.

    Raises
    ------
    ScentdError
        As the action does, or because the child ended without an answer.
    """
    question = pickle.dumps((config, action, dict(payload)))
    result: dict[str, Any] = yield from answer_of("daemon.apart", question=question, doing=action)
    return result


def main() -> None:
    """Read a question from standard input, do the work, write the answer to standard output."""
    # systemd's filter may forbid it: then the work is only less polite.
    with contextlib.suppress(PermissionError):
        os.nice(NICENESS)
    # Only the service that started this process writes there.
    config, action, payload = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - see above
    answer: object
    try:
        answer = (
            import_module("daemon.calibrate.actions").CalibrationActions(config).do(action, payload)
        )
    except ScentdError as error:
        answer = error
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    main()
