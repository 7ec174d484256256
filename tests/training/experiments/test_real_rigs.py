"""Real rigs: what was taught on some days is judged on another one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.calibration.responses import days
from training.cli import main
from training.commands.rigs import table
from training.data.dataset import DataError
from training.experiments.real_rigs import (
    MOMENTS_S,
    RIGS,
    Trial,
    evaluate_rig,
    everything,
    few,
    load_rig,
    name_across,
    name_held_out,
    name_one_smell,
)


@pytest.fixture(scope="module")
def rigs(smellnet: Path) -> Path:
    folder = smellnet.parent / "rigs"
    if not folder.is_dir():
        pytest.skip("SCENTD_DATA holds no rigs/")
    return folder


def test_a_folder_without_recordings_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fruits5"):
        load_rig(tmp_path, RIGS[0])


def test_a_rig_asked_for_the_smells_of_another_is_judged_by_their_names() -> None:
    own = name_across(days(1, 2), days(3))
    assert own.exposures == 4
    assert own.right[-1] >= 0.75
    others = [exposure._replace(label=f"other {exposure.label}") for exposure in days(3)]
    other = name_across(days(1, 2), others)
    assert (other.right[-1], other.wrong[-1]) == (0.0, own.right[-1] + own.wrong[-1])


@pytest.mark.data
class TestOnRealRecordings:
    """Needs SCENTD_DATA."""

    def test_fruits_taught_on_other_days_are_hardly_ever_called_by_another_name(
        self, rigs: Path
    ) -> None:
        exposures = load_rig(rigs, RIGS[0])
        assert len(exposures) == 25
        outcome = name_held_out(exposures, everything)
        assert outcome.exposures == 25
        assert outcome.right[-1] >= 0.7
        assert outcome.wrong[-1] <= 0.08
        assert outcome.likeliest[-1] >= 0.9
        assert outcome.listed[-1] >= 0.95

    def test_a_fruit_taught_once_and_alone_is_known_on_other_days_and_few_others_are_called_it(
        self, rigs: Path
    ) -> None:
        exposures = load_rig(rigs, RIGS[0])
        own, others = name_one_smell(exposures)
        assert own.right[-1] >= 0.9
        assert others.wrong[-1] <= 0.3

    def test_a_room_held_out_is_recognised_with_its_own_clean_air(self, rigs: Path) -> None:
        outcome = name_held_out(load_rig(rigs, RIGS[1]), everything)
        # Of 14 exposures two are of black tea, which hardly moves the sensors.
        assert outcome.right[-1] >= 0.6
        assert outcome.wrong[-1] <= 0.15

    def test_the_likeliest_smell_is_right_at_least_where_its_name_is(self, rigs: Path) -> None:
        outcome = name_held_out(load_rig(rigs, RIGS[1]), everything)
        assert all(
            named <= likeliest <= listed
            for named, likeliest, listed in zip(
                outcome.right, outcome.likeliest, outcome.listed, strict=True
            )
        )

    def test_what_is_taught_is_of_other_sessions_and_one_of_each(self, rigs: Path) -> None:
        exposures = load_rig(rigs, RIGS[0])
        chosen = few(2)(exposures, np.random.default_rng(0))
        keys = [(exposure.label, exposure.session) for exposure in chosen]
        assert len(keys) == len(set(keys))
        assert len(keys) == 10

    def test_the_table_has_a_line_for_every_trial(
        self, rigs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("training.commands.rigs.RIGS", RIGS[1:2])
        assert main(["rigs", "--data", str(rigs), "--json"]) == 0
        trials = json.loads(capsys.readouterr().out)
        assert {trial["rig"] for trial in trials} == {"ai-nose"}
        assert all(len(trial["outcome"]["right"]) == len(MOMENTS_S) for trial in trials)
        lines = table([Trial("x", "y", name_held_out(load_rig(rigs, RIGS[1]), everything))])
        assert len(lines) == 3
        assert len(evaluate_rig(load_rig(rigs, RIGS[1]), "ai-nose")) == len(trials)
