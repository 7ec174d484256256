"""Simulator: the readings of one board as another board would have sent them.

May import the channel table, this package's tables and signals, numpy and yaml. Pure, seeded,
no clock and no port: readings go in and readings come out, whole recordings or row by row. The
second rig that calibration is tested and shown on; a test bench, so it knows the truth and
calibration never reads it.

What is modelled, per gas channel, on the logarithm of the part's conductance s = ln(RL / Rs):

- the part's own resistance in clean air (`r0`) and its load resistor (`gain`) shift it;
- its sensitivity (`gamma`), the exponent of the power law G = G0 (1 + a c)^beta (Clifford &
  Tuma, Sensors and Actuators 3, 1982), scales what a gas does, around clean air;
- humidity beyond the room's usual one shifts it (`humidity`), and so does slow ageing and
  poisoning (`drift`), a random walk;
- the housing and the film's thickness delay it: first order, `response_s` later than before;
- the converter's zero (`offset`) is added to the divider's voltage, and the result is rounded
  as the board sends it: whole counts, whole ppm, two decimals of a kOhm. The MQ parts' ppm are
  the firmware's arithmetic a (Rs / R0)^b on top, which triples what happens to a conductance.

What a part cannot send is kept as it was: missing, saturated or out of range stays so.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import yaml

from hardware.channels import CHANNEL_NAMES, CHANNELS, GROVE_FULL_SCALE, Part, channel_index
from hardware.errors import ScentdError, UsageError
from hardware.mq_curves import LEAST_PPM, MQ_CURVES, MqCurve
from hardware.simulator.tables import GAS_SENSORS, N_GAS, load_board
from hardware.typed_yaml import TypedYamlError, YamlMapping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from hardware.simulator.signals import Signal

FORMAT_VERSION = 1

USUAL_HUMIDITY = 28.5
"""%RH around which humidity counts: the middle of the published recordings."""

_MQ_LOAD_KOHM = 10.0

_ENVIRONMENT = ("Temperature", "Pressure", "Humidity")

_KOHM_FLOOR = 0.01
"""The least that two decimals can say of a gas resistance that is there."""


class OtherRigError(ScentdError):
    """A rig's file cannot be read, or describes no rig."""


@dataclass(frozen=True, slots=True)
class OtherPart:
    """How one gas channel's part differs from the training rig's.

    Attributes
    ----------
    gain: factor on the conductance as measured: the load resistor over the training rig's.
    r0: factor on the part's resistance in clean air.
    gamma: factor on its sensitivity: on every change of ln conductance from clean air.
    response_s: seconds of a first-order lag on top of the training rig's own.
    humidity: change of ln conductance per 10 %RH above `USUAL_HUMIDITY`, on top likewise.
    drift: standard deviation of the walk of ln conductance after one hour.
    offset: of the converter, as a share of its full scale; a BME680 has none.
    """

    gain: float = 1.0
    r0: float = 1.0
    gamma: float = 1.0
    response_s: float = 0.0
    humidity: float = 0.0
    drift: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        numbers = dataclasses.astuple(self)
        if not all(np.isfinite(numbers)) or min(self.gain, self.r0, self.gamma) <= 0:
            raise UsageError(
                "A part's gain, r0 and gamma are factors above zero and all its figures finite "
                f"numbers; got {dataclasses.asdict(self)}."
            )
        if self.response_s < 0 or self.drift < 0 or abs(self.offset) >= 1:
            raise UsageError(
                "A part's response_s and drift must not be negative and its offset lies within "
                f"-1 and 1 of full scale; got {dataclasses.asdict(self)}."
            )


@dataclass(frozen=True, slots=True)
class _Spread:
    """How far parts of one type differ: standard deviations of what `OtherRig.random` draws.

    The makers leave their parts much room: an MQ-135's resistance lies within 30 to 200 kOhm and
    its slope anywhere below 0.65 (Winsen's sheet), the MEMS parts' clean-air resistances differ
    tenfold and their sensitivities are only bounded from below. The spreads keep within that.
    """

    gain: float
    r0: float
    gamma: float
    response_s: float
    humidity: float
    drift: float
    offset: float


