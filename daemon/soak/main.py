"""Soak: the storm itself: every part started, every fault acted out and seen to heal, all ended.

The one module of the soak with a sequence of events; the faults come from
`daemon.soak.faults`, the judgement from `daemon.soak.accounting`.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.sandbox.broker import LOOPBACK
from daemon.soak.accounting import balance, dropped
from daemon.soak.brokers import storm_broker
from daemon.soak.consumer import Consumer
from daemon.soak.faults import BrokerFault, DiskFault, ProcessFault, Side
from daemon.soak.relay import Mode, Relay
from daemon.soak.rig import (
    CONNECTED,
    DISK_BACK,
    DISK_FAILED,
    KEPT_OLD,
    PORT_OPENED,
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

    from daemon.soak.accounting import DeliveryReport
    from daemon.soak.faults import InjectedFault
    from daemon.system.signals import Stop

RIG_ID = "soak"
MODEL = "substances-50"
ODOURS = "air:90,almond:60,air:60,lemon:60,air:60,mint:60"
RATE_HZ = 1.0
SPEED = 40.0
"""Board seconds per second: as many predictions a second, for the stride is one reading."""

_JUNK_BYTES = 3000
_ARRIVES_WITHIN_S = 60.0
_POLL_S = 0.02


class SoakRunError(ScentdError):
    """The storm itself broke down; it says nothing about the rig."""


@dataclass(slots=True)
class Report:
    """What a storm was.

    Attributes
    ----------
    faults: those that struck.
    balance: what came through.
    recovery_s: seconds to heal, per side: the broker's from its return to the rig's being
        connected, the board's from its being plugged in to the port's being open, the
        process's from its start to its being ready, the disk's from room to written again.
    broker: whose.
    real_s, board_s: how long it took, and how much of the board's time that was.
    """

    faults: list[InjectedFault]
    balance: DeliveryReport
    recovery_s: dict[Side, list[float]]
    broker: str
    real_s: float
    board_s: float

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        sides = {side: [fault for fault in self.faults if fault.side is side] for side in Side}
        return {
            "faults": {"total": len(self.faults)}
            | {str(side): len(faults) for side, faults in sides.items()},
            **self.balance.as_json(),
            "recovery_s": {
                str(side): {
                    "count": len(times),
                    "median": round(statistics.median(times), 3),
                    "longest": round(max(times), 3),
                }
                for side, times in self.recovery_s.items()
                if times
            },
            "broker": self.broker,
            "real_s": round(self.real_s, 1),
            "board_s": round(self.board_s, 1),
        }


@dataclass(slots=True)
class SoakRun:
    """Everything in it, once started.

    Attributes
    ----------
    board, rig, gate, broker, consumer: the parts, as they are joined.
    rng: for what tears files.
    recovery_s: what healing took so far.
    """

    board: SimulatedBoard
    rig: ServiceUnderTest
    gate: Relay
    broker: Any
    consumer: Consumer
    rng: np.random.Generator
    recovery_s: dict[Side, list[float]] = field(default_factory=lambda: defaultdict(list))

    def strike(self, fault: InjectedFault) -> None:
        """Act a fault out, and wait until it has healed."""
        time.sleep(fault.lull_s)
        if self.board.wait(0):
            raise SoakRunError(
                "The simulated board has ended by itself, which is a bug of the simulator. Note "
                "the seed and report it."
            )
        acts: dict[Side, Callable[[InjectedFault], None]] = {
            Side.BOARD: self._strike_board,
            Side.BROKER: self._strike_broker,
            Side.PROCESS: self._strike_process,
            Side.DISK: self._strike_disk,
        }
        acts[fault.side](fault)

    def _strike_board(self, fault: InjectedFault) -> None:
        opened = self.rig.count(PORT_OPENED)
        self.board.inject(fault.of_board)
        if fault.kind != FaultKind.UNPLUG.value:
            return  # it goes on in the board's time, while other things happen
        self.rig.await_(lambda: not self.board.plugged, "saw no unplugged board")
        self.rig.await_(lambda: self.board.plugged, "saw no board plugged in again")
        self._healed(
            Side.BOARD, lambda: self.rig.count(PORT_OPENED) > opened, "did not open the port again"
        )

    def _strike_broker(self, fault: InjectedFault) -> None:
        connections = self.rig.count(CONNECTED)
        if fault.kind == BrokerFault.STALLED:
            self.gate.set(Mode.STALLED)
            time.sleep(fault.lasts_s)
            self.gate.open()
            return
        if fault.kind == BrokerFault.CUT:
            self.gate.set(Mode.CUTTING)
        elif fault.kind == BrokerFault.REFUSING:
            self.gate.drop()
            time.sleep(fault.lasts_s)
            self.gate.open()
        elif fault.kind == BrokerFault.DEAF:
            self.gate.set(Mode.DEAF)
            time.sleep(fault.lasts_s)
            self.gate.drop()
            self.gate.open()
        else:
            self._end_broker(kill=fault.kind == BrokerFault.KILLED)
            time.sleep(fault.lasts_s)
            self.begin_broker()
        self._healed(
            Side.BROKER, lambda: self.rig.count(CONNECTED) > connections, "did not connect again"
        )

    def begin_broker(self) -> None:
        """Start the broker, let the consumer in, then the rig."""
        self.broker.start()
        self.consumer.listen(self.broker.port)
        self.gate.open(self.broker.port)

    def _end_broker(self, *, kill: bool) -> None:
        """End the broker in the middle of everything, as the rig sees it.

        What a broker acknowledges and then forgets is no loss of the rig's: before its end the
        consumer takes all that the rig can have been acknowledged.
        """
        self.gate.set(Mode.STALLED)
        self.consumer.catch_up()
        self.gate.drop()
        self.consumer.leave()
        self.broker.end(kill=kill)

    def _strike_process(self, fault: InjectedFault) -> None:
        if fault.kind == ProcessFault.FROZEN:
            self.rig.freeze(fault.lasts_s)
        elif fault.kind == ProcessFault.HUNG_UP:
            self._reload({"live_stride_s": fault.lasts_s}, RELOADED)
        elif fault.kind == ProcessFault.MISCONFIGURED:
            self._reload({"live_stride_s": -1}, KEPT_OLD)
        else:
            if fault.kind == ProcessFault.KILLED:
                self.rig.kill()
            else:
                self.rig.stop()
            self.recovery_s[Side.PROCESS].append(self.rig.start())

    def _reload(self, changes: dict[str, Any], answer: str) -> None:
        answers = self.rig.count(answer)
        self.rig.configure(changes)
        self.rig.hang_up()
        self._healed(
            Side.PROCESS, lambda: self.rig.count(answer) > answers, "gave SIGHUP no answer"
        )
        self.rig.configure({})

    def _strike_disk(self, fault: InjectedFault) -> None:
        if fault.kind == DiskFault.TORN:
            self.rig.kill()
            self.rig.tear(self.rng.bytes(int(self.rng.integers(1, _JUNK_BYTES))))
            self.recovery_s[Side.PROCESS].append(self.rig.start())
            return
        failed, back = self.rig.count(DISK_FAILED), self.rig.count(DISK_BACK)
        with self.rig.full_disk():
            self.rig.await_(
                lambda: self.rig.count(DISK_FAILED) > failed, "did not notice a full disk"
            )
        self._healed(
            Side.DISK, lambda: self.rig.count(DISK_BACK) > back, "did not write to disk again"
        )

    def _healed(self, side: Side, happened: Callable[[], bool], what: str) -> None:
        self.recovery_s[side].append(self.rig.await_(happened, what))

    def settle(self) -> None:
        """Let everything arrive that was made so far, and neither killed nor dropped."""
        made = self.rig.made
        deadline_s = time.monotonic() + _ARRIVES_WITHIN_S
        killed = {boot.boot_id for boot in self.rig.boots if boot.killed_s is not None}
        while time.monotonic() < deadline_s:
            arrivals = tuple(self.consumer.heard)
            missing = made - {(message.boot_id, message.seq) for message in arrivals}
            if sum(boot_id not in killed for boot_id, _ in missing) <= dropped(arrivals):
                return
            time.sleep(_POLL_S)


def settings(port: str, broker_port: int, *, protocol: str) -> dict[str, Any]:
    """Return the rig's configuration."""
    return {
        "rig_id": RIG_ID,
        "source": {"port": port},
        "models": [MODEL],
        "live_stride_s": 1.0,
        "record": True,
        "mqtt": {
            "host": LOOPBACK,
            "port": broker_port,
            "protocol": protocol,
            "keepalive_s": 5,
            "sample": True,
        },
    }


