"""Ground floor: units in headings and cells, as linear scales to those of the channel table.

May import the channel table. Pure. A unit that is not known for a channel has no scale, so that the
column is refused rather than read in the wrong unit.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from hardware.channels import CHANNELS, GROVE_FULL_SCALE


@dataclass(frozen=True, slots=True)
class Scale:
    """Value in the channel table's unit = value * factor + offset."""

    factor: float = 1.0
    offset: float = 0.0

    def apply(self, value: float) -> float:
        """Return a value in the channel table's unit."""
        if self.factor == 1.0 and self.offset == 0.0:
            return value  # to the bit: -0.0 stays
        return value * self.factor + self.offset


AS_SENT = Scale()

MAPPING_UNITS: dict[str, Scale] = {
    "as sent": AS_SENT,
    "volt of 3.3": Scale(GROVE_FULL_SCALE / 3.3),
    "volt of 5": Scale(GROVE_FULL_SCALE / 5.0),
    "count / 1000": Scale(1000.0),
    "ohm": Scale(1e-3),
    "kPa": Scale(10.0),
    "Pa": Scale(1e-2),
}
"""Units that a mapping file states, beside those that headings name."""


def _scales(scale: Scale, *spellings: str) -> dict[str, Scale]:
    return dict.fromkeys(spellings, scale)


# Spellings are compared as `_plain` returns them: no blanks, no degree sign, lower case.
_BY_TABLE_UNIT: dict[str, dict[str, Scale]] = {
    "count": _scales(AS_SENT, "count", "counts", "raw", "adc", "lsb", "au", "a.u.", "arb", "arb."),
    "ppm": _scales(AS_SENT, "ppm") | _scales(Scale(1e-3), "ppb"),
    "degC": (
        _scales(
            AS_SENT, "c", "cel", "degc", "celsius", "degreescelsius", "degreescelcius", "degreesc"
        )
        | _scales(Scale(1 / 1.8, -32 / 1.8), "f", "degf", "fahrenheit", "degreesf")
        | _scales(Scale(1.0, -273.15), "k", "kelvin")
    ),
    "hPa": (
        _scales(AS_SENT, "hpa", "mbar", "mb", "millibar", "hectopascal", "hectopascals")
        | _scales(Scale(1e-2), "pa", "pascal", "pascals")
        | _scales(Scale(10.0), "kpa")
        | _scales(Scale(1000.0), "bar")
        | _scales(Scale(1.333224), "mmhg", "torr")
        | _scales(Scale(33.86389), "inhg")
    ),
    "%RH": _scales(AS_SENT, "%", "%rh", "rh", "rh%", "percent", "pct", "%r.h.", "%rel"),
    "kOhm": (
        _scales(AS_SENT, "kohm", "kohms", "k\u03c9", "kiloohm", "kiloohms")
        | _scales(Scale(1e-3), "ohm", "ohms", "\u03c9")
    ),
    "m": (
        _scales(AS_SENT, "m", "meter", "meters", "metre", "metres", "masl")
        | _scales(Scale(0.3048), "ft", "feet", "foot")
    ),
}
_MEGAOHM = re.compile(r"M(ohms?|\u03a9|\u03c9)", re.IGNORECASE)

# The same quantity in a cell whose column has one of the mapping's units: "3.3V", "812 mV".
_CELL_OF_MAPPING_UNIT: dict[str, dict[str, float]] = {
    "volt of 3.3": {"v": 1.0, "volt": 1.0, "volts": 1.0, "mv": 1e-3},
    "volt of 5": {"v": 1.0, "volt": 1.0, "volts": 1.0, "mv": 1e-3},
    "count / 1000": {"ppm": 1.0},
}


def normalised(text: str) -> str:
    """Return text with compatible characters unified (a no-break space, a subscript digit) and
    invisible ones removed, blanks collapsed.
    """  # noqa: D205 - one sentence
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    unified = unicodedata.normalize("NFKC", text)
    visible = "".join(char for char in unified if unicodedata.category(char) not in {"Cf", "Cc"})
    return " ".join(visible.split())


def _plain(unit: str) -> str:
    text = normalised(unit).replace("\u00b0", "").replace("\u00ba", "")
    return text.replace(" ", "").replace("_", "").casefold()


def heading_scale(channel: int, unit: str) -> Scale | None:
    """Return the scale of a unit that a heading or a cell names, None if it is unknown here.

    Besides units, a heading may name the channel's own part ("CO (GM-702B)").
    """
    table_unit = CHANNELS[channel].unit
    text = _plain(unit)
    if not text or text in {_plain(CHANNELS[channel].device), _plain(table_unit)}:
        return AS_SENT
    # Upper case tells mega from milli.
    if (
        table_unit == "kOhm"
        and normalised(unit).startswith("M")
        and _MEGAOHM.fullmatch(normalised(unit).replace(" ", ""))
    ):
        return Scale(1000.0)
    return _BY_TABLE_UNIT[table_unit].get(text)


def mapping_scale(channel: int, unit: str) -> Scale | None:
    """Return the scale of a unit that a mapping states, None if it is unknown."""
    return MAPPING_UNITS.get(unit) or heading_scale(channel, unit)


def cell_scale(channel: int, column_unit: str, cell_unit: str) -> Scale | None:
    """Return the scale of a cell that names its unit, None where that contradicts its column.

    Parameters
    ----------
    column_unit: of the mapping or the heading, empty if there is none.
    cell_unit: as written behind the number.
    """
    factor = _CELL_OF_MAPPING_UNIT.get(column_unit, {}).get(_plain(cell_unit))
    if factor is not None:
        return Scale(MAPPING_UNITS[column_unit].factor * factor)
    if column_unit in _CELL_OF_MAPPING_UNIT:
        return None
    return heading_scale(channel, cell_unit)
