"""Soak: the running parts: injects a fault, waits for the recovery, and notes what was observed.

`daemon.soak.main` starts the parts; the observations are judged after the end.
"""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from daemon.config.settings import TOPIC_ROOT
from daemon.sandbox.relay import Mode
from daemon.sandbox.subscriber import Subscriber
from daemon.soak.delivery import count_dropped
from daemon.soak.faults import BrokerFault, DiskFault, FaultTarget, ProcessFault
from daemon.soak.observed import PREDICTIONS, DeliveredMessage, Period, delivered_messages
from daemon.soak.requests import SentRequests
from daemon.soak.retained import STATES, RetainedReport
from daemon.soak.second_rig import second_rig
from daemon.soak.service import (
    CONNECTED,
    CONTESTED,
    DISK_FAILED,
    DISK_RECOVERED,
    PORT_OPENED,
    RELOAD_REFUSED,
    RELOADED,
)
from hardware.errors import ScentdError
from hardware.simulator.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from daemon.sandbox.broker import Broker
    from daemon.sandbox.relay import Relay
    from daemon.soak.faults import InjectedFault
    from daemon.soak.service import ServiceUnderTest
    from hardware.simulator.board import SentLine, SimulatedBoard

RIG_ID = "soak"

_MODES: dict[str, Mode] = {
    BrokerFault.REFUSING: Mode.REFUSING,
    BrokerFault.STALLED: Mode.STALLED,
    BrokerFault.NO_ANSWERS: Mode.NO_ANSWERS,
}
_MOST_JUNK_BYTES = 3000
_ARRIVES_WITHIN_S = 60.0
_SETTLED_AFTER_S = 1.0
"""After a recovery what waited is sent first; later messages are undisturbed again."""

_OUTAGE_BEFORE_S = 1.5
_SHORTEST_STRIDE_S = 2.0
_SILENT_S = 3.0
_CALM_CHANNELS = ("NO2", "C2H5OH", "VOC", "CO", "Alcohol", "Benzene")
_CALM_STEP_S = 0.4
_CALM_FAULT_S = 15.0
"""Of the board's time."""

_POLL_S = 0.02


class SoakRunError(ScentdError):
    """The soak run itself failed, not the service."""


@dataclass(slots=True)
class SentLines:
    """The lines of all boards of a run, in order."""

    lines: list[SentLine] = field(default_factory=list)

    def of_next_board(self) -> Callable[[SentLine], None]:
        """Return what takes the lines of one more board."""
        before = self.lines[-1].plugged if self.lines else 0
        return lambda line: self.lines.append(replace(line, plugged=before + line.plugged))


@dataclass(slots=True)
class MeasuredRecovery:
    """Seconds that a part took to work again after a fault, between two times since 1970."""

    part: FaultTarget
    fault: str
    took_s: float
    start_s: float
    end_s: float


