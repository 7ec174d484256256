"""Models: what the nose gives out: predictions with the fields that all share, and events.

May import hardware and models. Part of the nose.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from models.board_identity import FOREIGN_BOARD
from models.correction import correction_for
from models.decision_spec import State
from models.exposure import Phase
from models.recogniser import TAUGHT
from models.requirements import is_resampled
from models.response import RECOGNISER_SIGNALS
from models.results import Event, EventType, Prediction
from models.signals import GAS_NAMES
from models.substance_decision import state_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.conditioning import Conditioner
    from models.exposure_stream import ExposureStream
    from models.model_stream import ModelStream

_RECOGNISER_CHANNELS = tuple(GAS_NAMES[place] for place in RECOGNISER_SIGNALS)


_ODOUR_STATES = (State.SENSING, State.UNRECOGNISED)


class Reporter:
    """Makes the predictions and events of one board.

    Parameters
    ----------
    conditioner: rate, health and correction of the board.

    Attributes
    ----------
    exposure: the air before the board; replaced where another nose is taken over.
    events: of the present reading.
    t_ms, frame_seq: of the reading that the next predictions and events are of.
    """

    def __init__(self, conditioner: Conditioner, exposure: ExposureStream) -> None:
        self._conditioner = conditioner
        self.exposure = exposure
        self.events: list[Event] = []
        self.t_ms = self.frame_seq = 0
        self._started_s = 0.0
        self._announced: dict[str, tuple[State, str | None]] = {}
        self._listed: dict[str, frozenset[str]] = {}
        self._reported_list: dict[str, frozenset[str]] = {}

    def begin(self) -> None:
        """Begin with a reading that has just arrived."""
        self._started_s = time.perf_counter()
        self.events = []

    def forget_announced(self) -> None:
        """Announce anew what the next exposure brings."""
        for reported in (self._announced, self._listed, self._reported_list):
            reported.clear()

    def add_event(self, kind: EventType, **details: Any) -> None:
        """Add an event of the present reading."""
        self.events.append(Event(kind, self.t_ms, self.frame_seq, **details))

    @property
    def measured_clean_air(self) -> NDArray[np.float64] | None:
        """Return float64[8], log-conductances of clean air as the board measures them.

        None where they are not known, as of a board whose readings are corrected.
        """
        known = self.exposure.clean_air
        corrected = self._conditioner.correction is not None
        return None if known is None or corrected else known.signals

    def calibration_id(self, bundle: Bundle) -> str | None:
        """Return the id of the profile that corrects a model's readings, or None."""
        correction = correction_for(bundle.manifest.name, self._conditioner.correction)
        return None if correction is None else correction.id

    def prediction(self, bundle: Bundle, state: State, **details: Any) -> Prediction:
        """Return a prediction of a model, or of the rig's recogniser in its place."""
        manifest = bundle.manifest
        fields = {
            "task": manifest.task,
            "model": manifest.name,
            "channels_missing": self._conditioner.watch.unusable(manifest.preprocessing.channels),
            "calibration": self.calibration_id(bundle),
            "resampled": is_resampled(manifest, self._conditioner.meter.rate_hz),
        }
        return self._prediction(state=state, **(fields | details))

    def taught_prediction(self, task: str, state: State, **details: Any) -> Prediction:
        """Return a prediction from what the rig was taught, where no model gives any."""
        correction = self._conditioner.correction
        fields = {
            "task": task,
            "model": TAUGHT,
            "channels_missing": self._conditioner.watch.unusable(_RECOGNISER_CHANNELS),
            "calibration": None if correction is None else correction.id,
        }
        return self._prediction(state=state, **(fields | details))

    def model_result(
        self, stream: ModelStream, window_s: float, *, taught: bool = False
    ) -> dict[str, Any]:
        """Return the fields of a prediction that come from a model's decision.

        On a board unlike that of the model's training, its sets, lists and descriptors are as
        worthless as its labels. `taught` says whether the rig has a recogniser of its own.
        """
        decision, foreign = stream.decision, stream.foreign
        no_name = stream.has_no_name(taught=taught)
        phase = self.exposure.phase
        # Without an onset there may be no odour.
        unrecognised = decision.unrecognised or (no_name and phase is Phase.EXPOSED)
        state = state_of(phase, named=stream.announces, unrecognised=unrecognised)
        recognised = state is State.RECOGNISED
        label, probability = (recognised and decision.named) or (None, None)
        label_set = () if foreign else decision.label_set
        short_list = decision.short_list if state is State.SENSING and not foreign else ()
        described = state is State.UNRECOGNISED and not foreign
        spec = stream.bundle.manifest.decision
        return {
            "state": state,
            "label": label,
            "probability": probability,
            "top": decision.top,
            "components": decision.components if recognised else (),
            "groups": () if foreign else decision.groups,
            "candidates": () if foreign else decision.candidates,
            "unexplained": decision.unexplained,
            "window_s": window_s,
            "label_set": label_set,
            "set_coverage": spec.set_coverage if label_set else None,
            "short_list": short_list,
            "list_coverage": spec.list_coverage if short_list else None,
            "novelty": decision.novelty,
            "descriptors": decision.descriptors if described else (),
            "foreign_board": foreign,
            "reason": FOREIGN_BOARD if no_name and state in _ODOUR_STATES else None,
        }

    def announce(self, source: str, prediction: Prediction) -> Prediction:
        """Add the event of a prediction that says something new, and return the prediction.

        `source` names what gives these predictions, one after the other.
        """
        label = prediction.label or _names(prediction)
        before, now = self._announced.get(source), (prediction.state, label)
        self._announced[source] = now
        self._announce_list(source, prediction)
        if now == before:
            return prediction
        if prediction.state is State.RECOGNISED:
            self.add_event(
                EventType.RECOGNISED,
                model=prediction.model,
                label=label,
                probability=prediction.probability,
            )
        elif prediction.state is State.UNRECOGNISED:
            self.add_event(EventType.UNRECOGNISED, model=prediction.model)
        return prediction

    def _announce_list(self, source: str, prediction: Prediction) -> None:
        """Add the event of a short list that has new labels, twice in a row."""
        labels = frozenset(prediction.short_list)
        before, self._listed[source] = self._listed.get(source), labels
        if not labels or labels != before or labels == self._reported_list.get(source):
            return
        self._reported_list[source] = labels
        detail = f"probably one of {', '.join(prediction.short_list)}"
        self.add_event(EventType.LISTED, model=prediction.model, detail=detail)

    def _prediction(self, **fields: Any) -> Prediction:
        known = self.exposure.clean_air
        return Prediction(
            t_ms=self.t_ms,
            frame_seq=self.frame_seq,
            latency_ms=(time.perf_counter() - self._started_s) * 1000.0,
            clean_air=None if known is None else known.source,
            clean_air_age_s=self.exposure.clean_air_age_s,
            **fields,
        )


def _names(prediction: Prediction) -> str:
    """Return the components of a mixture in one string, or the group of which one is in it.

    Sorted: the order of components may change with every window.
    """
    if prediction.state is State.RECOGNISED and prediction.groups and not prediction.components:
        return " or ".join(max(prediction.groups, key=lambda group: group.presence).labels)
    return " + ".join(sorted(part.label for part in prediction.components))
