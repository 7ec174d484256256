"""Daemon: measures real services with simulated boards on one machine: start, memory, processor.

Then the broker is killed and started again, and what the services made is compared with what
arrived.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.fleet_bench.fleet_broker import FleetBroker
from daemon.fleet_bench.light_rig import RATE_HZ, SCENARIO
from daemon.fleet_bench.observer import FleetObserver
from daemon.installed_models.onnx_runtime import remember_runtime
from daemon.sandbox import process_usage
from daemon.sandbox.broker import LOOPBACK
from daemon.soak.service import CONNECTED, ServiceUnderTest
from hardware.simulator.board import SimulatedBoard
from hardware.simulator.signals import SyntheticSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.soak.observed import MessageId

FIRST_READINGS_S = 30.0
"""Seconds of readings before the measurement, in which a service loads and tries everything."""

ARRIVE_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFigures:
    """What was measured of real services; medians over the services where there is one number.

    Attributes
    ----------
    ready_s, slowest_ready_s: from the start of a process until it was ready, others running.
    resident_mb, proportional_mb: memory, and with shared pages divided among the processes (PSS).
    percent: of one core, of one service.
    total_percent: of one core, all services together.
    outage_s: of the broker.
    online_s: from the broker's return until the last service was connected.
    made: predictions and events of all services.
    missing: of them, those that never arrived.
    again: arrivals of one that had arrived.
    disordered: first arrivals after a later one.
    """

    services: int
    ready_s: float
    slowest_ready_s: float
    resident_mb: float
    proportional_mb: float
    percent: float
    total_percent: float
    outage_s: float
    online_s: float
    made: int
    missing: int
    again: int
    disordered: int


def measure_services(
    count: int,
    model: str,
    *,
    outage_s: float,
    load_s: float,
    progress: Callable[[str], None],
) -> ServiceFigures:
    """Run so many services, each with a board of one reading a second and one model.

    Parameters
    ----------
    count: services.
    model: a bundle's name or folder.
    outage_s: between the broker's kill and its start.
    load_s: length of the measurement in the steady state.
    progress: told what is done now.

    Raises
    ------
    ScentdError: Mosquitto is missing, or a service does not start.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scentd-")))
        broker = stack.enter_context(FleetBroker(folder, count))
        observer = stack.enter_context(FleetObserver(broker.port))
        broker.save()
        progress(f"{count} services start, one after the other")
        services = [
            stack.enter_context(service)
            for service in _services(count, model, folder, broker.port, stack)
        ]
        observer.watch(FIRST_READINGS_S)
        progress(f"memory and processor time of {load_s:.0f} s")
        before_s = [service.processor_s() for service in services]
        started_s = time.monotonic()
        observer.watch(load_s)
        took_s = time.monotonic() - started_s
        percents = [
            100 * (service.processor_s() - earlier_s) / took_s
            for service, earlier_s in zip(services, before_s, strict=True)
        ]
        resident_mb = [service.resident_mb() for service in services]
        proportional_mb = [process_usage.proportional_mb(service.pid) for service in services]
        progress(f"the return of the broker after {outage_s:g} s")
        online_s = _return_s(broker, services, observer, outage_s)
        observer.watch(load_s / 4)
        progress("what was lost")
        for service in services:
            service.end()
        made = _made(services)
        missing = observer.await_all(made, ARRIVE_WITHIN_S)
        return ServiceFigures(
            services=count,
            ready_s=statistics.median(service.ready_s for service in services),
            slowest_ready_s=max(service.ready_s for service in services),
            resident_mb=statistics.median(resident_mb),
            proportional_mb=statistics.median(proportional_mb),
            percent=statistics.median(percents),
            total_percent=sum(percents),
            outage_s=outage_s,
            online_s=online_s,
            made=len(made),
            missing=missing,
            again=observer.again,
            disordered=observer.disordered,
        )


def _services(
    count: int, model: str, folder: Path, port: int, stack: ExitStack
) -> Iterator[ServiceUnderTest]:
    """Yield services that are not started yet; their boards are plugged in on the stack."""
    for number in range(count):
        signal = SyntheticSignal(SCENARIO, rate_hz=RATE_HZ, seed=number, loop=True)
        board = stack.enter_context(SimulatedBoard(signal, wait_for_listener=True))
        own = folder / f"rig-{number:02d}"
        (own / "state").mkdir(parents=True)
        # As after the first start, which tries ONNX Runtime in a child.
        remember_runtime(own / "state")
        yield ServiceUnderTest(
            own,
            {
                "rig_id": own.name,
                "source": {"port": board.port},
                "models": [model],
                "mqtt": {"host": LOOPBACK, "port": port},
            },
        )


def _return_s(
    broker: FleetBroker,
    services: list[ServiceUnderTest],
    observer: FleetObserver,
    outage_s: float,
) -> float:
    """Kill the broker and start it again; return seconds until every service was connected."""
    before = [service.events[CONNECTED] for service in services]
    broker.stop()
    observer.watch(outage_s)
    started_s = time.monotonic()
    broker.start()
    for service, connections in zip(services, before, strict=True):
        service.wait_for_event(CONNECTED, connections)
    return time.monotonic() - started_s


def _made(services: list[ServiceUnderTest]) -> set[MessageId]:
    return {one for service in services for one in service.made_ids()}
