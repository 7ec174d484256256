"""The outbox: in order, bounded, nothing forgotten before the broker has it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.outbox import MemoryOutbox, Message


def message(text: str, *, topic: str = "substance", retain: bool = True) -> Message:
    return Message(topic, text, 1, retain)


def test_what_was_in_flight_waits_again_before_what_came_later() -> None:
    outbox = MemoryOutbox()
    for text in "abcd":
        outbox.put(message(text))
    first, second = outbox.take(), outbox.take()
    assert first is not None
    assert second is not None
    outbox.done(second.id)
    outbox.give_back()
    order = [entry.message.payload for entry in iter(outbox.take, None)]
    assert order == ["a", "c", "d"]
    assert outbox.depth == 3


def test_a_full_outbox_drops_the_oldest_and_counts_it() -> None:
    outbox = MemoryOutbox(limit=3)
    for text in "abcde":
        outbox.put(message(text))
    assert outbox.dropped == 2
    assert [entry.message.payload for entry in iter(outbox.take, None)] == ["c", "d", "e"]


def test_the_newest_retained_entry_of_each_topic_is_known() -> None:
    outbox = MemoryOutbox()
    outbox.put(message("a"))
    outbox.put(message("b", topic="mixture"))
    outbox.put(message("c"))
    outbox.put(message("d", topic="event", retain=False))
    assert outbox.newest_retained() == {"substance": 3, "mixture": 2}
    assert outbox.newest_id() == 4


@given(
    st.lists(
        st.sampled_from(["put", "take", "done", "give_back"]),
        max_size=60,
    ),
    st.integers(1, 6),
)
def test_every_message_is_waiting_in_flight_done_or_dropped(steps: list[str], limit: int) -> None:
    outbox = MemoryOutbox(limit)
    flying: list[int] = []
    put = done = 0
    for step in steps:
        if step == "put":
            outbox.put(message(str(put)))
            put += 1
        elif step == "take" and (entry := outbox.take()):
            flying.append(entry.id)
        elif step == "done" and flying:
            outbox.done(flying.pop(0))
            done += 1
        elif step == "give_back":
            outbox.give_back()
            flying.clear()
        assert outbox.depth <= limit
        assert outbox.depth + outbox.dropped + done == put
