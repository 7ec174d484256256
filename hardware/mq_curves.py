"""Ground floor: the power laws from which the upstream firmware computes the MQ parts' ppm.

May import the channel table. The firmware in this folder has its own copy of these constants.
"""

from __future__ import annotations

from dataclasses import dataclass

from hardware.channels import MQ_FLOOR_PPM


@dataclass(frozen=True, slots=True)
class MqCurve:
    """An MQ part as the upstream firmware computes it: ppm = a (Rs / R0)^b.

    Attributes
    ----------
    a, b: of the firmware's power law (its `MQUnifiedsensor` settings).
    r0_kohm: R0 that the firmware assumes.
    clean_air_ratio: Rs / R0 in clean air, from the maker's datasheet.
    """

    a: float
    b: float
    r0_kohm: float
    clean_air_ratio: float

    def resistance_kohm(self, ppm: float) -> float:
        """Return Rs in kOhm of a reading; below half a ppm, its value at half a ppm."""
        return float((max(ppm, MQ_FLOOR_PPM) / self.a) ** (1.0 / self.b) * self.r0_kohm)


MQ_CURVES: dict[str, MqCurve] = {
    "Alcohol": MqCurve(77.255, -3.18, 14.29, 3.6),
    "LPG": MqCurve(599.65, -2.244, 2.96, 9.6),
    "Benzene": MqCurve(4.8387, -2.68, 0.04, 60.0),
}
"""By channel name."""