@dataclass(slots=True)
class SoakRun:
    """The running parts and what was observed of them so far.

    Attributes
    ----------
    rng: draws the damage to files.
    arrivals: the numbered messages that the subscriber received.
    recoveries: how long each part took to work again.
    disturbed: when faults of broker, process or disk disturbed the delivery.
    """

    service: ServiceUnderTest
    relay: Relay
    broker: Broker
    rng: np.random.Generator
    board: SimulatedBoard | None = None
    subscriber: Subscriber | None = None
    arrivals: list[DeliveredMessage] = field(default_factory=list)
    recoveries: list[MeasuredRecovery] = field(default_factory=list)
    disturbed: list[Period] = field(default_factory=list)
    requests: SentRequests = field(default_factory=SentRequests)
    retained: RetainedReport = field(default_factory=RetainedReport)
    _delivered_topics: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def use_board(self, board: SimulatedBoard, openings: int) -> None:
        """Take another board, just plugged in; wait for an opening of the port after `openings`."""
        self.board = board
        self._await_recovery(FaultTarget.BOARD, "exchanged", PORT_OPENED, openings)

    def inject(self, fault: InjectedFault) -> None:
        """Inject a fault, and wait until the service has recovered."""
        time.sleep(fault.delay_s)
        board = self.board
        if board is None or board.wait(0):
            raise SoakRunError(
                "The simulated board has ended by itself, which is a bug of the simulator. Note "
                "the seed and report it."
            )
        self.ask()
        started_s = time.time()
        if fault.part is FaultTarget.BOARD:
            self._inject_board(board, fault)
        else:
            inject = {
                FaultTarget.BROKER: self._inject_broker,
                FaultTarget.PROCESS: self._inject_process,
                FaultTarget.DISK: self._inject_disk,
                FaultTarget.RIG_ID: self._inject_second_rig,
            }[fault.part]
            inject(fault)
            self.disturbed.append(Period(started_s, time.time() + _SETTLED_AFTER_S))
        self.ask()

    def stay_calm(self) -> None:
        """Disturb nothing for a while, then let channels fail and recover: each makes events.

        An event, or an answer, also writes the predictions that wait; so there is none at first.
        """
        time.sleep(_SETTLED_AFTER_S + _SILENT_S)
        for channel in _CALM_CHANNELS:
            if self.board is not None:
                self.board.inject(f"saturate:{channel}@0:{_CALM_FAULT_S}")
            self.ask()
            time.sleep(_CALM_STEP_S)
        time.sleep(_SETTLED_AFTER_S)

    def ask(self) -> None:
        """Send a request to the rig, if the broker runs."""
        if self.subscriber is not None:
            topic, payload = self.requests.next(time.time())
            self.subscriber.publish(f"{TOPIC_ROOT}/{RIG_ID}/{topic}", payload)

    def _await_recovery(
        self, part: FaultTarget, kind: str, event: str, before: int | None = None
    ) -> None:
        """Wait until `event` is logged once more than before, and note how long that took."""
        before = self.service.events[event] if before is None else before
        started_s = time.time()
        took_s = self.service.wait_for_event(event, before)
        self.recoveries.append(MeasuredRecovery(part, kind, took_s, started_s, time.time()))

    def _inject_board(self, board: SimulatedBoard, fault: InjectedFault) -> None:
        openings, pluggings = self.service.events[PORT_OPENED], board.pluggings
        board.inject(fault.board_schedule)
        if fault.kind == FaultKind.UNPLUG.value:  # others last during the next faults
            self.service.wait_until(
                lambda: board.pluggings > pluggings, "had no board plugged in again"
            )
            self._await_recovery(fault.part, fault.kind, PORT_OPENED, openings)

    def _inject_broker(self, fault: InjectedFault) -> None:
        connections = self.service.events[CONNECTED]
        if fault.kind in {BrokerFault.KILLED, BrokerFault.RESTARTED}:
            self.stop_broker(kill=fault.kind == BrokerFault.KILLED)
            time.sleep(fault.duration_s)
            self.start_broker()
        elif fault.kind == BrokerFault.CUT:
            self.relay.fail(Mode.CUTTING)
        else:
            self.relay.fail(_MODES[fault.kind])
            self.ask()
            time.sleep(fault.duration_s)
            if fault.kind == BrokerFault.NO_ANSWERS:
                self.relay.fail(Mode.REFUSING)
            self.relay.open()
        if fault.kind != BrokerFault.STALLED:
            self._await_recovery(fault.part, fault.kind, CONNECTED, connections)
            self._check_states(f"the broker was {fault.kind}")

    def _inject_process(self, fault: InjectedFault) -> None:
        match fault.kind:
            case ProcessFault.FROZEN:
                self.ask()
                self.service.freeze(fault.duration_s)
            case ProcessFault.RELOADED:
                before = self.service.events[RELOADED]
                self.service.reload({"live_stride_s": _SHORTEST_STRIDE_S + fault.duration_s})
                self._await_recovery(fault.part, fault.kind, RELOADED, before)
                # The new runtime has processed ten minutes: readings wait, at this speed many.
                time.sleep(_SETTLED_AFTER_S)
            case ProcessFault.MISCONFIGURED:
                before = self.service.events[RELOAD_REFUSED]
                self.service.reload({"live_stride_s": -1})
                self._await_recovery(fault.part, fault.kind, RELOAD_REFUSED, before)
            case ProcessFault.STOPPED:
                self._restart(fault, signal.SIGTERM)
            case _:
                self._restart(fault, signal.SIGKILL)

    def _inject_disk(self, fault: InjectedFault) -> None:
        match fault.kind:
            case DiskFault.TORN:
                size = int(self.rng.integers(1, _MOST_JUNK_BYTES))
                self._restart(fault, signal.SIGKILL, junk=self.rng.bytes(size))
            case DiskFault.POWER_CUT:
                # Without a broker meanwhile: what was delivered cannot be lost.
                self.relay.fail(Mode.REFUSING)
                time.sleep(_OUTAGE_BEFORE_S + fault.duration_s)
                self._restart(fault, signal.SIGKILL, power_cut=True)
            case DiskFault.HANGING if self.service.disk is not None:
                failures = self.service.events[DISK_FAILED]
                with self.service.disk.hanging():
                    self.service.wait_for_event(DISK_FAILED, failures)
                    self.ask()
                    time.sleep(fault.duration_s)
                self._await_recovery(fault.part, fault.kind, DISK_RECOVERED)
            case _:
                failures = self.service.events[DISK_FAILED]
                with self.service.full_disk():
                    self.service.wait_for_event(DISK_FAILED, failures)
                self._await_recovery(fault.part, fault.kind, DISK_RECOVERED)

    def _inject_second_rig(self, fault: InjectedFault) -> None:
        """Let another client take the rig's place, until the service knows; then restart it.

        Without the restart it would connect more slowly for minutes, after every other fault.
        """
        contested = self.service.events[CONTESTED]
        with second_rig(f"scentd-{RIG_ID}", self.broker.port):
            self.service.wait_for_event(CONTESTED, contested)
            connections = self.service.events[CONNECTED]
        self._await_recovery(fault.part, fault.kind, CONNECTED, connections)
        self._restart(fault, signal.SIGTERM)

    def _restart(
        self,
        fault: InjectedFault,
        number: signal.Signals,
        *,
        junk: bytes = b"",
        power_cut: bool = False,
    ) -> None:
        """End the service, append `junk` to its outbox's log, and start it again."""
        connections = self.service.events[CONNECTED]
        self.service.end(number, power_cut=power_cut)
        self.service.tear_outbox(junk)
        if self.subscriber is not None:
            self.retained.check_offline(self.broker.port, RIG_ID, f"{number.name} ({fault.kind})")
        self.relay.open()
        started_s = time.time()
        self.service.start()
        now_s = time.time()
        ready_s = self.service.ready_s
        self.recoveries.append(
            MeasuredRecovery(FaultTarget.PROCESS, fault.kind, ready_s, started_s, now_s)
        )
        self.service.wait_for_event(CONNECTED, connections)
        self._check_states(f"a start after {fault.kind}")

    def _check_states(self, after: str) -> None:
        """Check the retained topics, with the predictions that this boot has delivered."""
        self.collect()
        delivered = self._delivered_topics[self.service.boots[-1].boot_id]
        self.retained.check_states(self.broker.port, RIG_ID, {*STATES, *delivered}, after)

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
        """Add everything that the broker has delivered by now to `arrivals` and answers."""
        if self.subscriber is None:
            return
        self.subscriber.catch_up()
        received = list(self.subscriber.take())
        numbered = list(delivered_messages(received))
        self.arrivals += numbered
        for message in numbered:
            if message.topic in PREDICTIONS:
                self._delivered_topics[message.boot_id].add(message.topic)
        self.requests.add_answers(received, time.time() - time.monotonic())

    def settle(self) -> None:
        """Wait for the messages made, except those of killed boots and as many as were dropped."""
        self.ask()  # its answer also writes the predictions that wait
        made = self.service.made_ids()
        killed = {boot.boot_id for boot in self.service.boots if boot.killed_s is not None}
        deadline_s = time.monotonic() + _ARRIVES_WITHIN_S
        while time.monotonic() < deadline_s:
            self.collect()
            missing = made - {message.id for message in self.arrivals}
            if sum(boot_id not in killed for boot_id, _ in missing) <= count_dropped(self.arrivals):
                return
            time.sleep(_POLL_S)
