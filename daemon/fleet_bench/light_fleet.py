"""Daemon: measures simulated rigs on one broker: load, return after an outage, commands, losses.

The rigs are those of `daemon.fleet_bench.light_rig`, in processes of some hundred each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from daemon.fleet_bench.fleet_broker import FleetBroker
from daemon.fleet_bench.observer import ANNOUNCEMENT, POLL_S, FleetObserver, retained_rigs
from daemon.fleet_bench.page import PageRun, measure_page
from daemon.fleet_bench.rig_group import RIGS_PER_PROCESS, GroupState, RigGroup
from daemon.mqtt import topics
from daemon.sandbox import process_usage
from daemon.sandbox.broker import LOOPBACK
from daemon.sandbox.child_environment import child_environment
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SETTLE_S = 3.0
LONGEST_S = 300.0
"""After this time without success a measurement is given up."""

RETAINED = (
    topics.STATUS,
    topics.SENSOR_STATUS,
    topics.INFO,
    topics.HEALTH,
    topics.SUBSTANCE,
    ANNOUNCEMENT,
)
"""What the broker must keep of every rig with one model."""

COMMANDS = {
    "scentd fleet status": ("status",),
    "scentd fleet models": ("models",),
    "scentd fleet run status": ("run", "status", "--canary", "1", "--wave", "100", "--pause", "0"),
}
"""Commands that are timed over all rigs, by what they are called in the table."""


class FleetBenchError(ScentdError):
    """The fleet did not do what is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The fleet in its steady state.

    Attributes
    ----------
    published_per_s, delivered_per_s: messages from all rigs, and to the one subscriber.
    broker_percent: of one core.
    broker_mb: resident memory of the broker.
    rigs_percent: of one core, all processes of the simulated rigs together.
    rigs_mb: their memory together (PSS).
    """

    published_per_s: float
    delivered_per_s: float
    broker_percent: float
    broker_mb: float
    rigs_percent: float
    rigs_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """What happened after the broker was killed, and started again.

    Attributes
    ----------
    outage_s: between the two.
    waiting: messages in all outboxes when it was started.
    online_s: from its start until the last rig was connected.
    emptied_s: from its start until every outbox was empty.
    most_per_s: the most connections within any second.
    broker_percent: of one core, from the start until every outbox was empty.
    retained: by topic, of how many rigs it kept a message then.
    """

    outage_s: float
    waiting: int
    online_s: float
    emptied_s: float
    most_per_s: int
    broker_percent: float
    retained: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRun:
    """A command over all rigs: its seconds, its memory, and its exit code.

    Attributes
    ----------
    lines: the lines it printed below the heading.
    """

    took_s: float
    peak_mb: float
    code: int
    lines: int


class Losses(NamedTuple):
    """What became of the predictions and events of all rigs.

    Attributes
    ----------
    made: how many.
    missing: of them, those that never arrived.
    again: arrivals of one that had arrived.
    disordered: first arrivals after a later one.
    """

    made: int
    missing: int
    again: int
    disordered: int


@dataclass(slots=True, kw_only=True)
class FleetFigures:
    """All that was measured of the simulated rigs; `took_s` is for all to come online.

    Attributes
    ----------
    made, missing, again, disordered: as of `Losses`.
    killed: rigs killed for their last wills.
    wills_s: from then until all of these were offline.
    """

    rigs: int
    took_s: float
    load: Load
    returns: list[Return] = field(default_factory=list)
    commands: dict[str, CommandRun] = field(default_factory=dict)
    page: PageRun | None = None
    broker_peak_mb: float = 0.0
    made: int = 0
    missing: int = 0
    again: int = 0
    disordered: int = 0
    killed: int = 0
    wills_s: float = 0.0


class LightFleet:
    """Simulated rigs on a broker of their own, with an observer; runs while its block runs.

    Parameters
    ----------
    rigs: how many.
    model: a bundle's name or folder.
    """

    def __init__(self, rigs: int, model: str) -> None:
        self.rigs = rigs
        self._model = model
        self._stack = ExitStack()
        self._folder: Path
        self.broker: FleetBroker
        self._observer: FleetObserver
        self._groups: list[RigGroup]

    def __enter__(self) -> Self:
        names = [f"rig-{number:04d}" for number in range(self.rigs)]
        with ExitStack() as undone:
            undone.push(self._stack)
            enter = self._stack.enter_context
            self._folder = Path(enter(tempfile.TemporaryDirectory(prefix="scentd-")))
            self.broker = enter(FleetBroker(self._folder, self.rigs))
            self._observer = enter(FleetObserver(self.broker.port))
            self.broker.save()
            self._groups = [
                enter(RigGroup(some, self.broker.port, self._model, seed=number))
                for number, some in enumerate(_shares(names))
            ]
            undone.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def state(self) -> GroupState:
        """Return what all rigs have done so far; the observer keeps up."""
        self._observer.take()
        states = [group.state() for group in self._groups]
        return GroupState(
            online=sum(state.online for state in states),
            waiting=sum(state.waiting for state in states),
            published=sum(state.published for state in states),
            connections_s=[at_s for state in states for at_s in state.connections_s],
        )

    def await_online(self) -> GroupState:
        """Wait until every rig is online and the broker has all that they made."""
        started_s = time.monotonic()
        while (state := self.state()).online != self.rigs or state.waiting:
            if time.monotonic() - started_s > LONGEST_S:
                raise FleetBenchError(
                    f"Waited {LONGEST_S:.0f} s for {self.rigs} rigs to be online; {state.online} "
                    f"are online and {state.waiting} messages wait. Try fewer rigs on this machine."
                )
            time.sleep(POLL_S)
        return state

    def measure_load(self, duration_s: float) -> Load:
        """Count messages and processor time for so many seconds."""
        pids = [group.pid for group in self._groups]
        before, started_s = self.state(), time.monotonic()
        delivered, broker_s = self._observer.count, process_usage.processor_s(self.broker.pid)
        rigs_s = sum(map(process_usage.processor_s, pids))
        self._observer.watch(duration_s)
        after, took_s = self.state(), time.monotonic() - started_s
        return Load(
            published_per_s=(after.published - before.published) / took_s,
            delivered_per_s=(self._observer.count - delivered) / took_s,
            broker_percent=100 * (process_usage.processor_s(self.broker.pid) - broker_s) / took_s,
            broker_mb=process_usage.resident_mb(self.broker.pid),
            rigs_percent=100 * (sum(map(process_usage.processor_s, pids)) - rigs_s) / took_s,
            rigs_mb=sum(map(process_usage.proportional_mb, pids)),
        )

    def measure_return(self, outage_s: float) -> Return:
        """Kill the broker, start it again after a while, and wait until nothing is left to do."""
        self.broker.stop()
        time.sleep(outage_s)
        waiting, started_s = self.state().waiting, time.monotonic()
        self.broker.start()
        state = self.await_online()
        emptied_s = time.monotonic() - started_s
        back_s = [at_s - started_s for at_s in state.connections_s if at_s > started_s]
        return Return(
            outage_s=outage_s,
            waiting=waiting,
            online_s=max(back_s),
            emptied_s=emptied_s,
            most_per_s=most_per_second(back_s),
            broker_percent=100 * process_usage.processor_s(self.broker.pid) / emptied_s,
            retained=retained_rigs(self.broker.port),
        )

    def measure_commands(self) -> dict[str, CommandRun]:
        """Time the commands of `scentd fleet` over all rigs."""
        config = self._config()
        return {
            name: self._run_command([*words, "--config", str(config)])
            for name, words in COMMANDS.items()
        }

    def measure_page(self, duration_s: float) -> PageRun | None:
        """Measure the page's server for so many seconds; None without the extra `web`."""
        return measure_page(self._config(), self.rigs, duration_s)

    def _config(self) -> Path:
        config = self._folder / "any.yaml"
        config.write_text(
            f"rig_id: any\nsource: {{port: auto}}\nmodels: [{self._model}]\n"
            f"mqtt: {{host: {LOOPBACK}, port: {self.broker.port}}}\n",
            encoding="utf-8",
        )
        return config

    def count_losses(self) -> Losses:
        """Compare what all rigs made with what arrived, once all of it should have."""
        made = {
            (boot_id, seq)
            for group in self._groups
            for boot_id, numbers in group.made().items()
            for seq in numbers
        }
        # What was made just now may wait up to a second for its outbox, and for the observer.
        missing = self._observer.await_all(made, LONGEST_S / 10)
        return Losses(len(made), missing, self._observer.again, self._observer.disordered)

    def measure_wills(self) -> tuple[int, float]:
        """Kill the rigs of one process; return how many, and seconds until all are offline."""
        group, killed_s = self._groups[0], time.monotonic()
        group.kill()

        def offline() -> bool:
            self._observer.take()
            status = self._observer.status
            return all(status[name][0] == topics.OFFLINE for name in group.names)

        while not offline():
            if time.monotonic() - killed_s > LONGEST_S:
                raise FleetBenchError("The last wills of killed rigs did not arrive.")
            time.sleep(POLL_S)
        last_s = max(self._observer.status[name][1] for name in group.names)
        return len(group.names), last_s - killed_s

    def _run_command(self, words: Sequence[str]) -> CommandRun:
        with (self._folder / "printed").open("w+", encoding="utf-8") as printed:
            started_s = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "daemon.cli", "fleet", *words],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
            )
            _, status, usage = os.wait4(process.pid, 0)
            took_s = time.monotonic() - started_s
            process.returncode = os.waitstatus_to_exitcode(status)
            printed.seek(0)
            lines = sum(1 for _ in printed) - 1
        return CommandRun(
            took_s=took_s,
            peak_mb=usage.ru_maxrss * 1.024e-3,
            code=process.returncode,
            lines=lines,
        )


