"""The line decoder: the lines that boards send, and ways to damage them."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.channels import CHANNEL_NAMES, channel_index
from hardware.crc import crc16
from hardware.encoding import (
    encode_csv,
    encode_csv_header,
    encode_scent,
)
from hardware.frames import Quality
from hardware.protocol import MAX_LINE_BYTES, LineDecoder
from hardware.readings import range_quality
from tests.hardware.protocol_lines import (
    GOOD,
    UPSTREAM_BANNER,
    UPSTREAM_HEADER,
    UPSTREAM_ROW,
    assert_same_frames,
    changed,
    decode,
    decode_chunks,
    decode_every_way,
    decode_one,
    facts,
    scent,
)


def with_crc(body: bytes) -> bytes:
    return b"$%s*%04X\n" % (body, crc16(body))


def quality_of(frame: object, name: str) -> Quality:
    return Quality(int(frame.quality[channel_index(name)]))  # type: ignore[attr-defined]


# Our own dialect


def test_a_scent_line_gives_its_sequence_clock_and_values() -> None:
    frame = decode_one(scent(7, 700))
    assert (frame.frame_seq, frame.device_ms, frame.lost_before) == (7, 700, 0)
    assert not frame.restarted
    assert np.array_equal(frame.values, np.array(GOOD, np.float32))
    assert not frame.quality.any()


def test_frames_cannot_be_written_to() -> None:
    frame = decode_one(scent(7))
    with pytest.raises(ValueError, match="read-only"):
        frame.values[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        frame.quality[0] = 0


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends_of_all_systems_are_accepted(end: bytes) -> None:
    lines = b"".join(scent(seq).rstrip() + end for seq in range(3))
    frames, counts = decode_every_way(lines)
    assert [frame.frame_seq for frame in frames] == [0, 1, 2]
    assert counts.lines == 3


def test_a_last_line_without_newline_is_read_at_the_end_of_input() -> None:
    decoder = LineDecoder()
    assert decoder.feed(scent(1).rstrip()) == []
    assert [frame.frame_seq for frame in decoder.finish()] == [1]
    assert decoder.finish() == []


def test_an_empty_field_is_a_missing_channel() -> None:
    frame = decode_one(scent(0, values=changed(CO=math.nan)))
    assert math.isnan(frame.values[channel_index("CO")])
    assert quality_of(frame, "CO") is Quality.MISSING


def test_version_two_has_the_mq_volts_in_addition_to_the_ppm() -> None:
    line = encode_scent(3, 300, GOOD, version=2, mq_volts=(1.25, math.nan, 0.5))
    frame = decode_one(line)
    assert frame.mq_volts is not None
    assert frame.mq_volts[0] == 1.25
    assert math.isnan(frame.mq_volts[1])
    assert np.array_equal(frame.values, np.array(GOOD, np.float32))
    assert decode_one(scent(3)).mq_volts is None


def test_a_newer_version_is_counted_as_such_not_as_damage_of_another_kind() -> None:
    frames, counts = decode_every_way(with_crc(b"SCENT,9,1,100,whatever comes then"))
    assert frames == []
    assert (counts.version, counts.checksum, counts.malformed) == (1, 0, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"SCENT,1,1,100,1,2,3",
        b"SCENT,1",
        b"SCENT,",
        b"SCENT,x,1,100,1,2,3,4,5,6,7,8,9,10,11,12",
        b"SCENT,0,1,100,1,2,3,4,5,6,7,8,9,10,11,12",
        b"SCENT,1,-1,100,1,2,3,4,5,6,7,8,9,10,11,12",
        b"SCENT,1,4294967296,100,1,2,3,4,5,6,7,8,9,10,11,12",
        b"SCENT,1,1,,1,2,3,4,5,6,7,8,9,10,11,12",
        b"SCENT,1,1,100,1,2,3,4,5,6,7,8,9,10,11,twelve",
        b"SCENT,1,1,100,1,2,3,4,5,6,7,8,9,10,11,12,13",
    ],
)
def test_an_intact_line_with_wrong_fields_is_malformed(body: bytes) -> None:
    frames, counts = decode_every_way(with_crc(body))
    assert frames == []
    assert counts.malformed == 1


def test_every_changed_byte_of_a_line_is_detected() -> None:
    line = scent(12)
    for at in range(len(line) - 1):
        damaged = line[:at] + bytes([line[at] ^ 0x01]) + line[at + 1 :]
        frames, counts = decode(damaged)
        assert frames == [], f"byte {at} changed: {damaged!r}"
        assert counts.frames == 0


def test_every_truncated_line_is_dropped_and_the_next_one_read() -> None:
    line, following = scent(12), scent(13)
    for at in range(1, len(line) - 1):
        frames, counts = decode(line[:at] + b"\n" + following)
        assert [frame.frame_seq for frame in frames] == [13], f"cut at {at}"
        assert counts.damaged + counts.text == 1


def test_a_line_after_an_incomplete_line_without_newline_is_not_lost() -> None:
    frames, counts = decode_every_way(scent(1)[:30] + scent(2) + scent(3).rstrip() + scent(4))
    assert [frame.frame_seq for frame in frames] == [2, 3, 4]
    assert counts.malformed == 1
    assert counts.lines == 4


# The upstream firmware


def test_upstream_banner_header_blank_lines_and_rows_are_read() -> None:
    block = UPSTREAM_HEADER + UPSTREAM_ROW + b"\r\n" + UPSTREAM_ROW
    frames, counts = decode_every_way(UPSTREAM_BANNER + block + block)
    assert [frame.frame_seq for frame in frames] == [0, 1, 2, 3]
    assert (counts.text, counts.headers, counts.blank, counts.frames) == (2, 2, 2, 4)
    assert counts.damaged == 0
    assert all(frame.device_ms is None and frame.lost_before is None for frame in frames)


def test_an_upstream_row_is_read_by_its_labels_odd_spellings_included() -> None:
    frame = decode_one(UPSTREAM_ROW)
    by_name = dict(zip(CHANNEL_NAMES, frame.values.tolist(), strict=True))
    assert by_name["C2H5OH"] == 309
    assert by_name["Gas_Resistance"] == np.float32(81.75)
    assert by_name["Altitude"] == np.float32(-48.66)
    assert by_name["Benzene"] == math.inf
    assert quality_of(frame, "Benzene") is Quality.SATURATED
    assert frame.quality.sum() == Quality.SATURATED


def test_labels_may_come_in_any_order_and_some_be_missing() -> None:
    frame = decode_one(b"CO:826,VOC:472,NO2:215\n")
    assert frame.values[:4].tolist()[0:4:2] == [215, 472]
    assert quality_of(frame, "C2H5OH") is Quality.MISSING
    assert quality_of(frame, "CO") is Quality.OK


def test_nan_and_ovf_as_arduino_prints_them_are_missing_and_saturated() -> None:
    frame = decode_one(b"NO2:215,C2H50H:309,VOC:472,CO:826,Alcohol:nan,LPG:ovf,Benzene:-inf\n")
    assert quality_of(frame, "Alcohol") is Quality.MISSING
    assert quality_of(frame, "LPG") is Quality.SATURATED
    assert quality_of(frame, "Benzene") is Quality.OUT_OF_RANGE


def test_a_fatal_message_of_the_board_is_text() -> None:
    frames, counts = decode_every_way(
        b"Could not find a valid BME680 sensor, check wiring!\r\nVoltage: 5\r\nE (33) gpio: 3, 4\n"
    )
    assert frames == []
    assert counts.text + counts.malformed == counts.lines == 3
    assert counts.text >= 1


@pytest.mark.parametrize("cut_at", [b"Humidity", b":28.11", b"8.11"])
def test_two_labelled_rows_without_newline_are_not_one_reading(cut_at: bytes) -> None:
    frames, counts = decode_every_way(UPSTREAM_ROW.partition(cut_at)[0] + UPSTREAM_ROW)
    assert frames == []
    assert counts.malformed == 1


def test_a_message_that_mentions_a_channel_is_no_reading() -> None:
    frames, _ = decode_every_way(b"free:120,used:80,VOC:3,uptime:7,errors:0\n")
    assert frames == []


def test_a_board_that_reboots_into_other_firmware_is_followed() -> None:
    decoder = LineDecoder()
    first = decoder.feed(scent(900) + scent(901))
    assert decoder.dialect == "scent"
    second = decoder.feed(UPSTREAM_BANNER + UPSTREAM_HEADER + UPSTREAM_ROW + UPSTREAM_ROW)
    assert decoder.dialect == "labelled"
    third = decoder.feed(scent(0))
    assert decoder.dialect == "scent"
    restarted = [frame.restarted for frame in first + second + third]
    assert restarted == [False, False, True, False, True]
    assert [frame.frame_seq for frame in second] == [0, 1]


# CSV


def test_csv_columns_are_found_by_name_in_any_order() -> None:
    frames, counts = decode_every_way(b"CO,noise,NO2,c2h5ch\n700,1,98,300\n")
    [frame] = frames
    assert frame.values[:4].tolist()[:2] == [98, 300]
    assert frame.values[channel_index("CO")] == 700
    assert quality_of(frame, "VOC") is Quality.MISSING
    assert counts.headers == 1


def test_the_mixture_layout_has_a_clock_in_milliseconds() -> None:
    frames, _ = decode_every_way(
        b"timestamp_ms,NO2,C2H5CH,VOC,CO\n0.0,862.0,955.3,915.0,1002.0\n100.0,862.0,953.0,913.2,1002\n"
    )
    assert [frame.device_ms for frame in frames] == [0, 100]
    assert frames[0].values[1] == np.float32(955.3)
    assert all(quality_of(frames[0], name) is Quality.MISSING for name in CHANNEL_NAMES[4:])


def test_rows_before_any_header_are_in_the_tables_order_if_there_are_twelve() -> None:
    row = encode_csv(GOOD)
    frames, counts = decode_every_way(row + b"1,2,3\n" + row)
    assert [frame.values.tolist() for frame in frames] == [np.float32(GOOD).tolist()] * 2
    assert counts.malformed == 1


def test_twelve_numbers_below_a_header_of_other_columns_are_no_reading() -> None:
    header = ",".join(f"sensor_{i}" for i in range(12)).encode()
    frames, counts = decode_every_way(header + b"\n" + encode_csv(GOOD))
    assert frames == []
    assert counts.malformed == 1


def test_a_header_may_name_a_timestamp_that_the_rows_lack() -> None:
    header = b"timestamp," + encode_csv_header(timestamps=False)
    frames, counts = decode_every_way((header + encode_csv(GOOD)) * 3)
    assert [frame.values[0] for frame in frames] == [216, 216, 216]
    assert counts.headers == 3


def test_a_timestamp_without_unit_is_no_clock() -> None:
    header = b"timestamp," + encode_csv_header(timestamps=False)
    frames, counts = decode_every_way(header + b"2025-01-01 12:00:07," + encode_csv(GOOD))
    assert counts.malformed == 0
    assert [frame.device_ms for frame in frames] == [None]
    assert frames[0].values[0] == 216


def test_a_row_that_lost_a_field_is_not_shifted_into_the_wrong_columns() -> None:
    good = encode_csv(GOOD, 1000)
    cut = b",".join(good.rstrip().split(b",")[:-1]) + b"\n"
    frames, counts = decode_every_way(encode_csv_header() + good + cut + good)
    assert len(frames) == 2
    assert counts.malformed == 1


def test_a_repeated_header_does_not_change_the_expected_columns() -> None:
    good = encode_csv(GOOD, 1000)
    cut = b",".join(good.rstrip().split(b",")[:-1]) + b"\n"
    frames, counts = decode_every_way((encode_csv_header() + good) * 2 + encode_csv_header() + cut)
    assert len(frames) == 2
    assert counts.malformed == 1


def test_a_header_of_mostly_other_columns_is_no_header() -> None:
    frames, counts = decode_every_way(b"id,label,room,operator,NO2\n5,5,5,5,5\n")
    assert frames == []
    assert counts.headers == 0


def test_of_two_times_the_one_with_a_unit_counts() -> None:
    frames, _ = decode_every_way(b"timestamp,timestamp_ms,NO2\n5,600,7\n")
    assert [(frame.device_ms, frame.values[0]) for frame in frames] == [(600, 7)]


def test_a_repeated_column_is_read_where_both_agree() -> None:
    frames, counts = decode_every_way(b"NO2,C2H5OH,C2H50H,CO\n5,6,6,7\n5,6,8,7\n5,6,6,9\n")
    assert [frame.values[3] for frame in frames] == [7, 9]
    assert counts.malformed == 1


@pytest.mark.parametrize("header", [b"\xef\xbb\xbfNO2,C2H5OH,VOC,CO", b'"NO2","C2H5OH","VOC","CO"'])
def test_columns_are_found_despite_a_byte_order_mark_or_quotes(header: bytes) -> None:
    frames, _ = decode_every_way(header + b"\r\n1,2,3,4\r\n")
    assert frames[0].values[:4].tolist() == [1, 2, 3, 4]


def test_start_up_garbage_is_kept_as_sent_and_marked() -> None:
    garbage = b"0,1000,0,1023,-12.5,4294967295,inf,0,0,0,0,3170.54\n"
    frames, _ = decode_every_way(encode_csv_header(timestamps=False) + garbage)
    judged = [Quality(int(quality)) for quality in frames[0].quality]
    assert judged == [
        Quality.OUT_OF_RANGE,
        Quality.OK,
        Quality.OUT_OF_RANGE,
        Quality.SATURATED,
        Quality.OUT_OF_RANGE,
        Quality.SATURATED,
        Quality.SATURATED,
        Quality.OK,
        Quality.OUT_OF_RANGE,
        Quality.OK,
        Quality.OUT_OF_RANGE,
        Quality.OK,
    ]


@pytest.mark.parametrize("row", [b"1_0", b"0x10", b"1 2", b"--1", b"1e", b"\xd9\xa3"])
def test_numbers_that_only_python_accepts_are_rejected(row: bytes) -> None:
    frames, counts = decode(b"NO2,CO\n" + row + b",5\n")
    assert frames == []
    assert counts.frames == 0


def test_a_labelled_value_that_only_python_reads_is_damage() -> None:
    frames, counts = decode(b"NO2:2_15,C2H50H:309,VOC:472,CO:826\n")
    assert frames == []
    assert counts.malformed == 1


def test_a_number_beyond_float32_is_infinite() -> None:
    frames, _ = decode(b"NO2,CO,LPG\n5,5,1e300\n")
    assert frames[0].values[channel_index("LPG")] == math.inf


# Quality


@pytest.mark.parametrize("name", CHANNEL_NAMES)
def test_an_absent_value_is_missing_and_an_infinite_one_saturated(name: str) -> None:
    for value, expected in ((math.nan, Quality.MISSING), (math.inf, Quality.SATURATED)):
        quality = range_quality(np.array(changed(**{name: value}), np.float32))
        assert quality[channel_index(name)] == expected
        assert np.count_nonzero(quality) == 1


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("NO2", 0, Quality.OUT_OF_RANGE),
        ("NO2", 1, Quality.OK),
        ("CO", 1022, Quality.OK),
        ("CO", 1023, Quality.SATURATED),
        ("LPG", -1, Quality.OUT_OF_RANGE),
        ("LPG", 0, Quality.OK),
        ("Benzene", 4294967295, Quality.SATURATED),
        ("Gas_Resistance", 0, Quality.OUT_OF_RANGE),
        ("Temperature", -41, Quality.OUT_OF_RANGE),
    ],
)
def test_ends_of_scale_have_the_quality_of_the_channel_table(
    name: str, value: float, expected: Quality
) -> None:
    quality = range_quality(np.array(changed(**{name: value}), np.float32))
    assert quality[channel_index(name)] == expected


# Damage


@pytest.mark.parametrize(
    ("noise", "kind"),
    [
        (b"hello there\n", "text"),
        (b"\xff\xfe\x80garbage\n", "binary"),
        (b"\x00\x00\x00\n", "binary"),
        (b"   \n", "blank"),
        (b"$SCENT,1,5,50\n", "malformed"),
        (b"216,305,\n", "malformed"),
        (scent(1).replace(b"830", b"831"), "checksum"),
        (b"x" * (MAX_LINE_BYTES + 1) + b"\n", "overlong"),
        (with_crc(b"SCENT,3,1,2,3"), "version"),
    ],
)
def test_good_bad_good_gives_both_good_frames_and_one_count(noise: bytes, kind: str) -> None:
    frames, counts = decode_every_way(scent(1) + noise + scent(2))
    assert [frame.frame_seq for frame in frames] == [1, 2]
    assert getattr(counts, kind) == 1
    assert counts.lines == 3


def test_a_line_of_exactly_the_limit_is_read_and_one_byte_more_is_dropped() -> None:
    padding = MAX_LINE_BYTES - len(UPSTREAM_ROW.rstrip())
    at_limit = UPSTREAM_ROW.rstrip().replace(b"NO2:", b"NO2:" + b" " * padding)
    assert len(decode_every_way(at_limit + b"\n")[0]) == 1
    frames, counts = decode_every_way(at_limit + b" \n")
    assert frames == []
    assert counts.overlong == 1


def test_ten_megabytes_without_newline_use_no_memory_and_count_as_one_line() -> None:
    decoder = LineDecoder()
    chunk = b"\x55" * 65536
    tracemalloc.start()
    try:
        for _ in range(160):
            assert decoder.feed(chunk) == []
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 64 * 1024
    assert peak < 1024 * 1024
    assert decoder.counts.overlong == decoder.counts.lines == 1
    assert [frame.frame_seq for frame in decoder.feed(b"\n" + scent(4))] == [4]


# Any bytes, any chunking

PIECES = st.sampled_from(
    [
        UPSTREAM_BANNER,
        UPSTREAM_HEADER,
        UPSTREAM_ROW,
        UPSTREAM_ROW[:40],
        encode_csv_header(),
        encode_csv_header(timestamps=False),
        encode_csv(GOOD),
        encode_csv(GOOD, 500),
        scent(1),
        scent(2),
        scent(7),
        scent(1)[:25],
        scent(3)[20:],
        b"timestamp_ms,NO2,C2H5CH,VOC,CO\n",
        b"100.0,862.0,953.0,913.2,1002.0\r",
        b"\n",
        b"\r",
        b"\r\n",
        b"$SCENT,",
        b"\x80\x00",
        b"a" * 300,
        b",",
        b":",
        b"*0000",
    ]
)
STREAMS = st.lists(st.one_of(PIECES, st.binary(max_size=20)), max_size=30).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(data=STREAMS, cuts=st.lists(st.integers(0, 4000), max_size=20))
def test_any_chunking_gives_the_same_frames_and_counts(data: bytes, cuts: list[int]) -> None:
    whole, whole_counts = decode(data)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    cut_up, cut_up_counts = decode_chunks(pieces)
    assert_same_frames(whole, cut_up)
    assert whole_counts == cut_up_counts


@settings(max_examples=300, deadline=None)
@given(STREAMS)
def test_every_line_is_counted_once_under_one_kind(data: bytes) -> None:
    frames, counts = decode(data)
    kinds = counts.frames + counts.duplicates + counts.blank + counts.headers + counts.text
    assert counts.lines == kinds + counts.damaged
    assert counts.frames == len(frames)


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=200), seq=st.integers(0, 2**32 - 1))
def test_after_any_noise_the_next_line_is_read(noise: bytes, seq: int) -> None:
    frames, _ = decode(noise + b"\n" + scent(seq, 5))
    assert frames[-1].frame_seq == seq


def test_the_comparison_of_frames_detects_differences() -> None:
    """The chunking tests need a comparison that detects differences."""
    assert facts(decode_one(scent(1))) != facts(decode_one(scent(2)))
    assert facts(decode_one(scent(1))) != facts(decode_one(scent(1, values=changed(CO=5))))
