"""The checksum, compared with the published check value and its definition bit by bit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hardware.crc import crc16


def crc16_bit_by_bit(data: bytes) -> int:
    register = 0xFFFF
    for byte in data:
        register ^= byte << 8
        for _ in range(8):
            register = (register << 1) ^ (0x1021 if register & 0x8000 else 0)
            register &= 0xFFFF
    return register


def test_the_published_check_value_is_computed() -> None:
    assert crc16(b"123456789") == 0x29B1


@given(st.binary(max_size=64))
def test_any_bytes_agree_with_the_definition(data: bytes) -> None:
    assert crc16(data) == crc16_bit_by_bit(data)
