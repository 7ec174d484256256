"""The picture of a recording: whole, escaped, self-contained, and of bounded size."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from daemon.cli import main
from daemon.recording.picture import POINTS, Picture, picture_page
from hardware.encoding import encode_csv, encode_csv_header
from models.decision_spec import State
from models.results import Prediction
from tests.sandbox import Odours

if TYPE_CHECKING:
    from pathlib import Path

NO2 = 0


def svg_of(page: str) -> ET.Element:
    match = re.search(r"<svg.*?</svg>", page, re.DOTALL)
    assert match is not None
    return ET.fromstring(match[0])  # noqa: S314 - our own


def test_a_replay_draws_channels_states_and_names(
    tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "<b>lemon.csv"
    rows = Odours(((None, 60), (NO2, 120), (None, 900)))
    lines = [encode_csv(row, 1000 * number) for number, row in enumerate(rows)]
    recording.write_bytes(encode_csv_header(timestamps=True) + b"".join(lines))
    page = tmp_path / "lemon.html"
    arguments = ["replay", str(recording), "--model", str(toy_substances), "--html", str(page)]
    assert main(arguments) == 0
    assert "lemon" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "&lt;b&gt;lemon.csv" in text
    assert "http" not in text
    assert "<script" not in text
    assert "above clean air" in text
    drawing = svg_of(text)
    titles = {item.text or "" for item in drawing.iter("title")}
    assert "NO2" in titles
    assert any(title.startswith("recognised, ") for title in titles)
    assert any(title.startswith("lemon, ") for title in titles)
    (line,) = [item for item in drawing.iter("path") if item[0].text == "NO2"]
    assert 400 < line.attrib["d"].count("L") <= POINTS


def test_a_state_is_drawn_until_the_next_one() -> None:
    picture = Picture("a.csv", 10, "substance")
    for t_ms, state, label in (
        (0, State.AMBIENT, None),
        (5000, State.RECOGNISED, "tea & milk"),
        (6000, State.RECOGNISED, "tea & milk"),
        (9000, State.RECOVERING, None),
    ):
        picture.add_prediction(Prediction("substance", "toy", t_ms, 0, state, label=label))
        picture.add_prediction(Prediction("mixture", "toy", t_ms, 0, State.SENSING))
    assert [t_s for t_s, _ in picture._names] == [0, 5, 9]
    assert [state for _, state in picture._states] == [
        State.AMBIENT, State.RECOGNISED, State.RECOVERING,
    ]  # fmt: skip
    assert picture_page([picture]).count("<section>") == 1
