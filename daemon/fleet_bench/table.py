"""Daemon: the figures of a fleet as a table in Markdown. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from daemon.fleet_bench.light_fleet import RETAINED
from daemon.mqtt.publisher import RETRY_EVERY_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.fleet_bench.light_fleet import FleetFigures, Return
    from daemon.fleet_bench.real_rigs import ServiceFigures

BACK_WITHIN_S = 60.0
"""Target: all rigs are online so soon after the broker's return."""

DEVIATIONS = 4.0
"""The connections of the busiest second may exceed their average by so many standard deviations of
a Poisson distribution."""

Row = tuple[str, str, str]


def most_connections_per_s(rigs: int) -> int:
    """Return the rate below which the connections of so many rigs stay, in any second."""
    average = rigs / RETRY_EVERY_S
    return round(average + DEVIATIONS * math.sqrt(average))


def fleet_table(fleet: FleetFigures | None, services: ServiceFigures | None) -> str:
    """Return what was measured, beside its targets."""
    rows: list[Row] = [("", "measured", "target")]
    if fleet is not None:
        rows += _fleet_rows(fleet)
    if services is not None:
        rows += _service_rows(services)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|---|---|", *lines[1:]])


def holds(fleet: FleetFigures | None, services: ServiceFigures | None) -> bool:
    """Return whether all rigs came back in time and nothing is missing."""
    back = fleet is None or all(
        one.online_s <= BACK_WITHIN_S
        and one.most_per_s <= most_connections_per_s(fleet.rigs)
        and all(one.retained.get(topic) == fleet.rigs for topic in RETAINED)
        for one in fleet.returns
    )
    return back and not any(
        one.missing or one.disordered for one in (fleet, services) if one is not None
    )


def _fleet_rows(fleet: FleetFigures) -> Iterator[Row]:
    load = fleet.load
    yield f"**{fleet.rigs} simulated rigs**: until all are online", f"{fleet.took_s:.1f} s", ""
    yield (
        "messages a second: published, delivered to one subscriber",
        f"{load.published_per_s:.0f}, {load.delivered_per_s:.0f}",
        "",
    )
    yield (
        "broker: share of a core, memory, largest memory",
        f"{load.broker_percent:.1f} %, {load.broker_mb:.0f} MB, {fleet.broker_peak_mb:.0f} MB",
        "",
    )
    yield (
        "simulated rigs: share of a core, memory",
        f"{load.rigs_percent:.0f} %, {load.rigs_mb:.0f} MB",
        "",
    )
    for one in fleet.returns:
        yield from _return_rows(one, fleet.rigs)
    yield from _loss_rows(fleet)
    for name, command in fleet.commands.items():
        what = f"{command.took_s:.1f} s, {command.peak_mb:.0f} MB, {command.lines} lines"
        yield f"`{name}` over all rigs (exit {command.code})", what, ""
    if fleet.page is not None:
        page = fleet.page
        yield (
            "`scentd web`: until it knows every rig's state; `/metrics`",
            f"{page.took_s:.1f} s; {page.scrape_s:.1f} s",
            "",
        )
        yield (
            "  memory, share of a core",
            f"{page.resident_mb:.0f} MB, {page.percent:.0f} %",
            "",
        )
    yield (
        f"{fleet.killed} rigs killed: until all are `offline`",
        f"{fleet.wills_s:.2f} s",
        "",
    )


def _return_rows(one: Return, rigs: int) -> Iterator[Row]:
    after = f"broker killed, back after {one.outage_s:g} s"
    kept = min(one.retained.get(topic, 0) for topic in RETAINED)
    yield f"{after}: all rigs online", f"{one.online_s:.1f} s", f"<= {BACK_WITHIN_S:.0f} s"
    limit = most_connections_per_s(rigs)
    yield "  most connections in a second", f"{one.most_per_s}", f"<= {limit}"
    yield f"  {one.waiting} messages waited; all sent", f"{one.emptied_s:.1f} s", ""
    yield "  rigs with every retained message", f"{kept}", f"{rigs}"
    yield "  broker meanwhile: share of a core", f"{one.broker_percent:.0f} %", ""


def _service_rows(services: ServiceFigures) -> Iterator[Row]:
    yield (
        f"**{services.services} real services**: start to ready, median and slowest",
        f"{services.ready_s:.2f} s, {services.slowest_ready_s:.2f} s",
        "",
    )
    yield (
        "memory of one: resident, with shared pages divided (PSS)",
        f"{services.resident_mb:.0f} MB, {services.proportional_mb:.0f} MB",
        "",
    )
    yield (
        "share of a core: one, all together",
        f"{services.percent:.2f} %, {services.total_percent:.1f} %",
        "",
    )
    yield (
        f"broker killed, back after {services.outage_s:g} s: all services online",
        f"{services.online_s:.1f} s",
        "",
    )
    yield from _loss_rows(services)


def _loss_rows(one: FleetFigures | ServiceFigures) -> Iterator[Row]:
    yield (
        "predictions and events: made, lost, out of order",
        f"{one.made}, {one.missing}, {one.disordered}",
        "0 lost",
    )
    yield "  arrived once more, with the same `boot_id` and `seq`", f"{one.again}", ""
