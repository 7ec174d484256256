"""Models: the rig's own recogniser in the nose: from rows of the response to what is published.

May import models. Part of the nose. It needs no bundle: it works beside models of substances, and
alone where the board can feed none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.decision_spec import State
from models.exposure import Phase
from models.recogniser import RigDecision
from models.response import ResponseRows
from models.substance_decision import N_TOP
from models.unmixing_stream import UnmixingStream

if TYPE_CHECKING:
    from models.exposure_stream import ExposureStream
    from models.recogniser import Recogniser
    from models.unmixing import Unmixing


class RigStream:
    """The recogniser of a rig, along the exposures of its board.

    Parameters
    ----------
    recogniser: of the smells that the rig was taught.

    Attributes
    ----------
    decision: on the present exposure.
    due_ms: when the next prediction is due where no model gives any.
    """

    task = "substance"

    def __init__(self, recogniser: Recogniser) -> None:
        self.decision = RigDecision(recogniser)
        self.due_ms = 0

    @property
    def announces(self) -> bool:
        """Whether a taught smell is announced."""
        return self.decision.announced is not None

    def read(self, exposure: ExposureStream) -> None:
        """Read the rows that are new, and begin anew where the exposure did."""
        if exposure.restarted:
            self.decision.clear()
        if exposure.rows:
            self.decision.add(ResponseRows.of(exposure.rows))

    def replace_result(
        self, result: dict[str, Any], phase: Phase, *, model_knows_board: bool
    ) -> dict[str, Any]:
        """Return the fields of a prediction: a model's, or those of the rig where it decides.

        A smell that the rig was taught goes before a label of the model. What is none of the taught
        smells may be one of the model's, or one that was taught without known clean air. Embeddings
        of a board that the model does not know say nothing about smells that are known here. Until
        smells were taught in two sessions nothing says what is none of them, so that a model which
        knows the board decides by its embeddings.
        """
        decision = self.decision
        if phase not in (Phase.UNKNOWN, Phase.EXPOSED):
            return result
        if not decision.ready:
            return result if model_knows_board else self._without_name(result)
        if model_knows_board and not decision.recogniser.calibrated:
            return result
        taught = self._result()
        if taught["state"] is State.UNRECOGNISED and result["state"] is State.RECOGNISED:
            known_here = result["label"] in decision.recogniser.labels
            if model_knows_board or not known_here:
                return result
        return {**result, **taught}

    def _without_name(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return a model's fields without the name of a smell that the rig itself will know."""
        if result.get("label") not in self.decision.recogniser.labels:
            return result
        return {**result, "state": State.SENSING, "label": None, "probability": None}

    def _result(self) -> dict[str, Any]:
        """Return the fields of a prediction: state, label, list, set and novelty.

        The state is that of an exposure.
        """
        decision = self.decision
        state = State.SENSING
        if decision.announced is not None:
            state = State.RECOGNISED
        elif decision.unrecognised:
            state = State.UNRECOGNISED
        label_set = decision.label_set
        return {
            "state": state,
            "label": decision.announced,
            "probability": decision.probability,
            "top": decision.top[:N_TOP],
            "label_set": label_set,
            "set_coverage": decision.recogniser.set_coverage if label_set else None,
            "short_list": decision.short_list,
            "list_coverage": decision.recogniser.list_coverage if decision.short_list else None,
            "novelty": decision.novelty,
            "window_s": decision.seconds,
            "taught": True,
            "reason": None,
        }


TaughtStream = RigStream | UnmixingStream


def taught_streams(recogniser: Recogniser | None, unmixing: Unmixing | None) -> list[TaughtStream]:
    """Return the streams of what the rig was taught; each reads the rows in this order."""
    rig = None if recogniser is None else RigStream(recogniser)
    streams: list[TaughtStream] = [] if rig is None else [rig]
    if unmixing is not None:
        streams.append(UnmixingStream(unmixing, None if rig is None else rig.decision))
    return streams
