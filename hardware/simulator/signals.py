"""Simulator: the readings that a simulated board plays, from a recording or a scenario.

May import recordings, this package's physics and tables, and numpy. Pure generators: no clock,
no thread, no port. A signal gives one float32[12] row per reading, in the channel table's order.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hardware.channels import GAS_EXPONENTS, N_CHANNELS, N_GAS, channel_index
from hardware.errors import UsageError
from hardware.mixing_law import mixed_response
from hardware.simulator.days import Day
from hardware.simulator.response import (
    LaggedSensors,
    SlowVariation,
    SmoothNoise,
    gas_readings,
    mixed_loadings,
    place_gas_readings,
    relaxed_response,
)
from hardware.simulator.scenario import AIR, parse_scenario
from hardware.simulator.tables import load_board

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hardware.recording import Recording
    from hardware.simulator.scenario import Episode
    from hardware.simulator.tables import BoardModel, Fingerprint

MIN_RATE_HZ = 0.1
MAX_RATE_HZ = 100.0

_EXPONENTS = np.array(GAS_EXPONENTS)


class Signal(Protocol):
    """A source of readings.

    Attributes
    ----------
    rate_hz: readings per second of the board's time.
    """

    rate_hz: float

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32[12] rows from the beginning; every iteration is the same."""


def _checked_rate(rate_hz: float) -> float:
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise UsageError(
            f"A board reads {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} times a second, got {rate_hz:g} Hz."
        )
    return rate_hz


class ReplaySignal:
    """The readings of a recording.

    Parameters
    ----------
    recording: as `hardware.recording.read_recording` returns it.
    rate_hz: readings per second, by default the recording's own. A faster board repeats rows
        and a slower one skips them, so that an odour keeps its duration.
    loop: begin again at the end, for ever.
    """

    def __init__(
        self, recording: Recording, *, rate_hz: float | None = None, loop: bool = False
    ) -> None:
        if len(recording) == 0:
            raise UsageError(
                f"The recording {recording.path} has no readable row to play; choose another one."
            )
        self.rate_hz = _checked_rate(recording.nominal_rate_hz if rate_hz is None else rate_hz)
        self._values = recording.values
        self._rows_per_reading = recording.nominal_rate_hz / self.rate_hz
        self._loop = loop

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for reading in itertools.count():
            # The small excess keeps rounding from repeating a row once too often.
            row = int(reading * self._rows_per_reading + 1e-9)
            if row >= len(self._values) and not self._loop:
                return
            yield self._values[row % len(self._values)].copy()


class SyntheticSignal:
    """Odour episodes from the physical response model, the same for the same seed.

    The sensors have adapted to the first episode when the signal begins: a scenario that starts
    with an odour begins within an exposure, as the published recordings do; one that starts with
    air shows the onset of what follows.

    Parameters
    ----------
    scenario: episodes, or their text, such as ``almond:60,air:30,banana=.5+mango=.5:60``.
    rate_hz: readings per second, by default that of the board's own recordings.
    seed: chooses the fingerprints, the noise and the weather.
    day: of the rig: clean air and fingerprints differ between days, whatever the seed. Day 0 is
        that of the tables.
    loop: begin again at the end, for ever, with fresh fingerprints and noise.
    board: the board whose tables are played, or its name.

    Raises
    ------
    UsageError
        An unreadable scenario, an unknown substance or board, or an impossible rate.
    """

    def __init__(
        self,
        scenario: str | tuple[Episode, ...],
        *,
        rate_hz: float | None = None,
        seed: int = 0,
        day: int = 0,
        loop: bool = False,
        board: BoardModel | str = "substances",
    ) -> None:
        self._board = load_board(board) if isinstance(board, str) else board
        self.rate_hz = _checked_rate(self._board.rate_hz if rate_hz is None else rate_hz)
        self.episodes = (
            parse_scenario(scenario, self._board.fingerprints)
            if isinstance(scenario, str)
            else scenario
        )
        self._seed = seed
        self._day = Day(day)
        self._loop = loop

    @property
    def duration_s(self) -> float:
        """Length of one run through the scenario, in seconds."""
        return sum(episode.duration_s for episode in self.episodes)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        rng = self._day.generator(self._seed)
        board = _SensorState(self._board, self._day, 1.0 / self.rate_hz, rng)
        first = True
        while first or self._loop:
            for episode in self.episodes:
                exposure = _Exposure(self._board, self._day, episode, rng)
                if first:
                    board.start_in(exposure)
                    first = False
                for reading in range(max(1, round(episode.duration_s * self.rate_hz))):
                    yield board.read(exposure, reading / self.rate_hz)


