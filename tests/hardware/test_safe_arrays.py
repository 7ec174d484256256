"""Arrays from outside: every damaged or dangerous file ends in one error."""

from __future__ import annotations

import io
import random
import zipfile

import numpy as np
import pytest

from hardware.safe_arrays import ARRAYS_BYTES, read_arrays


def saved(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def test_arrays_are_read_by_name() -> None:
    read = read_arrays(saved(one=np.arange(3), two=np.float64(0.5)))
    assert read["one"].tolist() == [0, 1, 2]
    assert float(read["two"]) == 0.5


def zipped(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"no zip at all",
        b"",
        saved(objects=np.array([{"a": 1}], dtype=object)),
        zipped("a.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16),
        zipped("a.npy", b"\x93NUMPY\x09\x00"),
    ],
    ids=["text", "empty", "objects", "header", "version"],
)
def test_what_holds_no_arrays_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"no readable \.npz file"):
        read_arrays(content)


def test_arrays_that_would_fill_the_memory_are_not_read() -> None:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("big.npy", "w") as entry,
    ):
        for _ in range(ARRAYS_BYTES // (1 << 24) + 1):
            entry.write(bytes(1 << 24))
    with pytest.raises(ValueError, match="at most"):
        read_arrays(stream.getvalue())


def test_every_flipped_bit_ends_in_the_same_arrays_or_in_the_error() -> None:
    content = saved(one=np.linspace(0, 1, 50))
    draw = random.Random(22)
    for _ in range(500):
        bit = draw.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            arrays = read_arrays(bytes(flipped))
        except ValueError:
            continue
        assert all(np.array_equal(array, np.linspace(0, 1, 50)) for array in arrays.values())
