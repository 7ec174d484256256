"""Models: the unmixing of a rig in the nose: from rows of the response to the mixture published.

May import models. Part of the nose. It needs no bundle: it works at the board's own rate, beside a
model of mixtures and alone where the board can feed none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.decision_spec import State
from models.exposure import Phase
from models.response import ROW_S
from models.unmixing_decision import UnmixingDecision

if TYPE_CHECKING:
    from models.exposure_stream import ExposureStream
    from models.unmixing import Unmixing


class UnmixingStream:
    """The unmixing of the taught smells, along the exposures of a board.

    Parameters
    ----------
    unmixing: of the rig.

    Attributes
    ----------
    due_ms: when the next prediction is due where no model of mixtures gives any.
    """

    task = "mixture"

    def __init__(self, unmixing: Unmixing) -> None:
        self._decision = UnmixingDecision(unmixing)
        self._rows = 0
        self.due_ms = 0

    @property
    def announces(self) -> bool:
        """Whether components are announced."""
        return bool(self._decision.components)

    def read(self, exposure: ExposureStream) -> None:
        """Read the rows that are new, and begin anew where the exposure did."""
        if exposure.restarted:
            self._decision.clear()
            self._rows = 0
        for response, _ in exposure.rows:
            self._rows += 1
            self._decision.observe(response, self._rows * ROW_S)
            self._decision.decide()

    def replace_result(
        self, result: dict[str, Any], phase: Phase, *, model_knows_board: bool
    ) -> dict[str, Any]:
        """Return the fields of a prediction, those of a model replaced by what the rig was taught.

        Also where the model knows the board: mixtures of smells that were never taught are not
        identifiable (`scent-train unmix`).
        """
        del model_knows_board
        decision = self._decision
        if phase is not Phase.EXPOSED or decision.composition is None:
            return result
        components = decision.components
        state = State.SENSING
        if components:
            state = State.RECOGNISED
        elif decision.unexplained:
            state = State.UNRECOGNISED
        return {
            **result,
            "state": state,
            "top": decision.top,
            "components": components,
            "groups": decision.groups,
            "unexplained": decision.unexplained,
            "window_s": self._rows * ROW_S,
            "taught": True,
            "reason": None,
        }
