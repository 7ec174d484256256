"""training/: false alarms in clean air, and the delays until an odour's onset and end are found.

May import the simulator, the models and scipy; needs no torch. Readings go through the real
`models.exposure.ExposureDetector`, and shorter stretches through the whole `models.nose.Nose`. The
seeds are other ones than those by which the detector's settings were chosen (below 200).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaincinv

from hardware.channels import CHANNELS, N_GAS, Part
from hardware.frames import SensorFrame
from hardware.readings import range_quality
from hardware.simulator.other_rig import FIXED_RIG, OtherPart, OtherRig
from hardware.simulator.scenario import AIR
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import BOARD_NAMES, SUBSTANCE_BOARD, load_board
from models.decision_spec import State
from models.exposure import Change, ExposureDetector, Phase
from models.exposure_settings import ExposureSettings
from models.nose import Nose
from models.preprocess import Lineariser, PreprocessSpec
from models.results import EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from models.bundle import Bundle
    from training.data.dataset import Dataset

    Progress = Callable[[Sequence[str]], Iterable[str]]

CONFIDENCE = 0.95
FIRST_SEED = 1000

STRETCH_H = 10.0
"""Each simulated board runs for so long; the next has its own air and its own warm-up."""

WANDERING_SHARE = 1 / 3
"""Wandering rigs run for this share of the hours of clean air."""

NOSE_RATES_HZ = (1.0, 10.0)
FAST_BOARD_SHARE = 0.25
"""A 10 Hz board runs through the whole nose for this share of the hours of one at 1 Hz."""

WANDERING_RIGS: dict[str, OtherRig] = {
    "fixed rig": FIXED_RIG,
    "drift of 5 % an hour": OtherRig("drift-5", (OtherPart(drift=0.05),) * N_GAS),
    "drift of 10 % an hour": OtherRig("drift-10", (OtherPart(drift=0.1),) * N_GAS),
    "drift of 20 % an hour": OtherRig("drift-20", (OtherPart(drift=0.2),) * N_GAS),
    "humidity, 30 % per 10 %RH": OtherRig("humid", (OtherPart(humidity=0.3),) * N_GAS),
}
"""Baselines that wander more than the simulator's own, which moves by 3.5 % in its first hour and
stays within 5 %, and by 2 to 5 % per 10 %RH. Drift is the standard deviation after one hour."""

BEFORE_S, ODOUR_S, AFTER_S = 300, 180, 420
"""An episode: clean air, an odour, clean air."""
CONCENTRATIONS = (1.0, 0.3, 0.1)
"""Of the odours, 1 being that of the recordings."""

_BLOCK_S = 30
_QUIET_BLOCKS = 4
_QUIET_RANGE = 0.05
"""A stretch of a recording is quiet while the half-minute medians of its Grove channels stay within
5 %, for two minutes or more. The faintest of fifty odours moves some channel by a quarter."""


@dataclass(frozen=True, slots=True)
class AlarmCount:
    """Onsets in hours of air without an odour, and the seconds that counted as an odour's."""

    hours: float = 0.0
    alarms: int = 0
    alarm_s: float = 0.0

    def __add__(self, other: AlarmCount) -> AlarmCount:
        return AlarmCount(
            self.hours + other.hours, self.alarms + other.alarms, self.alarm_s + other.alarm_s
        )

    def figures(self) -> dict[str, float]:
        """Return the figures for the report."""
        return {
            "hours": round(self.hours, 2),
            "alarms": self.alarms,
            "per_hour": round(self.alarms / self.hours, 4) if self.hours else 0.0,
            "upper_95": round(upper_rate(self.alarms, self.hours), 4),
            "alarm_share": round(self.alarm_s / (3600.0 * self.hours), 5) if self.hours else 0.0,
        }


