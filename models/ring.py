"""Models: a ring buffer of float32 rows whose windows are always one contiguous view.

May import numpy. Must know nothing of channels, rates or models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RingBuffer:
    """The newest `capacity` rows of a stream, each written twice.

    A row at slot i is written at i and at i + capacity of an array twice as long. The newest n
    rows therefore always end at slot head + capacity without wrapping, so a window is a view,
    never a copy. The second write of a few dozen bytes costs less than a copy of a window.

    Parameters
    ----------
    capacity: rows kept; at least 1.
    width: numbers per row; at least 1.
    """

    __slots__ = ("_capacity", "_head", "_length", "_readable", "_rows", "_width")

    def __init__(self, capacity: int, width: int) -> None:
        if capacity < 1 or width < 1:
            raise ValueError(
                f"RingBuffer needs a capacity and a width of at least 1, got {capacity} and {width}"
            )
        self._capacity = capacity
        self._width = width
        self._rows: NDArray[np.float32] = np.zeros((2 * capacity, width), dtype=np.float32)
        # Slices of a read-only view are read-only: no flag to set on every window.
        self._readable = self._rows.view()
        self._readable.flags.writeable = False
        self._head = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, rows: NDArray[np.float32]) -> None:
        """Add rows in time order, float32[n, width]; at most the last `capacity` are kept."""
        if rows.shape[1:] != (self._width,):
            raise ValueError(f"rows must be [n, {self._width}], got {list(rows.shape)}")
        kept = rows[-self._capacity :]
        count = len(kept)
        before_wrap = min(count, self._capacity - self._head)
        self._write(self._head, kept[:before_wrap])
        self._write(0, kept[before_wrap:])
        self._head = (self._head + count) % self._capacity
        self._length = min(self._capacity, self._length + count)

    def view(self, count: int) -> NDArray[np.float32]:
        """Return the newest `count` rows, oldest first, as a read-only contiguous view.

        The view changes once `capacity - count` more rows are added: copy what must last.

        Raises
        ------
        ValueError: when fewer than `count` rows are there.
        """
        if not 0 <= count <= self._length:
            raise ValueError(f"a view of {count} rows was requested from a ring of {self._length}")
        end = self._head + self._capacity
        return self._readable[end - count : end]

    def clear(self) -> None:
        """Remove all rows."""
        self._head = 0
        self._length = 0

    def _write(self, start: int, block: NDArray[np.float32]) -> None:
        """Write `block`, which does not wrap, at `start` and at its double."""
        stop = start + len(block)
        self._rows[start:stop] = block
        self._rows[start + self._capacity : stop + self._capacity] = block
