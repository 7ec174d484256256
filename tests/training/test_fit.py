"""The training loop: teachers, checkpoints and their identity."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.training import tiny
from tests.training.tiny import PLAIN, assert_same_weights, interrupt, periodic, with_optimiser
from training.commands._shared import config_path
from training.config import ExpertConfig, TeacherConfig, load_train_config
from training.data.dataset import Dataset
from training.data.substance_tables import read_substance_tables
from training.sampling.measurements import total_steps

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")

import training.fit as fitting  # noqa: E402
from training.fit import TrainingError, train_network  # noqa: E402
from training.sampling.windows import WindowSampler  # noqa: E402

# Networks this small lose more by handing work to a second thread than they gain.
torch.set_num_threads(1)

CONFIG = dataclasses.replace(with_optimiser(steps=60), seed=3)
IDENTITIES = {
    "tiny": "aabee87d7c5e68f08dbac7dccd0a7dae8707ae82deed8c993a98bfa0a66ad2db",
    "substances-50": "f24744ff569e03ea1b8e30043ae5bf3b6418fe779f6c59c5a1329586353252d8",
    "paper-50": "45613aad4004d76add51ef0f55a4c0a8e3c832de4fd289acc4186f5d2b2434de",
}
"""Of trainings on `periodic()`; a checkpoint of an earlier version has the same."""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return periodic(rows=120)


def test_student_learns_what_its_teachers_agree_on(data: Dataset, tmp_path: Path) -> None:
    teacher = TeacherConfig(seed=8, steps=60, augment=PLAIN)
    config = dataclasses.replace(
        CONFIG,
        teachers=(teacher, dataclasses.replace(teacher, seed=9)),
        augment=dataclasses.replace(PLAIN, mix=1.0, mix_where="encoding"),
    )
    steps: list[int] = []
    student = train_network(
        config, data, folder=tmp_path, on_step=lambda step, _: steps.append(step)
    ).network
    assert steps == list(range(1, 181))
    # Teachers that were taught wrong labels: the student follows them, not the labels.
    wrong = dataclasses.replace(
        data,
        samples=tuple(
            dataclasses.replace(sample, target=np.roll(sample.target, 1)) for sample in data.samples
        ),
    )
    trainer = fitting.Trainer(
        dataclasses.replace(config, teachers=()),
        data,
        "cpu",
        [train_network(CONFIG, wrong).network],
    )
    misled = trainer.run().network
    x, mask, target = WindowSampler(data, trainer.spec, PLAIN, seed=6).batch(64)

    def hits(network: torch.nn.Module, shift: int) -> float:
        with torch.no_grad():
            said = network(x, mask)[0].argmax(dim=1)
        return float((said == (target.argmax(dim=1) + shift) % 3).float().mean())

    assert hits(student, 0) > 0.7
    assert hits(misled, 1) > 0.7


def test_distillation_resumes_after_the_last_finished_teacher(
    data: Dataset, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, teachers=(TeacherConfig(seed=8, steps=20, augment=PLAIN),))
    train_network(config, data, folder=tmp_path)
    (tmp_path / fitting.CHECKPOINT).unlink()  # the teacher is kept, the student starts again
    steps: list[int] = []
    resumed = train_network(
        config, data, folder=tmp_path, on_step=lambda step, _: steps.append(step)
    )
    assert steps[0] == 21
    assert_same_weights(resumed.network, train_network(config, data).network)


def test_experts_are_trained_one_after_the_other_and_resumed(data: Dataset, tmp_path: Path) -> None:
    expert = ExpertConfig(
        seed=8, steps=20, network=CONFIG.network, augment=PLAIN, channels=("NO2", "VOC"), lags=(3,)
    )
    config = dataclasses.replace(CONFIG, experts=(expert, dataclasses.replace(expert, seed=9)))
    steps: list[int] = []
    whole = train_network(config, data, folder=tmp_path, on_step=lambda step, _: steps.append(step))
    assert steps == list(range(1, total_steps(config, data) + 1)) == list(range(1, 41))
    (tmp_path / "expert-1" / fitting.CHECKPOINT).unlink()
    steps.clear()
    resumed = train_network(
        config, data, folder=tmp_path, on_step=lambda step, _: steps.append(step)
    )
    assert steps[0] == 21
    assert_same_weights(resumed.network, whole.network)


def test_resumed_training_equals_an_uninterrupted_one(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY_STEPS", 10)
    interrupt(CONFIG, data, tmp_path, 35)
    steps: list[int] = []
    resumed = train_network(
        CONFIG, data, folder=tmp_path, on_step=lambda step, _: steps.append(step)
    )
    assert steps[0] == 31
    assert_same_weights(resumed.network, train_network(CONFIG, data).network)


def test_checkpoint_of_another_training_is_refused(data: Dataset, tmp_path: Path) -> None:
    short = with_optimiser(CONFIG, steps=5)
    train_network(short, data, folder=tmp_path)
    with pytest.raises(TrainingError, match="another configuration"):
        train_network(dataclasses.replace(short, seed=99), data, folder=tmp_path)


@pytest.mark.parametrize("name", IDENTITIES)
def test_checkpoints_of_earlier_versions_are_resumed(name: str) -> None:
    config = tiny.CONFIG if name == "tiny" else load_train_config(config_path(name))
    data = periodic()
    tables = read_substance_tables(config.cross_modal, data)
    assert fitting.training_identity(config, data, tables) == IDENTITIES[name]
