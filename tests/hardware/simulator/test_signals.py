"""Signals: replayed recordings and synthetic odours, as rows of readings."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hardware.channels import CHANNELS, GROVE_FULL_SCALE, GROVE_INDICES, Part, channel_index
from hardware.errors import UsageError
from hardware.recording import read_recording
from hardware.simulator.signals import ReplaySignal, SyntheticSignal
from hardware.simulator.tables import load_board

if TYPE_CHECKING:
    from pathlib import Path

    from hardware.recording import Recording
    from hardware.simulator.signals import Signal


def _rows(signal: Signal, n: int | None = None) -> np.ndarray:
    return np.array(list(islice(iter(signal), n)))


@pytest.fixture
def substance_recording(tmp_path: Path) -> Recording:
    rows = _rows(SyntheticSignal("almond:40", seed=5))
    path = tmp_path / "almond.csv"
    header = ",".join(channel.name for channel in CHANNELS)
    np.savetxt(path, rows, delimiter=",", header=header, comments="", fmt="%.2f")
    return read_recording(path)


@pytest.fixture
def mixture_recording(tmp_path: Path) -> Recording:
    rows = _rows(SyntheticSignal("peach:6", seed=5, board="mixtures"))
    path = tmp_path / "peach.csv"
    table = np.column_stack([100.0 * np.arange(len(rows)), rows[:, :4]])
    np.savetxt(
        path, table, delimiter=",", header="timestamp_ms,NO2,C2H5CH,VOC,CO", comments="", fmt="%.1f"
    )
    return read_recording(path)


def test_a_recording_is_played_as_it_is(substance_recording: Recording) -> None:
    signal = ReplaySignal(substance_recording)
    assert signal.rate_hz == 1.0
    np.testing.assert_array_equal(_rows(signal), substance_recording.values)


def test_the_mixture_layout_plays_at_its_own_rate_with_absent_channels(
    mixture_recording: Recording,
) -> None:
    signal = ReplaySignal(mixture_recording)
    assert signal.rate_hz == 10.0
    np.testing.assert_array_equal(_rows(signal), mixture_recording.values)
    assert np.isnan(_rows(signal)[:, 4:]).all()


def test_another_rate_keeps_the_length_of_the_odour(substance_recording: Recording) -> None:
    faster = _rows(ReplaySignal(substance_recording, rate_hz=10.0))
    np.testing.assert_array_equal(faster, np.repeat(substance_recording.values, 10, axis=0))
    slower = _rows(ReplaySignal(substance_recording, rate_hz=0.5))
    np.testing.assert_array_equal(slower, substance_recording.values[::2])


def test_a_looped_recording_begins_again(substance_recording: Recording) -> None:
    looped = _rows(ReplaySignal(substance_recording, loop=True), 100)
    again = np.concatenate([substance_recording.values] * 3)[:100]
    np.testing.assert_array_equal(looped, again)


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, 1000.0, float("nan")])
def test_an_impossible_rate_is_refused(rate_hz: float) -> None:
    with pytest.raises(UsageError, match="times a second"):
        SyntheticSignal("almond:10", rate_hz=rate_hz)


def test_the_same_seed_gives_the_same_readings_and_another_does_not() -> None:
    scenario = "air:20,almond:40,air:20,banana=.5+mango=.5:40"
    one, same, other = (_rows(SyntheticSignal(scenario, seed=seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


def test_a_signal_can_be_played_twice_with_the_same_result() -> None:
    signal = SyntheticSignal("almond:30", seed=1)
    np.testing.assert_array_equal(_rows(signal), _rows(signal))


def test_a_scenario_has_its_duration_at_any_rate() -> None:
    assert len(_rows(SyntheticSignal("almond:30,air:10"))) == 40
    assert len(_rows(SyntheticSignal("almond:30,air:10", rate_hz=10.0))) == 400


def test_a_looped_scenario_continues_with_fresh_noise() -> None:
    rows = _rows(SyntheticSignal("almond:30", seed=2, loop=True), 60)
    assert len(rows) == 60
    assert np.any(rows[:30] != rows[30:])


def test_readings_leave_clean_air_with_an_odour_and_return() -> None:
    rows = _rows(SyntheticSignal("air:120,nutmeg:300,air:900", seed=3))
    counts = np.clip(rows[:, GROVE_INDICES], 1, 1022)
    level = np.log(counts / (1023 - counts))
    before, during, after = level[60:120].mean(0), level[360:420].mean(0), level[-120:].mean(0)
    assert np.all(during - before > 1)
    np.testing.assert_allclose(after, before, atol=0.25)


def test_a_scenario_that_starts_with_an_odour_starts_within_an_exposure() -> None:
    exposed = _rows(SyntheticSignal("nutmeg:60", seed=4))
    air = _rows(SyntheticSignal("air:60", seed=4))
    assert np.all(exposed[0, GROVE_INDICES] > air[0, GROVE_INDICES] + 5)


def test_a_mixture_lies_between_its_parts_on_average() -> None:
    def level(scenario: str) -> np.ndarray:
        rows = np.concatenate(
            [_rows(SyntheticSignal(scenario, seed=s, board="mixtures")) for s in range(12)]
        )
        return rows[:, GROVE_INDICES].mean(axis=0)

    orange, peach = level("orange:30"), level("peach:30")
    mixed = level("orange=.5+peach=.5:30")
    assert np.all(mixed > np.minimum(orange, peach) - 40)
    assert np.all(mixed < np.maximum(orange, peach) + 40)


def test_a_tenth_of_a_strong_substance_reads_most_of_it_as_in_real_mixtures() -> None:
    """Published: 10 % orange in banana read .83, .86 and .81 of pure orange on these channels."""
    channels = list(GROVE_INDICES[:3])

    def level(scenario: str) -> np.ndarray:
        rows = [_rows(SyntheticSignal(scenario, seed=s, board="mixtures")) for s in range(12)]
        counts = np.concatenate(rows)[:, channels].mean(axis=0)
        return np.log(counts / (GROVE_FULL_SCALE - counts))

    banana, orange = level("banana:30"), level("orange:30")
    mixed = level("banana=.9+orange=.1:30")
    share = (mixed - banana) / (orange - banana)
    assert np.all((share > 0.6) & (share < 1.0)), share


def test_the_weather_stays_plausible_and_agrees_with_the_altitude() -> None:
    rows = _rows(SyntheticSignal("air:600", seed=9))
    for channel in CHANNELS:
        if channel.part is Part.ENVIRONMENT:
            column = rows[:, channel_index(channel.name)]
            assert np.all((column >= channel.low) & (column <= channel.high))
    pressure = rows[:, channel_index("Pressure")].astype(float)
    altitude = rows[:, channel_index("Altitude")].astype(float)
    slope = np.polyfit(pressure - pressure.mean(), altitude, 1)[0]
    assert slope == pytest.approx(-8.4, abs=0.2), "8.4 m per hPa near sea level"


@pytest.mark.parametrize("name", ["substances", "mixtures"])
def test_every_substance_of_a_board_is_played_within_the_channels_ranges(name: str) -> None:
    board = load_board(name)
    assert len(board.substances) == {"substances": 50, "mixtures": 12}[name]
    for substance in board.substances:
        rows = _rows(SyntheticSignal(f"{substance}:20", seed=1, board=board))
        for index, channel in enumerate(CHANNELS):
            assert np.all(rows[:, index] >= min(channel.low, 0)), (substance, channel.name)
            assert np.all(rows[:, index] <= channel.high + 1), (substance, channel.name)


def test_an_unknown_board_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="mixtures, substances"):
        load_board("kitchen")