def storm(
    faults: Sequence[InjectedFault],
    folder: Path,
    stop: Stop,
    *,
    seed: int,
    watch: Callable[[int, InjectedFault], None],
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> Report:
    """Let the faults strike one after the other, and draw the balance.

    Parameters
    ----------
    faults : sequence of Fault
        What happens; fewer if `stop` is set meanwhile.
    folder : Path
        For the parts' files.
    stop : Stop
        Ends the storm early, in order.
    seed : int
        Of the board's noise and of what tears files.
    watch : callable
        Told of every fault before it strikes, by its number.
    changes : mapping
        Of the rig's usual configuration.

    Raises
    ------
    ScentdError
        A part does not start, or the service ended by itself or did not heal.
    """
    broker = storm_broker(folder)
    consumer = Consumer(RIG_ID)
    link = folder / "ttyBOARD"
    signal = SyntheticSignal(ODOURS, rate_hz=RATE_HZ, loop=True, seed=seed)
    started_s = time.monotonic()
    struck: list[InjectedFault] = []
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(Relay())
        stack.callback(broker.end, kill=True)
        stack.callback(consumer.leave)
        board = stack.enter_context(SimulatedBoard(signal, link=link, speed=SPEED, seed=seed))
        protocol = "auto" if broker.name == "Mosquitto" else "3.1.1"
        usual = settings(str(link), gate.port, protocol=protocol)
        rig = ServiceUnderTest(folder, {**usual, **changes})
        stack.callback(rig.abandon)
        under = SoakRun(board, rig, gate, broker, consumer, np.random.default_rng(seed))
        under.begin_broker()
        rig.start()
        for number, fault in enumerate(faults):
            if stop.is_set():
                break
            watch(number, fault)
            under.strike(fault)
            struck.append(fault)
        under.settle()
        rig.stop()
        # The board sends until nobody listens any more.
        board_report, board_s = board.report, board.now_s
        consumer.catch_up()
        return Report(
            faults=struck,
            balance=balance(
                rig.boots,
                tuple(consumer.heard),
                sent=board_report.readings - board_report.lines_without_listener,
            ),
            recovery_s=dict(under.recovery_s),
            broker=broker.name,
            real_s=time.monotonic() - started_s,
            board_s=board_s,
        )
