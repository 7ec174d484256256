"""Simulator: the readings of one board as another board would have sent them.

May import the channel table, this package's tables and signals, numpy and yaml. Pure and seeded: no
clock and no port. It is the second rig on which calibration is tested and shown; calibration must
never read its figures.

Modelled per gas channel, on the logarithm of the part's conductance s = ln(RL / Rs):

- the part's own resistance in clean air (`r0`) and its load resistor (`gain`) shift s;
- its sensitivity (`gamma`), the exponent of the power law G = G0 (1 + a c)^beta (Clifford &
  Tuma, Sensors and Actuators 3, 1982), scales the change by a gas, around clean air;
- humidity beyond the room's usual one shifts s (`humidity`), and so does slow ageing and
  poisoning (`drift`), a random walk;
- the housing and the film's thickness delay it by a first-order lag of `response_s`;
- the converter's zero (`offset`) is added to the divider's voltage, and the result is rounded
  as the board sends it: whole counts, whole ppm, two decimals of a kOhm. The MQ parts' ppm are
  the firmware's a (Rs / R0)^b on top, about the third power of the conductance.

Readings that are missing, saturated or out of range stay as they are.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import yaml

from hardware.channels import (
    CHANNEL_NAMES,
    CHANNELS,
    GAS_INDICES,
    GROVE_FULL_SCALE,
    GROVE_INDICES,
    MQ_FLOOR_PPM,
    MQ_INDICES,
    N_GAS,
    Part,
    channel_index,
)
from hardware.errors import ScentdError, UsageError
from hardware.mq_curves import MQ_CURVES, MqCurve
from hardware.simulator.tables import load_board
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

_KOHM_FLOOR = 0.01
"""The smallest gas resistance above zero that two decimals can express."""

_ENVIRONMENT = ("Temperature", "Pressure", "Humidity")
_ENVIRONMENT_COLUMNS = [channel_index(name) for name in _ENVIRONMENT]
_ENVIRONMENT_SPREAD = (1.0, 1.0, 3.0)
"""degC, hPa and %RH: the accuracy in the BME680's datasheet (BST-BME680-DS001)."""

_GAS = list(GAS_INDICES)
_HUMIDITY = channel_index("Humidity")
_RESISTANCE = channel_index("Gas_Resistance")
_NAMES = tuple(CHANNEL_NAMES[index] for index in GAS_INDICES)
_IS_GROVE = np.isin(_GAS, GROVE_INDICES)
_IS_MQ = np.isin(_GAS, MQ_INDICES)
_MQ_MOST_PPM = CHANNELS[MQ_INDICES[0]].high
_CURVES = [MQ_CURVES.get(name, MqCurve(1.0, -1.0, 1.0, 1.0)) for name in _NAMES]
_MQ_A, _MQ_SLOPE, _MQ_R0_KOHM = np.array([(one.a, -one.b, one.r0_kohm) for one in _CURVES]).T
"""a, minus b and R0 in kOhm of ppm = a (Rs / R0)^b, each float64[8]."""


class OtherRigError(ScentdError):
    """A rig's file cannot be read, or describes no rig."""


@dataclass(frozen=True, slots=True)
class OtherPart:
    """How one gas channel's part differs from the training rig's.

    Attributes
    ----------
    gain: factor on the measured conductance: the load resistor over the training rig's.
    r0: factor on the part's resistance in clean air.
    gamma: factor on its sensitivity: on every change of ln conductance from clean air.
    response_s: seconds of a first-order lag in addition to the training rig's own.
    humidity: additional change of ln conductance per 10 %RH above `USUAL_HUMIDITY`.
    drift: standard deviation of the random walk of ln conductance after one hour.
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


_SPREADS: dict[Part, tuple[float, ...]] = {
    # gain, r0, gamma, response_s, humidity, drift, offset
    Part.GROVE: (0.2, 0.35, 0.3, 8.0, 0.02, 0.01, 0.004),
    # The curve's exponent is 2 to 3, so that a third of r0 is a factor of two in ppm.
    Part.MQ: (0.1, 0.2, 0.3, 8.0, 0.02, 0.01, 0.003),
    Part.BME_GAS: (0.0, 0.35, 0.3, 8.0, 0.02, 0.01, 0.0),
}
"""Standard deviations of what `OtherRig.random` draws, of factors in their logarithm.

