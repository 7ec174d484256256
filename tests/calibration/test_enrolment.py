"""What a model learns from readings of a smell, or why it can learn nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.enrolment import fit_smell, learn, require_space
from calibration.exposures import EnrolmentError, find_exposure, prepare_readings
from hardware.frames import Quality
from hardware.recording import read_recording
from models.block import Block
from models.bundle import Bundle, Outputs, load_bundle
from models.manifest import write_bundle
from models.model_stream import ModelStream
from tests.calibration.smells import (
    AIR,
    LEMON,
    PETROL,
    smell_readings,
    write_recording,
)
from tests.models.toys import EMBEDDING, toy_files, toy_manifest, toy_space

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CO = 3


def test_the_embedding_follows_the_channel_that_changes(bundle: Bundle, tmp_path: Path) -> None:
    learned = learn(
        bundle, prepare_readings(write_recording(tmp_path / "petrol.csv", smell_readings(PETROL)))
    )
    # A lag of 5 s at 0.02 a second, in units of 0.05.
    np.testing.assert_allclose(learned.embedding.mean(axis=0)[:4], [0, 0, 0, 2], atol=0.2)
    assert len(learned) == 3 + 2  # 10, 20 and 30 rows from the start, 10 and 20 from 30 s on
    assert learned.seconds == 59
    assert learned.channels_missing == ()


@pytest.mark.parametrize("lost", [(), (50,), (118, 119), (125,), (112, 113, 114, 115, 116)])
def test_windows_from_the_onset_equal_those_of_the_live_stream(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: tuple[int, ...]
) -> None:
    """Samples lost before the onset, after it, and too many to bridge."""
    path = tmp_path / "petrol.csv"
    values = smell_readings(PETROL, 60, before=120)
    write_recording(path, values)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for n, line in enumerate(lines) if n - 1 not in lost) + "\n")
    whole = prepare_readings(read_recording(path))
    first = find_exposure(whole).first
    learned = learn(bundle, whole)

    seen: list[Outputs] = []
    run = bundle.run

    def recorded_run(x: NDArray[np.float32], mask: NDArray[np.float32]) -> Outputs:
        seen.append(run(x, mask))
        return seen[-1]

    monkeypatch.setattr(bundle, "run", recorded_run)
    stream, block = ModelStream(bundle, 1.0), Block()
    rows = 0
    for row, sample in enumerate(whole.values):
        block.values[row], block.lost[row] = sample, whole.lost[row]
        if row == first:
            stream.start_evidence()
        block.count = row + 1
        stream.extend(block)
        rows += 1 + int(whole.lost[row]) if row >= first else 0
        if rows in (10, 20, 30):
            stream.predict(row * 1000, accumulate=True)
    np.testing.assert_allclose(
        learned.embedding[:3], np.concatenate([outputs.embedding for outputs in seen]), atol=0.01
    )


def test_clean_air_before_a_certain_onset_is_not_learnt(bundle: Bundle, tmp_path: Path) -> None:
    whole = prepare_readings(
        write_recording(tmp_path / "petrol.csv", smell_readings(PETROL, 60, before=120))
    )
    found = find_exposure(whole)
    first, end = found.first, found.end
    assert 120 <= first <= 135
    assert end == 180
    learned = learn(bundle, whole)
    assert learned.embedding[:, CO].min() > 1.0


def test_only_readings_after_the_start_are_learnt(tmp_path: Path) -> None:
    whole = prepare_readings(
        write_recording(tmp_path / "petrol.csv", smell_readings(PETROL, 60, before=120))
    )
    found = find_exposure(whole, start=150)
    assert (found.first, found.end) == (150, 180)


def test_too_short_a_smell_is_refused_with_the_required_time(
    bundle: Bundle, tmp_path: Path
) -> None:
    short = prepare_readings(write_recording(tmp_path / "short.csv", smell_readings(PETROL, 12)))
    with pytest.raises(EnrolmentError, match=r"11 s .* needs 15 s"):
        learn(bundle, short)


def test_air_known_to_be_clean_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    gone = smell_readings(PETROL, 40, before=120)
    values = np.concatenate([gone, gone[159:119:-1], smell_readings(PETROL, 0, before=200, seed=3)])
    whole = prepare_readings(write_recording(tmp_path / "gone.csv", values))
    with pytest.raises(EnrolmentError, match="clean"):
        learn(bundle, whole, start=300)
    assert find_exposure(whole).first in range(118, 135)


def test_a_failed_channel_is_left_out_unless_it_is_required(bundle: Bundle, tmp_path: Path) -> None:
    values = smell_readings(LEMON)
    values[:, CO] = np.nan
    learned = learn(bundle, prepare_readings(write_recording(tmp_path / "no_co.csv", values)))
    assert learned.channels_missing == ("CO",)
    values = smell_readings(LEMON)
    values[:, 2] = np.nan
    with pytest.raises(EnrolmentError, match=r"VOC \(missing\)"):
        learn(bundle, prepare_readings(write_recording(tmp_path / "no_voc.csv", values)))


def test_a_channel_at_its_limit_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    values = smell_readings(LEMON)
    values[:, CO] = 1023
    readings_ = prepare_readings(write_recording(tmp_path / "limit.csv", values))
    assert (readings_.quality[:, CO] == Quality.SATURATED).all()
    with pytest.raises(EnrolmentError, match="CO was at its limit"):
        learn(bundle, readings_)


def test_a_fast_board_teaches_a_slow_model(bundle: Bundle, tmp_path: Path) -> None:
    slow = learn(
        bundle, prepare_readings(write_recording(tmp_path / "slow.csv", smell_readings(PETROL)))
    )
    values = np.repeat(smell_readings(PETROL), 10, axis=0)
    fast = learn(
        bundle, prepare_readings(write_recording(tmp_path / "fast.csv", values, step_ms=100))
    )
    assert len(fast) == len(slow)
    np.testing.assert_allclose(fast.embedding, slow.embedding, atol=0.05)


def test_a_slower_board_teaches_what_the_models_rate_would(bundle: Bundle, tmp_path: Path) -> None:
    values = smell_readings(PETROL, 90)
    learned = learn(bundle, prepare_readings(write_recording(tmp_path / "one.csv", values)))
    slow = write_recording(tmp_path / "slow.csv", values[::3], step_ms=3000)
    slowly = learn(bundle, prepare_readings(slow))
    assert len(slowly) == pytest.approx(len(learned), abs=1)
    np.testing.assert_allclose(
        slowly.embedding.mean(axis=0), learned.embedding.mean(axis=0), atol=0.1
    )


def test_a_board_too_slow_for_the_model_cannot_teach_it(bundle: Bundle, tmp_path: Path) -> None:
    slow = prepare_readings(
        write_recording(tmp_path / "slow.csv", smell_readings(PETROL), step_ms=5000)
    )
    with pytest.raises(EnrolmentError, match=r"0\.2 readings a second"):
        learn(bundle, slow)


def test_windows_do_not_span_a_gap(bundle: Bundle, tmp_path: Path) -> None:
    values = smell_readings(PETROL, 60)
    path = tmp_path / "gap.csv"
    write_recording(path, values)
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:31], *rows[46:]]) + "\n")
    learned = learn(bundle, prepare_readings(read_recording(path)))
    whole = learn(bundle, prepare_readings(write_recording(tmp_path / "whole.csv", values)))
    assert 0 < len(learned) < len(whole)
    assert learned.embedding[:, CO].min() > 1.0


def test_readings_are_corrected_before_they_are_learnt(bundle: Bundle, tmp_path: Path) -> None:
    class Still:
        """Keeps CO at its level in clean air."""

        id = "still"
        model = None

        def __call__(self, values: NDArray[np.float32], _dt_s: float) -> NDArray[np.float32]:
            still: NDArray[np.float32] = np.where(np.arange(12) == CO, AIR, values)
            return still

        def reset(self) -> None:
            pass

    learned = learn(
        bundle,
        prepare_readings(write_recording(tmp_path / "petrol.csv", smell_readings(PETROL)), Still()),
    )
    np.testing.assert_allclose(learned.embedding[:, CO], 0.0, atol=1e-6)


def test_every_exposure_counts_the_same_however_long() -> None:
    space = toy_space()
    short, long = np.zeros((2, EMBEDDING), np.float32), np.ones((50, EMBEDDING), np.float32)
    smell = fit_smell("tar", [short, long], space)
    np.testing.assert_allclose(smell.mean, 0.5)
    assert (smell.windows, smell.exposures) == (52, 2)
    assert smell.variance < fit_smell("tar", [long], space).variance


def test_models_that_cannot_be_taught_are_refused_with_the_reason(tmp_path: Path) -> None:
    write_bundle(tmp_path / "old", toy_manifest("substance"), toy_files("substance"))
    with pytest.raises(EnrolmentError, match="no class means"):
        require_space(load_bundle(tmp_path / "old"))
    write_bundle(tmp_path / "mix", toy_manifest("mixture"), toy_files("mixture"))
    with pytest.raises(EnrolmentError, match="mixtures"):
        require_space(load_bundle(tmp_path / "mix"))
