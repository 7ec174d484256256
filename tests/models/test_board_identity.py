"""Whether a board is one like that on which a model was trained."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.recogniser import fit_recogniser
from models.board_identity import (
    BOARD_LEVELS,
    FOREIGN_BOARD,
    BoardFigures,
    BoardIdentity,
    TrainingBoard,
    compared_channels,
    log_levels,
)
from models.bundle import Bundle, load_bundle
from models.decision_spec import State
from models.manifest import ManifestError, write_bundle
from models.nose import Nose
from models.results import EventType
from models.signals import log_signals
from models.taught_head import TaughtHead
from tests.calibration.responses import SMELLS, days
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
from tests.models.test_nose_of_a_rig import taught_petrol
from tests.models.toys import (
    CHANNELS,
    NOVELTY_SPEC,
    Task,
    toy_arrays,
    toy_files,
    toy_manifest,
    toy_space,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from hardware.frames import SensorFrame

FIGURES = BoardFigures(CHANNELS, limit=2.0, sessions=4, recordings=60)
OTHER_BOARD = np.array([1.0, -1.0, 1.0, -2.0])
"""Changes of log-conductance from the training board's."""


def training_levels() -> NDArray[np.float64]:
    """Return levels of recordings in air and in odours of the toy models' board."""
    level = log_levels(CHANNELS)(AIR[np.newaxis])[0].astype(np.float64)
    rng = np.random.default_rng(1)
    gains = np.concatenate([[np.zeros(4)], [LEMON, MINT, PETROL]])
    strengths = rng.uniform(0, 1, 60)[:, np.newaxis] * gains[np.arange(60) % 4]
    levels: NDArray[np.float64] = level + strengths + rng.normal(0, 0.05, (60, 4))
    return levels


def board() -> TrainingBoard:
    return TrainingBoard(CHANNELS, training_levels(), FIGURES.limit)


def bundle_with_board(folder: Path, task: Task = "substance", **changes: object) -> Bundle:
    levels = {BOARD_LEVELS: training_levels().astype(np.float32)}
    files = {**toy_files(task), "arrays.npz": toy_arrays(toy_space(), **levels)}
    write_bundle(folder / task, toy_manifest(task, board=FIGURES, **changes), files)
    return load_bundle(folder / task)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_with_board(tmp_path_factory.mktemp("bundle"), decision=NOVELTY_SPEC)


def played(effect: NDArray[np.float64], *, other: bool) -> Iterator[SensorFrame]:
    """Yield an episode's frames, from the training board or from another."""
    return frames(effect + OTHER_BOARD if other else effect, 1)


def test_levels_of_the_training_board_are_near_and_those_of_another_far() -> None:
    own = training_levels()
    assert max(board().distance(levels + 0.02) for levels in own) < 1.0
    assert min(board().distance(levels + OTHER_BOARD) for levels in own) > 1.0


def test_a_change_that_all_channels_share_counts_less_than_one_between_them() -> None:
    level = training_levels().mean(axis=0)
    together = board().distance(level + 0.5)
    apart = board().distance(level + np.array([0.5, -0.5, 0.5, -0.5]))
    assert together < apart / 3


def test_unusable_channels_are_left_out_and_one_alone_says_nothing() -> None:
    levels = training_levels()[0] + OTHER_BOARD
    levels[2] = np.nan
    assert board().distance(levels) > 1.0
    levels[:3] = np.nan
    assert np.isnan(board().distance(levels))
    identity = BoardIdentity(board(), 10, 1.0)
    identity.extend(np.full((20, 12), np.nan, dtype=np.float32))
    identity.judge(20_000)
    assert identity.foreign is None


def test_boards_are_compared_by_grove_channels_or_else_by_all_gases() -> None:
    assert compared_channels(("NO2", "CO", "LPG", "Gas_Resistance")) == ("NO2", "CO")
    assert compared_channels(("NO2", "LPG", "Temperature")) == ("NO2", "LPG")
    assert compared_channels(("NO2", "Humidity")) == ()


