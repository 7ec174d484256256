"""Clean air is followed while the air is ambient; an odour is never followed."""

from __future__ import annotations

import numpy as np
import pytest

from models.clean_air import DRIFT_S, RISE, CleanAirSource
from models.exposure import Change, Phase
from models.exposure_settings import ExposureSettings
from models.exposure_stream import ExposureStream
from models.response import ResponseRows
from models.signals import log_signals
from tests.models.episodes import AIR

CLEAN = log_signals(AIR[np.newaxis])[0]
RISING = np.array([0.9, 0.5, 0.6, 0.4])


class Board:
    """Plays effects on the Grove channels to an exposure stream, at 1 Hz."""

    def __init__(self, **settings: object) -> None:
        self.stream = ExposureStream(ExposureSettings(), **settings)  # type: ignore[arg-type]
        self.changes: list[Change] = []
        self._rng = np.random.default_rng(0)

    def play(self, effect: np.ndarray, dt_s: float = 1.0) -> ResponseRows:
        """Play float[n, 4] of log-conductance; return the rows of the response."""
        rows = []
        odds = AIR[:4] / (1023 - AIR[:4]) * np.exp(effect)
        counts = np.rint(1023 * odds / (1 + odds) + self._rng.normal(0, 0.3, effect.shape))
        for grove in counts:
            values = AIR.copy()
            values[:4] = grove
            change = self.stream.update(values, dt_s, named=False)
            self.changes += [] if change is None else [change]
            rows += self.stream.rows
            self.stream.rows.clear()
        return ResponseRows.of(rows)

    @property
    def error(self) -> float:
        """Largest distance of the known clean air of the Grove channels from the true one."""
        assert self.stream.clean_air is not None
        return float(np.abs(self.stream.clean_air.signals[:4] - CLEAN[:4]).max())


def still(seconds: int) -> np.ndarray:
    return np.zeros((seconds, 4))


def rise(seconds: int, rise_s: float = 12.0, size: float = 1.0) -> np.ndarray:
    return size * np.outer(1 - np.exp(-np.arange(seconds) / rise_s), RISING)


def test_ambient_air_before_an_exposure_is_its_clean_air() -> None:
    board = Board()
    board.play(still(60))
    rows = board.play(rise(120))
    assert board.stream.clean_air is not None
    assert board.stream.clean_air.source is CleanAirSource.AMBIENT
    assert board.error < 0.03
    assert rows.response[-1, :4] == pytest.approx(RISING, abs=0.05)


def test_a_recording_that_rises_from_its_first_reading_began_in_clean_air() -> None:
    board = Board(skip_warm_up=True)
    rows = board.play(rise(120))
    assert board.stream.clean_air is not None
    assert board.stream.clean_air.source is CleanAirSource.START
    assert board.stream.phase is Phase.EXPOSED
    assert rows.response[-1, :4] == pytest.approx(RISING, abs=0.05)
    assert board.stream.clean_air_age_s == pytest.approx(120, abs=5)


@pytest.mark.parametrize("rise_s", [60.0, 200.0])
def test_a_slow_smell_does_not_become_clean_air(rise_s: float) -> None:
    board = Board(skip_warm_up=True)
    board.play(still(30))
    rows = board.play(rise(600, rise_s))
    assert board.stream.phase is Phase.EXPOSED
    assert rows.response[-1, :4] == pytest.approx(RISING * (1 - np.exp(-600 / rise_s)), abs=0.2)


def test_slow_drift_is_followed_and_is_no_onset() -> None:
    """A tenth an hour, for two hours."""
    board = Board(skip_warm_up=True)
    drift = np.outer(np.arange(7200) * 0.1 / 3600, np.ones(4))
    board.play(drift)
    assert Change.ONSET not in board.changes
    assert board.stream.clean_air is not None
    behind = CLEAN[:4] + drift[-1] - board.stream.clean_air.signals[:4]
    assert np.abs(behind).max() < 0.1 / 3600 * DRIFT_S + 0.02


def test_an_odour_from_the_start_that_stays_is_not_told_from_clean_air() -> None:
    board = Board(skip_warm_up=True)
    board.play(still(60) + RISING)
    assert Change.ONSET not in board.changes


