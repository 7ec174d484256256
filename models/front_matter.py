"""Models: the front matter that the Hugging Face hub reads at the head of a model card.

May import yaml. Pure: bytes in, bytes out.

A bundle's card has none: licence, tags and data sets belong to a publication, and a card whose
bytes changed would no longer be the one that the manifest names. So the front matter is put before
the card on its way to the hub, and taken off when a bundle from there is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

_FENCE = b"---\n"


def with_front_matter(card: bytes, content: Mapping[str, Any]) -> bytes:
    """Return a card with front matter of this content before it."""
    text: str = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=100)
    return _FENCE + text.encode() + _FENCE + card


def without_front_matter(card: bytes) -> bytes:
    """Return a card without the front matter before it, or the same card where there is none."""
    if not card.startswith(_FENCE):
        return card
    _, fence, body = card[len(_FENCE) - 1 :].partition(b"\n" + _FENCE)
    return body if fence else card
