"""The nose with a rig's correction and its taught, hidden and renamed labels."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.recogniser import fit_recogniser
from hardware.errors import UsageError
from models.bundle import Bundle, Outputs, load_bundle
from models.decision_spec import DecisionSpec, LabelRule, State
from models.exposure import Phase
from models.nose import Nose
from models.results import EventType
from models.rig_stream import RigStream
from models.taught_head import HeadError, TaughtHead, TaughtSmell
from tests.calibration.responses import days, exposure
from tests.models.toys import NOVELTY_SPEC, toy_space

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
from tests.models.episodes import (
    AIR,
    LEMON,
    MINT,
    PETROL,
    air,
    episode_of,
    frames,
    odour,
    process_all,
    states,
)


def taught_petrol(novelty_model: Bundle) -> TaughtSmell:
    """The smell is taught from the embeddings of a recording of it."""
    seen: list[NDArray[np.float32]] = []

    class Listening(Bundle):
        """A bundle that records its embeddings."""

        def run(self, x: NDArray[np.float32], mask: NDArray[np.float32]) -> Outputs:
            outputs = super().run(x, mask)
            seen.append(outputs.embedding[0])
            return outputs

    bundle = Listening(
        novelty_model.folder,
        novelty_model.manifest,
        novelty_model.precision,
        novelty_model._session,
    )
    nose = Nose([bundle], skip_warm_up=True, assume_exposed=True)
    process_all(nose, frames(odour(PETROL, 60, 1), 1, seed=5))
    embeddings = np.array(seen)
    return TaughtSmell("petrol", toy_space().whiten(embeddings).mean(axis=0), len(seen), 1)


def test_a_smell_taught_during_its_exposure_is_recognised_at_the_next_prediction(
    novelty_model: Bundle,
) -> None:
    nose = Nose([novelty_model])
    source = list(frames(np.concatenate([air(60, 1), odour(PETROL, 120, 1)]), 1))
    before, _ = process_all(nose, source[:150])
    assert states(before)[-1] == "unrecognised"
    spec = dataclasses.replace(NOVELTY_SPEC, head_temperature=0.1)
    novelty_model.manifest = dataclasses.replace(novelty_model.manifest, decision=spec)
    try:
        nose.set_head("toy-substance", TaughtHead(taught=(taught_petrol(novelty_model),)))
        after, events = process_all(nose, source[150:])
    finally:
        novelty_model.manifest = dataclasses.replace(novelty_model.manifest, decision=NOVELTY_SPEC)
    assert after[0].t_ms - before[-1].t_ms <= 5000
    assert after[0].top[0][0] == "petrol"
    assert {p.label for p in after if p.state is State.RECOGNISED} == {"petrol"}
    assert states(after)[-1] == "recognised"
    assert [event.label for event in events] == ["petrol"]


def test_a_hidden_label_is_never_announced_and_a_renamed_one_has_its_new_name(
    novelty_model: Bundle,
) -> None:
    hiding = Nose([novelty_model], heads={"toy-substance": TaughtHead(hidden=frozenset({"lemon"}))})
    predictions, _ = process_all(hiding, frames(episode_of(LEMON), 1))
    labels = {label for p in predictions for label in (p.label, *p.label_set, *dict(p.top))}
    assert labels == {None, "mint", "garlic"}
    renaming = Nose(
        [novelty_model], heads={"toy-substance": TaughtHead(renamed={"lemon": "citron"})}
    )
    predictions, _ = process_all(renaming, frames(episode_of(LEMON), 1))
    assert {p.label for p in predictions if p.label} == {"citron"}


def test_a_head_that_does_not_fit_is_refused(novelty_model: Bundle, substance: Bundle) -> None:
    with pytest.raises(UsageError, match="none called 'other'"):
        Nose([novelty_model], heads={"other": TaughtHead()})
    with pytest.raises(UsageError, match="no class means"):
        Nose([substance], heads={"toy-substance": TaughtHead()})
    with pytest.raises(HeadError, match="coffee"):
        Nose([novelty_model]).set_head("toy-substance", TaughtHead(hidden=frozenset({"coffee"})))


def test_a_rule_of_one_label_overrides_that_of_all(toy_bundles: Callable[..., Path]) -> None:
    spec = dataclasses.replace(NOVELTY_SPEC, labels={"lemon": LabelRule(confirm=6)})
    bundle = load_bundle(toy_bundles(decision=spec, space=toy_space()))
    assert bundle.manifest.decision.labels == {"lemon": LabelRule(confirm=6)}
    first = {}
    for label, gains in (("lemon", LEMON), ("mint", MINT)):
        predictions, _ = process_all(Nose([bundle]), frames(episode_of(gains), 1))
        first[label] = next(p.t_ms for p in predictions if p.label == label)
    assert first["lemon"] - first["mint"] >= 15_000


class Gain:
    """Multiplies the response of the Grove channels, as another rig's gain would."""

    id = "gain-1"

    def __init__(self, power: float, model: str | None = None) -> None:
        self.model = model
        self._air = AIR[:4] / (1023 - AIR[:4])
        self._power = power
        self.steps_s: list[float] = []
        self.resets = 0

    def __call__(self, values: NDArray[np.float32], dt_s: float) -> NDArray[np.float32]:
        self.steps_s.append(dt_s)
        corrected = values.copy()
        odds = values[:4] / (1023 - values[:4])
        odds = self._air * (odds / self._air) ** self._power
        corrected[:4] = 1023 * odds / (1 + odds)
        return corrected

    def reset(self) -> None:
        self.resets += 1


