"""Requests of pages reach the rig once, and their answers reach the pages."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.web.rig_requests import (
    KEPT,
    PATIENCE_S,
    RequestRefusedByPageError,
    RigRequests,
)
from hardware.labels import MAX_LABEL_LENGTH


class Rig:
    """Collects requests and messages; `now_s` is the clock."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        self.messages: list[dict[str, Any]] = []
        self.connected = True
        self.now_s = 0.0
        self.requests = RigRequests(
            self._send,
            lambda _rig, message: self.messages.append(message),
            clock=lambda: self.now_s,
        )

    def _send(self, rig: str, command: str, payload: dict[str, Any]) -> bool:
        self.sent.append((rig, command, payload))
        return self.connected

    def answer(self, transaction: str, status: str, **fields: Any) -> None:
        answer = {"transaction": transaction, "status": status, "data": None, "error": None}
        self.requests.receive("kitchen", "enroll", {**answer, **fields})


def test_an_answer_reaches_the_pages_and_can_be_asked_for_later() -> None:
    rig = Rig()
    sent = rig.requests.begin("kitchen", "enroll", {"action": "list"})
    assert rig.sent[0][2]["transaction"] == sent.transaction
    rig.answer(sent.transaction, "working", data={"share": 0.5})
    rig.answer(sent.transaction, "ok", data={"smells": []})
    answers = [message for message in rig.messages if message["kind"] == "answer"]
    assert [message["status"] for message in answers] == ["working", "ok"]
    found = rig.requests.answer_to(sent.transaction)
    assert found is not None
    assert found["data"] == {"smells": []}


def test_a_second_page_cannot_teach_the_same_air_meanwhile() -> None:
    rig = Rig()
    first = rig.requests.begin("kitchen", "enroll", {"label": "coffee"})
    with pytest.raises(RequestRefusedByPageError, match="'coffee' is being taught") as refused:
        rig.requests.begin("kitchen", "enroll", {"action": "teach", "label": "tea"})
    assert refused.value.status == 409
    rig.requests.begin("attic", "enroll", {"label": "tea"})
    rig.requests.begin("kitchen", "enroll", {"action": "list"})
    rig.answer(first.transaction, "error", error="no clean air")
    rig.requests.begin("kitchen", "enroll", {"label": "tea"})


def test_a_page_that_opens_meanwhile_learns_what_is_being_taught() -> None:
    rig = Rig()
    sent = rig.requests.begin("kitchen", "enroll", {"label": "coffee"})
    rig.answer(sent.transaction, "working", data={"share": 0.25})
    (shown,) = rig.requests.open_requests("kitchen")
    assert (shown["label"], shown["data"]) == ("coffee", {"share": 0.25})
    rig.answer(sent.transaction, "ok", data={})
    assert rig.requests.open_requests("kitchen") == []


@pytest.mark.parametrize(
    ("command", "payload", "status"),
    [
        ("shutdown", {}, 404),
        ("enroll", {"label": "x" * (MAX_LABEL_LENGTH + 1)}, 422),
        ("enroll", {"label": "x" * 10_000}, 422),
        ("enroll", {"action": "rename", "label": "a", "name": "x" * 65}, 422),
        ("feedback", {"note": "x" * 501}, 422),
        ("calibrate", {"files": ["x" * 501]}, 422),
    ],
)
def test_what_no_rig_would_accept_is_not_sent(
    command: str, payload: dict[str, Any], status: int
) -> None:
    rig = Rig()
    with pytest.raises(RequestRefusedByPageError) as refused:
        rig.requests.begin("kitchen", command, payload)
    assert refused.value.status == status
    assert rig.sent == []


def test_without_a_broker_a_request_is_refused_and_not_kept() -> None:
    rig = Rig()
    rig.connected = False
    with pytest.raises(RequestRefusedByPageError, match="broker") as refused:
        rig.requests.begin("kitchen", "enroll", {"label": "coffee"})
    assert refused.value.status == 503
    assert rig.requests.open_requests("kitchen") == []


def test_a_request_ends_when_its_rig_goes_offline() -> None:
    rig = Rig()
    sent = rig.requests.begin("kitchen", "enroll", {"label": "coffee"})
    rig.requests.rig_went_offline("attic")
    rig.requests.rig_went_offline("kitchen")
    found = rig.requests.answer_to(sent.transaction)
    assert found is not None
    assert "offline" in found["error"]


def test_a_request_without_an_answer_is_given_up() -> None:
    rig = Rig()
    sent = rig.requests.begin("kitchen", "enroll", {"label": "coffee"})
    rig.now_s = PATIENCE_S - 1
    rig.answer(sent.transaction, "working", data={})
    rig.now_s = 2 * PATIENCE_S - 2
    rig.requests.give_up_old()
    assert rig.requests.open_requests("kitchen")
    rig.now_s = 2 * PATIENCE_S
    rig.requests.give_up_old()
    found = rig.requests.answer_to(sent.transaction)
    assert found is not None
    assert found["status"] == "error"


def test_what_somebody_else_changed_is_said_to_the_pages() -> None:
    rig = Rig()
    rig.answer("of-a-command", "working", data={})
    rig.answer("of-a-command", "ok", data={})
    assert rig.messages == [{"kind": "changed", "rig": "kitchen", "command": "enroll"}]


def test_pages_are_not_told_of_what_only_reads() -> None:
    """They would read again, and be told of that."""
    rig = Rig()
    for payload, changes in (({"action": "list"}, False), ({"action": "forget"}, True)):
        sent = rig.requests.begin("kitchen", "enroll", payload)
        rig.messages.clear()
        rig.answer(sent.transaction, "ok", data={})
        assert any(message["kind"] == "changed" for message in rig.messages) == changes


def test_two_servers_of_pages_do_not_make_each_other_read_all_the_time() -> None:
    rig = Rig()
    for number in range(100):
        rig.now_s = number / 10
        rig.answer("of-another-server", "ok", data={})
    assert len(rig.messages) == 1


def test_an_answer_of_another_rig_is_not_taken() -> None:
    rig = Rig()
    sent = rig.requests.begin("kitchen", "enroll", {"action": "list"})
    answer = {"transaction": sent.transaction, "status": "ok", "data": {}, "error": None}
    rig.requests.receive("attic", "enroll", answer)
    found = rig.requests.answer_to(sent.transaction)
    assert found is not None
    assert "status" not in found


def test_old_answers_are_forgotten() -> None:
    rig = Rig()
    first = rig.requests.begin("kitchen", "enroll", {"action": "list"})
    for _ in range(KEPT):
        rig.requests.begin("kitchen", "enroll", {"action": "list"})
    assert rig.requests.answer_to(first.transaction) is None
