"""The ring buffer against a plain list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ring import RingBuffer

BLOCK_LENGTHS = st.lists(st.integers(min_value=0, max_value=25), max_size=20)


@given(capacity=st.integers(1, 10), width=st.integers(1, 4), lengths=BLOCK_LENGTHS)
def test_every_view_equals_the_end_of_a_plain_list(
    capacity: int, width: int, lengths: list[int]
) -> None:
    """Blocks of any length, longer than the ring among them, leave the newest rows in order."""
    ring = RingBuffer(capacity, width)
    rows: list[list[float]] = []
    for length in lengths:
        block = np.arange(len(rows), len(rows) + length, dtype=np.float32)[:, None]
        block = np.repeat(block, width, axis=1)
        ring.append(block)
        rows.extend(block.tolist())
        assert len(ring) == min(capacity, len(rows))
        for count in range(len(ring) + 1):
            assert ring.view(count).tolist() == rows[len(rows) - count :]


@given(capacity=st.integers(1, 7), lengths=BLOCK_LENGTHS)
def test_pushing_rows_one_by_one_equals_appending_them(capacity: int, lengths: list[int]) -> None:
    pushed, appended = RingBuffer(capacity, 2), RingBuffer(capacity, 2)
    block = np.arange(2 * sum(lengths), dtype=np.float32).reshape(-1, 2)
    for row in block:
        pushed.push(row)
    start = 0
    for length in lengths:
        appended.append(block[start : start + length])
        start += length
    assert pushed.view(len(pushed)).tolist() == appended.view(len(appended)).tolist()


def test_a_view_is_contiguous_read_only_and_shares_the_ring_memory() -> None:
    ring = RingBuffer(5, 3)
    ring.append(np.ones((8, 3), dtype=np.float32))
    view = ring.view(5)
    assert view.flags.c_contiguous
    assert view.base is not None
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 2.0


def test_asking_for_more_rows_than_are_there_is_refused() -> None:
    ring = RingBuffer(5, 1)
    ring.push(np.zeros(1, dtype=np.float32))
    with pytest.raises(ValueError, match="2 rows was asked of a ring holding 1"):
        ring.view(2)


def test_a_cleared_ring_is_empty_and_starts_anew() -> None:
    ring = RingBuffer(3, 1)
    ring.append(np.ones((4, 1), dtype=np.float32))
    ring.clear()
    assert len(ring) == 0
    ring.push(np.full(1, 7, dtype=np.float32))
    assert ring.view(1).tolist() == [[7.0]]


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rows must be \[n, 2\], got \[4, 3\]"):
        RingBuffer(3, 2).append(np.ones((4, 3), dtype=np.float32))
