"""The nose on synthetic episodes, with small real models."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardware.channels import CHANNEL_NAMES
from hardware.frames import Quality, SensorFrame
from models.bundle import Bundle, Outputs, load_bundle
from models.decimator import Decimator
from models.decision_spec import DecisionSpec, State
from models.manifest import Requirements
from models.nose import Nose, NoseSettings
from models.preprocess import batch_features
from models.results import Event, EventType
from tests.models.toys import LABELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
from tests.models.episodes import (
    LEMON,
    MINT,
    PETROL,
    air,
    episode_of,
    fading,
    frames,
    odour,
    process_all,
    states,
)


def with_quality(
    source: Iterable[SensorFrame], channel: str, quality: Quality
) -> Iterator[SensorFrame]:
    """Yield the frames with one channel's quality changed."""
    for frame in source:
        marked = frame.quality.copy()
        marked[CHANNEL_NAMES.index(channel)] = quality
        yield dataclasses.replace(frame, quality=marked)


def episode(rate_hz: float) -> NDArray[np.float64]:
    return np.concatenate(
        [air(60, rate_hz), odour(LEMON, 60, rate_hz), fading(LEMON, 150, rate_hz)]
    )


@pytest.mark.parametrize("rate_hz", [1, 2, 10])
def test_an_odour_is_sensed_recognised_ended_and_gone(substance: Bundle, rate_hz: int) -> None:
    predictions, events = process_all(Nose([substance]), frames(episode(rate_hz), rate_hz))
    assert states(predictions) == [
        "warming_up", "ambient", "sensing", "recognised", "recovering", "ambient",
    ]  # fmt: skip
    assert {p.label for p in predictions if p.state is State.RECOGNISED} == {"lemon"}
    assert [event.type for event in events] == [
        EventType.ONSET, EventType.RECOGNISED, EventType.ENDED,
    ]  # fmt: skip
    onset, recognised, _ = events
    assert 60_000 <= onset.t_ms <= 68_000
    assert recognised.label == "lemon"
    assert recognised.t_ms - onset.t_ms <= 20_000


def test_label_and_probability_are_set_only_when_recognised(substance: Bundle) -> None:
    predictions, _ = process_all(Nose([substance]), frames(episode(1), 1))
    for prediction in predictions:
        named = prediction.state is State.RECOGNISED
        assert (prediction.label is not None) == named
        assert (prediction.probability is not None) == named
        assert bool(prediction.top) == (prediction.window_s > 0)
    assert all(p.top for p in predictions[1:])


def test_the_first_prediction_comes_with_the_first_long_enough_window(
    substance: Bundle,
) -> None:
    """Five samples of lag and ten rows: the fifteenth sample, at 14 s; then every five."""
    nose = Nose([substance], skip_warm_up=True, assume_exposed=True)
    predictions, _ = process_all(nose, frames(odour(LEMON, 40, 1), 1))
    assert [p.t_ms for p in predictions] == [14_000, 19_000, 24_000, 29_000, 34_000, 39_000]
    assert [p.window_s for p in predictions] == [15, 20, 25, 30, 35, 35]


def test_both_models_process_one_board_at_their_own_rates(
    substance: Bundle, mixture: Bundle
) -> None:
    predictions, _ = process_all(Nose([substance, mixture]), frames(episode(10), 10))
    by_task = {
        task: [p for p in predictions if p.task == task] for task in ("substance", "mixture")
    }
    assert by_task["mixture"][-1].window_s == pytest.approx(3.5)
    assert by_task["substance"][-1].window_s == pytest.approx(35)
    recognised = [p for p in by_task["mixture"] if p.state is State.RECOGNISED]
    assert recognised
    assert {component.label for p in recognised for component in p.components} <= set(LABELS)
    assert not any(p.components for p in by_task["mixture"] if p.state is not State.RECOGNISED)


@pytest.mark.parametrize("rate_hz", [0.25, 0.37, 0.6])
def test_a_slower_board_feeds_a_model_by_interpolation(substance: Bundle, rate_hz: float) -> None:
    predictions, events = process_all(Nose([substance]), frames(episode(rate_hz), rate_hz))
    assert states(predictions)[-4:] == ["sensing", "recognised", "recovering", "ambient"]
    assert {p.label for p in predictions if p.state is State.RECOGNISED} == {"lemon"}
    assert all(p.resampled for p in predictions)
    assert max(p.window_s for p in predictions) == 35
    onset, recognised, _ = events
    assert recognised.t_ms - onset.t_ms <= 25_000