The datasheets allow more: an MQ-135's resistance lies within 30 to 200 kOhm and its slope anywhere
below 0.65 (Winsen), the MEMS parts' clean-air resistances differ tenfold and their sensitivities
are only bounded from below."""


@dataclass(frozen=True, slots=True)
class OtherRig:
    """Another board of the same kind.

    Attributes
    ----------
    name: for people and files.
    parts: one per gas channel, in the order of `GAS_INDICES`.
    environment: offsets of the BME680's readings: degC, hPa, %RH.
    seed: of the drift.
    """

    name: str
    parts: tuple[OtherPart, ...] = (OtherPart(),) * N_GAS
    environment: tuple[float, ...] = (0.0, 0.0, 0.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.parts) != N_GAS or not all(np.isfinite(self.environment)):
            raise UsageError(
                f"A rig has {N_GAS} gas channels and three finite environment offsets; got "
                f"{len(self.parts)} parts and {self.environment}."
            )

    @classmethod
    def random(cls, seed: int) -> OtherRig:
        """Draw a random rig, which differs as two boards of one batch of parts may."""
        rng = np.random.default_rng(seed)
        parts = tuple(_random_part(CHANNELS[index].part, rng) for index in GAS_INDICES)
        environment = tuple(
            round(float(spread * rng.standard_normal()), 2) for spread in _ENVIRONMENT_SPREAD
        )
        return cls(f"drawn-{seed}", parts, environment, seed)

    def transform(
        self, values: NDArray[np.float32], rate_hz: float, *, drift_seed: int | None = None
    ) -> NDArray[np.float32]:
        """Return a whole recording as this rig would have sent it.

        Parameters
        ----------
        values: float32[n, 12], as the training rig sent them; NaN where unusable stays NaN.
        rate_hz: readings per second.
        drift_seed: of the random walk of the drift; None derives one from the readings.

        Returns
        -------
        float32[n, 12], rounded and clipped as boards send.
        """
        if drift_seed is None:
            drift_seed = zlib.crc32(np.ascontiguousarray(values).tobytes())
        return _RigState(self, 1.0 / rate_hz, drift_seed).transform(values)


def _random_part(part: Part, rng: np.random.Generator) -> OtherPart:
    gain, r0, gamma, response_s, humidity, drift, offset = _SPREADS[part]
    draws = rng.standard_normal(6).tolist()
    return OtherPart(
        gain=round(float(np.exp(gain * draws[0])), 4),
        r0=round(float(np.exp(r0 * draws[1])), 4),
        gamma=round(float(np.exp(gamma * draws[2])), 4),
        response_s=round(response_s * abs(draws[3]), 2),
        humidity=round(humidity * draws[4], 4),
        drift=drift,
        offset=round(offset * draws[5], 5),
    )


FIXED_RIG = OtherRig(
    "fixed",
    tuple(
        OtherPart(*figures)
        for figures in (
            # gain, r0, gamma, response_s, humidity, drift, offset
            (1.0, 0.75, 0.8, 1.0, 0.02, 0.01, 0.004),
            (1.15, 0.80, 1.25, 0.6, 0.01, 0.01, -0.003),
            (0.85, 1.30, 0.8, 1.2, 0.02, 0.01, 0.003),
            (0.95, 1.45, 1.2, 1.5, -0.01, 0.01, -0.004),
            (1.1, 0.85, 1.15, 1.0, 0.02, 0.01, 0.003),
            (0.95, 1.1, 0.85, 1.2, 0.02, 0.01, -0.002),
            (1.0, 1.05, 1.1, 1.0, 0.01, 0.01, 0.0),
            (1.0, 1.4, 0.85, 0.8, 0.03, 0.01, 0.0),
        )
    ),
    (1.2, -0.8, 3.0),
    seed=4,
)
"""The rig on which this project's figures were measured: resistances, sensitivities and housings
differ as those of two boards from different batches of parts, well within the datasheets (see
`_SPREADS`). The folds' networks keep less than 0.6 of their accuracy on it."""


