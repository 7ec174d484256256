"""Delays of messages and answers: those in a fault's time are left out, others judged."""

from __future__ import annotations

import json

from daemon.sandbox.subscriber import ReceivedMessage
from daemon.soak.delays import DelayReport, measure_delays
from daemon.soak.observed import Boot, DeliveredMessage, MadeMessage, Period
from daemon.soak.requests import RequestReport, SentRequests

A = "a" * 16


def delays(
    topic: str, *delays_s: float, disturbed: tuple[Period, ...] = (), late_s: float = 0.0
) -> DelayReport:
    """Measure one message a second, the first at 100 s, each delivered after its delay."""
    made = [MadeMessage(topic, seq, 100.0 + seq) for seq in range(len(delays_s))]
    arrivals = [
        DeliveredMessage(topic, A, seq, {"seq": seq, "buffered": False}, 100.0 + seq + delay_s)
        for seq, delay_s in enumerate(delays_s)
    ]
    return measure_delays([Boot(A, made)], arrivals, disturbed, lambda *_: late_s)


def test_messages_in_time_are_no_complaint() -> None:
    assert delays("substance", 0.1, 0.9, 1.0).complaints == []
    assert delays("event", 0.02, 0.03, 0.02, 0.6).complaints == []


def test_a_prediction_that_comes_late_is_a_complaint_unless_the_machine_was_busy() -> None:
    assert delays("substance", 0.1, 2.0).complaints == [
        "1 predictions took up to 2.0 s to arrive, and 1.25 s is claimed"
    ]
    assert delays("substance", 0.1, 2.0, late_s=0.9).complaints == []


def test_events_that_wait_for_the_next_write_are_a_complaint() -> None:
    found = delays("event", 0.1, 0.6, 0.5, 0.4, 0.2, 0.7)
    assert found.complaints == [
        "events wait: one in four took longer than 0.25 s to arrive, up to 0.70 s"
    ]
    assert delays("event", 0.02, 5.0).complaints == ["events wait: 1 took up to 5.0 s to arrive"]


def test_messages_in_a_faults_time_are_left_out() -> None:
    found = delays("substance", 0.1, 3.0, 0.1, disturbed=(Period(102.0, 103.0),))
    assert (found.predictions, found.late_predictions) == (1, 0)


def requests(*answers: tuple[int, str, float]) -> RequestReport:
    """Send three requests, one a second from 100 s on; answers have number, status and delay."""
    sent = SentRequests()
    for number in range(3):
        topic, payload = sent.next(100.0 + number)
        assert topic == ("request/nothing" if number % 2 else "request/status")
        assert json.loads(payload) == {"transaction": number}
    sent.add_answers(
        [
            ReceivedMessage(
                "scent/soak/response/any",
                json.dumps({"status": status, "transaction": number}).encode(),
                1,
                False,
                100.0 + number + delay_s,
            )
            for number, status, delay_s in answers
        ],
        0.0,
    )
    return sent.report((Period(150.0, 151.0),))


def test_requests_that_are_answered_once_and_in_time_are_no_complaint() -> None:
    found = requests((0, "ok", 0.1), (1, "error", 0.1), (2, "ok", 1.9))
    assert (found.asked, found.answered, found.undisturbed) == (3, 3, 3)
    assert found.complaints == []


def test_missing_late_repeated_and_wrong_answers_are_complaints() -> None:
    found = requests((0, "ok", 0.1), (0, "ok", 0.2), (1, "ok", 3.0))
    assert (found.unanswered, found.repeated, found.wrong) == (2, 1, 1)
    assert len(found.complaints) == 3
