"""Models: whether a board, or a recording of one, can feed a model.

Pure. The nose decides the same live, frame by frame; here it is asked beforehand,
to choose a model or to explain a refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Collection

    from models.manifest import Manifest


class CannotFeedError(ScentdError):
    """The board lacks channels that the model needs, or sends too slowly for it."""


def missing_channels(manifest: Manifest, present: Collection[str]) -> tuple[str, ...]:
    """Return the model's channels that are not among `present`."""
    return tuple(name for name in manifest.preprocessing.channels if name not in present)


def shortfall(manifest: Manifest, present: Collection[str], rate_hz: float | None) -> str | None:
    """Return why a board cannot feed a model, as half a sentence; None if it can.

    Parameters
    ----------
    manifest : Manifest
        The model's.
    present : collection of str
        Channels that the board sends.
    rate_hz : float or None
        The board's rate; None skips that question.
    """
    needs = manifest.requirements
    missing = missing_channels(manifest, present)
    required = [name for name in missing if name in needs.required_channels]
    if required:
        return f"the board has no {', '.join(required)}, which the model cannot do without"
    left = len(manifest.preprocessing.channels) - len(missing)
    if left < needs.min_channels:
        return (
            f"the board has no {', '.join(missing)}; with {left} channels the model has fewer "
            f"than the {needs.min_channels} it needs"
        )
    if rate_hz is None:
        return None
    wanted_hz = manifest.preprocessing.rate_hz
    low, high = manifest.rate_ratio
    after_hz = rate_hz / max(1, round(rate_hz / wanted_hz))
    if low <= after_hz / wanted_hz <= high:
        return None
    return (
        f"the board sends {rate_hz:.3g} readings a second, the model needs {low * wanted_hz:.3g} "
        f"to {high * wanted_hz:.3g} or a multiple of that"
    )