class OtherRigSignal:
    """A signal as another rig would send it, as `scentd simulate --rig` plays it.

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
    """The lags and the drift that a rig carries from reading to reading."""

    def __init__(self, rig: OtherRig, dt_s: float, drift_seed: int) -> None:
        columns = np.array([dataclasses.astuple(part) for part in rig.parts]).T
        gain, r0, self._gamma, response_s, self._humidity, drift, self._offset = columns
        self._shift = np.log(gain) - np.log(r0)
        self._environment = np.array(rig.environment)
        with np.errstate(divide="ignore"):
            self._follow = np.where(response_s > 0, -np.expm1(-dt_s / response_s), 1.0)
        self._drift_step = drift * np.sqrt(dt_s / 3600.0)
        self._rng = np.random.default_rng([rig.seed, drift_seed])
        clean_air = load_board().clean_air
        self._air = np.where(_IS_MQ, _mq_ln_conductance(clean_air), clean_air)
        self._level = np.full(N_GAS, np.nan)
        self._drift = np.zeros(N_GAS)
        self._humid = 0.0

    def transform(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the next readings, float32[n, 12], as this rig sends them."""
        sent = values.astype(np.float64)
        gases = sent[:, _GAS]
        usable = _usable(gases, _GAS)
        signal = _ln_conductance(np.where(usable, gases, 1.0))
        target = self._air + self._shift + self._gamma * (signal - self._air)
        target += self._humidity * self._tens_of_humidity(sent)[:, np.newaxis]
        signal = self._lagged(np.where(usable, target, np.nan)) + self._drifts(len(values))
        sent[:, _GAS] = np.where(usable, _readings(signal, self._offset), gases)
        self._shift_environment(sent)
        return sent.astype(np.float32)

    def _lagged(self, targets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Follow the targets, float64[n, 8], by each channel's lag; NaN leaves the level."""
        lagged = np.empty_like(targets)
        level = self._level
        for row, target in enumerate(targets):
            # The first target is where the sensor has been all along.
            moved = level + self._follow * (target - level)
            level = np.where(np.isnan(target), level, np.where(np.isnan(level), target, moved))
            lagged[row] = level
        self._level = level
        return lagged

    def _drifts(self, rows: int) -> NDArray[np.float64]:
        """Return the next steps of the drift's random walk, float64[n, 8]."""
        steps = self._drift_step * self._rng.standard_normal((rows, N_GAS))
        walk = np.cumsum(np.concatenate([self._drift[np.newaxis], steps]), axis=0)
        self._drift = walk[-1]
        return walk[1:]

    def _tens_of_humidity(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the difference to the usual humidity, float64[n], in tens of %RH.

        Where a BME680 hangs or is missing, its last reading holds.
        """
        tens = (values[:, _HUMIDITY] - USUAL_HUMIDITY) / 10.0
        known = _usable(values[:, [_HUMIDITY, _RESISTANCE]], [_HUMIDITY, _RESISTANCE]).all(axis=1)
        for row in np.flatnonzero(~known):
            tens[row] = tens[row - 1] if row else self._humid
        if len(tens):
            self._humid = float(tens[-1])
        return tens

    def _shift_environment(self, values: NDArray[np.float64]) -> None:
        # A hung part repeats its row on any rig.
        working = _usable(values[:, [_RESISTANCE]], [_RESISTANCE])
        before = values[:, _ENVIRONMENT_COLUMNS]
        low, high = _range(_ENVIRONMENT_COLUMNS)
        shifted = np.clip(np.round(before + self._environment, 2), low, high)
        values[:, _ENVIRONMENT_COLUMNS] = np.where(working, shifted, before)


def _range(columns: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest plausible value of those columns."""
    low, high = np.array([(CHANNELS[column].low, CHANNELS[column].high) for column in columns]).T
    return low, high


def _usable(values: NDArray[np.float64], columns: list[int]) -> NDArray[np.bool_]:
    """Return which readings of those columns are measurements, bool like `values`."""
    low, high = _range(columns)
    with np.errstate(invalid="ignore"):
        usable: NDArray[np.bool_] = (values >= low) & (values <= high)
    return usable


def _mq_ln_conductance(ln_ppm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln(RL / Rs) of ln ppm [..., 8]; only the MQ parts' columns have a meaning."""
    signal: NDArray[np.float64] = (
        np.log(_MQ_LOAD_KOHM / _MQ_R0_KOHM) + (ln_ppm - np.log(_MQ_A)) / _MQ_SLOPE
    )
    return signal


def _ln_conductance(readings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln(RL / Rs), float64[n, 8]; of the BME680, which has no divider, -ln kOhm."""
    counts = np.clip(readings, 1.0, GROVE_FULL_SCALE - 1.0)
    from_mq = _mq_ln_conductance(np.log(np.maximum(readings, MQ_FLOOR_PPM)))
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
    rs_over_r0 = _MQ_LOAD_KOHM * (1.0 / share - 1.0) / _MQ_R0_KOHM
    ppm = np.clip(np.rint(_MQ_A * rs_over_r0**-_MQ_SLOPE), 0.0, _MQ_MOST_PPM)
    kilohm = np.maximum(np.round(np.exp(-ln_conductance), 2), _KOHM_FLOOR)
    return np.where(_IS_GROVE, counts, np.where(_IS_MQ, ppm, kilohm))


def write_rig(rig: OtherRig, path: Path) -> None:
    """Write a rig as YAML.

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
    """Read a rig from YAML; missing figures are those of the training rig.

    Raises
    ------
    OtherRigError: no such file, no YAML, an unknown key, or an invalid figure.
    """
    try:
        file = YamlMapping(path.read_bytes()).build(_RigFile)
        parts = tuple(file.channels.get(name, OtherPart()) for name in _NAMES)
        environment = tuple(file.environment.get(name, 0.0) for name in _ENVIRONMENT)
        return OtherRig(file.name, parts, environment, file.seed)
    except OSError as error:
        raise OtherRigError(
            f"Expected another rig's description (YAML) in {path}, which cannot be read: {error}. "
            "docs/simulator.md shows one."
        ) from error
    except TypedYamlError as error:
        raise OtherRigError(
            f"{path} describes no rig: {error} It needs `version: {FORMAT_VERSION}` and under "
            f"`channels` some of {', '.join(_NAMES)}, each with some of "
            f"{', '.join(item.name for item in dataclasses.fields(OtherPart))}; "
            "docs/simulator.md shows one."
        ) from error


@dataclass(frozen=True, slots=True)
class _RigFile:
    """A rig's file."""

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
