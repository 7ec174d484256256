"""The frame counter: losses, repeats, wraps and restarts, through the decoder."""

from __future__ import annotations

import pytest

from tests.hardware.protocol_lines import decode_every_way, scent


def test_missing_numbers_are_lost_frames() -> None:
    frames, counts = decode_every_way(scent(5) + scent(6) + scent(10))
    assert [frame.lost_before for frame in frames] == [0, 0, 3]
    assert counts.lost == 3


def test_the_counter_wraps_without_loss() -> None:
    frames, counts = decode_every_way(scent(2**32 - 1, 100) + scent(0, 200) + scent(2, 400))
    assert [frame.lost_before for frame in frames] == [0, 0, 1]
    assert not any(frame.restarted for frame in frames)
    assert counts.restarts == 0


def test_a_repeated_line_is_dropped_and_counted() -> None:
    frames, counts = decode_every_way(scent(5) + scent(6) + scent(6) + scent(5) + scent(7))
    assert [frame.frame_seq for frame in frames] == [5, 6, 7]
    assert counts.duplicates == 2
    assert counts.lost == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((5000, 500_000), (0, 40)),
        ((3, 340), (0, 45)),  # rebooted after a few frames
        ((3, 340), (3, 355)),  # to the same number, at another time
        ((10, 90_000), (14, 1500)),  # the numbers continued, but the clock started anew
        ((4_294_960_000, 500), (20, 3000)),  # a wrap would mean 7,000 lost frames
    ],
)
def test_a_restart_of_the_board_is_reported(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    frames, counts = decode_every_way(scent(*before) + scent(*after))
    assert [frame.restarted for frame in frames] == [False, True]
    assert frames[1].lost_before == 0
    assert counts.restarts == 1
    assert counts.lost == 0


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "first line damaged"])
def test_a_board_that_restarts_twice_with_the_same_clock_loses_no_reading(damaged: bool) -> None:
    banner = b"Setting up sensors...\r\n"
    boot = banner + (b"$SCENT,1,0,4" if damaged else scent(0, 40)) + scent(1, 140) + scent(2, 240)
    frames, counts = decode_every_way(scent(7, 9000) + boot + boot + boot)
    per_boot = [1, 2] if damaged else [0, 1, 2]
    assert [frame.frame_seq for frame in frames] == [7, *per_boot * 3]
    assert counts.duplicates == 0
    assert counts.restarts == 3


def test_text_between_repeats_of_later_lines_is_no_restart() -> None:
    frames, counts = decode_every_way(scent(5) + scent(6) + b"hello\r\n" + scent(6) + scent(7))
    assert [frame.frame_seq for frame in frames] == [5, 6, 7]
    assert (counts.duplicates, counts.restarts) == (1, 0)


def test_a_clock_that_jumps_back_between_consecutive_frames_is_no_restart() -> None:
    frames, _ = decode_every_way(scent(30, 3000) + scent(31, 50) + scent(32, 150))
    assert not any(frame.restarted for frame in frames)


def test_a_clock_that_wraps_is_no_restart() -> None:
    frames, _ = decode_every_way(scent(30, 2**32 - 50) + scent(33, 250))
    assert [frame.restarted for frame in frames] == [False, False]
    assert frames[1].lost_before == 2
