"""The encoder: every dialect returns the encoded bits, and numbers are short."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.encoding import (
    encode_csv,
    encode_csv_header,
    encode_labelled,
    encode_scent,
    format_number,
)
from hardware.errors import UsageError
from hardware.readings import range_quality
from tests.hardware.protocol_lines import GOOD, decode, decode_one

FLOAT32 = st.floats(width=32, allow_nan=False)
ROWS = st.lists(st.one_of(FLOAT32, st.just(math.nan)), min_size=12, max_size=12)


def same_bits(first: object, second: object) -> bool:
    return np.asarray(first, np.float32).tobytes() == np.asarray(second, np.float32).tobytes()


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_every_dialect_decodes_to_the_encoded_bits(row: list[float]) -> None:
    values = np.array(row, np.float32)
    values[np.isnan(values)] = np.nan  # one NaN: payload bits are not transmitted
    csv_lines = encode_csv_header(timestamps=False) + encode_csv(values)
    for line in (encode_scent(1, 2, values), encode_labelled(values), csv_lines):
        [frame] = decode(line)[0]
        assert same_bits(frame.values, values)
        assert frame.quality.tobytes() == range_quality(values).tobytes()


@given(FLOAT32)
def test_a_number_is_never_longer_than_numpy_writes_it(value: float) -> None:
    text = format_number(value)
    assert same_bits(float(text), value)
    if math.isfinite(value) and not value.is_integer():
        shortest = np.format_float_scientific(np.float32(value), unique=True, trim="-")
        digits = text.lstrip("-").split("e")[0].replace(".", "").strip("0")
        fewest = shortest.lstrip("-").split("e")[0].replace(".", "").strip("0")
        assert len(digits) <= max(len(fewest), 9)
        assert len(digits) >= len(fewest)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (216.0, "216"),
        (25.53, "25.53"),
        (-48.33, "-48.33"),
        (4294967295.0, "4294967296"),
        (0.1, "0.1"),
        (-0.0, "-0"),
        (1e20, "1e+20"),
        (16777215.0, "16777215"),
        (math.nan, ""),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_are_written_in_their_usual_form(value: float, text: str) -> None:
    assert format_number(value) == text


def test_counters_wrap_as_the_boards_do() -> None:
    frame = decode_one(encode_scent(2**32 + 5, 2**32 + 6, GOOD))
    assert (frame.frame_seq, frame.device_ms) == (5, 6)


def test_the_labelled_encoder_uses_the_upstream_names() -> None:
    line = encode_labelled(GOOD)
    assert line.startswith(b"NO2:216,C2H50H:305,")
    assert b"BME Gas Resistance (VOC):69.69," in line
    assert line.endswith(b"\r\n")


def test_encoders_refuse_what_a_line_cannot_contain() -> None:
    with pytest.raises(UsageError, match="12 values"):
        encode_scent(0, 0, GOOD[:4])
    with pytest.raises(UsageError, match="versions 1 to 2"):
        encode_scent(0, 0, GOOD, version=3)
    with pytest.raises(UsageError, match="no room"):
        encode_scent(0, 0, GOOD, mq_volts=(1, 2, 3))
    with pytest.raises(UsageError, match="3 MQ voltages"):
        encode_scent(0, 0, GOOD, version=2, mq_volts=(1, 2))
