"""Soak: starts all parts, injects one fault after the other, and judges what was observed.

`daemon.soak.faults` draws the faults, `daemon.soak.run` injects them; the other modules judge one
claim of docs/reliability.md each.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.sandbox.broker import LOOPBACK, EmbeddedBroker, Mosquitto, mosquitto_program
from daemon.sandbox.relay import Relay
from daemon.soak.announcements import AnnouncementReport, Replay
from daemon.soak.delays import measure_delays
from daemon.soak.delivery import delivery_report
from daemon.soak.hanging_disk import HangingDisk
from daemon.soak.lateness import Lateness
from daemon.soak.power_cut import SyncedFiles, compiler
from daemon.soak.readings import compare_readings
from daemon.soak.report import SoakReport, silent_models, slow_recoveries
from daemon.soak.run import RIG_ID, SentLines, SoakRun
from daemon.soak.service import PORT_OPENED, ServiceUnderTest
from hardware.simulator.board import SimulatedBoard
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import MIXTURE_BOARD, SUBSTANCE_BOARD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from daemon.sandbox.broker import Broker
    from daemon.soak.faults import InjectedFault
    from daemon.soak.readings import BootReading
    from daemon.system.signals import StopEvent

MODELS = ("substances-50", "mixtures-12")


@dataclass(frozen=True, slots=True)
class SoakPhase:
    """A part of the run with one simulated board.

    Attributes
    ----------
    model: of which the board's names are.
    board: the simulator's name of the board.
    odours: what it plays, again and again.
    speed: board seconds per second.
    calm: whether it ends with some seconds in which nothing is disturbed.
    """

    model: str
    board: str
    odours: str
    rate_hz: float
    speed: float
    calm: bool = True


PHASES = (
    SoakPhase(
        MODELS[0], SUBSTANCE_BOARD, "air:60,almond:90,air:60,lemon:90,air:60,mint:90", 1.0, 25.0
    ),
    SoakPhase(
        MODELS[1],
        MIXTURE_BOARD,
        "air:60,cloves:120,air:60,almond=.5+orange=.5:120,air:60,banana:60",
        10.0,
        8.0,
    ),
)
"""Both models run in each; in the first the board is too slow for mixtures, which is announced."""

_MOSQUITTO_SETTINGS = """\
allow_anonymous true
persistence true
persistence_location {folder}/
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true"""
"""Without limits, so that the subscriber gets everything at once and in order."""


def run_soak(
    faults: Sequence[InjectedFault],
    folder: Path,
    stop: StopEvent,
    *,
    seed: int,
    on_fault: Callable[[int, InjectedFault], None],
    changes: Mapping[str, Any] = MappingProxyType({}),
    phases: Sequence[SoakPhase] = PHASES,
) -> SoakReport:
    """Inject the faults one after the other, and judge every claim by what was observed.

    Parameters
    ----------
    folder: for the parts' files.
    stop: ends the run early, in order.
    seed: of the board's noise and of the damage to files.
    on_fault: called before every fault, with its number.
    changes: settings that differ from the service's usual configuration.
    phases: each has an equal share of the faults.

    Raises
    ------
    ScentdError: if a part does not start, or the service ended by itself or did not recover.
    """
    return _Soak(folder, seed, changes).run(faults, stop, on_fault, phases)


class _Soak:
    """One run: its parts, and what they leave for the judgement."""

    def __init__(self, folder: Path, seed: int, changes: Mapping[str, Any]) -> None:
        self._folder, self._seed = folder.resolve(), seed
        self._changes = changes
        self._link = self._folder / "ttyBOARD"
        self._broker: Broker = (
            EmbeddedBroker()
            if mosquitto_program() is None
            else Mosquitto(self._folder, _MOSQUITTO_SETTINGS.format(folder=self._folder))
        )
        self._started_s = time.monotonic()
        self._lines = SentLines()
        self._board_s: dict[str, float] = {}
        self._sent = 0
        self._notes: list[str] = []

    def run(
        self,
        faults: Sequence[InjectedFault],
        stop: StopEvent,
        on_fault: Callable[[int, InjectedFault], None],
        phases: Sequence[SoakPhase],
    ) -> SoakReport:
        """Run and judge."""
        injected: list[InjectedFault] = []
        with contextlib.ExitStack() as stack:
            relay = stack.enter_context(Relay())
            service = ServiceUnderTest(
                self._folder,
                {**self._settings(relay), **self._changes},
                self._synced_files(),
                None if compiler() is None else HangingDisk(self._folder, self._folder / "state"),
            )
            lateness = stack.enter_context(Lateness(lambda: service.running_pid))
            run = SoakRun(service, relay, self._broker, np.random.default_rng(self._seed))
            stack.callback(self._broker.stop)
            stack.callback(run.close)
            run.start_broker()
            stack.enter_context(service)
            for number, phase in enumerate(phases):
                first, last = (len(faults) * n // len(phases) for n in (number, number + 1))
                openings = run.service.events[PORT_OPENED]
                with self._plugged(phase) as board:
                    run.use_board(board, openings)
                    for place in range(first, last):
                        if stop.is_set():
                            break
                        on_fault(place, faults[place])
                        run.inject(faults[place])
                        injected.append(faults[place])
                    if phase.calm:
                        run.stay_calm()
                    if number + 1 == len(phases) or stop.is_set():
                        self._end(run)
                        break
            run.stop_broker()
        return self._judge(run, injected, lateness)

    def _settings(self, relay: Relay) -> dict[str, Any]:
        embedded = isinstance(self._broker, EmbeddedBroker)
        return {
            "rig_id": RIG_ID,
            "source": {"port": str(self._link)},
            "models": list(MODELS),
            "live_stride_s": 1.0,
            "record": True,
            "mqtt": {
                "host": LOOPBACK,
                "port": relay.port,
                "protocol": "3.1.1" if embedded else "auto",
                "keepalive_s": 5,
                "sample": True,
            },
        }

    def _synced_files(self) -> SyncedFiles | None:
        if compiler() is None:
            self._notes.append(
                "without a C compiler (sudo apt install gcc) a power cut was only a kill -9, and a "
                "full disk took the place of one that hangs"
            )
            return None
        return SyncedFiles(self._folder, self._folder / "state")

    @contextlib.contextmanager
    def _plugged(self, phase: SoakPhase) -> Iterator[SimulatedBoard]:
        """Plug a board in while the block runs; afterwards note what it sent."""
        signal = SyntheticSignal(
            phase.odours, rate_hz=phase.rate_hz, loop=True, seed=self._seed, board=phase.board
        )
        with SimulatedBoard(
            signal,
            link=self._link,
            speed=phase.speed,
            seed=self._seed,
            on_line=self._lines.of_next_board(),
        ) as board:
            yield board
        report = board.report
        self._sent += report.readings - report.lines_without_listener
        self._board_s[phase.model] = self._board_s.get(phase.model, 0.0) + board.now_s

    def _end(self, run: SoakRun) -> None:
        """Wait for the last messages and end the service; the board sends until then."""
        run.settle()
        run.service.end()
        run.collect()
        run.retained.check_newest(self._broker.port, RIG_ID, run.arrivals)
        run.retained.check_offline(self._broker.port, RIG_ID, "the end")

    def _judge(
        self, run: SoakRun, injected: Sequence[InjectedFault], lateness: Lateness
    ) -> SoakReport:
        late_s = lateness.between_s
        boots = run.service.boots
        readings, of_boots = compare_readings(boots, self._lines.lines, late_s)
        announcements = self._replay(run, of_boots)
        return SoakReport(
            faults=injected,
            delivery=delivery_report(boots, run.arrivals, sent=self._sent, late_s=late_s),
            readings=readings,
            announcements=announcements,
            delays=measure_delays(boots, run.arrivals, run.disturbed, late_s),
            requests=run.requests.report(run.disturbed, late_s),
            retained=run.retained,
            recoveries=run.recoveries,
            slow=slow_recoveries(run.recoveries, late_s),
            silent=silent_models(self._board_s, announcements.predicted),
            broker=self._broker.name,
            real_s=time.monotonic() - self._started_s,
            board_s=sum(self._board_s.values()),
            lateness_s=lateness.total_s(),
            notes=self._notes,
        )

    def _replay(
        self, run: SoakRun, of_boots: Sequence[Sequence[BootReading]]
    ) -> AnnouncementReport:
        replay = Replay(run.service.configured, run.arrivals)
        for boot, readings in zip(run.service.boots, of_boots, strict=True):
            replay.compare(boot, readings)
        return replay.report
