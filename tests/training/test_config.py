"""Training configurations: read back from their own YAML, with every problem listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.tiny import CONFIG, write_config
from training.config import TrainConfigError, load_train_config


def test_configuration_survives_its_own_yaml(tmp_path: Path) -> None:
    assert load_train_config(write_config(CONFIG, tmp_path)) == CONFIG


def test_every_problem_of_a_configuration_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\ntask: substance\nsteps: 5\npreprocessing: {channels: 3}\n")
    with pytest.raises(TrainConfigError) as caught:
        load_train_config(path)
    for word in ("steps", "channels", "rate_hz"):
        assert word in str(caught.value)
