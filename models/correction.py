"""Models: the correction that turns a rig's readings into those of the training rig."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Correction(Protocol):
    """Turns one rig's readings into those of the rig that a model was trained on."""

    @property
    def id(self) -> str:
        """Id of its profile, which every prediction carries."""

    @property
    def model(self) -> str | None:
        """Name of the model for which it corrects, None for all.

        Models are trained on different rigs: other models receive the measured readings.
        """

    def __call__(self, values: NDArray[np.float32], dt_s: float) -> NDArray[np.float32]:
        """Return values float32[12] corrected; NaN stays NaN. The array given is not changed.

        Parameters
        ----------
        values: one frame after channel health, NaN where unusable.
        dt_s: seconds since the frame before, 0 for the first.
        """

    def reset(self) -> None:
        """Forget all frames: the next one does not continue from them."""


def correction_for(model: str, correction: Correction | None) -> Correction | None:
    """Return `correction` if it corrects for `model`, else None."""
    if correction is None or correction.model not in (None, model):
        return None
    return correction
