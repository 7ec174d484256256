"""The soak: faults are drawn from a seed, and a short run over real parts loses nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.soak.claims import (
    ANSWER_WITHIN_S,
    EVENT_WITHIN_S,
    PREDICTION_WITHIN_S,
    RECOVERY_WITHIN_S,
    RETAINED_WITHIN_S,
    UNWRITTEN_S,
)
from daemon.soak.faults import (
    BrokerFault,
    DiskFault,
    FaultTarget,
    InjectedFault,
    RigFault,
    draw_faults,
    summarise,
)
from daemon.soak.main import PHASES, run_soak
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
        phases=[replace(PHASES[0], calm=False)],
    )
    found = report.delivery
    assert report.complaints == []
    assert found.lost == found.dropped > 10
    assert found.late > 10


@pytest.mark.slow
def test_a_rig_whose_place_another_client_takes_loses_nothing(tmp_path: Path) -> None:
    needs_mosquitto()
    taken = InjectedFault(FaultTarget.RIG_ID, RigFault.TAKEN, delay_s=1.0, duration_s=1.0)
    report = run_soak(
        [taken],
        tmp_path,
        StopEvent(),
        seed=1,
        on_fault=lambda _number, _fault: None,
        phases=[replace(PHASES[0], calm=False)],
    )
    assert report.complaints == []
    assert report.as_json()["recovery_s"]["rig id"]["count"] == 1


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[a-z_/]+\.py)(?:::(test_[a-z0-9_]+))?`", page)
    assert len(named) > 25
    for file, test in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert f"def {test}" in text, (file, test)


def test_the_page_states_the_claims_that_the_soak_judges() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = page.partition("## What is claimed")[2].partition("\n## ")[0]
    stated = {
        row.split("|")[1].strip(): row.split("|")[2].strip()
        for row in table.splitlines()
        if row.startswith("|") and row.count("|") > 2
    }
    claims = {
        "predictions that a kill or a power cut may cost": UNWRITTEN_S,
        "a prediction is delivered": PREDICTION_WITHIN_S,
        "an event is delivered, three in four": EVENT_WITHIN_S,
        "a request is answered": ANSWER_WITHIN_S,
        "every retained topic is there": RETAINED_WITHIN_S,
        **{f"recovery of the {part}": time_s for part, time_s in RECOVERY_WITHIN_S.items()},
    }
    for claim, time_s in claims.items():
        assert f"{time_s:g} s" in stated[claim]


@pytest.mark.timeout(600)
def test_a_short_soak_of_the_real_service_loses_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Twelve faults over both boards: the board's, the broker's, the process's and the disk's.

    One is a disk that hangs. The long run is `scentd soak`; see docs/reliability.md.
    """
    needs_mosquitto()
    faults = draw_faults(12, 27)
    assert {fault.part for fault in faults} == set(FaultTarget) - {FaultTarget.RIG_ID}
    assert DiskFault.HANGING in {fault.kind for fault in faults}
    status = main(["soak", "--faults", "12", "--seed", "27", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["complaints"] == []
    assert result["holds"]
    assert status == 0
    assert result["faults"]["total"] == 12
    assert result["made"] > 100
    assert result["decoded"] > 100
    assert result["kills"] >= 2
    assert result["power_cuts"] == 1
    assert result["lost"] == result["dropped"] == result["duplicated"] == result["disordered"] == 0