class _Exposure:
    """One episode with randomly chosen fingerprints for its substances."""

    _SIZE_SPREAD = 0.03
    """Between two exposures to the same sample, in addition to the spread of the fingerprints."""

    def __init__(
        self, board: BoardModel, day: Day, episode: Episode, rng: np.random.Generator
    ) -> None:
        self._board = board
        names = [name for name, _ in episode.components]
        self._concentrations = [
            concentration * float(np.exp(self._SIZE_SPREAD * rng.standard_normal()))
            for _, concentration in episode.components
        ]
        self._fingerprints: list[Fingerprint] = [
            board.fingerprints[name][int(rng.integers(len(board.fingerprints[name])))]
            for name in names
        ]
        self._factors = [day.response_factor(name) for name in names]
        self.loadings = (
            mixed_loadings(board, names, self._concentrations) if names else board.loadings[AIR]
        )
        self.rise_s: NDArray[np.float64] = (
            np.mean([fingerprint.rise_s for fingerprint in self._fingerprints], axis=0)
            if names
            else board.recovery_s
        )

    def target(self, t_s: float) -> NDArray[np.float64]:
        """Return ln(G / G_air), float64[8], that the sensors approach."""
        responses = [
            factor * relaxed_response(fingerprint, t_s, self._board.middle_s)
            for factor, fingerprint in zip(self._factors, self._fingerprints, strict=True)
        ]
        return mixed_response(responses, self._concentrations, _EXPONENTS)


class _SensorState:
    """The state of one board: sensors, eddies, drift and weather."""

    _DRIFT = 0.05
    _DRIFT_S = 4 * 3600.0
    _LOADINGS_S = 10.0
    """Time constant with which fluctuations change between two episodes."""

    def __init__(self, board: BoardModel, day: Day, dt_s: float, rng: np.random.Generator) -> None:
        self._board = board
        self._clean_air = board.clean_air + day.air_shift()
        self._dt_s = dt_s
        self._rng = rng
        self._sensors = LaggedSensors(np.zeros(N_GAS), board.recovery_s)
        self._eddies = SmoothNoise(board.band_times_s, dt_s, rng)
        self._drift = SlowVariation(
            np.full(N_GAS, self._DRIFT), np.full(N_GAS, self._DRIFT_S), dt_s, rng
        )
        self._weather = Weather(dt_s, rng)
        self._loadings = board.loadings[AIR]
        self._loadings_step = -np.expm1(-dt_s / self._LOADINGS_S)

    def start_in(self, exposure: _Exposure) -> None:
        """Start with sensors that have adapted to this air."""
        self._sensors.level = exposure.target(0.0)
        self._loadings = exposure.loadings

    def read(self, exposure: _Exposure, t_s: float) -> NDArray[np.float32]:
        """Return the reading, float32[12], `t_s` seconds into an exposure, and advance."""
        level = self._sensors.step(exposure.target(t_s), exposure.rise_s, self._dt_s)
        self._loadings = self._loadings + (exposure.loadings - self._loadings) * self._loadings_step
        fresh = self._rng.standard_normal((1, N_GAS))
        unit = np.concatenate([self._eddies.step(), fresh])
        fluctuation = np.einsum("bij,bj->i", self._loadings, unit)
        values = self._weather.step()
        humid = self._board.humidity * self._weather.humidity_change / 10.0
        steady = self._clean_air + level + self._drift.step() + humid
        place_gas_readings(values, gas_readings(steady, fluctuation))
        return values


class Weather:
    """What the BME680 measures besides gas: the slowly changing air of a room."""

    _USUAL = np.array([25.1, 1007.5, 28.5])
    """degC, hPa and %RH: the middle of the recordings."""
    _SPREAD = np.array([0.4, 0.8, 1.2])
    _TIMES_S = np.array([1800.0, 7200.0, 1800.0])
    _SEA_LEVEL_HPA = 1017.0
    """Pressure from which the recordings' altitudes were computed."""

    def __init__(self, dt_s: float, rng: np.random.Generator) -> None:
        self._variation = SlowVariation(self._SPREAD, self._TIMES_S, dt_s, rng)

    @property
    def humidity_change(self) -> float:
        """%RH above the room's usual humidity."""
        return float(self._variation.now[2])

    def step(self) -> NDArray[np.float32]:
        """Advance and return float32[12] with the environment channels set, the others zero."""
        temperature, pressure, humidity = self._USUAL + self._variation.step()
        # The barometric formula of the upstream firmware.
        altitude = 44330.0 * (1.0 - (pressure / self._SEA_LEVEL_HPA) ** 0.1903)
        values = np.zeros(N_CHANNELS, dtype=np.float32)
        for name, value in (
            ("Temperature", temperature),
            ("Pressure", pressure),
            ("Humidity", min(max(humidity, 0.0), 100.0)),
            ("Altitude", altitude),
        ):
            values[channel_index(name)] = round(float(value), 2)
        return values
