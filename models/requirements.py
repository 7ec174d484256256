"""Models: whether a board, or a recording of one, can feed a model.

Pure. The one rule for the running nose, `scentd check`, `scentd replay` and enrolment. A problem
is half a sentence that ends "... cannot feed the model: PROBLEM."
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware.counting import counted
from hardware.errors import ScentdError
from models.rate_conversion import SLOWEST_SHARE, Conversion, conversion

if TYPE_CHECKING:
    from collections.abc import Collection

    from models.manifest import Manifest


class CannotFeedError(ScentdError):
    """The board lacks channels that the model needs, or its rate does not suit the model."""


def missing_channels(manifest: Manifest, present: Collection[str]) -> tuple[str, ...]:
    """Return the model's channels that are not among `present`."""
    return tuple(name for name in manifest.preprocessing.channels if name not in present)


def feeding_problem(
    manifest: Manifest, present: Collection[str], rate_hz: float | None
) -> str | None:
    """Return why a board cannot feed a model, None if it can.

    Parameters
    ----------
    manifest: of the model.
    present: channels that the board sends.
    rate_hz: readings per second; None leaves the rate out.
    """
    problem = None if rate_hz is None else rate_problem(manifest, rate_hz)
    return problem or channel_problem(manifest, missing_channels(manifest, present))


def rate_problem(manifest: Manifest, rate_hz: float) -> str | None:
    """Return why a board's rate cannot feed a model, None if it can."""
    wanted_hz = manifest.preprocessing.rate_hz
    if conversion(rate_hz, wanted_hz, manifest.rate_ratio) is not Conversion.IMPOSSIBLE:
        return None
    slowest_hz = SLOWEST_SHARE * wanted_hz
    needs = f"the board sends {counted(float(rate_hz), 'reading')} a second, the model needs"
    if rate_hz < slowest_hz:
        return f"{needs} at least {slowest_hz:.3g}"
    low, high = manifest.rate_ratio
    return f"{needs} {low * wanted_hz:.3g} to {high * wanted_hz:.3g} or a multiple of that"


def is_resampled(manifest: Manifest, rate_hz: float | None) -> bool:
    """Return whether a model receives interpolated samples; not while the rate is unknown."""
    if rate_hz is None:
        return False
    wanted_hz = manifest.preprocessing.rate_hz
    return conversion(rate_hz, wanted_hz, manifest.rate_ratio) is Conversion.INTERPOLATED


def channel_problem(
    manifest: Manifest, missing: Collection[str], reason: str = "the board has no"
) -> str | None:
    """Return why a model cannot do without its channels in `missing`, None if it can.

    Parameters
    ----------
    manifest: of the model.
    missing: its channels that are not there, or cannot be used.
    reason: what the names of the channels follow.
    """
    needs = manifest.requirements
    required = [name for name in missing if name in needs.required_channels]
    if required:
        return f"{reason} {', '.join(required)}, which the model cannot do without"
    total = len(manifest.preprocessing.channels)
    left = total - len(missing)
    if left >= needs.min_channels:
        return None
    return (
        f"{reason} {', '.join(missing)}, and with {left} of {total} channels the model has fewer "
        f"than the {needs.min_channels} it needs"
    )
