"""Daemon: many simulated rigs in one process, and the handle of that process.

Run as a program (`python -m daemon.fleet_bench.rig_group SETTINGS`) this module is the child: its
rigs run until its standard input ends. Every line that it reads is a question, answered by one line
of JSON.
"""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from daemon.config.settings import LogConfig, MqttConfig
from daemon.fleet_bench.light_rig import LightRig, write_script
from daemon.fleet_bench.open_files import OTHER_FILES, raise_limit
from daemon.sandbox.broker import LOOPBACK
from daemon.sandbox.child_environment import child_environment
from daemon.system.logs import configure_logs
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Mapping

RIGS_PER_PROCESS = 250
"""A rig has two open files, and the `select` of its session takes file numbers below 1,024."""

FILES_PER_RIG = 2

TICK_S = 0.1
"""How often the rigs work: what is due, and requests."""

NOTE_EVERY_S = 0.05
"""How often it is noted which rigs have connected, in a thread of its own: the work of all rigs may
take longer on a busy machine."""

STATE, MADE = "state", "made"
"""The two questions."""


class RigGroupError(ScentdError):
    """The process of a group of simulated rigs has ended by itself."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """What the rigs of a group, or of several, have done.

    Attributes
    ----------
    online: rigs that the broker has accepted and not lost.
    waiting: messages that the broker does not have yet.
    published: messages of all kinds since the start.
    connections_s: times of all connections since the start, on the monotonic clock.
    """

    online: int
    waiting: int
    published: int
    connections_s: list[float]


class RigGroup:
    """Simulated rigs in a process of their own, while its block runs.

    Parameters
    ----------
    names: of the rigs.
    port: of a broker on the loopback interface.
    model: a bundle's name or folder.
    seed: of the rigs' places in the script.
    """

    def __init__(self, names: list[str], port: int, model: str, *, seed: int = 0) -> None:
        self.names = names
        self._settings = {"names": names, "port": port, "model": model, "seed": seed}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "daemon.fleet_bench.rig_group",
                json.dumps(self._settings),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=child_environment(),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._running().pid

    def state(self) -> GroupState:
        """Return what the rigs have done so far."""
        return GroupState(**self._ask(STATE))

    def made(self) -> dict[str, list[int]]:
        """Return, by boot_id, the numbers of all predictions and events made so far."""
        return dict(self._ask(MADE))

    def kill(self) -> None:
        """Kill the process: the rigs' last wills say that they are offline."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the group has a process only within its block")
        return self._process

    def _ask(self, question: str) -> dict[str, Any]:
        process = self._running()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process was started without pipes")
        try:
            print(question, file=process.stdin, flush=True)
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RigGroupError(
                f"The process of {len(self.names)} simulated rigs ended by itself (exit code "
                f"{process.wait()}). Standard error says why; with too little memory, try fewer."
            )
        return dict(json.loads(answer))


def serve(settings: Mapping[str, Any]) -> None:
    """Run the rigs of one process until standard input ends."""
    names = settings["names"]
    raise_limit(FILES_PER_RIG * len(names) + OTHER_FILES, f"{len(names)} rigs of one process")
    script = write_script(settings["model"])
    mqtt = MqttConfig(host=LOOPBACK, port=settings["port"])
    source = random.Random(settings["seed"])
    with ExitStack() as stack:
        # Each rig would log that the broker is gone.
        nothing = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        configure_logs(LogConfig(), stream=nothing)
        rigs = [
            stack.enter_context(LightRig(name, mqtt, script, source.uniform(0, script.length_s)))
            for name in names
        ]
        ended = threading.Event()
        stack.callback(ended.set)
        threading.Thread(
            target=_note_connections, args=(rigs, ended), name="connections", daemon=True
        ).start()
        next_s = time.monotonic()
        while True:
            next_s = max(next_s + TICK_S, time.monotonic())
            if not _answer_until(next_s, rigs):
                return
            now_s = time.monotonic()
            for rig in rigs:
                rig.work(now_s)


def _note_connections(rigs: list[LightRig], ended: threading.Event) -> None:
    while not ended.wait(NOTE_EVERY_S):
        now_s = time.monotonic()
        for rig in rigs:
            rig.note_connection(now_s)


def _answer_until(end_s: float, rigs: list[LightRig]) -> bool:
    """Answer questions until a time; return False where standard input has ended."""
    while True:
        ready, _, _ = select.select([0], [], [], max(0.0, end_s - time.monotonic()))
        if not ready:
            return True
        questions = os.read(0, 4096).decode("ascii").split()
        if not questions:
            return False
        for question in questions:
            answer = _state(rigs) if question == STATE else _made(rigs)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def _made(rigs: list[LightRig]) -> dict[str, Any]:
    return {rig.boot_id: rig.publisher.made for rig in rigs}


def _state(rigs: list[LightRig]) -> dict[str, Any]:
    return {
        "online": sum(rig.publisher.report().protocol is not None for rig in rigs),
        "waiting": sum(rig.depth for rig in rigs),
        "published": sum(rig.publisher.published for rig in rigs),
        "connections_s": [at_s for rig in rigs for at_s in rig.connections_s],
    }


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