def test_a_board_at_a_models_rate_is_not_resampled(substance: Bundle) -> None:
    for rate_hz in (1, 10):
        predictions, _ = process_all(Nose([substance]), frames(episode(rate_hz), rate_hz))
        assert not any(p.resampled for p in predictions)


def test_interpolated_predictions_do_not_depend_on_irregular_times(substance: Bundle) -> None:
    """The board of a rig at 2.7 s a reading, with steps of 2 and 3 s as its clock shows them."""
    rng = np.random.default_rng(5)
    dense = list(frames(episode(10), 10))
    times = [t for t in np.cumsum(rng.choice([20, 30, 30], 99)).tolist() if t < len(dense)]
    predictions, _ = process_all(Nose([substance]), (dense[t] for t in times))
    assert "recognised" in states(predictions)
    assert {p.label for p in predictions if p.state is State.RECOGNISED} == {"lemon"}
    assert all(p.resampled for p in predictions)


def test_a_slower_board_without_a_clock_is_resampled_by_its_arrivals(substance: Bundle) -> None:
    """Arrivals that jitter by a tenth of a second are no losses and no other rate."""
    rng = np.random.default_rng(6)
    nose = Nose([substance], skip_warm_up=True)
    predictions = []
    for number, frame in enumerate(frames(odour(LEMON, 200, 0.37), 0.37)):
        bare = dataclasses.replace(frame, device_ms=None, lost_before=None)
        arrival_ms = number * 2703.0 + rng.uniform(0, 100)
        predictions += nose.process(bare, arrival_ms).predictions
    assert all(p.resampled for p in predictions)
    assert "recognised" in states(predictions)
    assert max(p.window_s for p in predictions) == 35


def test_a_slower_board_that_loses_readings_is_bridged(substance: Bundle) -> None:
    """One lost reading of a board at 2.5 s is 2 or 3 samples: held; three are a new start."""
    whole = list(frames(odour(LEMON, 120, 0.4), 0.4))
    windows_s = {}
    for lost in (1, 3):
        after = dataclasses.replace(whole[30 + lost], lost_before=lost)
        source = [*whole[:30], after, *whole[31 + lost :]]
        predictions, _ = process_all(Nose([substance], skip_warm_up=True), source)
        windows_s[lost] = {p.window_s for p in predictions if p.t_ms > 75_000}
    assert windows_s[1] == {35}
    assert min(windows_s[3]) < 35


def test_a_board_too_slow_for_a_model_disables_it_once_with_a_reason(
    substance: Bundle, mixture: Bundle
) -> None:
    predictions, _ = process_all(Nose([substance, mixture]), frames(episode(1), 1))
    disabled = [p for p in predictions if p.task == "mixture"]
    assert [p.state for p in disabled] == [State.DISABLED]
    assert disabled[0].reason == (
        "the board sends 1 reading a second, the model needs at least 2.5"
    )


def test_a_board_without_a_required_channel_disables_the_model(substance: Bundle) -> None:
    source = with_quality(frames(episode(1), 1), "VOC", Quality.MISSING)
    predictions, events = process_all(Nose([substance]), source)
    assert [p.state for p in predictions] == [State.DISABLED]
    assert predictions[0].reason == "the board has no VOC, which the model cannot do without"
    assert not [event for event in events if event.channel]


def test_a_first_reading_that_lacks_a_channel_disables_nothing(substance: Bundle) -> None:
    """As NA in the first row of a file without times, whose rate is given, does."""
    whole = list(frames(episode(1), 1))
    source = [*with_quality(whole[:1], "VOC", Quality.MISSING), *whole[1:]]
    predictions, _ = process_all(Nose([substance], skip_warm_up=True, rate_hz=1.0), source)
    assert "recognised" in states(predictions)
    assert "disabled" not in states(predictions)


def test_a_model_runs_without_a_channel_that_it_does_not_require(substance: Bundle) -> None:
    source = with_quality(frames(episode(1), 1), "CO", Quality.STUCK)
    predictions, events = process_all(Nose([substance]), source)
    assert predictions[-1].channels_missing == ("CO",)
    assert "recognised" in states(predictions)
    assert (
        Event(
            EventType.CHANNEL_FAULT,
            events[0].t_ms,
            events[0].frame_seq,
            channel="CO",
            detail="stuck",
        )
        in events
    )