def test_one_unusual_odour_does_not_make_the_own_board_another() -> None:
    identity = BoardIdentity(board(), 10, 1.0)
    usual = np.repeat(AIR[np.newaxis], 10, axis=0)
    strange = usual.copy()
    strange[:, 3] = 100
    for number in range(60):
        identity.extend(strange if 50 <= number < 58 else usual)
        identity.judge(number * 5000)
        assert identity.foreign is (None if number < 4 else False)


def judged(*counts: NDArray[np.floating], clean_air: object = None) -> list[bool | None]:
    """Return what is known after each stretch of 10 s of the same readings."""
    identity, known = BoardIdentity(board_with_air(), 10, 1.0), []
    for number, values in enumerate(counts):
        identity.extend(np.repeat(values[np.newaxis], 10, axis=0).astype(np.float32))
        identity.judge(number * 10_000, clean_air)  # type: ignore[arg-type]
        known.append(identity.foreign)
    return known


def board_with_air() -> TrainingBoard:
    air = log_levels(CHANNELS)(AIR[np.newaxis]).astype(np.float64)
    days = air + np.random.default_rng(2).normal(0, 0.2, (20, 4))
    return TrainingBoard(
        CHANNELS, training_levels(), FIGURES.limit, TrainingBoard(CHANNELS, days, 4.0)
    )


STRANGE = np.array([*AIR[:3], 100, *AIR[4:]])


def test_the_own_board_is_known_after_half_a_minute() -> None:
    assert judged(*[AIR] * 5) == [None, None, False, False, False]
    assert judged(STRANGE) == [True]


def test_in_the_first_two_minutes_every_window_must_be_like_the_own_board() -> None:
    known = judged(*[AIR] * 6, STRANGE, *[AIR] * 6)
    assert known[5] is False
    assert known[6:] == [None] * 5 + [False] * 2


