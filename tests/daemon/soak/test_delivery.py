"""The delivery report: every kind of loss, repetition and disorder is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from daemon.sandbox.subscriber import ReceivedMessage
from daemon.soak.delivery import DeliveryReport, delivery_report
from daemon.soak.observed import Boot, DeliveredMessage, MadeMessage, delivered_messages

A, B = "a" * 16, "b" * 16


def arrived(
    boot_id: str, *numbers: int, late: bool = False, topic: str = "event"
) -> list[DeliveredMessage]:
    return [
        DeliveredMessage(topic, boot_id, seq, {"seq": seq, "buffered": late}) for seq in numbers
    ]


def boot(boot_id: str, count: int, **rest: Any) -> Boot:
    made = [MadeMessage("event", seq, 100.0 + seq) for seq in range(count)]
    return replace(Boot(boot_id, made), **rest)


def predictions(boot_id: str, count: int, **rest: Any) -> Boot:
    made = [MadeMessage("substance", seq, 99.0 + seq) for seq in range(count)]
    return replace(Boot(boot_id, made), **rest)


def report(*boots: Boot, arrivals: list[DeliveredMessage], sent: int = 0) -> DeliveryReport:
    return delivery_report(boots, arrivals, sent=sent)


def test_messages_that_arrive_once_and_in_order_are_no_complaint() -> None:
    arrivals = arrived(A, 0, 1, 2) + arrived(B, 0, 1, late=True)
    found = report(boot(A, 3), boot(B, 2), arrivals=arrivals)
    assert (found.made, found.delivered, found.late, found.lost) == (5, 5, 2, 0)
    assert found.complaints == []


def test_a_message_that_never_arrives_is_lost() -> None:
    found = report(boot(A, 3), arrivals=arrived(A, 0, 2))
    assert found.lost == 1
    assert "1 were lost, but 0 counted as dropped" in found.complaints


def test_messages_made_just_before_a_kill_and_never_written_are_counted_apart() -> None:
    found = report(predictions(A, 4, killed_s=102.4), arrivals=arrived(A, 0, 1, topic="substance"))
    assert (found.unwritten, found.unwritten_s, found.lost) == (2, 1.4, 0)
    assert found.complaints == []


def test_a_prediction_that_was_unwritten_for_longer_than_claimed_is_a_complaint() -> None:
    found = report(predictions(A, 4, killed_s=104.0), arrivals=arrived(A, 0, 1, topic="substance"))
    assert found.complaints == [
        "2 messages were unwritten at a kill although they were made up to 3.0 s before, and 1 s "
        "is claimed"
    ]


def test_a_busy_machine_may_take_longer() -> None:
    arrivals = arrived(A, 0, 1, topic="substance")
    killed = predictions(A, 4, killed_s=103.2)
    assert delivery_report([killed], arrivals, sent=0, late_s=lambda *_: 3.0).complaints == []


def test_an_event_that_was_unwritten_at_a_kill_is_a_complaint() -> None:
    found = report(boot(A, 4, killed_s=103.5), arrivals=arrived(A, 0, 1, 2))
    assert found.complaints == ["1 events were unwritten at a kill"]


def test_a_message_that_was_written_and_gone_after_a_power_cut_is_a_complaint() -> None:
    cut = predictions(A, 4, killed_s=103.4, written=frozenset({(A, 3)}), power_cut=True)
    found = report(cut, arrivals=arrived(A, 0, 1, 2, topic="substance"))
    assert (found.power_cuts, found.unwritten, found.unsynced) == (1, 1, 1)
    assert found.complaints == [
        "1 messages were written and yet gone after a power cut: the database does not synchronise"
    ]


def test_a_message_that_the_file_held_at_a_kill_must_arrive() -> None:
    killed = boot(A, 4, killed_s=103.1, stored=frozenset({(A, 2)}))
    found = report(killed, arrivals=arrived(A, 0, 1))
    assert (found.unwritten, found.lost) == (1, 1)


def test_a_message_missing_before_a_delivered_one_was_not_lost_by_the_kill() -> None:
    found = report(boot(A, 4, killed_s=104.0), arrivals=arrived(A, 0, 1, 3))
    assert (found.unwritten, found.lost) == (0, 1)


def test_only_losses_that_the_outbox_counted_are_no_complaint() -> None:
    health = DeliveredMessage(
        "health", A, 9, {"outbox_dropped": 1, "frames_bad": {"binary": 4, "checksum": 1}}
    )
    found = report(boot(A, 3), arrivals=[*arrived(A, 0, 2), health])
    assert (found.lost, found.dropped, found.rejected) == (1, 1, 5)
    assert found.complaints == []
    found = report(boot(A, 3), arrivals=[*arrived(A, 0, 1, 2), health])
    assert found.complaints == ["0 were lost, but 1 counted as dropped"]


def test_the_same_message_again_is_no_duplicate_but_another_content_under_its_number_is() -> None:
    found = report(boot(A, 2), arrivals=arrived(A, 0, 1) + arrived(A, 1, late=True))
    assert (found.again, found.duplicated) == (1, 0)
    assert found.complaints == []
    (other,) = arrived(A, 1)
    other = other._replace(payload={**other.payload, "label": "mint"})
    found = report(boot(A, 2), arrivals=[*arrived(A, 0, 1), other])
    assert found.complaints == ["1 numbers were given twice"]


def test_disorder_and_messages_that_were_never_made_are_seen() -> None:
    found = report(boot(A, 3), arrivals=arrived(A, 0, 2, 1))
    assert found.complaints == ["1 arrived out of order"]
    found = report(boot(A, 1), boot(B, 1), arrivals=arrived(B, 0) + arrived(A, 0))
    assert found.disordered == 1
    found = report(boot(A, 1), arrivals=arrived(A, 0, 7))
    assert found.complaints == ["1 arrived that were never made"]


def test_a_run_in_which_nothing_was_made_proves_nothing() -> None:
    assert report(arrivals=[], sent=5).complaints == ["nothing was made"]


def test_more_readings_than_lines_are_a_complaint() -> None:
    made = [MadeMessage(topic, seq, 1.0) for seq, topic in enumerate(("event", "sample", "sample"))]
    found = report(Boot(A, made), arrivals=arrived(A, 0), sent=1)
    assert found.complaints == ["2 readings were decoded from 1 lines"]


def test_retained_messages_and_those_without_a_number_are_no_delivery() -> None:
    def received(payload: bytes, *, retained: bool = False) -> ReceivedMessage:
        return ReceivedMessage("scent/soak/event", payload, 1, retained, 0.0)

    numbered = b'{"boot_id": "b", "seq": 3}'
    messages = [received(numbered), received(numbered, retained=True), received(b"online")]
    assert [message.id for message in delivered_messages(messages)] == [("b", 3)]