def test_a_required_channel_that_fails_is_a_fault_until_it_recovers(substance: Bundle) -> None:
    whole = list(frames(air(120, 1), 1))
    bad = list(with_quality(whole[50:80], "VOC", Quality.SATURATED))
    predictions, events = process_all(Nose([substance]), [*whole[:50], *bad, *whole[80:]])
    assert states(predictions) == ["warming_up", "ambient", "fault", "ambient"]
    fault = next(p for p in predictions if p.state is State.FAULT)
    assert 52_000 <= fault.t_ms <= 54_000
    assert fault.reason == "cannot use VOC, which the model cannot do without"
    assert [(e.type, e.channel) for e in events] == [
        (EventType.CHANNEL_FAULT, "VOC"),
        (EventType.CHANNEL_RECOVERED, "VOC"),
    ]


def test_too_few_usable_channels_are_a_fault(toy_bundles: Callable[..., Path]) -> None:
    bundle = load_bundle(toy_bundles(requirements=Requirements(min_channels=3)))
    whole = list(frames(air(100, 1), 1))
    bad = with_quality(with_quality(whole[60:], "CO", Quality.STUCK), "NO2", Quality.STUCK)
    predictions, _ = process_all(Nose([bundle]), [*whole[:60], *bad])
    assert predictions[-1].state is State.FAULT
    assert "2 of 4 channels" in str(predictions[-1].reason)


def test_one_bad_line_is_no_fault(substance: Bundle) -> None:
    whole = list(frames(air(90, 1), 1))
    whole[60] = next(with_quality([whole[60]], "VOC", Quality.SPIKE))
    predictions, events = process_all(Nose([substance]), whole)
    assert states(predictions) == ["warming_up", "ambient"]
    assert events == []


def test_a_recording_within_an_exposure_is_sensed_from_its_first_window(substance: Bundle) -> None:
    nose = Nose([substance], skip_warm_up=True, assume_exposed=True)
    predictions, events = process_all(nose, frames(odour(LEMON, 60, 1), 1))
    assert states(predictions) == ["sensing", "recognised"]
    assert [event.type for event in events] == [EventType.RECOGNISED]


def test_a_start_within_a_falling_odour_is_sensed_and_not_named(substance: Bundle) -> None:
    """A live board that starts within a changing odour knows no clean air."""
    falling = -odour(LEMON, 60, 1) + 0.02 * np.sin(np.arange(60)[:, None] * 1.5)
    predictions, _ = process_all(Nose([substance], skip_warm_up=True), frames(falling, 1))
    assert set(states(predictions)) <= {"sensing", "ambient"}


def test_a_recording_that_begins_in_clean_air_has_its_onset_at_its_rise(
    substance: Bundle,
) -> None:
    """The channels rise from the second reading on, as in recordings of real rigs."""
    nose = Nose([substance], skip_warm_up=True)
    predictions, events = process_all(nose, frames(odour(LEMON, 60, 1), 1))
    assert events[0].type is EventType.ONSET
    assert events[0].t_ms < 20_000
    assert states(predictions)[-1] == "recognised"
    assert predictions[-1].clean_air == "start"


@pytest.mark.parametrize("rate_hz", [1, 10])
def test_nothing_is_named_without_an_onset(toy_bundles: Callable[..., Path], rate_hz: int) -> None:
    """A model that is certain of a label from the first window on names nothing in clean air."""
    decision = DecisionSpec(announce=0.01, withdraw=0.01, confirm=1)
    bundle = load_bundle(toy_bundles(decision=decision))
    predictions, events = process_all(Nose([bundle]), frames(air(100, rate_hz), rate_hz))
    assert states(predictions) == ["warming_up", "ambient"]
    assert events == []


def test_a_short_list_stands_in_for_an_uncertain_name_and_is_reported_once(
    toy_bundles: Callable[..., Path],
) -> None:
    decision = DecisionSpec(announce=0.99, withdraw=0.5, temperature=50.0, list_coverage=0.7)
    bundle = load_bundle(toy_bundles(decision=decision))
    nose = Nose([bundle], skip_warm_up=True, assume_exposed=True)
    predictions, events = process_all(nose, frames(odour(LEMON, 120, 1), 1))
    listed = [prediction for prediction in predictions if prediction.short_list]
    assert listed
    assert {prediction.state for prediction in listed} == {State.SENSING}
    assert {prediction.list_coverage for prediction in listed} == {0.7}
    assert all(p.short_list == tuple(label for label, _ in p.top[:3]) for p in listed)
    told = [event.detail for event in events if event.type is EventType.LISTED]
    assert told == [f"probably one of {', '.join(listed[0].short_list)}"]


