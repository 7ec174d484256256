"""Models: the correction that turns a rig's readings into those of the training rig."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Correction(Protocol):
    """What makes one rig's readings those of the rig that the models were trained on."""

    @property
    def id(self) -> str:
        """Of the profile that it comes from, as every prediction carries it."""

    @property
    def model(self) -> str | None:
        """Name of the model whose training rig it leads to, None for all of them.

        Models are trained on different rigs: another one gets the readings as measured.
        """

    def __call__(self, values: NDArray[np.float32], dt_s: float) -> NDArray[np.float32]:
        """Return values float32[12] corrected; NaN stays NaN. The array given is not changed.

        Parameters
        ----------
        values: one frame after channel health, NaN where unusable.
        dt_s: seconds since the frame before, 0 for the first.
        """

    def reset(self) -> None:
        """Forget every frame: what comes next has nothing to do with what came before."""


def correction_for(model: str, correction: Correction | None) -> Correction | None:
    """Return `correction` if it leads to the rig that `model` was trained on, else None."""
    if correction is None or correction.model not in (None, model):
        return None
    return correction