def test_clean_air_tells_the_board_at_once_whatever_the_odour() -> None:
    clean = log_signals(AIR[np.newaxis])[0]
    assert judged(STRANGE, clean_air=clean) == [False]
    other = clean + np.array([*OTHER_BOARD, 0.0, 0.0, 0.0, 0.0])
    assert judged(AIR, clean_air=other) == [True]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"channels": ("NO2",)}, "two or more gas channels"),
        ({"channels": ("NO2", "Humidity")}, "two or more gas channels"),
        ({"limit": 0.0}, "limit must be positive"),
        ({"air_limit": -1.0}, "air_limit must be positive"),
    ],
)
def test_a_manifest_with_impossible_figures_is_refused(
    changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(ManifestError, match=f"board: .*{expected}"):
        toy_manifest(board=dataclasses.replace(FIGURES, **changes))  # type: ignore[arg-type]


def test_the_own_board_is_given_names(bundle: Bundle) -> None:
    predictions, _ = process_all(Nose([bundle]), played(episode_of(LEMON), other=False))
    assert {p.label for p in predictions if p.label} == {"lemon"}
    assert not any(p.foreign_board for p in predictions)


def test_another_board_is_given_no_name_and_told_what_to_do(bundle: Bundle) -> None:
    nose = Nose([bundle])
    predictions, events = process_all(nose, played(episode_of(LEMON), other=True))
    during = [p for p in predictions if p.state is State.UNRECOGNISED]
    assert during
    assert all(p.foreign_board and p.reason == FOREIGN_BOARD for p in during)
    assert all("lemon" in dict(p.top) for p in during)
    assert not any(p.label or p.label_set or p.descriptors or p.short_list for p in during)
    assert "sensing" not in states(predictions)
    assert {event.type for event in events} == {
        EventType.ONSET, EventType.UNRECOGNISED, EventType.ENDED,
    }  # fmt: skip
    ambient = [p for p in predictions if p.state is State.AMBIENT]
    assert ambient[-1].foreign_board
    assert ambient[-1].reason is None
    assert nose.foreign_boards == {"toy-substance": True}


def test_warming_sensors_do_not_tell_the_board(bundle: Bundle) -> None:
    nose = Nose([bundle])
    predictions, _ = process_all(nose, played(air(40, 1), other=True))
    assert all(p.state is State.WARMING_UP for p in predictions[:2])
    assert not any(p.foreign_board for p in predictions if p.state is State.WARMING_UP)


def test_a_taught_smell_is_announced_on_another_board(bundle: Bundle) -> None:
    spec = dataclasses.replace(NOVELTY_SPEC, head_temperature=0.1)
    bundle.manifest = dataclasses.replace(bundle.manifest, decision=spec)
    try:
        head = TaughtHead(taught=(taught_petrol(bundle),))
        nose = Nose([bundle], heads={"toy-substance": head})
        effect = np.concatenate([air(60, 1), odour(PETROL, 120, 1)])
        predictions, _ = process_all(nose, played(effect, other=True))
        assert {p.label for p in predictions if p.label} == {"petrol"}
        assert "unrecognised" not in states(predictions)
        effect = np.concatenate([air(60, 1), odour(LEMON, 60, 1)])
        nose = Nose([bundle], heads={"toy-substance": head})
        other, _ = process_all(nose, played(effect, other=True))
    finally:
        bundle.manifest = dataclasses.replace(bundle.manifest, decision=NOVELTY_SPEC)
    during = [p for p in other if p.t_ms >= 65_000]
    assert states(during) == ["sensing", "unrecognised"]
    assert not any(p.label for p in during)


def test_the_rigs_own_recogniser_names_what_it_was_taught_on_another_board(bundle: Bundle) -> None:
    nose = Nose([bundle], recogniser=fit_recogniser(days(1, 2, 3)))
    effect = np.concatenate([air(90, 1), odour(np.array(SMELLS["mint"]), 180, 1)])
    predictions, events = process_all(nose, played(effect, other=True))
    assert states(predictions) == ["warming_up", "ambient", "sensing", "recognised"]
    named = [p for p in predictions if p.state is State.RECOGNISED]
    assert {(p.label, p.reason) for p in named} == {("mint", None)}
    assert all(p.foreign_board and p.taught for p in named)
    assert [event.type for event in events] == [EventType.ONSET, EventType.RECOGNISED]


def test_a_calibration_in_force_leads_to_the_training_board(bundle: Bundle) -> None:
    class Shift:
        id = "profile-1"
        model = "toy-substance"

        def __call__(self, values: NDArray[np.float32], _dt_s: float) -> NDArray[np.float32]:
            corrected = values.copy()
            signal = log_levels(CHANNELS)(values[np.newaxis])[0] - OTHER_BOARD
            corrected[:4] = 1023 / (1 + np.exp(-signal))
            return corrected

        def reset(self) -> None:
            """Nothing is kept."""

    source = list(played(episode_of(LEMON), other=True))
    predictions, _ = process_all(Nose([bundle], correction=Shift()), source)
    assert {p.label for p in predictions if p.label} == {"lemon"}
    assert not any(p.foreign_board for p in predictions)
    other_model = Shift()
    other_model.model = "another"
    predictions, _ = process_all(Nose([bundle], correction=other_model), source)
    assert not any(p.label for p in predictions)


def test_no_components_are_announced_on_another_board(tmp_path: Path) -> None:
    mixture = bundle_with_board(tmp_path, "mixture")
    own, _ = process_all(Nose([mixture]), played(episode_of(LEMON), other=False))
    other, _ = process_all(Nose([mixture]), played(episode_of(LEMON), other=True))
    assert any(p.components for p in own)
    assert not any(p.components for p in other)
    assert any(p.state is State.UNRECOGNISED and p.reason == FOREIGN_BOARD for p in other)
    assert any(p.top for p in other)
