"""A text with a checksum of itself as its last line."""

from __future__ import annotations

from hardware.checksum_line import checksum_is_right, with_checksum


def test_every_changed_byte_is_found() -> None:
    text = with_checksum(b"labels: [mint]\nversion: 3\n")
    assert checksum_is_right(text)
    for place in range(len(text)):
        changed = text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :]
        assert not checksum_is_right(changed)
    assert not checksum_is_right(text + b"more: true\n")
    assert not checksum_is_right(b"labels: [mint]\n")