def test_readings_are_corrected_for_the_exposure_detector_and_the_models(
    novelty_model: Bundle,
) -> None:
    """A response that is corrected to nothing is no onset; an inverted one is another smell."""
    source = list(frames(episode_of(LEMON), 1))
    silent, events = process_all(Nose([novelty_model], correction=Gain(0.01)), source)
    assert states(silent) == ["warming_up", "ambient"]
    assert events == []
    correction = Gain(-1.0)
    turned, events = process_all(Nose([novelty_model], correction=correction), source)
    assert EventType.ONSET in {event.type for event in events}
    assert "lemon" not in {p.label for p in turned}
    assert {p.calibration for p in turned} == {"gain-1"}
    assert correction.steps_s[:3] == [0.0, 1.0, 1.0]


def test_a_correction_applies_only_to_its_model(novelty_model: Bundle) -> None:
    """Models are trained on different rigs, so a correction for one leaves another's input."""
    source = list(frames(episode_of(LEMON), 1))
    other, _ = process_all(Nose([novelty_model], correction=Gain(-1.0, "another-model")), source)
    assert "lemon" in {p.label for p in other}
    assert {p.calibration for p in other} == {None}
    own, _ = process_all(
        Nose([novelty_model], correction=Gain(-1.0, novelty_model.manifest.name)), source
    )
    assert "lemon" not in {p.label for p in own}
    assert {p.calibration for p in own} == {"gain-1"}


def test_a_correction_forgets_with_a_long_gap(novelty_model: Bundle) -> None:
    correction = Gain(1.0)
    source = list(frames(air(60, 1), 1))
    later = list(frames(air(10, 1), 1, start_seq=200))
    later[0] = dataclasses.replace(later[0], lost_before=140)
    process_all(Nose([novelty_model], correction=correction), [*source, *later])
    assert correction.resets == 1
    assert correction.steps_s[60] == 0.0
    assert correction.steps_s[61] == 1.0


def test_a_new_correction_restarts_features_but_not_the_warm_up(novelty_model: Bundle) -> None:
    nose = Nose([novelty_model])
    source = list(frames(air(120, 1), 1))
    process_all(nose, source[:60])
    correction = Gain(2)
    nose.set_correction(correction)
    after, _ = process_all(nose, source[60:])
    assert correction.resets == 1
    assert "warming_up" not in states(after)
    assert states(after)[-1] == "ambient"
    assert min(p.window_s for p in after if p.window_s) == 15
    assert {p.calibration for p in after} == {"gain-1"}
    nose.set_correction(None)
    again, _ = process_all(nose, frames(air(30, 1), 1, start_seq=120))
    assert {p.calibration for p in again} == {None}


def test_components_have_intervals_where_the_manifest_has_a_margin(
    toy_bundles: Callable[..., Path],
) -> None:
    spec = DecisionSpec(presence_thresholds=(0.6,) * 3, proportion_margin=0.2, announce=0.3)
    bundle = load_bundle(toy_bundles("mixture", decision=spec))
    predictions, _ = process_all(Nose([bundle]), frames(episode_of(LEMON), 1))
    parts = [part for p in predictions for part in p.components]
    assert parts
    for part in parts:
        assert part.low == pytest.approx(max(0, part.proportion - 0.2))
        assert part.high == pytest.approx(min(1, part.proportion + 0.2))


@pytest.mark.parametrize(
    ("label", "model_knows_board", "announced"),
    [
        ("mint", False, None),  # embeddings of a foreign board say nothing of it
        ("mint", True, "mint"),
        ("petrol", False, "petrol"),  # taught without known clean air, by embeddings alone
        ("petrol", True, "petrol"),
    ],
)
def test_a_foreign_board_has_no_name_of_embeddings_for_what_its_recogniser_denies(
    label: str, announced: str | None, *, model_knows_board: bool
) -> None:
    """On fruits5 a blueberry that was unrecognised was named lavender for four minutes."""
    stream = RigStream(fit_recogniser(days(1, 2, 3, without="garlic")))
    stream.decision.add(exposure("garlic", 4).rows)
    by_model = {"state": State.RECOGNISED, "label": label, "probability": 0.2}
    result = stream.replace_result(by_model, Phase.EXPOSED, model_knows_board=model_knows_board)
    assert result["label"] == announced
    assert result["state"] is (State.UNRECOGNISED if announced is None else State.RECOGNISED)
