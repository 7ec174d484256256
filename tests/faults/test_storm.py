"""A storm: the balance sees every kind of loss, and a short one over real parts holds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from daemon.cli import main
from daemon.sandbox.subscriber import NumberedMessage
from daemon.soak.accounting import Boot, SentMessage, balance
from daemon.soak.faults import BrokerFault, InjectedFault, Side, programme, told
from daemon.soak.main import storm
from daemon.system.signals import Stop
from hardware.simulator.faults import parse_faults
from tests.sandbox import ROOT, mosquitto_path

if TYPE_CHECKING:
    from pathlib import Path

A, B = "a" * 16, "b" * 16


def arrived(
    boot_id: str, *numbers: int, late: bool = False, topic: str = "event"
) -> list[NumberedMessage]:
    return [NumberedMessage(topic, boot_id, seq, {"seq": seq, "buffered": late}) for seq in numbers]


def life(boot_id: str, count: int, **rest: object) -> Boot:
    boot = Boot(boot_id, [SentMessage("event", seq, 100.0 + seq) for seq in range(count)])
    for name, value in rest.items():
        setattr(boot, name, value)
    return boot


def test_everything_that_arrives_once_and_in_order_balances() -> None:
    heard = arrived(A, 0, 1, 2) + arrived(B, 0, 1, late=True)
    drawn = balance([life(A, 3), life(B, 2)], heard, sent=0)
    assert (drawn.made, drawn.delivered, drawn.late, drawn.lost) == (5, 5, 2, 0)
    assert drawn.complaints == []


def test_a_message_that_never_comes_is_lost() -> None:
    drawn = balance([life(A, 3)], arrived(A, 0, 2), sent=0)
    assert drawn.lost == 1
    assert "1 are lost and 0 counted as dropped" in drawn.complaints


def test_what_was_made_just_before_a_kill_and_never_written_is_told_apart() -> None:
    boot = life(A, 4, killed_s=103.5)
    drawn = balance([boot], arrived(A, 0, 1), sent=0)
    assert (drawn.unwritten, drawn.unwritten_s, drawn.lost) == (2, 1.5, 0)
    assert drawn.complaints == []


def test_what_the_file_held_at_a_kill_must_arrive() -> None:
    boot = life(A, 4, killed_s=104.0, held=frozenset({(A, 2)}))
    drawn = balance([boot], arrived(A, 0, 1), sent=0)
    assert (drawn.unwritten, drawn.lost) == (1, 1)


def test_a_gap_before_a_kill_is_no_matter_of_the_kill() -> None:
    drawn = balance([life(A, 4, killed_s=104.0)], arrived(A, 0, 1, 3), sent=0)
    assert (drawn.unwritten, drawn.lost) == (0, 1)


def test_only_counted_losses_are_forgiven() -> None:
    health = NumberedMessage(
        "health", A, 9, {"outbox_dropped": 1, "frames_bad": {"binary": 4, "checksum": 1}}
    )
    drawn = balance([life(A, 3)], [*arrived(A, 0, 2), health], sent=0)
    assert (drawn.lost, drawn.dropped, drawn.rejected) == (1, 1, 5)
    assert drawn.complaints == []
    drawn = balance([life(A, 3)], [*arrived(A, 0, 1, 2), health], sent=0)
    assert drawn.complaints == ["0 are lost and 1 counted as dropped"]


def test_the_same_again_is_no_duplicate_but_other_words_under_its_number_are() -> None:
    again = balance([life(A, 2)], arrived(A, 0, 1) + arrived(A, 1, late=True), sent=0)
    assert (again.again, again.duplicated) == (1, 0)
    assert again.complaints == []
    (other,) = arrived(A, 1)
    other = replace(other, payload={**other.payload, "label": "mint"})
    drawn = balance([life(A, 2)], [*arrived(A, 0, 1), other], sent=0)
    assert drawn.complaints == ["1 numbers were given twice"]


def test_disorder_and_inventions_are_seen() -> None:
    drawn = balance([life(A, 3)], arrived(A, 0, 2, 1), sent=0)
    assert drawn.complaints == ["1 came out of order"]
    drawn = balance([life(A, 1), life(B, 1)], arrived(B, 0) + arrived(A, 0), sent=0)
    assert drawn.disordered == 1
    drawn = balance([life(A, 1)], arrived(A, 0, 7), sent=0)
    assert drawn.complaints == ["1 arrived that were never made"]


def test_a_storm_in_which_nothing_was_made_proves_nothing() -> None:
    assert balance([], [], sent=5).complaints == ["nothing was made"]


def test_more_readings_than_lines_are_an_invention() -> None:
    boot = Boot(
        A,
        [
            SentMessage("event", 0, 1.0),
            SentMessage("sample", 1, 1.0),
            SentMessage("sample", 2, 1.0),
        ],
    )
    assert balance([boot], arrived(A, 0), sent=1).complaints == ["2 readings from 1 lines"]


def test_a_seed_draws_the_same_storm_again_and_every_kind_strikes() -> None:
    faults = programme(500, 3)
    assert programme(500, 3) == faults
    assert programme(500, 4) != faults
    assert len({(fault.side, fault.kind) for fault in programme(60, 3)}) == len(
        {(fault.side, fault.kind) for fault in faults}
    )
    assert sum(fault.side is Side.BOARD for fault in faults) > 200
    for fault in faults:
        if fault.side is Side.BOARD:
            (parsed,) = parse_faults(fault.of_board)
            assert parsed.kind.value == fault.kind
    assert told(faults).startswith("board ")


def test_an_outage_beyond_the_outboxes_bound_loses_exactly_what_is_counted(tmp_path: Path) -> None:
    mosquitto_path()
    outage = InjectedFault(Side.BROKER, BrokerFault.REFUSING, lull_s=1.0, lasts_s=6.0)
    report = storm(
        [outage],
        tmp_path,
        Stop(),
        seed=1,
        watch=lambda _number, _fault: None,
        changes={"outbox": {"max_messages": 30}},
    )
    drawn = report.balance
    assert drawn.complaints == []
    assert drawn.lost == drawn.dropped > 10
    assert drawn.late > 10


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[a-z_/]+\.py)(?:::(test_[a-z0-9_]+))?`", page)
    assert len(named) > 25
    for file, test in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert f"def {test}" in text, (file, test)


@pytest.mark.timeout(600)
def test_a_short_storm_over_the_real_service_balances(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Twenty faults: the board's, the broker's, the process's and the disk's.

    The long storm is `scentd soak`; see docs/reliability.md.
    """
    mosquitto_path()
    faults = programme(20, 29)
    assert {fault.side for fault in faults} == set(Side)
    assert main(["soak", "--faults", "20", "--seed", "29", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["holds"]
    assert result["faults"]["total"] == 20
    assert result["made"] > 100
    assert result["decoded"] > 100
    assert result["kills"] >= 1
    assert result["lost"] == result["dropped"] == result["duplicated"] == result["disordered"] == 0