_SPREADS: dict[Part, _Spread] = {
    Part.GROVE: _Spread(0.2, 0.35, 0.3, 8.0, 0.02, 0.01, 0.004),
    # Their curve's exponent is 2 to 3, so that a third of r0 is a factor of two in ppm.
    Part.MQ: _Spread(0.1, 0.2, 0.3, 8.0, 0.02, 0.01, 0.003),
    Part.BME_GAS: _Spread(0.0, 0.35, 0.3, 8.0, 0.02, 0.01, 0.0),
}
_ENVIRONMENT_SPREAD: Mapping[str, float] = {"Temperature": 1.0, "Pressure": 1.0, "Humidity": 3.0}
"""degC, hPa and %RH: the accuracy that the BME680's data sheet (BST-BME680-DS001) promises."""


@dataclass(frozen=True, slots=True)
class OtherRig:
    """Another board of the same kind.

    Attributes
    ----------
    name: for people and files.
    parts: one per gas channel, in the order of `GAS_SENSORS`.
    environment: what the BME680 reads more: degC, hPa, %RH.
    seed: of the drift.
    """

    name: str
    parts: tuple[OtherPart, ...] = (OtherPart(),) * N_GAS
    environment: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.parts) != N_GAS or not all(np.isfinite(self.environment)):
            raise UsageError(
                f"A rig has {N_GAS} gas channels and three finite environment offsets; got "
                f"{len(self.parts)} parts and {self.environment}."
            )

    @classmethod
    def random(cls, seed: int, strength: float = 1.0) -> OtherRig:
        """Draw a rig by chance.

        Parameters
        ----------
        seed: the same seed is the same rig.
        strength: factor on all differences; 0 is the training rig, 1 two boards of one batch
            of parts at the makers' word.
        """
        if not 0 <= strength < np.inf:
            raise UsageError(f"A rig's strength must not be negative, got {strength:g}.")
        rng = np.random.default_rng(seed)
        parts = tuple(_random_part(CHANNELS[index].part, rng, strength) for index in GAS_SENSORS)
        temperature, pressure, humidity = (
            round(float(strength * _ENVIRONMENT_SPREAD[name] * rng.standard_normal()), 2)
            for name in _ENVIRONMENT
        )
        return cls(f"drawn-{seed}", parts, (temperature, pressure, humidity), seed)

    def transform(
        self, values: NDArray[np.float32], rate_hz: float, *, drift_seed: int | None = None
    ) -> NDArray[np.float32]:
        """Return a whole recording as this rig would have sent it.

        Parameters
        ----------
        values: float32[n, 12], as the training rig sent them; NaN where unusable stays NaN.
        rate_hz: readings per second.
        drift_seed: of the random walk of the drift; None derives one from the recording, by its
            readings.

        Returns
        -------
        float32[n, 12], rounded and clipped as boards send.
        """
        if drift_seed is None:
            drift_seed = zlib.crc32(np.ascontiguousarray(values).tobytes())
        return _RigState(self, 1.0 / rate_hz, drift_seed).transform(values)


def _random_part(part: Part, rng: np.random.Generator, strength: float) -> OtherPart:
    spread = _SPREADS[part]
    draws = strength * rng.standard_normal(6)
    return OtherPart(
        gain=round(float(np.exp(spread.gain * draws[0])), 4),
        r0=round(float(np.exp(spread.r0 * draws[1])), 4),
        gamma=round(float(np.exp(spread.gamma * draws[2])), 4),
        response_s=round(float(spread.response_s * abs(draws[3])), 2),
        humidity=round(float(spread.humidity * draws[4]), 4),
        drift=round(strength * spread.drift, 4),
        offset=round(float(spread.offset * draws[5]), 5),
    )