def test_a_calibrated_rig_knows_an_odour_from_the_start() -> None:
    board = Board(skip_warm_up=True, calibrated_air=CLEAN)
    rows = board.play(still(60) + RISING)
    assert board.changes == [Change.ONSET]
    assert board.stream.clean_air is not None
    assert board.stream.clean_air.source is CleanAirSource.CALIBRATION
    assert board.stream.clean_air_age_s is None
    assert rows.response[-1, :4] == pytest.approx(RISING, abs=0.05)


def test_clean_air_of_another_day_replaces_that_of_the_calibration() -> None:
    board = Board(skip_warm_up=True, calibrated_air=CLEAN - 0.2)
    board.play(still(60))
    assert Change.ONSET not in board.changes
    assert board.stream.clean_air is not None
    assert board.stream.clean_air.source is CleanAirSource.AMBIENT
    assert board.error < 0.03


def test_a_calibrated_rig_that_is_switched_on_in_an_odour_knows_it() -> None:
    board = Board(calibrated_air=CLEAN)
    rows = board.play(still(200) + RISING)
    assert board.changes[-1] is Change.ONSET
    assert board.stream.clean_air is not None
    assert board.stream.clean_air.source is CleanAirSource.CALIBRATION
    assert rows.response[-1, :4] == pytest.approx(RISING, abs=0.05)


def test_heaters_that_decay_to_the_clean_air_of_the_calibration_are_no_odour() -> None:
    board = Board(calibrated_air=CLEAN)
    heating = np.outer(np.exp(-np.arange(1500) / 150.0), np.ones(4)) * 2.0
    board.play(heating)
    assert Change.ONSET not in board.changes
    assert board.stream.phase is Phase.AMBIENT


@pytest.mark.parametrize("warm", [True, False])
def test_clean_air_that_has_moved_since_the_calibration_is_an_exposure_only_once(
    *, warm: bool
) -> None:
    board = Board(skip_warm_up=warm, calibrated_air=CLEAN - 0.6)
    board.play(still(3000))
    assert board.changes.count(Change.ONSET) == 1
    assert board.stream.phase is Phase.AMBIENT
    assert board.error < 0.03


def test_air_presumed_clean_that_stays_fallen_was_an_odour() -> None:
    board = Board(skip_warm_up=True)
    board.play(still(60) + 2 * RISE)
    board.play(still(1000))
    assert board.stream.phase is Phase.AMBIENT
    assert board.error < 0.03


def test_heaters_just_switched_on_are_no_odour() -> None:
    board = Board()
    heating = np.outer(1 - np.exp(-np.arange(600) / 150.0), np.ones(4)) * 1.5
    board.play(heating[60:])
    after = board.changes[board.changes.index(Change.SETTLED) :]
    assert board.stream.clean_air is None or Change.ONSET not in after[1:3]


def test_a_long_gap_forgets_what_was_known() -> None:
    board = Board()
    board.play(still(60))
    board.stream.reset()
    assert board.stream.clean_air is None


def test_a_second_exposure_begins_new_rows() -> None:
    board = Board()
    board.play(still(60))
    board.play(rise(60))
    board.play(np.outer(np.exp(-np.arange(300) / 15.0), RISING))
    board.stream.restarted = False
    board.play(rise(60))
    assert board.stream.restarted
    assert board.changes.count(Change.ONSET) == 2


@pytest.mark.parametrize("seconds", [0, 1, 10])
@pytest.mark.parametrize("rise_s", [12.0, 40.0])
def test_a_faint_smell_as_soon_as_the_last_one_has_gone_is_found_and_stays(
    seconds: int, rise_s: float
) -> None:
    board = Board(skip_warm_up=True)
    board.play(still(60))
    board.play(rise(90))
    fading = np.outer(np.exp(-np.arange(600) / 15.0), RISING)
    gone_s = 0
    while Change.CLEAN not in board.changes[1:]:
        board.play(fading[gone_s : gone_s + 1])
        gone_s += 1
    board.play(fading[gone_s : gone_s + seconds])
    gone_s += seconds
    board.play(fading[gone_s : gone_s + 200] + rise(200, rise_s, 0.3))
    assert board.changes[-2:] == [Change.CLEAN, Change.ONSET]
    assert board.stream.phase is Phase.EXPOSED