def measure_clean_air(
    bundles: Sequence[Bundle],
    recordings: Dataset | None = None,
    *,
    hours: float = 120.0,
    nose_hours: float = 24.0,
    progress: Progress = iter,
) -> dict[str, Any]:
    """Count false alarms, and measure how soon odours are found.

    Parameters
    ----------
    bundles: the models that the whole nose runs, all together on either board at either rate.
    recordings: real ones of single substances, for their quiet stretches; None leaves them out.
    hours: of simulated clean air for the detector, two minutes of computing for 120.
    nose_hours: of simulated clean air for the whole nose, at 1 Hz.
    progress: wraps the list of parts.

    Returns
    -------
    clean_air: by rig, "simulated" being the board itself: hours, alarms, alarms per hour, the
        upper end of the rate's one-sided 95 % interval, and the share of time under alarm.
    quiet_recordings: the same, of real quiet stretches, with their number; None without data.
    nose: by board and rate ("mixtures at 10 Hz"): hours, and by false event ("onset",
        "recognised", "unrecognised") how often, per hour, and at most per hour; with the share of
        predictions in each state.
    episodes: by concentration: how many, shares whose onset and end were found, false onsets
        before and after, and median and 90th percentile of seconds to the onset, from the
        odour's removal to the end found, and to clean air again.
    """
    settings = ExposureSettings()
    parts: dict[str, Callable[[], Any]] = {
        "clean_air": lambda: count_simulated_alarms(settings, hours),
        "quiet_recordings": lambda: recordings and count_quiet_alarms(recordings, settings),
        "nose": lambda: {
            f"{board} at {rate_hz:g} Hz": run_nose(bundles, board, rate_hz, nose_hours)
            for board in BOARD_NAMES
            for rate_hz in NOSE_RATES_HZ
        },
        "episodes": lambda: {f"{c:g}": measure_episodes(settings, c) for c in CONCENTRATIONS},
    }
    return {"confidence": CONFIDENCE, **{part: parts[part]() for part in progress([*parts])}}


def upper_rate(events: int, hours: float) -> float:
    """Return the upper confidence limit of a Poisson rate per hour.

    Exact and one-sided (Garwood, Biometrika 28, 1936): the rate at which so few events happen
    in one case of twenty; half the chi-squared quantile with 2 (events + 1) degrees of
    freedom, over the time. Infinite over no time at all.
    """
    return float(gammaincinv(events + 1, CONFIDENCE)) / hours if hours > 0 else float("inf")


