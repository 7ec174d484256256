"""Sample lines and chunkings for the tests of the line protocol."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hardware.channels import channel_index
from hardware.encoding import encode_scent
from hardware.protocol import LineCounts, LineDecoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hardware.frames import SensorFrame

GOOD = (216.0, 305.0, 494.0, 830.0, 2.0, 38.0, 3.0, 25.53, 1022.84, 27.95, 69.69, -48.33)

UPSTREAM_BANNER = b"test\r\nSetting up sensors...\r\n"
UPSTREAM_HEADER = (
    b"timestamp,NO2,C2H50H,VOC,CO,Alcohol,LPG,Benzene,Temperature,Pressure,Humidity,"
    b"BME Gas Resistance (VOC),Altitude\r\n"
)
UPSTREAM_ROW = (
    b"NO2:215,C2H50H:309,VOC:472,CO:826,Alcohol:3.00,LPG:31.20,Benzene:inf,Temperature:25.50,"
    b"Pressure:1022.89,Humidity:28.11,BME Gas Resistance (VOC):81.75,Altitude:-48.66\r\n"
)


def decode(data: bytes) -> tuple[list[SensorFrame], LineCounts]:
    """Decode a whole input at once."""
    return decode_chunks([data])


def decode_chunks(chunks: Iterable[bytes]) -> tuple[list[SensorFrame], LineCounts]:
    decoder = LineDecoder()
    frames = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    frames += decoder.finish()
    return frames, decoder.counts


def decode_every_way(data: bytes) -> tuple[list[SensorFrame], LineCounts]:
    """Decode whole and byte by byte, check that both agree, and return the result."""
    whole, whole_counts = decode(data)
    bytewise, bytewise_counts = decode_chunks(data[i : i + 1] for i in range(len(data)))
    assert_same_frames(whole, bytewise)
    assert whole_counts == bytewise_counts
    return whole, whole_counts


def decode_one(line: bytes) -> SensorFrame:
    """Feed one line whole, byte by byte (silent until complete), and with trailing bytes."""
    whole = LineDecoder().feed(line)
    assert len(whole) == 1, f"expected one frame from {line!r}"

    bytewise = LineDecoder()
    body, end = line.rstrip(b"\r\n"), line[len(line.rstrip(b"\r\n")) :]
    for i in range(len(body)):
        assert bytewise.feed(body[i : i + 1]) == []
    assert_same_frames([f for i in range(len(end)) for f in bytewise.feed(end[i : i + 1])], whole)

    trailed = LineDecoder()
    assert_same_frames(trailed.feed(line + b"tail of the ne"), whole)
    return whole[0]


def assert_same_frames(first: list[SensorFrame], second: list[SensorFrame]) -> None:
    """Compare frames by every field, arrays by their bytes (so that NaN equals NaN)."""
    assert [facts(frame) for frame in first] == [facts(frame) for frame in second]


def facts(frame: SensorFrame) -> tuple[object, ...]:
    volts = frame.mq_volts
    return (
        frame.frame_seq,
        frame.device_ms,
        frame.values.tobytes(),
        frame.quality.tobytes(),
        frame.lost_before,
        frame.restarted,
        None if volts is None else tuple("nan" if math.isnan(v) else v for v in volts),
    )


def scent(seq: int, device_ms: int | None = None, values: tuple[float, ...] = GOOD) -> bytes:
    return encode_scent(seq, seq * 100 if device_ms is None else device_ms, values)


def changed(**by_name: float) -> tuple[float, ...]:
    values = list(GOOD)
    for name, value in by_name.items():
        values[channel_index(name)] = value
    return tuple(values)
