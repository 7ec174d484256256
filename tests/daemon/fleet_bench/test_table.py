"""The table states what was measured, and a missed target fails the command."""

from __future__ import annotations

from dataclasses import replace

from daemon.fleet_bench.light_fleet import RETAINED, CommandRun, FleetFigures, Load, Return
from daemon.fleet_bench.page import PageRun
from daemon.fleet_bench.real_rigs import ServiceFigures
from daemon.fleet_bench.table import fleet_table, holds, most_connections_per_s

BACK = Return(
    outage_s=30,
    waiting=6600,
    online_s=4.1,
    emptied_s=4.2,
    most_per_s=315,
    broker_percent=8.8,
    retained=dict.fromkeys(RETAINED, 1000),
)
SERVICES = ServiceFigures(
    services=20,
    ready_s=0.6,
    slowest_ready_s=0.9,
    resident_mb=80,
    proportional_mb=55,
    percent=0.3,
    total_percent=6,
    outage_s=30,
    online_s=3.9,
    made=500,
    missing=0,
    again=3,
    disordered=0,
)


def figures(**changes: object) -> FleetFigures:
    load = Load(
        published_per_s=318,
        delivered_per_s=318,
        broker_percent=1.9,
        broker_mb=19,
        rigs_percent=35,
        rigs_mb=505,
    )
    fleet = FleetFigures(rigs=1000, took_s=20.8, load=load, returns=[BACK], made=15743)
    fleet.page = PageRun(took_s=5.0, scrape_s=0.4, resident_mb=80, percent=6)
    fleet.commands = {"scentd fleet status": CommandRun(took_s=3, peak_mb=64, code=0, lines=1000)}
    for name, value in changes.items():
        setattr(fleet, name, value)
    return fleet


def test_every_row_has_three_cells() -> None:
    lines = fleet_table(figures(), SERVICES).splitlines()
    assert len(lines) > 15
    assert {line.count("|") for line in lines} == {4}
    assert "| predictions and events: made, lost, out of order | 15743, 0, 0 | 0 lost |" in lines


def test_a_fleet_that_keeps_every_target_holds() -> None:
    assert holds(figures(), SERVICES)
    assert holds(None, None)


def test_whatever_is_lost_late_or_too_fast_does_not_hold() -> None:
    for back in (
        replace(BACK, online_s=61.0),
        replace(BACK, most_per_s=most_connections_per_s(1000) + 1),
        replace(BACK, retained={**BACK.retained, "info": 999}),
    ):
        assert not holds(figures(returns=[BACK, back]), None)
    assert not holds(figures(missing=1), None)
    assert not holds(None, replace(SERVICES, missing=1))