def test_a_change_of_odour_without_an_end_is_followed(substance: Bundle) -> None:
    lemon = odour(LEMON, 120, 1)
    steps = np.concatenate(
        [air(60, 1), lemon, lemon[-1] + np.cumsum(np.tile(0.03 * MINT, (300, 1)), axis=0)]
    )
    predictions, _ = process_all(Nose([substance]), frames(steps, 1))
    labels = [label for label, _ in itertools.groupby(p.label for p in predictions if p.label)]
    assert labels[0] == "lemon"
    assert labels[-1] == "mint"


def test_replaying_the_stamped_times_gives_the_same_predictions(
    substance: Bundle, mixture: Bundle
) -> None:
    """A recording has t_ms, but no sequence, no losses and other arrival times."""
    rng = np.random.default_rng(11)
    sent = list(frames(episode(10), 10))
    kept = [frame for frame in sent if rng.random() > 0.01 or frame.frame_seq < 5]
    live_frames = []
    before = -1
    for frame in kept:
        lost = frame.frame_seq - before - 1
        before = frame.frame_seq
        wrapped = (frame.device_ms or 0) + (0 if frame.frame_seq < 900 else -80_000)
        live_frames.append(dataclasses.replace(frame, lost_before=lost, device_ms=wrapped))
    live, replay = Nose([substance, mixture]), Nose([substance, mixture])
    recording: list[SensorFrame] = []
    predictions, events = [], []
    for number, frame in enumerate(live_frames):
        step = live.process(frame, 1000.0 * rng.random())
        predictions += step.predictions
        events += step.events
        recording.append(
            SensorFrame(frame.frame_seq, step.t_ms, frame.values.copy(), frame.quality.copy())
        )
        assert number == 0 or step.t_ms > (recording[-2].device_ms or 0)
    again, events_again = process_all(replay, recording)
    assert again == predictions
    assert events_again == events
    assert {p.task for p in predictions} == {"substance", "mixture"}


def test_two_noses_give_the_same_predictions_for_the_same_readings(substance: Bundle) -> None:
    first, _ = process_all(Nose([substance]), frames(episode(1), 1))
    second, _ = process_all(Nose([substance]), frames(episode(1), 1))
    assert first == second


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6), rate_hz=st.sampled_from([1, 3, 10]))
def test_windows_of_the_stream_equal_those_of_the_batch(
    substance: Bundle, seed: int, rate_hz: int
) -> None:
    """The live inputs of the network are bit-equal to rows of the whole recording."""
    rng = np.random.default_rng(seed)
    effect = np.cumsum(rng.normal(0, 0.02, (60 * rate_hz, 4)), axis=0)
    source = list(frames(effect, rate_hz, seed=seed))
    seen: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []

    class Listening(Bundle):
        """A bundle that records its inputs."""

        def __init__(self, inner: Bundle) -> None:
            super().__init__(inner.folder, inner.manifest, inner.precision, inner._session)

        def run(self, x: NDArray[np.float32], mask: NDArray[np.float32]) -> Outputs:
            seen.append((x.copy(), mask.copy()))
            return super().run(x, mask)

    nose = Nose([Listening(substance)], skip_warm_up=True, assume_exposed=True)
    predictions, _ = process_all(nose, source)
    values = np.stack([frame.values for frame in source])
    lost = np.zeros(len(values), dtype=np.int64)
    slow, _ = Decimator(rate_hz, 4 * rate_hz).feed(values, lost)
    [segment] = batch_features(slow, substance.manifest.preprocessing)
    assert len(seen) == len(predictions) > 5
    for prediction, (x, mask) in zip(predictions, seen, strict=True):
        groups = (prediction.frame_seq + 1) // rate_hz
        end = groups - 5
        np.testing.assert_array_equal(x[0], segment.x[max(0, end - 30) : end])
        assert mask.all()


def test_a_long_gap_is_a_new_start(substance: Bundle) -> None:
    first = list(frames(np.concatenate([air(60, 1), odour(LEMON, 60, 1)]), 1))
    later = list(frames(air(60, 1), 1, start_seq=1000))
    later[0] = dataclasses.replace(later[0], lost_before=880)
    predictions, _ = process_all(Nose([substance]), [*first, *later])
    assert states(predictions)[-3:] == ["recognised", "warming_up", "ambient"]


