"""Soak: starts all parts, injects one fault after the other and waits for each recovery.

`daemon.soak.faults` draws the faults; `daemon.soak.delivery` compares the messages.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.config.settings import TOPIC_ROOT
from daemon.sandbox.broker import LOOPBACK, EmbeddedBroker, Mosquitto, mosquitto_program
from daemon.sandbox.relay import Mode, Relay
from daemon.sandbox.subscriber import Subscriber
from daemon.soak.delivery import (
    DeliveredMessage,
    count_dropped,
    delivered_messages,
    delivery_report,
)
from daemon.soak.faults import BrokerFault, DiskFault, FaultTarget, ProcessFault
from daemon.soak.service import (
    CONNECTED,
    DISK_FAILED,
    DISK_RECOVERED,
    PORT_OPENED,
    RELOAD_REFUSED,
    RELOADED,
    ServiceUnderTest,
)
from hardware.errors import ScentdError
from hardware.simulator.board import SimulatedBoard
from hardware.simulator.faults import FaultKind
from hardware.simulator.signals import SyntheticSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from daemon.sandbox.broker import Broker
    from daemon.soak.delivery import DeliveryReport
    from daemon.soak.faults import InjectedFault
    from daemon.system.signals import StopEvent

RIG_ID = "soak"
MODEL = "substances-50"
ODOURS = "air:90,almond:60,air:60,lemon:60,air:60,mint:60"
RATE_HZ = 1.0
SPEED = 40.0
"""Board seconds per second; also predictions per second, since the stride is one reading."""

_MOSQUITTO_SETTINGS = """\
allow_anonymous true
persistence true
persistence_location {folder}/
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true"""
"""Without limits, so that the subscriber gets everything at once and in order."""

_MODES: dict[str, Mode] = {
    BrokerFault.REFUSING: Mode.REFUSING,
    BrokerFault.STALLED: Mode.STALLED,
    BrokerFault.NO_ANSWERS: Mode.NO_ANSWERS,
}
_MOST_JUNK_BYTES = 3000
_ARRIVES_WITHIN_S = 60.0
_POLL_S = 0.02


class SoakRunError(ScentdError):
    """The soak run itself failed, not the service."""


@dataclass(frozen=True, slots=True)
class SoakReport:
    """The result of a soak run.

    Attributes
    ----------
    faults: those injected.
    recovery_s: seconds until a part worked again: the broker's from its return to the service's
        connection, the board's from its plugging in to the opened port, the process's from its
        start to its readiness, the disk's from free space to the next write.
    broker: name of the broker's program.
    real_s, board_s: duration of the run, in real time and in the board's time.
    """

    faults: list[InjectedFault]
    delivery: DeliveryReport
    recovery_s: Mapping[FaultTarget, list[float]]
    broker: str
    real_s: float
    board_s: float

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        parts = {
            str(part): sum(fault.part is part for fault in self.faults) for part in FaultTarget
        }
        return {
            "faults": {"total": len(self.faults), **parts},
            **self.delivery.as_json(),
            "recovery_s": {
                str(part): {
                    "count": len(times),
                    "median": round(statistics.median(times), 3),
                    "longest": round(max(times), 3),
                }
                for part, times in self.recovery_s.items()
            },
            "broker": self.broker,
            "real_s": round(self.real_s, 1),
            "board_s": round(self.board_s, 1),
        }


@dataclass(slots=True)
class SoakRun:
    """The running parts, arrivals and recovery times so far; `rng` draws the damage to files."""

    board: SimulatedBoard
    service: ServiceUnderTest
    relay: Relay
    broker: Broker
    rng: np.random.Generator
    subscriber: Subscriber | None = None
    arrivals: list[DeliveredMessage] = field(default_factory=list)
    recovery_s: defaultdict[FaultTarget, list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def inject(self, fault: InjectedFault) -> None:
        """Inject a fault, and wait until the service has recovered."""
        time.sleep(fault.delay_s)
        if self.board.wait(0):
            raise SoakRunError(
                "The simulated board has ended by itself, which is a bug of the simulator. Note "
                "the seed and report it."
            )
        before = self.service.events.copy()
        event = {
            FaultTarget.BOARD: self._inject_board,
            FaultTarget.BROKER: self._inject_broker,
            FaultTarget.PROCESS: self._inject_process,
            FaultTarget.DISK: self._inject_disk,
        }[fault.part](fault)
        if event is not None:
            took_s = self.service.wait_for_event(event, before[event])
            self.recovery_s[fault.part].append(took_s)

    # Each returns the log event of the recovery, None if there is nothing to wait for.

    def _inject_board(self, fault: InjectedFault) -> str | None:
        self.board.inject(fault.board_schedule)
        if fault.kind != FaultKind.UNPLUG.value:
            return None  # it lasts during the next faults
        self.service.wait_until(lambda: not self.board.plugged, "had no unplugged board")
        self.service.wait_until(lambda: self.board.plugged, "had no board plugged in again")
        return PORT_OPENED

    def _inject_broker(self, fault: InjectedFault) -> str | None:
        if fault.kind in {BrokerFault.KILLED, BrokerFault.RESTARTED}:
            self.stop_broker(kill=fault.kind == BrokerFault.KILLED)
            time.sleep(fault.duration_s)
            self.start_broker()
        elif fault.kind == BrokerFault.CUT:
            self.relay.fail(Mode.CUTTING)
        else:
            self.relay.fail(_MODES[fault.kind])
            time.sleep(fault.duration_s)
            if fault.kind == BrokerFault.NO_ANSWERS:
                self.relay.fail(Mode.REFUSING)
            self.relay.open()
        return None if fault.kind == BrokerFault.STALLED else CONNECTED

    def _inject_process(self, fault: InjectedFault) -> str | None:
        match fault.kind:
            case ProcessFault.FROZEN:
                self.service.freeze(fault.duration_s)
            case ProcessFault.RELOADED:
                self.service.reload({"live_stride_s": fault.duration_s})
                return RELOADED
            case ProcessFault.MISCONFIGURED:
                self.service.reload({"live_stride_s": -1})
                return RELOAD_REFUSED
            case ProcessFault.STOPPED:
                self._restart(signal.SIGTERM)
            case _:
                self._restart(signal.SIGKILL)
        return None

    def _inject_disk(self, fault: InjectedFault) -> str | None:
        if fault.kind == DiskFault.TORN:
            size = int(self.rng.integers(1, _MOST_JUNK_BYTES))
            self._restart(signal.SIGKILL, self.rng.bytes(size))
            return None
        with self.service.full_disk():
            self.service.wait_for_event(DISK_FAILED, self.service.events[DISK_FAILED])
        return DISK_RECOVERED

    def _restart(self, number: signal.Signals, junk: bytes = b"") -> None:
        """End the service, append `junk` to its outbox's log, and start it again."""
        self.service.end(number)
        self.service.tear_outbox(junk)
        self.service.start()
        self.recovery_s[FaultTarget.PROCESS].append(self.service.ready_s)

    def start_broker(self) -> None:
        """Start the broker, connect the subscriber, then let the service connect."""
        self.broker.start()
        self.subscriber = Subscriber(
            self.broker.port, topic=f"{TOPIC_ROOT}/{RIG_ID}/#", session="soak-subscriber"
        ).start()
        self.relay.open(self.broker.port)

    def stop_broker(self, *, kill: bool = True) -> None:
        """Stop the broker once the subscriber has everything that was acknowledged.

        Otherwise a message that the broker acknowledged and lost would count as the service's loss.
        """
        self.relay.fail(Mode.STALLED)
        self.collect()
        self.relay.fail(Mode.REFUSING)
        self.close()
        self.broker.stop(kill=kill)

    def close(self) -> None:
        """Disconnect the subscriber; the broker keeps its session."""
        if self.subscriber is not None:
            self.subscriber.close()
            self.subscriber = None

    def collect(self) -> None:
        """Add everything that the broker has delivered by now to `arrivals`."""
        if self.subscriber is not None:
            self.subscriber.catch_up()
            self.arrivals += delivered_messages(self.subscriber.take())

    def settle(self) -> None:
        """Wait for the messages made, except those of killed boots and as many as were dropped."""
        made = self.service.made_ids()
        killed = {boot.boot_id for boot in self.service.boots if boot.killed_s is not None}
        deadline_s = time.monotonic() + _ARRIVES_WITHIN_S
        while time.monotonic() < deadline_s:
            self.collect()
            missing = made - {message.id for message in self.arrivals}
            if sum(boot_id not in killed for boot_id, _ in missing) <= count_dropped(self.arrivals):
                return
            time.sleep(_POLL_S)


