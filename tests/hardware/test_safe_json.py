"""JSON from outside ends in values or in one error; a state file vouches for itself."""

from __future__ import annotations

import json

import pytest

from hardware.safe_json import read_json, read_state, write_state

STATE = {"active": "1.0", "before": [None, "0.9"]}


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"", b"{"])
def test_what_cannot_be_read_is_one_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(content)


def test_a_state_is_read_as_it_was_written_and_without_a_checksum() -> None:
    assert read_state(write_state(STATE)) == STATE
    assert read_state(json.dumps(STATE).encode()) == STATE
    with pytest.raises(ValueError, match="no JSON object"):
        read_state(b"[]")


def test_every_flipped_bit_of_a_state_is_found() -> None:
    content = write_state(STATE)
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            values = read_state(bytes(flipped))
        except ValueError:
            continue
        # A flip in the key or value of the checksum, or one that changes no value, as 1e5 to 1E5.
        assert values == STATE or set(values) - set(STATE)