def count_simulated_alarms(settings: ExposureSettings, hours: float) -> dict[str, dict[str, float]]:
    """Count alarms in simulated clean air, as the board itself and as wandering rigs send it."""
    found = dict.fromkeys(("simulated", *WANDERING_RIGS), AlarmCount())
    lengths = [STRETCH_H] * int(hours // STRETCH_H)
    if hours % STRETCH_H:
        lengths.append(hours % STRETCH_H)
    for number, length_h in enumerate(lengths):
        seed = FIRST_SEED + number
        air = play_scenario(f"{AIR}:{length_h * 3600.0:g}", seed)
        found["simulated"] += count_alarms(air, settings)
        if number < max(1.0, WANDERING_SHARE * len(lengths)):
            for name, rig in WANDERING_RIGS.items():
                sent = replace(rig, seed=seed).transform(air, 1.0, drift_seed=0)
                found[name] += count_alarms(sent, settings)
    return {name: count.figures() for name, count in found.items()}


def play_scenario(scenario: str, seed: int) -> NDArray[np.float32]:
    """Return the readings of the 1 Hz board in a scenario, float32[n, 12]."""
    return np.array(list(SyntheticSignal(scenario, seed=seed)), dtype=np.float32)


def count_alarms(
    values: NDArray[np.float32], settings: ExposureSettings, *, warm: bool = False
) -> AlarmCount:
    """Run the detector on readings of air without an odour, float32[n, 12] at 1 Hz."""
    detector = ExposureDetector(settings, skip_warm_up=warm)
    alarms, alarm_s = 0, 0.0
    for row in values.tolist():
        alarms += detector.update(row, 1.0) is Change.ONSET
        alarm_s += detector.phase is Phase.EXPOSED
    return AlarmCount(len(values) / 3600.0, alarms, alarm_s)


def count_quiet_alarms(recordings: Dataset, settings: ExposureSettings) -> dict[str, float]:
    """Count alarms in the quiet stretches of real recordings.

    They lie within exposures, so they have the fluctuations of a plume and not the calm of clean
    air; the MQ parts are not used to find them.
    """
    total, stretches = AlarmCount(), 0
    for sample in recordings.samples:
        for start, end in find_quiet_stretches(sample.values):
            total += count_alarms(sample.values[start:end], settings, warm=True)
            stretches += 1
    return {"stretches": stretches, **total.figures()}


def find_quiet_stretches(values: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Yield (first row, end) of each quiet stretch of readings float32[n, 12] at 1 Hz."""
    grove = tuple(channel.name for channel in CHANNELS if channel.part is Part.GROVE)
    signal = Lineariser(PreprocessSpec(grove, rate_hz=1.0))(values)
    blocks = len(signal) // _BLOCK_S
    levels = np.median(signal[: blocks * _BLOCK_S].reshape(blocks, _BLOCK_S, -1), axis=1)
    start = 0
    while start < blocks:
        end = start + 1
        while end < blocks and np.ptp(levels[start : end + 1], axis=0).max() <= _QUIET_RANGE:
            end += 1
        if end - start >= _QUIET_BLOCKS:
            yield start * _BLOCK_S, end * _BLOCK_S
            start = end
        else:
            start += 1


def run_nose(bundles: Sequence[Bundle], board: str, rate_hz: float, hours: float) -> dict[str, Any]:
    """Run the whole nose with all models in clean air, and count its events and states."""
    run_h = hours * (1.0 if rate_hz <= 1.0 else FAST_BOARD_SHARE)
    signal = SyntheticSignal(
        f"{AIR}:{run_h * 3600.0:g}", rate_hz=rate_hz, seed=FIRST_SEED, board=board
    )
    nose = Nose(bundles, rate_hz=rate_hz)
    events = dict.fromkeys((EventType.ONSET, EventType.RECOGNISED, EventType.UNRECOGNISED), 0)
    states = dict.fromkeys(State, 0)
    for row, values in enumerate(signal):
        time_ms = round(row * 1000 / rate_hz)
        step = nose.process(SensorFrame(row, time_ms, values, range_quality(values).copy()))
        for prediction in step.predictions:
            states[prediction.state] += 1
        for event in step.events:
            if event.type in events:
                events[event.type] += 1
    predictions = sum(states.values())
    return {
        "rate_hz": rate_hz,
        "hours": round(run_h, 2),
        "said": {
            str(kind): {
                "times": times,
                "per_hour": round(times / run_h, 4),
                "upper_95": round(upper_rate(times, run_h), 4),
            }
            for kind, times in events.items()
        },
        "states": {str(state): round(n / predictions, 5) for state, n in states.items() if n},
    }


@dataclass(frozen=True, slots=True)
class EpisodeTimes:
    """When the detector found an odour's onset, its end and clean air; in seconds, None if not."""

    onset_s: float | None
    end_s: float | None
    clean_s: float | None
    false_onsets: int


def measure_episodes(settings: ExposureSettings, concentration: float) -> dict[str, Any]:
    """Play every substance once, with clean air before and after."""
    results = []
    for number, name in enumerate(load_board(SUBSTANCE_BOARD).substances):
        odour = f"{name}={concentration:g}:{ODOUR_S}"
        scenario = f"{AIR}:{BEFORE_S},{odour},{AIR}:{AFTER_S}"
        results.append(follow_episode(play_scenario(scenario, FIRST_SEED + number), settings))
    found: dict[str, Any] = {"episodes": len(results)}
    for name, share in (
        ("onset_s", "onset_found"), ("end_s", "end_found"), ("clean_s", "clean_again"),
    ):  # fmt: skip
        values = [getattr(result, name) for result in results]
        times = [value for value in values if value is not None]
        found[share] = round(len(times) / len(results), 4)
        found[name] = np.percentile(times, [50, 90]).round(1).tolist() if times else None
    return {**found, "false_onsets": sum(result.false_onsets for result in results)}


def follow_episode(values: NDArray[np.float32], settings: ExposureSettings) -> EpisodeTimes:
    """Run the detector on one episode at 1 Hz.

    The onset must fall into the odour's time. The end is the first after the odour's removal; an
    odour that was not found has none.
    """
    detector = ExposureDetector(settings)
    removed_s = BEFORE_S + ODOUR_S
    onset_s = end_s = clean_s = None
    false_onsets = 0
    for second, row in enumerate(values.tolist()):
        change = detector.update(row, 1.0)
        if change is Change.ONSET:
            if BEFORE_S <= second < removed_s:
                onset_s = second - BEFORE_S if onset_s is None else onset_s
            else:
                false_onsets += 1
        elif onset_s is not None and second >= removed_s:
            if change is Change.ENDED and end_s is None:
                end_s = second - removed_s
            elif change is Change.CLEAN and clean_s is None:
                clean_s = second - removed_s
    return EpisodeTimes(onset_s, end_s, clean_s, false_onsets)
