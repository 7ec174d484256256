"""The scores of a different rig before and after its calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.rig_reference import RigReference
from hardware.simulator.other_rig import FIXED_RIG, OtherRig
from models.bundle import Bundle, load_bundle
from tests.training.tiny import CONFIG, oscillating
from training.evaluation.network_outputs import measure_rig
from training.trust.calibration import measure_calibration

if TYPE_CHECKING:
    from training.data.dataset import Dataset

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return oscillating(rows=130)


@pytest.fixture(scope="module")
def bundle(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from training.experiments.crossval import cross_validate

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    cross_validate(CONFIG, data, folder, folds=[0])
    return load_bundle(folder / "fold-0" / "bundle", precision="int8")


def test_report_has_scores_shares_and_methods_for_each_number(
    data: Dataset, bundle: Bundle
) -> None:
    found = measure_calibration({0: bundle}, data, rig=FIXED_RIG, choices=2, references=(2, 6))
    assert found["recordings"] == 7
    assert set(found["scores"]) == {"unskewed", "0", "2", "6"}
    assert sum(found["chosen"]["2"].values()) == 2
    assert "standardised" in found["methods"]["6"]
    assert "standardised" not in found["methods"]["2"]
    low, high = found["intervals"]["gap_closed_2"]
    assert low <= found["gap_closed"]["2"] <= high


def test_the_training_rig_itself_loses_nothing(data: Dataset, bundle: Bundle) -> None:
    same = OtherRig("same")
    found = measure_calibration({0: bundle}, data, rig=same, choices=1, references=(2,))
    assert found["scores"]["0"] == found["scores"]["unskewed"]
    assert found["gap_closed"]["2"] == 0.0


def test_the_reference_has_every_label(data: Dataset) -> None:
    reference = measure_rig(data)
    assert isinstance(reference, RigReference)
    assert reference.labels == data.labels
    assert np.isfinite(reference.mean[:, [0, 2]]).all()
    assert np.isnan(reference.mean[:, 1]).all()