FIXED_RIG = OtherRig(
    "fixed",
    (
        OtherPart(
            gain=1.0, r0=0.75, gamma=0.8, response_s=1.0, humidity=0.02, drift=0.01, offset=0.004
        ),
        OtherPart(
            gain=1.15, r0=0.80, gamma=1.25, response_s=0.6, humidity=0.01, drift=0.01, offset=-0.003
        ),
        OtherPart(
            gain=0.85, r0=1.30, gamma=0.8, response_s=1.2, humidity=0.02, drift=0.01, offset=0.003
        ),
        OtherPart(
            gain=0.95,
            r0=1.45,
            gamma=1.2,
            response_s=1.5,
            humidity=-0.01,
            drift=0.01,
            offset=-0.004,
        ),
        OtherPart(
            gain=1.1, r0=0.85, gamma=1.15, response_s=1.0, humidity=0.02, drift=0.01, offset=0.003
        ),
        OtherPart(
            gain=0.95, r0=1.1, gamma=0.85, response_s=1.2, humidity=0.02, drift=0.01, offset=-0.002
        ),
        OtherPart(gain=1.0, r0=1.05, gamma=1.1, response_s=1.0, humidity=0.01, drift=0.01),
        OtherPart(gain=1.0, r0=1.4, gamma=0.85, response_s=0.8, humidity=0.03, drift=0.01),
    ),
    (1.2, -0.8, 3.0),
    seed=4,
)
"""The one skewed rig that figures are of: resistances, sensitivities and housings as far apart as
those of two boards from different batches of parts, all well within what the makers' sheets let
pass (see `_SPREADS`). It leaves the folds' networks less than 0.6 of their accuracy."""


