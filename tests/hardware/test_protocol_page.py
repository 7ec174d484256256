"""The page for firmware authors agrees with the code."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from pathlib import Path

import pytest

from hardware.channels import CHANNELS, channel_index
from hardware.encoding import LATEST_VERSION, encode_scent
from hardware.mq_curves import MQ_CURVES
from hardware.protocol import MAX_LINE_BYTES, LineCounts, LineDecoder

PAGE = (Path(__file__).parents[2] / "docs" / "serial-protocol.md").read_text(encoding="utf-8")
VECTORS = PAGE.partition("```scent-vectors\n")[2].partition("```")[0].splitlines()


def test_the_page_has_vectors_of_every_version() -> None:
    versions = {line.split(",")[1] for line in VECTORS}
    assert versions == {str(version) for version in range(1, LATEST_VERSION + 1)}


@pytest.mark.parametrize("line", VECTORS)
def test_every_vector_is_decoded_and_encoded_to_the_same_bytes(line: str) -> None:
    [frame] = LineDecoder().feed(line.encode() + b"\n")
    version = int(line.split(",")[1])
    assert frame.device_ms is not None
    again = encode_scent(
        frame.frame_seq,
        frame.device_ms,
        frame.values,
        version=version,
        mq_volts=frame.mq_volts,
    )
    assert again.decode().rstrip() == line


def test_the_page_describes_the_vectors_correctly() -> None:
    frames = [LineDecoder().feed(line.encode() + b"\n")[0] for line in VECTORS]
    assert frames[1].frame_seq == frames[1].device_ms == 2**32 - 1
    assert math.isinf(frames[1].values[6])
    assert all(math.isnan(value) for value in frames[1].values[7:])
    assert frames[2].mq_volts is not None
    assert math.isnan(frames[2].mq_volts[2])


def test_the_table_of_values_is_the_channel_table() -> None:
    rows = re.findall(r"^\| (\d+) \| (\S+) \| (\S+) \| ([^|]+) \|", PAGE, re.MULTILINE)
    assert [(int(number), name, part) for number, name, part, _ in rows] == [
        (index + 1, channel.name, channel.device) for index, channel in enumerate(CHANNELS)
    ]
    for channel, (_, _, _, unit) in zip(CHANNELS, rows, strict=True):
        assert channel.unit in unit


def test_limits_and_kinds_of_damage_are_those_of_the_decoder() -> None:
    assert f"{MAX_LINE_BYTES} bytes" in PAGE
    table = PAGE.partition("## Kinds of damage")[2]
    named = set(re.findall(r"`(\w+)`", table))
    assert {field.name for field in fields(LineCounts)} - {"lines"} <= named


def test_the_page_says_by_which_curve_each_mq_column_is_named() -> None:
    for name, curve in MQ_CURVES.items():
        device = CHANNELS[channel_index(name)].device
        row = rf"^\| {name} \| {device} \| its curve for [a-z ]+ \| {curve.a:g} \| {curve.b:g} \|"
        assert re.search(row, PAGE, re.MULTILINE), row
