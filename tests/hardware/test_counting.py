"""Numbers with their nouns in messages."""

from __future__ import annotations

import pytest

from hardware.counting import counted


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 windows"),
        (1, "1 window"),
        (2, "2 windows"),
        (1.0, "1 window"),
        (1.0004, "1 window"),
        (0.25, "0.25 windows"),
    ],
)
def test_the_noun_agrees_with_the_number_as_shown(number: float, text: str) -> None:
    assert counted(number, "window") == text