def _shares(names: Sequence[str]) -> list[list[str]]:
    """Return the names of the rigs of each process."""
    firsts = range(0, len(names), RIGS_PER_PROCESS)
    return [list(names[first : first + RIGS_PER_PROCESS]) for first in firsts]


def most_per_second(times_s: Sequence[float]) -> int:
    """Return the most of these times that lie within one second."""
    times = np.sort(times_s)
    return int((np.searchsorted(times, times + 1.0) - np.arange(len(times))).max(initial=0))


def measure_fleet(
    rigs: int,
    model: str,
    *,
    outages_s: Sequence[float],
    load_s: float,
    progress: Callable[[str], None],
) -> FleetFigures:
    """Measure all of it, one after the other.

    Parameters
    ----------
    rigs, model: as for `LightFleet`.
    outages_s: the broker is killed once for each, and started again after so long.
    load_s: length of the measurement in the steady state.
    progress: told what is done now.

    Raises
    ------
    ScentdError: Mosquitto is missing, the limit of open files is too low, or the rigs did not come
        online.
    """
    progress(f"{rigs} simulated rigs come online")
    started_s = time.monotonic()
    with LightFleet(rigs, model) as fleet:
        fleet.await_online()
        took_s = time.monotonic() - started_s
        time.sleep(SETTLE_S)
        progress(f"the load of {load_s:.0f} s")
        figures = FleetFigures(rigs=rigs, took_s=took_s, load=fleet.measure_load(load_s))
        progress("the commands of scentd fleet")
        figures.commands = fleet.measure_commands()
        progress("the page's server")
        figures.page = fleet.measure_page(load_s)
        figures.broker_peak_mb = process_usage.peak_mb(fleet.broker.pid)
        for outage_s in outages_s:
            progress(f"the return of the broker after {outage_s:g} s")
            figures.returns.append(fleet.measure_return(outage_s))
            figures.broker_peak_mb = max(
                figures.broker_peak_mb, process_usage.peak_mb(fleet.broker.pid)
            )
            time.sleep(SETTLE_S)
        progress("what was lost")
        losses = fleet.count_losses()
        figures.made, figures.missing = losses.made, losses.missing
        figures.again, figures.disordered = losses.again, losses.disordered
        progress("last wills")
        figures.killed, figures.wills_s = fleet.measure_wills()
    return figures
