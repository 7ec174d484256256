"""Channel health: stuck channels, spikes, and readings that are neither."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.channels import CHANNEL_NAMES, GAS_CHANNELS, N_CHANNELS, channel_index
from hardware.frames import Quality, SensorFrame
from hardware.health import ChannelHealth
from hardware.readings import range_quality
from hardware.recording import read_recording
from tests.hardware.protocol_lines import GOOD

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BME_CHANNELS = ("Temperature", "Pressure", "Humidity", "Gas_Resistance", "Altitude")
GROVE_CHANNELS = CHANNEL_NAMES[:4]
HUNG_BME = {  # the row that the hung part of the published data repeats
    "Temperature": 33.59,
    "Pressure": 688.6,
    "Humidity": 100.0,
    "Gas_Resistance": 0.0,
    "Altitude": 3170.54,
}


def moving_rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Return `count` rows of a board on which every channel changes a little at each sample."""
    rng = np.random.default_rng(seed)
    rows = np.tile(np.array(GOOD, np.float32), (count, 1))
    wander = np.cumsum(rng.choice([-1, 1], size=(count, N_CHANNELS)), axis=0)
    return (rows + wander % 7 * np.float32(0.25)).astype(np.float32)


def assess_all(
    rows: NDArray[np.float32], *, period_s: float = 1.0, health: ChannelHealth | None = None
) -> NDArray[np.uint8]:
    """Return uint8[n, 12], the quality of rows that arrive one per period."""
    health = health or ChannelHealth()
    return np.array(
        [
            health.assess(frame_of(row, seq), round(seq * period_s * 1000))
            for seq, row in enumerate(rows)
        ]
    )


def frame_of(row: NDArray[np.float32], seq: int, *, restarted: bool = False) -> SensorFrame:
    values = np.array(row, np.float32)
    return SensorFrame(seq, None, values, range_quality(values), None, restarted)


def flagged(quality: NDArray[np.uint8], value: Quality) -> set[str]:
    return {name for i, name in enumerate(CHANNEL_NAMES) if (quality[:, i] == value).any()}


def ramp(low: float, high: float, count: int) -> NDArray[np.float64]:
    return np.linspace(low, high, count).round()


# Stuck


def test_a_working_board_has_no_faults() -> None:
    assert not assess_all(moving_rows(600)).any()


@pytest.mark.parametrize("name", GROVE_CHANNELS)
@pytest.mark.parametrize("period_s", [0.1, 1.0])
def test_a_channel_that_repeats_while_its_siblings_move_is_stuck(
    name: str, period_s: float
) -> None:
    count = round(40 / period_s)
    rows = moving_rows(count)
    for sibling in GROVE_CHANNELS:
        rows[:, channel_index(sibling)] = ramp(300, 500, count)
    rows[:, channel_index(name)] = 400
    quality = assess_all(rows, period_s=period_s)
    assert flagged(quality, Quality.STUCK) == {name}
    stuck_from_s = np.flatnonzero(quality[:, channel_index(name)])[0] * period_s
    assert 15 <= stuck_from_s <= 20


@pytest.mark.parametrize(("movement", "stuck_after_s"), [(0.3, 15), (0.15, 30), (0.1, 60)])
def test_the_less_its_siblings_move_the_longer_a_channel_may_repeat(
    movement: float, stuck_after_s: int
) -> None:
    rows = moving_rows(90)
    for sibling in GROVE_CHANNELS:
        conductance = np.exp(np.where(np.arange(90) < 5, 0.0, movement))
        rows[:, channel_index(sibling)] = 1023 * conductance / (1 + conductance)
        rows[:, channel_index(sibling)] += np.arange(90) % 2 * np.float32(0.1)
    rows[:, channel_index("VOC")] = 400
    quality = assess_all(rows)
    assert flagged(quality, Quality.STUCK) == {"VOC"}
    assert np.flatnonzero(quality.any(axis=1))[0] == stuck_after_s


def test_a_stuck_channel_recovers_as_soon_as_it_moves() -> None:
    rows = moving_rows(60)
    for sibling in GROVE_CHANNELS:
        rows[:, channel_index(sibling)] = ramp(300, 600, 60)
    rows[:40, channel_index("CO")] = 400
    quality = assess_all(rows)[:, channel_index("CO")]
    assert quality[39] == Quality.STUCK
    assert not quality[40:].any()


