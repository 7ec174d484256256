"""Ground floor: the checksum of our own line dialect.

May import the standard library alone. The firmware computes the same function in
`hardware/firmware/scentboard/scent_line.h`; `docs/serial-protocol.md` lists test vectors for both.
"""

from __future__ import annotations

from binascii import crc_hqx

CRC16_START = 0xFFFF


def crc16(data: bytes) -> int:
    """Return the CRC-16/CCITT-FALSE of `data`.

    Polynomial 0x1021, start value 0xFFFF, nothing reflected or inverted: `binascii.crc_hqx` with
    another start value than its usual 0.

    Examples
    --------
    >>> hex(crc16(b"123456789"))
    '0x29b1'
    """
    return crc_hqx(data, CRC16_START)
