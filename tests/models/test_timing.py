"""The timeline, the rate, lost samples and decimation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.channels import N_CHANNELS
from hardware.frames import SensorFrame
from models.decimator import Decimator
from models.timing import HOUR_MS, RESTART_GAP_MS, RateMeter, Timeline, lost_samples


def frame(
    device_ms: int | None = None, lost: int | None = None, *, restarted: bool = False
) -> SensorFrame:
    return SensorFrame(
        frame_seq=0,
        device_ms=device_ms,
        values=np.zeros(N_CHANNELS, dtype=np.float32),
        quality=np.zeros(N_CHANNELS, dtype=np.uint8),
        lost_before=lost,
        restarted=restarted,
    )


def gaps_and_rate(times: list[int]) -> tuple[list[int], float | None]:
    """Return the losses and the rate that follow from t_ms alone."""
    meter = RateMeter()
    gaps = []
    for before, after in itertools.pairwise(times):
        meter.observe(after - before)
        if meter.period_ms is not None:
            gaps.append(lost_samples(after - before, meter.period_ms))
    return gaps, meter.rate_hz


FRAMES = st.lists(
    st.tuples(
        st.integers(-(10**6), 10**7) | st.integers(80, 120),  # device clock's step
        st.integers(0, 5) | st.none(),  # lost
        st.booleans() | st.just(value=False),  # restarted
        st.floats(0, 5000) | st.floats(90, 110),  # arrival step
        st.booleans() | st.just(value=True),  # has a clock
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(steps=FRAMES)
def test_replaying_its_own_times_gives_the_same_times(
    steps: list[tuple[int, int | None, bool, float, bool]],
) -> None:
    """With any clocks t_ms increases, and the timeline maps it to itself."""
    live = Timeline()
    device = 0
    arrival = 0.0
    times = []
    for device_step, lost, restarted, arrival_step, has_clock in steps:
        device += device_step
        arrival += arrival_step
        sent = frame(device if has_clock else None, lost, restarted=restarted)
        times.append(live.stamp(sent, arrival))
    assert all(0 < after - before < HOUR_MS for before, after in itertools.pairwise(times))
    replayed = Timeline()
    again = [replayed.stamp(frame(t_ms), 17.0 * number) for number, t_ms in enumerate(times)]
    assert again == times
    assert gaps_and_rate(again) == gaps_and_rate(times)


def test_time_starts_at_zero_with_the_first_frame() -> None:
    assert Timeline().stamp(frame(123_456), 9e9) == 0


def test_a_clock_that_wraps_is_corrected_by_the_sequence() -> None:
    timeline = Timeline()
    times = [timeline.stamp(frame(n * 100, 0), 0.0) for n in range(12)]
    times += [timeline.stamp(frame(n * 100, 0), 0.0) for n in range(3)]
    assert np.diff(times).tolist() == [100] * 14


def test_lost_frames_advance_the_time() -> None:
    timeline = Timeline()
    times = [timeline.stamp(frame(n * 100, 0), 0.0) for n in range(12)]
    times.append(timeline.stamp(frame(90_000_000, 4), 0.0))
    gaps, _ = gaps_and_rate(times)
    assert gaps[-1] == 4


def test_a_restarted_board_comes_after_a_gap() -> None:
    timeline = Timeline()
    timeline.stamp(frame(50_000, 0), 0.0)
    assert timeline.stamp(frame(0, 0, restarted=True), 1.0) == RESTART_GAP_MS


def test_jitter_of_arrivals_at_10_hz_is_no_loss() -> None:
    """No loss is counted when frames arrive up to 120 ms late, or two in one read."""
    rng = np.random.default_rng(7)
    arrivals = np.arange(3000) * 100.0 + rng.uniform(0, 120, 3000)
    arrivals = np.maximum.accumulate(arrivals)
    arrivals[500:800] = np.repeat(arrivals[501:801:2], 2)
    timeline = Timeline()
    times = [timeline.stamp(frame(), arrival) for arrival in arrivals]
    gaps, rate = gaps_and_rate(times)
    assert sum(gaps) == 0
    assert rate == pytest.approx(10, rel=0.25)
    assert times[-1] == pytest.approx(arrivals[-1] - arrivals[0], abs=500)


def test_a_silence_without_a_device_clock_is_a_gap() -> None:
    timeline = Timeline()
    times = [timeline.stamp(frame(), n * 100.0) for n in range(50)]
    times.append(timeline.stamp(frame(), 4900.0 + 3000.0))
    assert gaps_and_rate(times)[0][-1] == 29


@pytest.mark.parametrize("with_sequence", [True, False])
@pytest.mark.parametrize(
    ("before_ms", "after_ms"), [(100, 1000), (1000, 100), (1000, 500), (500, 1000), (1000, 700)]
)
def test_a_board_set_to_another_rate_is_followed(
    before_ms: int, after_ms: int, *, with_sequence: bool
) -> None:
    timeline, meter = Timeline(), RateMeter()
    device = [*range(0, 30 * before_ms, before_ms)]
    device += [device[-1] + n * after_ms for n in range(1, 61)]
    times = [timeline.stamp(frame(ms, 0 if with_sequence else None), 0.0) for ms in device]
    changes = [meter.observe(after - before) for before, after in itertools.pairwise(times)]
    assert meter.period_ms == pytest.approx(after_ms)
    assert 1 <= sum(changes[9:]) <= 2


def test_another_rate_is_followed_without_a_device_clock_too() -> None:
    timeline, meter = Timeline(), RateMeter()
    arrivals = [n * 1000.0 for n in range(30)]
    arrivals += [arrivals[-1] + n * 100.0 for n in range(1, 301)]
    times = [timeline.stamp(frame(), arrival) for arrival in arrivals]
    for before, after in itertools.pairwise(times):
        meter.observe(after - before)
    assert meter.period_ms == pytest.approx(100, rel=0.25)


def test_frames_waiting_in_a_buffer_at_the_start_do_not_set_the_rate() -> None:
    timeline, meter = Timeline(), RateMeter()
    arrivals = [0.0, 0.1, 0.2, 0.2, *(n * 1000.0 for n in range(1, 12))]
    times = [timeline.stamp(frame(), arrival) for arrival in arrivals]
    for before, after in itertools.pairwise(times):
        meter.observe(after - before)
    assert meter.rate_hz == pytest.approx(1.0)


def test_a_given_rate_is_known_at_once_and_never_changes() -> None:
    meter = RateMeter(10.0)
    assert meter.period_ms == 100
    assert not any(meter.observe(1000) for _ in range(50))
    assert meter.rate_hz == 10


def test_an_accelerated_board_without_a_clock_uses_the_given_rate() -> None:
    """A 1 Hz board is played ten times as fast, with jittering arrivals."""
    rng = np.random.default_rng(3)
    arrivals = np.arange(200) * 100.0 + rng.uniform(0, 60, 200)
    timeline = Timeline(rate_hz=1.0)
    times = [timeline.stamp(frame(), arrival) for arrival in arrivals]
    assert np.diff(times).tolist() == [1000] * 199


def test_a_board_slightly_slower_than_its_given_rate_has_no_losses() -> None:
    timeline = Timeline(rate_hz=10.0)
    times = np.array([timeline.stamp(frame(), n * 104.0) for n in range(2000)])
    assert not any(lost_samples(int(step), 100.0) for step in np.diff(times))
    assert times[-1] == pytest.approx(1999 * 104.0, abs=200)


def test_single_losses_do_not_change_the_rate() -> None:
    meter = RateMeter()
    for number in range(2000):
        meter.observe(300 if number % 3 == 0 else 100)
    assert meter.rate_hz == pytest.approx(10)


READINGS = st.lists(st.sampled_from([1.0, 2.0, 7.5, float("nan")]), min_size=1, max_size=80)


@given(
    column=READINGS,
    factor=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 80), max_size=8),
    seed=st.integers(0, 1000),
)
def test_decimation_does_not_depend_on_the_chunking(
    column: list[float], factor: int, cuts: list[int], seed: int
) -> None:
    values = np.repeat(np.array(column, dtype=np.float32)[:, None], N_CHANNELS, axis=1)
    rng = np.random.default_rng(seed)
    lost = np.where(rng.random(len(values)) < 0.15, rng.integers(1, 60, len(values)), 0)
    lost = lost.astype(np.int64)
    whole = Decimator(factor, 4 * factor).feed(values, lost)
    chunked = Decimator(factor, 4 * factor)
    bounds = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [chunked.feed(values[a:b], lost[a:b]) for a, b in itertools.pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), whole[0])
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), whole[1])


def test_a_group_is_the_mean_of_what_is_usable() -> None:
    values = np.ones((5, N_CHANNELS), dtype=np.float32)
    values[:, 0] = [1, np.nan, 3, np.nan, 8]
    values[:, 1] = np.nan
    lost = np.zeros(5, dtype=np.int64)
    rows, gaps = Decimator(5, 20).feed(values, lost)
    assert rows[0, 0] == 4
    assert np.isnan(rows[0, 1])
    assert gaps.tolist() == [0]


def test_lost_samples_count_towards_the_groups() -> None:
    """Eleven samples with two lost make thirteen: three groups of four, one sample left."""
    values = np.arange(11, dtype=np.float32)[:, None].repeat(N_CHANNELS, axis=1)
    lost = np.zeros(11, dtype=np.int64)
    lost[3] = 2
    rows, gaps = Decimator(4, 16).feed(values, lost)
    assert rows[:, 0].tolist() == [1, 4, 7.5]  # (0 1 2 -) (- 3 4 5) (6 7 8 9)
    assert gaps.tolist() == [0, 0, 0]


def test_a_group_without_samples_is_one_lost_sample() -> None:
    values = np.ones((8, N_CHANNELS), dtype=np.float32)
    lost = np.zeros(8, dtype=np.int64)
    lost[4] = 8
    _, gaps = Decimator(4, 16).feed(values, lost)
    assert gaps.tolist() == [0, 2]