class OtherRigSignal:
    """A signal as another rig would send it: what `scentd simulate --rig` plays.

    Parameters
    ----------
    signal: what the training rig would read.
    rig: the rig that reads instead.
    """

    def __init__(self, signal: Signal, rig: OtherRig) -> None:
        self._signal = signal
        self._rig = rig
        self.rate_hz = signal.rate_hz

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32[12] rows from the beginning; every iteration is the same."""
        state = _RigState(self._rig, 1.0 / self.rate_hz, drift_seed=0)
        for values in self._signal:
            yield state.transform(values[np.newaxis])[0]


class _RigState:
    """A rig listening: the state that its lags and its drift keep from reading to reading."""

    def __init__(self, rig: OtherRig, dt_s: float, drift_seed: int) -> None:
        columns = np.array([dataclasses.astuple(part) for part in rig.parts]).T
        gain, r0, self._gamma, response_s, self._humidity, drift, self._offset = columns
        self._shift = np.log(gain) - np.log(r0)
        self._environment = np.array(rig.environment)
        with np.errstate(divide="ignore"):
            self._follow = np.where(response_s > 0, -np.expm1(-dt_s / response_s), 1.0)
        self._kick = drift * np.sqrt(dt_s / 3600.0)
        self._rng = np.random.default_rng([rig.seed, drift_seed])
        self._air = _ln_conductance_in_air()
        self._level = np.full(N_GAS, np.nan)
        self._walk = np.zeros(N_GAS)
        self._humid = 0.0

    def transform(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the next readings, float32[n, 12], as this rig sends them."""
        heard = values.astype(np.float64)
        gases = heard[:, _GAS]
        usable = _usable(gases, _GAS)
        signal = _ln_conductance(np.where(usable, gases, 1.0))
        target = self._air + self._shift + self._gamma * (signal - self._air)
        target += self._humidity * self._humid_tens(heard)[:, np.newaxis]
        signal = self._lagged(np.where(usable, target, np.nan)) + self._walked(len(values))
        heard[:, _GAS] = np.where(usable, _readings(signal, self._offset), gases)
        self._move_environment(heard)
        return heard.astype(np.float32)

    def _lagged(self, target: NDArray[np.float64]) -> NDArray[np.float64]:
        """Follow the targets, float64[n, 8], at each channel's pace; over NaN nothing moves."""
        lagged = np.empty_like(target)
        level = self._level
        for row, aim in enumerate(target):
            # What comes after nothing is where the sensor has been all along.
            moved = level + self._follow * (aim - level)
            level = np.where(np.isnan(aim), level, np.where(np.isnan(level), aim, moved))
            lagged[row] = level
        self._level = level
        return lagged

    def _walked(self, rows: int) -> NDArray[np.float64]:
        """Return the next steps of the drift's walk, float64[n, 8]."""
        kicks = self._kick * self._rng.standard_normal((rows, N_GAS))
        walk = np.cumsum(np.concatenate([self._walk[np.newaxis], kicks]), axis=0)[1:]
        if rows:
            self._walk = walk[-1]
        return walk

    def _humid_tens(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the departure from the usual humidity, float64[n], in tens of %RH.

        A BME680 that hangs or is missing says nothing of the air; the last reading holds.
        """
        tens = (values[:, _HUMIDITY] - USUAL_HUMIDITY) / 10.0
        known = _usable(values[:, [_HUMIDITY, _RESISTANCE]], [_HUMIDITY, _RESISTANCE]).all(axis=1)
        for row in np.flatnonzero(~known):
            tens[row] = tens[row - 1] if row else self._humid
        if len(tens):
            self._humid = float(tens[-1])
        return tens

    def _move_environment(self, heard: NDArray[np.float64]) -> None:
        columns = [channel_index(name) for name in _ENVIRONMENT]
        # A hung part repeats its row on any rig.
        alive = _usable(heard[:, [_RESISTANCE]], [_RESISTANCE])
        moved = np.round(heard[:, columns] + self._environment, 2)
        low = [CHANNELS[column].low for column in columns]
        high = [CHANNELS[column].high for column in columns]
        heard[:, columns] = np.where(alive, np.clip(moved, low, high), heard[:, columns])


_GAS = list(GAS_SENSORS)
_HUMIDITY = channel_index("Humidity")
_RESISTANCE = channel_index("Gas_Resistance")
_PARTS = tuple(CHANNELS[index].part for index in GAS_SENSORS)
_NAMES = tuple(CHANNEL_NAMES[index] for index in GAS_SENSORS)
_IS_GROVE = np.array([part is Part.GROVE for part in _PARTS])
_IS_MQ = np.array([part is Part.MQ for part in _PARTS])
_NO_CURVE = MqCurve(1.0, -1.0, 1.0, 1.0)
_MQ = [MQ_CURVES.get(name, _NO_CURVE) for name in _NAMES]
_CURVES = np.array([(curve.a, -curve.b, curve.r0_kohm) for curve in _MQ]).T
"""a, minus b and R0 in kOhm of ppm = a (Rs / R0)^b, float64[3, 8]."""


def _usable(values: NDArray[np.float64], columns: list[int]) -> NDArray[np.bool_]:
    """Tell which readings of those columns are measurements, bool like `values`."""
    low = np.array([CHANNELS[column].low for column in columns])
    high = np.array([CHANNELS[column].high for column in columns])
    with np.errstate(invalid="ignore"):
        usable: NDArray[np.bool_] = (values >= low) & (values <= high)
    return usable


def _ln_conductance(readings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln(RL / Rs), float64[n, 8]; of the BME680, which has no divider, -ln kOhm."""
    counts = np.clip(readings, 1.0, GROVE_FULL_SCALE - 1.0)
    a, slope, r0_kohm = _CURVES
    ln_ppm = np.log(np.maximum(readings, LEAST_PPM))
    from_mq = np.log(_MQ_LOAD_KOHM / r0_kohm) + (ln_ppm - np.log(a)) / slope
    from_grove = np.log(counts / (GROVE_FULL_SCALE - counts))
    from_bme = -np.log(np.maximum(readings, _KOHM_FLOOR))
    return np.where(_IS_GROVE, from_grove, np.where(_IS_MQ, from_mq, from_bme))


def _readings(
    ln_conductance: NDArray[np.float64], offset: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what the board sends of ln(RL / Rs), float64[n, 8], its converter's zero moved."""
    # A divider's voltage over its supply; the rails stay one count of 10 and of 12 bits away.
    share = 1.0 / (1.0 + np.exp(-ln_conductance)) + offset
    counts = np.clip(np.rint(GROVE_FULL_SCALE * share), 1.0, GROVE_FULL_SCALE - 1.0)
    share = np.clip(share, 1.0 / 4096.0, 4095.0 / 4096.0)
    a, slope, r0_kohm = _CURVES
    ratio_kohm = _MQ_LOAD_KOHM * (1.0 / share - 1.0) / r0_kohm
    ppm = np.clip(np.rint(a * ratio_kohm**-slope), 0.0, CHANNELS[_GAS[_MQ_FIRST]].high)
    kilohm = np.maximum(np.round(np.exp(-ln_conductance), 2), _KOHM_FLOOR)
    return np.where(_IS_GROVE, counts, np.where(_IS_MQ, ppm, kilohm))


_MQ_FIRST = int(np.flatnonzero(_IS_MQ)[0])


def _ln_conductance_in_air() -> NDArray[np.float64]:
    """Return the training rig's ln(RL / Rs) in clean air, float64[8]."""
    clean = load_board().clean_air
    a, slope, r0_kohm = _CURVES
    from_mq = np.log(_MQ_LOAD_KOHM / r0_kohm) + (clean - np.log(a)) / slope
    return np.where(_IS_MQ, from_mq, clean)


def write_rig(rig: OtherRig, path: Path) -> None:
    """Write a rig as YAML, every figure of every part.

    Raises
    ------
    OtherRigError: the file cannot be written.
    """
    plain = {
        "version": FORMAT_VERSION,
        "name": rig.name,
        "seed": rig.seed,
        "channels": {
            name: dataclasses.asdict(part) for name, part in zip(_NAMES, rig.parts, strict=True)
        },
        "environment": dict(zip(_ENVIRONMENT, rig.environment, strict=True)),
    }
    text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OtherRigError(
            f"The rig cannot be written to {path} ({error.strerror}). Its folder must exist and "
            "be writable."
        ) from error


def read_rig(path: Path) -> OtherRig:
    """Read a rig from YAML; what a channel leaves out is as on the training rig.

    Raises
    ------
    OtherRigError: no such file, no YAML, an unknown key, or a figure that is none.
    """
    try:
        file = YamlMapping(path.read_bytes()).build(_RigFile)
        parts = tuple(file.channels.get(name, OtherPart()) for name in _NAMES)
        temperature, pressure, humidity = (file.environment.get(name, 0.0) for name in _ENVIRONMENT)
        return OtherRig(file.name, parts, (temperature, pressure, humidity), file.seed)
    except OSError as error:
        raise OtherRigError(
            f"Expected another rig's description (YAML) in {path}, which cannot be read: {error}. "
            "docs/simulator.md shows one."
        ) from error
    except TypedYamlError as error:
        raise OtherRigError(
            f"{path} describes no rig: {error} It needs `version: {FORMAT_VERSION}` and under "
            f"`channels` some of {', '.join(_NAMES)}, each with some of "
            f"{', '.join(_FIGURES)}; docs/simulator.md shows one."
        ) from error


_FIGURES = tuple(item.name for item in dataclasses.fields(OtherPart))


@dataclass(frozen=True, slots=True)
class _RigFile:
    """A rig's file; what it leaves out is as on the training rig."""

    version: int
    name: str = "other"
    seed: int = 0
    channels: Mapping[str, OtherPart] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.version != FORMAT_VERSION:
            raise ValueError(f"its version is {self.version}, not {FORMAT_VERSION}")
        if unknown := {*self.channels, *self.environment} - {*_NAMES, *_ENVIRONMENT}:
            raise ValueError(f"nothing is called {', '.join(sorted(unknown))} there")
