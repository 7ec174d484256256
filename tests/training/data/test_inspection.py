"""What a data set holds, and a paragraph with the mend for all that would spoil a training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hardware.channels import channel_index
from tests.training.exposures import SMELLS, import_fruits5, recording, two_days
from training.data.clean_air import onset_s
from training.data.dataset import Dataset
from training.data.inspection import find_problems, inspect_recordings


def problems(data: Dataset) -> list[str]:
    return find_problems(data, inspect_recordings(data))


def replaced(data: Dataset, number: int, **changes: object) -> Dataset:
    samples = list(data.samples)
    samples[number] = dataclasses.replace(samples[number], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(data, samples=tuple(samples))


def test_good_recordings_have_no_problem_and_begin_in_clean_air() -> None:
    data = two_days()
    assert problems(data) == []
    facts = inspect_recordings(data)
    assert {one.onset_s for one in facts} == {20.0}
    assert facts[0].alive == {"NO2", "C2H5OH", "VOC", "CO", "Gas_Resistance"}


def test_a_dead_channel_of_a_session_is_named() -> None:
    data = two_days()
    samples = []
    for sample in data.samples:
        values = sample.values.copy()
        if sample.session == "day-1":
            values[:, channel_index("CO")] = 0.0
        samples.append(dataclasses.replace(sample, values=values))
    (said,) = problems(dataclasses.replace(data, samples=tuple(samples)))
    assert "CO has no usable readings" in said
    assert "in all of session day-1" in said
    assert "9 of 18" in said


def test_a_recording_in_which_nothing_was_smelled_is_named() -> None:
    data = two_days()
    still = recording("tea", "day-0", (0, 0, 0, 0), seed=7)
    (said,) = problems(replaced(data, 6, values=still.values))
    assert said.startswith(f"Nothing was smelled in {data.samples[6].name}")


def test_a_recording_without_clean_air_is_named() -> None:
    data = two_days()
    late = recording("tea", "day-0", SMELLS["tea"], seed=7, arrives_s=0)
    assert onset_s(late) is None
    (said,) = problems(replaced(data, 6, values=late.values))
    assert "1 of 18 recordings do not begin in clean air" in said
    assert data.samples[6].name in said


def test_clean_air_as_a_label_is_no_problem() -> None:
    data = two_days()
    labels = (*data.labels, "air")
    samples = [
        dataclasses.replace(sample, target=np.append(sample.target, np.float32(0)))
        for sample in data.samples
    ]
    samples += [
        recording("air", f"day-{day}", (0, 0, 0, 0), seed=day, labels=labels) for day in range(2)
    ]
    assert problems(dataclasses.replace(data, labels=labels, samples=tuple(samples))) == []


def test_two_smells_under_one_name_are_named() -> None:
    data = two_days(("coffee", "tea"))
    samples = list(data.samples)
    for number in (1, 4):
        other = recording("coffee", samples[number].session, SMELLS["mint"], seed=number)
        samples[number] = dataclasses.replace(samples[number], values=other.values)
    (said,) = problems(dataclasses.replace(data, samples=tuple(samples)))
    assert "coffee fall into two groups" in said
    assert samples[1].name in said
    assert samples[4].name in said


def test_two_spellings_of_one_label_are_named() -> None:
    data = two_days()
    (said,) = problems(replaced(data, 0, name="Coffee/day-0/a.csv"))
    assert "The folders Coffee, coffee are read as one label" in said


def test_labels_of_one_session_are_named() -> None:
    data = two_days()
    kept = [s for s in data.samples if s.session == "day-0" or not s.name.startswith("mint")]
    (said,) = problems(dataclasses.replace(data, samples=tuple(kept)))
    assert said.startswith("1 of 3 labels have recordings of one session only")
    assert "mint" in said


def test_one_label_with_smells_for_sessions_is_doubted() -> None:
    data = Dataset(
        "substance",
        ("mine",),
        tuple(
            recording("mine", label, SMELLS[label], seed=k, labels=("mine",))
            for k, label in enumerate(SMELLS)
        ),
    )
    assert any("one label only, mine" in said for said in problems(data))


@pytest.mark.data
def test_the_real_rig_with_clean_air_has_no_problem(smellnet: Path, tmp_path: Path) -> None:
    assert problems(import_fruits5(smellnet, tmp_path)) == []