def test_a_short_gap_resets_the_window_but_not_the_air(substance: Bundle) -> None:
    source = [frame for frame in frames(air(120, 1), 1) if not 60 <= frame.frame_seq < 70]
    source[60] = dataclasses.replace(source[60], lost_before=10)
    predictions, _ = process_all(Nose([substance]), source)
    assert states(predictions) == ["warming_up", "ambient"]
    windows = {p.t_ms: p.window_s for p in predictions}
    assert min(seconds for t_ms, seconds in windows.items() if t_ms > 60_000) == 15


def test_a_board_set_to_another_rate_is_followed(substance: Bundle, mixture: Bundle) -> None:
    slow = list(frames(air(40, 1), 1))
    fast = [
        dataclasses.replace(frame, frame_seq=40 + n, device_ms=39_000 + 100 * (n + 1))
        for n, frame in enumerate(frames(air(60, 10), 10))
    ]
    nose = Nose([substance, mixture])
    predictions, _ = process_all(nose, [*slow, *fast])
    assert nose.rate_hz == pytest.approx(10)
    assert states([p for p in predictions if p.task == "mixture"])[0] == "disabled"
    assert states([p for p in predictions if p.task == "mixture"])[-1] == "ambient"


def test_a_stream_too_short_to_measure_its_rate_is_disabled_with_a_reason(
    substance: Bundle,
) -> None:
    nose = Nose([substance])
    assert process_all(nose, frames(air(5, 1), 1))[0] == []
    assert nose.finish()[0].reason == "the board's rate cannot be measured from 5 readings"


def test_a_given_rate_needs_no_measuring(substance: Bundle) -> None:
    nose = Nose([substance], rate_hz=1.0)
    predictions, _ = process_all(nose, frames(air(3, 1), 1))
    assert states(predictions) == ["warming_up"]
    assert nose.finish() == []


def test_the_stride_is_a_setting(substance: Bundle) -> None:
    settings = NoseSettings(live_stride_s=2.0)
    nose = Nose([substance], settings, skip_warm_up=True, assume_exposed=True)
    predictions, _ = process_all(nose, frames(odour(LEMON, 30, 1), 1))
    assert np.diff([p.t_ms for p in predictions]).tolist() == [2000] * (len(predictions) - 1)


def test_an_odour_like_no_label_is_unrecognised_and_described(novelty_model: Bundle) -> None:
    predictions, events = process_all(Nose([novelty_model]), frames(episode_of(PETROL), 1))
    assert states(predictions) == [
        "warming_up", "ambient", "sensing", "unrecognised", "recovering", "ambient",
    ]  # fmt: skip
    assert [event.type for event in events] == [
        EventType.ONSET, EventType.UNRECOGNISED, EventType.ENDED,
    ]  # fmt: skip
    assert (events[1].model, events[1].label, events[1].probability) == (
        "toy-substance", None, None,
    )  # fmt: skip
    unrecognised = [p for p in predictions if p.state is State.UNRECOGNISED]
    assert all(p.novelty is not None and p.novelty >= 0.5 for p in unrecognised)
    assert {p.descriptors[0][0] for p in unrecognised} == {"smoky"}
    assert all(len(p.descriptors) == 5 for p in unrecognised)
    assert not any(p.descriptors for p in predictions if p.state is not State.UNRECOGNISED)
    assert all(p.label is None for p in predictions)


def test_a_known_odour_is_recognised_by_a_model_with_a_novelty_score(novelty_model: Bundle) -> None:
    predictions, events = process_all(Nose([novelty_model]), frames(episode_of(LEMON), 1))
    assert states(predictions) == [
        "warming_up", "ambient", "sensing", "recognised", "recovering", "ambient",
    ]  # fmt: skip
    assert EventType.UNRECOGNISED not in {event.type for event in events}
    recognised = [p for p in predictions if p.state is State.RECOGNISED]
    assert all(p.novelty is not None and p.novelty < 0.5 for p in recognised)
    assert all(p.label_set[0] == p.label for p in recognised)
    assert {p.set_coverage for p in recognised} == {0.9}


def test_a_model_without_a_space_gives_no_novelty(substance: Bundle) -> None:
    predictions, _ = process_all(Nose([substance]), frames(episode_of(PETROL), 1))
    assert "unrecognised" not in states(predictions)
    assert {p.novelty for p in predictions} == {None}
    assert {p.label_set for p in predictions} == {()}
    assert {p.set_coverage for p in predictions} == {None}
