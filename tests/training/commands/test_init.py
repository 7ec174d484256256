"""`scent-train init`: what it finds, the configuration it writes, and the commands it prints."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from daemon.cli import main as scentd
from models.bundle import load_bundle
from tests.training.exposures import import_fruits5, two_days
from tests.training.tiny import write_recordings
from training.cli import main
from training.config import load_train_config
from training.data.dataset import DataError
from training.data.inspection import inspect_recordings
from training.rig_config import bundle_name, choose_config, render_config


def commands_in(text: str) -> list[list[str]]:
    """Return the printed commands, as words."""
    return [shlex.split(line) for line in text.split("Next:")[1].splitlines() if line.strip()]


def run_printed(commands: list[list[str]]) -> None:
    programs = {"scent-train": main, "scentd": scentd}
    for program, *words in commands:
        assert programs[program](words) == 0, words


def test_the_printed_commands_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    write_recordings(two_days(), Path("My Smells"))
    assert main(["init", "--data", "My Smells"]) == 0
    said = capsys.readouterr().out
    for text in (
        "coffee 6 (2 sessions)", "day-0: 9 recordings", "18 of 18 recordings begin in it",
        "NO2, C2H5OH, VOC, CO, Gas_Resistance", "Alcohol: no readings",
    ):  # fmt: skip
        assert text in said
    config = Path("my-smells.yaml")
    config.write_text(re.sub(r"(?<!min_)steps: \d+", "steps: 3", config.read_text()))
    assert load_train_config(config).preprocessing.window == 29
    commands = commands_in(said)
    assert [words[:2] for words in commands] == [
        ["scent-train", "crossval"], ["scent-train", "fit"], ["scent-train", "export"],
        ["scentd", "replay"],
    ]  # fmt: skip
    assert "--sessions" in commands[0]
    run_printed(commands)


def test_an_existing_configuration_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_recordings(two_days(), tmp_path / "data")
    (tmp_path / "a.yaml").write_text("mine")
    assert main(["init", "--data", str(folder), "--output", str(tmp_path / "a.yaml")]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert (tmp_path / "a.yaml").read_text() == "mine"


def test_a_channel_that_died_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = two_days()
    first = data.samples[0].values.copy()
    first[:, 3] = np.nan
    samples = (dataclasses.replace(data.samples[0], values=first), *data.samples[1:])
    folder = write_recordings(dataclasses.replace(data, samples=samples), tmp_path / "data")
    output = tmp_path / "a.yaml"
    assert main(["init", "--data", str(folder), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "CO: dead in some recordings" in said
    assert "CO has no usable readings" in said
    assert "CO" not in load_train_config(output).preprocessing.channels
    needy = tmp_path / "needy.yaml"
    needy.write_text(
        output.read_text()
        .replace("channels: [NO2", "channels: [CO, NO2")
        .replace("min_channels: 3", "min_channels: 4")
    )
    assert main(["fit", "--config", str(needy), "--data", str(folder)]) == 1
    assert "Expected readings of CO, which the model requires" in capsys.readouterr().err


def test_recordings_of_one_session_are_judged_by_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = two_days()
    kept = tuple(sample for sample in data.samples if sample.session == "day-0")
    folder = write_recordings(dataclasses.replace(data, samples=kept), tmp_path / "data")
    assert main(["init", "--data", str(folder), "--output", str(tmp_path / "a.yaml")]) == 0
    said = capsys.readouterr().out
    assert commands_in(said)[0][2:4] == ["--folds", "0,1"]
    assert "3 of 3 labels have recordings of one session only" in said


def test_settings_follow_the_rate_and_the_length_of_the_recordings() -> None:
    facts = inspect_recordings(two_days())

    def chosen(rate_hz: float, seconds: float) -> tuple[float, tuple[int, ...], int]:
        changed = [dataclasses.replace(f, rate_hz=rate_hz, seconds=seconds) for f in facts]
        config = choose_config("a", changed)
        return config.rate_hz, config.lags, config.window

    assert chosen(10.0, 600.0) == (1.0, (0, 5, 10, 25, 50), 100)
    assert chosen(0.37, 600.0) == (1.0, (0, 5, 10, 25, 50), 100)
    assert chosen(1.0, 120.0) == (1.0, (0, 5, 10, 25, 50), 60)
    assert chosen(0.1, 1800.0) == (0.1, (0, 1, 2, 5), 20)
    with pytest.raises(DataError, match="at least 40 s"):
        chosen(1.0, 20.0)
    with pytest.raises(DataError, match="at least 40 readings"):
        chosen(0.1, 60.0)


def test_levels_and_onsets_are_trained_only_where_recordings_begin_in_clean_air(
    tmp_path: Path,
) -> None:
    facts = inspect_recordings(two_days())
    within = [dataclasses.replace(facts[0], onset_s=None), *facts[1:]]
    for case, expected in ((facts, True), (within, False)):
        path = tmp_path / f"{expected}.yaml"
        path.write_text(render_config(choose_config("a", case), case, "here"))
        config = load_train_config(path)
        assert (0 in config.preprocessing.lags) is expected
        assert (config.augment.from_onset > 0) is expected
        assert (len(config.teachers) == 0) is expected


@pytest.mark.parametrize(
    ("text", "name"), [("My Smells", "my-smells"), ("été", "t"), ("...", "my-smells"), ("a", "a")]
)
def test_every_folder_gives_a_name_that_a_bundle_may_have(text: str, name: str) -> None:
    assert bundle_name(text) == name


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(3600)
def test_a_real_rig_from_import_to_bundle(
    smellnet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole way of an owner: 25 recordings of four days, whole days held out."""
    pytest.importorskip("torch", reason="the trainer needs the extra `train`")
    monkeypatch.chdir(tmp_path)
    import_fruits5(smellnet, Path("fruits"))
    assert main(["init", "--data", "fruits"]) == 0
    said = capsys.readouterr().out
    assert "25 of 25 recordings begin in it" in said
    run_printed(commands_in(said))
    manifest = load_bundle(tmp_path / "fruits-bundle").manifest
    # One network of the recipe of `fruits-5`, which is the mean of three.
    assert manifest.metrics["sessions"]["recording_top1"] > 0.8
    assert manifest.metrics["sessions"]["recording_top3"] > 0.9
    assert len(manifest.labels) == 5
