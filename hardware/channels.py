"""Ground floor: the table of the board's channels.

Units, ranges and sentinels are those of the boards in the field: a Grove Multichannel Gas Sensor
V2, three MQ parts behind an ESP32's ADC, and a BME680. Must know nothing of lines or models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from hardware.errors import UsageError

UINT32_INFINITY = 4294967295.0
"""Infinity converted to uint32 by the upstream firmware: the channel is saturated."""

GROVE_FULL_SCALE = 1023.0
"""Full scale of the 10-bit count that the Grove board sends (0 and 1023 are both unusable)."""

MQ_FLOOR_PPM = 0.5
"""Boards send whole ppm of an MQ part: a 0 means "below a half"."""


class Part(Enum):
    """Kind of a channel's part, by which its number becomes a log-conductance."""

    GROVE = "grove"
    MQ = "mq"
    BME_GAS = "bme_gas"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Channel:
    """One column of the board.

    Attributes
    ----------
    name: column name in recordings and in every payload.
    aliases: other spellings seen in firmware and in published recordings.
    part: the kind of part.
    device: the part's name, for documentation.
    unit: unit of the number as the board sends it.
    low, high: inclusive range of plausible values, in that unit.
    saturates_at: value from which on the channel is saturated rather than out of range, or None.
    exponent: beta of the power law by which the channel's log-conductance follows a gas
        (`hardware.mixing_law`); None where it follows none.
    """

    name: str
    aliases: tuple[str, ...]
    part: Part
    device: str
    unit: str
    low: float
    high: float
    saturates_at: float | None
    exponent: float | None = None


# Grove counts: 0 means no answer on the bus, 1023 a divider at full scale.
# MQ "ppm" come from a power law over an assumed 5 V supply, so only sign and infinity are
# informative; 1e6 ppm is pure gas. BME680: datasheet BST-BME680-DS001, table 1 (operating range).
# Exponents. Grove: fitted to the 402 published mixture recordings, offset per day, of which the law
# explains .83 to .92; a bootstrap over exposures gives medians of .28, .35, .38 and .88, so each is
# known to a factor of 1.5, and `calibration.unmixing` refines them on a rig. MQ: 1, because the
# signal is ln ppm and the firmware's ppm already undoes the datasheet's power law. BME680: .6, as
# of tin oxide for reducing gases (Clifford & Tuma 1982); no mixture with it has been published.
CHANNELS: tuple[Channel, ...] = (
    Channel("NO2", (), Part.GROVE, "GM-102B", "count", 1, 1022, 1023, 0.19),
    Channel("C2H5OH", ("C2H50H", "C2H5CH"), Part.GROVE, "GM-302B", "count", 1, 1022, 1023, 0.22),
    Channel("VOC", (), Part.GROVE, "GM-502B", "count", 1, 1022, 1023, 0.23),
    Channel("CO", (), Part.GROVE, "GM-702B", "count", 1, 1022, 1023, 0.64),
    Channel("Alcohol", (), Part.MQ, "MQ-135", "ppm", 0, 1e6, UINT32_INFINITY, 1.0),
    Channel("LPG", (), Part.MQ, "MQ-9", "ppm", 0, 1e6, UINT32_INFINITY, 1.0),
    Channel("Benzene", (), Part.MQ, "MQ-3", "ppm", 0, 1e6, UINT32_INFINITY, 1.0),
    Channel("Temperature", (), Part.ENVIRONMENT, "BME680", "degC", -40, 85, None),
    Channel("Pressure", (), Part.ENVIRONMENT, "BME680", "hPa", 300, 1100, None),
    Channel("Humidity", (), Part.ENVIRONMENT, "BME680", "%RH", 0, 100, None),
    Channel(
        "Gas_Resistance",
        ("BME Gas Resistance (VOC)", "GasResistance", "Gas Resistance"),
        Part.BME_GAS,
        "BME680",
        "kOhm",
        0.001,
        1e6,
        None,
        0.6,
    ),
    Channel("Altitude", (), Part.ENVIRONMENT, "BME680", "m", -1000, 9000, None),
)

N_CHANNELS = len(CHANNELS)
CHANNEL_NAMES: tuple[str, ...] = tuple(channel.name for channel in CHANNELS)

GAS_CHANNELS: tuple[str, ...] = CHANNEL_NAMES[:6]
"""The six gas channels that the ScentFormer paper uses."""


def _indices(*parts: Part) -> tuple[int, ...]:
    return tuple(index for index, channel in enumerate(CHANNELS) if channel.part in parts)


GROVE_INDICES = _indices(Part.GROVE)
MQ_INDICES = _indices(Part.MQ)
GAS_INDICES = _indices(Part.GROVE, Part.MQ, Part.BME_GAS)
"""All channels that respond to gas: the order of the simulator's and the calibration's arrays."""
N_GAS = len(GAS_INDICES)
GAS_EXPONENTS: tuple[float, ...] = tuple(CHANNELS[index].exponent or 1.0 for index in GAS_INDICES)
"""Exponent of each channel of `GAS_INDICES`, from the table."""


def _spelling(name: str) -> str:
    """Return a name as it is compared: blanks, underscores and dashes are one."""
    return _SEPARATORS.sub("_", name.strip().casefold())


_SEPARATORS = re.compile(r"[\s_-]+")
_INDEX: dict[str, int] = {
    _spelling(spelling): index
    for index, channel in enumerate(CHANNELS)
    for spelling in (channel.name, *channel.aliases)
}


@lru_cache(maxsize=256)  # asked for every pair of a labelled line
def find_channel(name: str) -> int | None:
    """Return the index of the channel called `name` or one of its aliases, or None."""
    return _INDEX.get(_spelling(name))


def channel_index(name: str) -> int:
    """Return the index of the channel called `name`; a name not in the table is a `UsageError`."""
    index = find_channel(name)
    if index is None:
        raise UsageError(
            f"There is no channel called {name!r}. The board has: {', '.join(CHANNEL_NAMES)}."
        )
    return index
