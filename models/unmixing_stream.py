"""Models: the unmixing of a rig in the nose: from rows of the response to the mixture published.

May import models. Part of the nose. It needs no bundle: it works at the board's own rate, beside a
model of mixtures and alone where the board can feed none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.decision_spec import State
from models.exposure import Phase
from models.response import ROW_S
from models.substance_decision import Component
from models.unmixing_decision import UnmixingDecision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.exposure_stream import ExposureStream
    from models.recogniser import RigDecision
    from models.response import ResponseRow
    from models.unmixing import Unmixing


MIXED = 0.6
"""Probability of a set of several components from which it is announced. Of single smells with a
session held out, sets of several reach .36 at the most on fruits5 and .56 on ai-nose; the pairs of
the demo reach .7 and more."""

STILL_MIXED = 0.4
"""Probability below which such a set is withdrawn again."""


class UnmixingStream:
    """The unmixing of the taught smells, along the exposures of a board.

    Parameters
    ----------
    unmixing: of the rig.
    single: what the rig's recogniser decides in the same exposure, None without one. It tells
        single smells of another day apart far better than the unmixing does (`scent-train rigs`).

    Attributes
    ----------
    due_ms: when the next prediction is due where no model of mixtures gives any.
    """

    task = "mixture"

    def __init__(self, unmixing: Unmixing, single: RigDecision | None = None) -> None:
        self._decision = UnmixingDecision(unmixing)
        self._single = single
        self._rows = 0
        self._mixed = False
        self.due_ms = 0

    @property
    def announces(self) -> bool:
        """Whether components are announced."""
        return bool(self.components)

    def read(self, exposure: ExposureStream) -> None:
        """Read the rows that are new, and begin anew where the exposure did."""
        if exposure.restarted:
            self._decision.clear()
            self._rows = 0
            self._mixed = False
        self.add(exposure.rows)

    def add(self, rows: Sequence[ResponseRow]) -> None:
        """Add rows of the exposure; the recogniser has read them before."""
        for response, _ in rows:
            self._rows += 1
            self._decision.observe(response, self._rows * ROW_S)
            self._decision.decide()
            self._mixed = self._is_mixed()

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
        components = self.components
        known = self._single is not None and not self._single.unrecognised
        unexplained = decision.unexplained and not known
        state = State.SENSING
        if components:
            state = State.RECOGNISED
        elif unexplained:
            state = State.UNRECOGNISED
        return {
            **result,
            "state": state,
            "top": decision.top,
            "components": components,
            "groups": () if known else decision.groups,
            "unexplained": unexplained,
            "window_s": self._rows * ROW_S,
            "taught": True,
            "reason": None,
        }

    @property
    def components(self) -> tuple[Component, ...]:
        """The components that are announced, the largest first.

        Of several, only what is likely as a whole and contains the smell that the recogniser
        announces. A smell that it announces alone is the only component; a single one that it does
        not know is none.
        """
        single = self._single
        if single is None or self._mixed:
            return self._decision.components
        if single.announced is not None and single.probability is not None:
            return (Component(single.announced, 1.0, single.probability),)
        return ()

    def _is_mixed(self) -> bool:
        """Whether several components are likely as a whole, with the smell that is announced."""
        single, found = self._single, self._decision.composition
        labels = {component.label for component in self._decision.components}
        return (
            single is not None
            and not single.rejected
            and found is not None
            and len(labels) > 1
            and found.probability >= (STILL_MIXED if self._mixed else MIXED)
            and labels == set(found.likeliest)
            and (single.announced is None or single.announced in labels)
        )