def run_soak(
    faults: Sequence[InjectedFault],
    folder: Path,
    stop: StopEvent,
    *,
    seed: int,
    on_fault: Callable[[int, InjectedFault], None],
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> SoakReport:
    """Inject the faults one after the other, and compare the messages made with those that arrived.

    Parameters
    ----------
    folder: for the parts' files.
    stop: ends the run early, in order.
    seed: of the board's noise and of the damage to files.
    on_fault: called before every fault, with its number.
    changes: settings that differ from the service's usual configuration.

    Raises
    ------
    ScentdError: if a part does not start, or the service ended by itself or did not recover.
    """
    broker: Broker = (
        EmbeddedBroker()
        if mosquitto_program() is None
        else Mosquitto(folder, _MOSQUITTO_SETTINGS.format(folder=folder))
    )
    link = folder / "ttyBOARD"
    odours = SyntheticSignal(ODOURS, rate_hz=RATE_HZ, loop=True, seed=seed)
    started_s = time.monotonic()
    injected: list[InjectedFault] = []
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(Relay())
        board = stack.enter_context(SimulatedBoard(odours, link=link, speed=SPEED, seed=seed))
        settings = {
            "rig_id": RIG_ID,
            "source": {"port": str(link)},
            "models": [MODEL],
            "live_stride_s": 1.0,
            "record": True,
            "mqtt": {
                "host": LOOPBACK,
                "port": relay.port,
                "protocol": "3.1.1" if isinstance(broker, EmbeddedBroker) else "auto",
                "keepalive_s": 5,
                "sample": True,
            },
        }
        service = ServiceUnderTest(folder, {**settings, **changes})
        run = SoakRun(board, service, relay, broker, np.random.default_rng(seed))
        stack.callback(broker.stop)
        stack.callback(run.close)
        run.start_broker()
        with service:
            for number, fault in enumerate(faults):
                if stop.is_set():
                    break
                on_fault(number, fault)
                run.inject(fault)
                injected.append(fault)
            run.settle()
            service.end()
        # Read after the end of the service, because the board sends until then.
        report, board_s = board.report, board.now_s
        sent = report.readings - report.lines_without_listener
        run.stop_broker()
    return SoakReport(
        faults=injected,
        delivery=delivery_report(service.boots, run.arrivals, sent=sent),
        recovery_s=run.recovery_s,
        broker=broker.name,
        real_s=time.monotonic() - started_s,
        board_s=board_s,
    )
