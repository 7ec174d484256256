"""Ground floor: texts that end with a checksum of themselves, so that a changed byte is found.

May import the standard library alone.
"""

from __future__ import annotations

import hashlib
import re

CHECKSUM = "sha256"


def with_checksum(text: bytes, key: str = CHECKSUM) -> bytes:
    """Return a YAML mapping with the SHA-256 of its text as its last line."""
    return text + f"{key}: {hashlib.sha256(text).hexdigest()}\n".encode()


def checksum_is_right(data: bytes, key: str = CHECKSUM) -> bool:
    """Tell whether a text ends with the right checksum of what comes before it."""
    match = re.search(rb"^%s: ([0-9a-f]{64})\n\Z" % key.encode(), data, re.MULTILINE)
    return match is not None and (
        hashlib.sha256(data[: match.start()]).hexdigest().encode() == match[1]
    )
