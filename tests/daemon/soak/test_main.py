"""The soak: faults are drawn from a seed, and a short run over real parts loses nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.soak.faults import BrokerFault, FaultTarget, InjectedFault, draw_faults, summarise
from daemon.soak.main import run_soak
from daemon.system.signals import StopEvent
from hardware.simulator.faults import parse_faults
from tests.sandbox import ROOT, needs_mosquitto


def test_a_seed_draws_the_same_faults_again_and_every_kind_is_among_them() -> None:
    faults = draw_faults(500, 3)
    assert draw_faults(500, 3) == faults
    assert draw_faults(500, 4) != faults
    kinds = {(fault.part, fault.kind) for fault in faults}
    assert {(fault.part, fault.kind) for fault in draw_faults(60, 3)} == kinds
    assert sum(fault.part is FaultTarget.BOARD for fault in faults) > 200
    for fault in faults:
        if fault.part is FaultTarget.BOARD:
            (parsed,) = parse_faults(fault.board_schedule)
            assert parsed.kind.value == fault.kind
    assert summarise(faults).startswith("board ")


def test_an_outage_beyond_the_outboxes_bound_loses_exactly_what_is_counted(tmp_path: Path) -> None:
    needs_mosquitto()
    outage = InjectedFault(FaultTarget.BROKER, BrokerFault.REFUSING, delay_s=1.0, duration_s=6.0)
    report = run_soak(
        [outage],
        tmp_path,
        StopEvent(),
        seed=1,
        on_fault=lambda _number, _fault: None,
        changes={"outbox": {"max_messages": 30}},
    )
    found = report.delivery
    assert found.complaints == []
    assert found.lost == found.dropped > 10
    assert found.late > 10


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[a-z_/]+\.py)(?:::(test_[a-z0-9_]+))?`", page)
    assert len(named) > 25
    for file, test in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert f"def {test}" in text, (file, test)


@pytest.mark.timeout(600)
def test_a_short_soak_of_the_real_service_loses_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Twenty faults: the board's, the broker's, the process's and the disk's.

    The long run is `scentd soak`; see docs/reliability.md.
    """
    needs_mosquitto()
    faults = draw_faults(20, 29)
    assert {fault.part for fault in faults} == set(FaultTarget)
    assert main(["soak", "--faults", "20", "--seed", "29", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["holds"]
    assert result["faults"]["total"] == 20
    assert result["made"] > 100
    assert result["decoded"] > 100
    assert result["kills"] >= 1
    assert result["lost"] == result["dropped"] == result["duplicated"] == result["disordered"] == 0