def test_repetition_in_quiet_air_is_not_a_fault() -> None:
    """Real C2H5OH channels stay constant for three minutes in clean air."""
    rows = moving_rows(180)
    rows[:, channel_index("C2H5OH")] = 58
    assert not assess_all(rows).any()


def test_siblings_that_start_later_do_not_count_as_movement() -> None:
    """A board's parts may start one after the other, which is no movement."""
    rows = moving_rows(60)
    rows[:5, :2] = 0
    rows[:, channel_index("CO")] = 830
    decoded = np.array([range_quality(row) for row in rows])
    assert np.array_equal(assess_all(rows), decoded)


def test_one_moving_sibling_does_not_show_a_stuck_channel() -> None:
    """Some substances change a single channel: VOC may stay constant under NO2."""
    rows = moving_rows(120)
    rows[:, channel_index("NO2")] = ramp(100, 400, 120)
    rows[:, channel_index("VOC")] = 161
    assert not assess_all(rows).any()


def test_half_an_hour_of_one_count_is_stuck_whatever_the_siblings_do() -> None:
    rows = moving_rows(1900)
    rows[:, channel_index("VOC")] = 161
    quality = assess_all(rows)
    assert flagged(quality, Quality.STUCK) == {"VOC"}
    assert np.flatnonzero(quality.any(axis=1))[0] == 1800


def test_a_grove_board_that_repeats_all_its_channels_has_hung() -> None:
    rows = moving_rows(320)
    rows[:, :4] = GOOD[:4]
    quality = assess_all(rows)
    assert flagged(quality, Quality.STUCK) == set(GROVE_CHANNELS)
    assert np.flatnonzero(quality.any(axis=1))[0] == 300


def test_an_mq_part_of_few_counts_is_never_stuck() -> None:
    rows = moving_rows(3600)
    rows[:, 4:7] = [2, 38, 0]
    assert not assess_all(rows).any()


def test_a_hung_bme680_is_stuck_in_all_its_channels() -> None:
    rows = moving_rows(40)
    for name, value in HUNG_BME.items():
        rows[10:, channel_index(name)] = value
    quality = assess_all(rows)
    assert flagged(quality, Quality.STUCK) == set(BME_CHANNELS) - {"Gas_Resistance"}
    assert set(quality[10:, channel_index("Gas_Resistance")]) == {Quality.OUT_OF_RANGE}
    assert np.flatnonzero((quality == Quality.STUCK).any(axis=1))[0] == 30


def test_an_absent_bme680_is_missing_not_stuck() -> None:
    rows = moving_rows(100)
    rows[:, 7:] = np.nan
    quality = assess_all(rows)
    assert set(quality[:, 7:].ravel()) == {Quality.MISSING}


def test_two_bme680_columns_alone_may_repeat() -> None:
    rows = moving_rows(300)
    rows[:, 7:] = np.nan
    rows[:, channel_index("Temperature")] = 25.5
    rows[:, channel_index("Pressure")] = 1013
    assert flagged(assess_all(rows), Quality.STUCK) == set()


def test_a_slow_board_needs_some_samples_before_anything_is_stuck() -> None:
    rows = moving_rows(7)
    for sibling in GROVE_CHANNELS:
        rows[:, channel_index(sibling)] = ramp(300, 500, 7)
    rows[:, channel_index("CO")] = 400
    rows[:, 7:] = GOOD[7:]
    assert not assess_all(rows, period_s=10).any()


@pytest.mark.parametrize("how", ["gap", "restart"])
def test_repetition_before_a_gap_or_a_restart_does_not_count(how: str) -> None:
    """The same count before and after a pause with a change of air is no repetition."""
    health = ChannelHealth()
    before, after = moving_rows(14), moving_rows(10, seed=1)
    after[:, :3] *= 2
    for rows in (before, after):
        rows[:, channel_index("CO")] = 400
    later_s = 300 if how == "gap" else 14
    assess_all(before, health=health)
    quality = [
        health.assess(
            frame_of(row, seq, restarted=how == "restart" and seq == 0), (later_s + seq) * 1000
        )
        for seq, row in enumerate(after)
    ]
    assert not np.any(quality)


# Spikes


@pytest.mark.parametrize(
    ("name", "value"), [("NO2", 1021.0), ("VOC", 3.0), ("Gas_Resistance", 5000.0)]
)
def test_a_jump_that_returns_is_a_spike_for_one_sample(name: str, value: float) -> None:
    rows = moving_rows(20)
    rows[10, channel_index(name)] = value
    quality = assess_all(rows)
    assert quality[10, channel_index(name)] == Quality.SPIKE
    assert np.count_nonzero(quality) == 1


