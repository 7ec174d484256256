"""Models: the constants of the onset detector, which the rig's owner may change.

May import hardware and the standard library alone: the configuration is read without numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from hardware.errors import UsageError
from hardware.typed_yaml import Rule, between

Seconds = Annotated[
    float,
    between(0.001, 1_000_000, "a time lies between {} and {} seconds"),
]
Amount = Annotated[float, between(1e-9, 1e6, "this must be a positive number")]
Share = Annotated[
    float,
    Rule(
        "a share lies between 0 and 1, both excluded",
        exclusiveMinimum=0,
        exclusiveMaximum=1,
    ),
]


@dataclass(frozen=True, slots=True)
class ExposureSettings:
    """When an odour begins and ends. Times in seconds, so they hold at any rate."""

    warm_up_min_s: Seconds = 20.0
    """Shortest warm-up. The heaters of the Grove board are hot after about 20 s."""

    warm_up_max_s: Seconds = 120.0
    """The state leaves `warming_up` after this, settled or not."""

    settled_slope: Amount = 0.01
    """Natural log units per second below which all channels count as settled. A heater just
    switched on moves a channel by e within a minute (0.017); the median of 250 real recordings
    moves by 0.0006, nine of ten by less than 0.01."""

    quiet_s: Seconds = 20.0
    """The air counts as clean after so long without a signal above the noise."""

    quiet_steps: Amount = 4.0
    """Range of the smoothed signal, in noise units, that is still quiet. Four of five real
    recordings exceed it within a minute on some channel."""

    smoothing_s: Seconds = 2.0
    """Time constant of the signal that is examined; a glitch of a second is no odour."""

    baseline_s: Seconds = 120.0
    """Time constant with which clean air is followed. Drift slower than `allowance` noise units
    per `baseline_s` never adds up."""

    allowance: Amount = 2.0
    """Noise units by which the signal may leave the baseline without counting (CUSUM's k)."""

    threshold: Amount = 20.0
    """Noise-unit seconds beyond the allowance that make an onset (CUSUM's h). There was no onset
    in 120 hours of simulated air, and 3 in 40 hours of a baseline that moves 10 % an hour; 50 of
    50 odours were found, half of them within 9 s, nine of ten within 20 s. At 12, with a noise of
    at least 1.5 %, there were 35 in those 120 hours, and half of the odours were found within 6 s.
    `scent-train trust` measures it anew."""

    certain: Amount = 10.0
    """Noise units that an exposure must have reached, and come back from, to prove that the air
    around it is clean. Slow changes within real recordings of one odour stay below (68 of 69),
    real odours against air go beyond (44 of 50)."""

    end_fraction: Share = 0.35
    """An exposure has ended when every channel that took part has come back to this share of its
    largest deviation."""

    recovered: Amount = 3.0
    """Noise units from the baseline within which a channel has recovered."""

    recovery_max_s: Seconds = 180.0
    """After this the air becomes the new clean air, recovered or not: metal oxides keep a residue
    for hours."""

    steady_max_s: Seconds = 14_400.0
    """An exposure that stayed quiet this long is taken for a moved baseline."""

    back_s: Seconds = 3.0
    """All channels must be back for so long before an exposure has ended; bridges one puff of
    wind."""

    young_s: Seconds = 10.0
    """Time constant of a new baseline; it grows with the baseline's age to `baseline_s`."""

    slope_s: Seconds = 5.0
    """Time constant of the slope that ends the warm-up."""

    least_noise: Amount = 0.02
    """The noise, in log-conductance, is never taken to be less: clean air itself varies by 2 % with
    draughts and humidity, and the faintest of fifty real odours moves some channel by a quarter."""

    mq_exponent: Amount = 3.0
    """Factor on `least_noise` for an MQ part: its ppm are the second to third power of its
    conductance. In 23 hours of real recordings whose Grove channels are flat, an MQ part alone
    caused 20 onsets; with this, and its step taken at the baseline, 8."""

    largest_deviation: Amount = 3.0
    """Noise units beyond which a deviation is signal and changes the noise estimate no further."""

    longest_step_s: Seconds = 5.0
    """Lost samples count as time for the averages, but no more than this at once."""

    forget_after_s: Seconds = 45.0
    """A gap this long is a new start: the air may have changed, and a board that was away so long
    has had its heaters off."""

    def __post_init__(self) -> None:
        if self.warm_up_max_s < self.warm_up_min_s:
            raise UsageError(
                f"warm_up_max_s ({self.warm_up_max_s:g}) must not be below "
                f"warm_up_min_s ({self.warm_up_min_s:g})"
            )
