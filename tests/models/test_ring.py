"""The ring buffer, compared with a plain list."""

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
    """After blocks of any length, also longer than the ring, it has the newest rows in order."""
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
def test_appending_rows_one_by_one_equals_appending_blocks(
    capacity: int, lengths: list[int]
) -> None:
    singly, in_blocks = RingBuffer(capacity, 2), RingBuffer(capacity, 2)
    block = np.arange(2 * sum(lengths), dtype=np.float32).reshape(-1, 2)
    for row in block:
        singly.append(row[np.newaxis])
    start = 0
    for length in lengths:
        in_blocks.append(block[start : start + length])
        start += length
    assert singly.view(len(singly)).tolist() == in_blocks.view(len(in_blocks)).tolist()


def test_a_view_is_contiguous_read_only_and_shares_the_ring_memory() -> None:
    ring = RingBuffer(5, 3)
    ring.append(np.ones((8, 3), dtype=np.float32))
    view = ring.view(5)
    assert view.flags.c_contiguous
    assert view.base is not None
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 2.0


def test_a_view_of_more_rows_than_there_are_is_refused() -> None:
    ring = RingBuffer(5, 1)
    ring.append(np.zeros((1, 1), dtype=np.float32))
    with pytest.raises(ValueError, match="2 rows was requested from a ring of 1"):
        ring.view(2)


def test_a_cleared_ring_is_empty_and_can_be_filled_again() -> None:
    ring = RingBuffer(3, 1)
    ring.append(np.ones((4, 1), dtype=np.float32))
    ring.clear()
    assert len(ring) == 0
    ring.append(np.full((1, 1), 7, dtype=np.float32))
    assert ring.view(1).tolist() == [[7.0]]


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rows must be \[n, 2\], got \[4, 3\]"):
        RingBuffer(3, 2).append(np.ones((4, 3), dtype=np.float32))