def test_a_jump_that_stays_is_accepted_from_its_second_sample() -> None:
    rows = moving_rows(20)
    rows[10:, channel_index("NO2")] = np.arange(10) + 1010
    quality = assess_all(rows)[:, channel_index("NO2")]
    assert quality[10] == Quality.SPIKE
    assert not quality[11:].any()


def test_a_jump_to_a_constant_value_is_accepted_too() -> None:
    rows = moving_rows(20)
    rows[10:, channel_index("NO2")] = 1010
    quality = assess_all(rows)[:, channel_index("NO2")]
    assert np.flatnonzero(quality).tolist() == [10]


def test_the_largest_real_step_is_no_spike() -> None:
    rows = moving_rows(20)
    rows[10, channel_index("CO")] = 372.6  # from 955, in a recording with a loose contact
    rows[:10, channel_index("CO")] = 955
    rows[11:, channel_index("CO")] = 955
    assert not assess_all(rows).any()


def test_readings_after_garbage_at_start_up_are_no_spikes() -> None:
    rows = moving_rows(20)
    rows[0, :4] = [1, 1020.2, 22, 1019]
    assert not assess_all(rows).any()


# Contract


def test_quality_set_by_the_decoder_is_kept() -> None:
    rows = moving_rows(60)
    rows[::2, channel_index("CO")] = 0
    rows[1::3, channel_index("LPG")] = math.inf
    rows[5::7, channel_index("VOC")] = math.nan
    decoded = np.array([range_quality(row) for row in rows])
    assert np.array_equal(assess_all(rows), decoded)


ANY_VALUE = st.one_of(
    st.floats(width=32), st.sampled_from([0.0, 1.0, 400.0, 1022.0, 1023.0, 4294967295.0])
)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.lists(ANY_VALUE, min_size=12, max_size=12), max_size=20),
    steps_ms=st.lists(st.integers(0, 30_000), min_size=20, max_size=20),
)
def test_any_values_are_assessed_without_error_and_never_improve_the_quality(
    rows: list[list[float]], steps_ms: list[int]
) -> None:
    health = ChannelHealth()
    t_ms = 0
    for seq, row in enumerate(rows):
        t_ms += steps_ms[seq]
        frame = frame_of(np.array(row, np.float32), seq)
        quality = health.assess(frame, t_ms)
        assert quality.dtype == np.uint8
        assert quality.shape == (N_CHANNELS,)
        bad = frame.quality != Quality.OK
        assert np.array_equal(quality[bad], frame.quality[bad])
        assert set(quality[~bad]) <= {Quality.OK, Quality.STUCK, Quality.SPIKE}


def test_quality_arrays_are_read_only() -> None:
    rows = moving_rows(5)
    rows[4, 0] = 1022
    health = ChannelHealth()
    for seq, row in enumerate(rows):
        quality = health.assess(frame_of(row, seq), seq * 1000)
        with pytest.raises(ValueError, match="read-only"):
            quality[0] = 0


# Real recordings


@pytest.mark.data
@pytest.mark.parametrize("layout", ["base/*/*.csv", "mixture/*.csv"])
def test_gas_channels_of_good_recordings_have_no_faults(smellnet: Path, layout: str) -> None:
    """The figures in the module's docstring come from every whole training recording."""
    files = sorted(smellnet.glob(layout))
    assert len(files) >= 250
    gas = [channel_index(name) for name in GAS_CHANNELS]
    hung = 0
    for path in files:
        recording = read_recording(path)
        health = ChannelHealth()
        period_ms = 1000 / recording.nominal_rate_hz
        quality = np.array(
            [
                health.assess(frame, round(row * period_ms))
                for row, frame in enumerate(recording.frames())
            ]
        )
        doubted = np.isin(quality[:, gas], (Quality.STUCK, Quality.SPIKE))
        assert not doubted.any(), f"{path.name}: {np.array(GAS_CHANNELS)[doubted.any(axis=0)]}"
        hung += bool((quality[:, channel_index("Temperature")] == Quality.STUCK).any())
    # 49 recordings of ten substances were made with a BME680 that had hung.
    assert hung == (49 if layout.startswith("base") else 0)
