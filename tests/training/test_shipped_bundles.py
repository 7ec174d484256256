"""The shipped bundles: complete, with their training recorded, and int8 equal to float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.bundle import RIG_BUNDLES, integer_matmuls, load_bundle, shipped_bundles
from models.manifest import INT8_MODEL
from training.data.dataset import Dataset, load_mixtures, load_substances
from training.evaluation.network_outputs import run_network, score_bundle
from training.evaluation.scoring import mixture_tally, total_scores
from training.experiments.crossval import best_constant


@pytest.fixture(scope="module")
def nuts(smellnet: Path) -> Dataset:
    labels = load_bundle("substances-50").manifest.labels
    return load_substances(smellnet / "crosssession" / "nuts", labels)


def test_the_models_of_a_rig_and_the_published_recipe_are_shipped() -> None:
    assert {*RIG_BUNDLES, "fruits-5", "paper-50"} == set(shipped_bundles())


@pytest.mark.parametrize("name", shipped_bundles())
def test_shipped_int8_network_multiplies_integers(name: str) -> None:
    bundle = load_bundle(name, precision="int8")
    assert integer_matmuls((bundle.folder / INT8_MODEL).read_bytes()) > 5


@pytest.mark.parametrize("name", shipped_bundles())
def test_manifest_records_command_seed_and_data(name: str) -> None:
    training = load_bundle(name).manifest.training
    assert training["command"].startswith(f"scent-train fit --config {name}")
    assert isinstance(training["seed"], int)
    assert len(training["data_sha256"]) == 64


@pytest.mark.parametrize("name", RIG_BUNDLES)
def test_manifest_reads_no_environment_channel_but_log_conductances(name: str) -> None:
    spec = load_bundle(name).manifest.preprocessing
    assert not {"Temperature", "Pressure", "Humidity", "Altitude"} & set(spec.channels)
    assert spec.linearise == "log"


def test_the_mixture_bundle_announces_only_what_another_day_supports() -> None:
    manifest = load_bundle("mixtures-12").manifest
    assert manifest.decision.groups == (("orange", "cumin", "coriander", "clove"),)
    figures = manifest.metrics["sessions"]
    assert figures["strong_balanced"] > 0.93 > figures["constant_strong_balanced"]
    assert figures["top_k"] > figures["constant_top_k"]


def test_substances_count_levels_only_by_their_spread_between_days() -> None:
    manifest = load_bundle("substances-50").manifest
    settings = manifest.training["settings"]
    assert all(min(expert["lags"]) >= 1 for expert in settings["experts"])
    assert min(settings["levels"]["day_common"], settings["levels"]["day_channel"]) >= 0.3


class TestOnRealRecordings:
    """Needs SCENTD_DATA."""

    pytestmark = pytest.mark.data

    def test_no_recording_of_another_day_was_trained_on(self, nuts: Dataset) -> None:
        for name in shipped_bundles():
            known = load_bundle(name).training_hashes
            assert not known & {sample.sha256 for sample in nuts.samples}

    def test_substance_bundle_lists_its_training_recordings(self, smellnet: Path) -> None:
        bundle = load_bundle("substances-50", precision="int8")
        data = load_substances(smellnet / "base", bundle.manifest.labels)
        assert data.sha256 == bundle.manifest.training["data_sha256"]
        some = data.subset(np.arange(len(data.samples)) % 10 == 0)
        result = score_bundle(bundle, some, run_network(bundle, some))
        assert result["seen_in_training"] == len(some.samples) == 25
        assert result["recording_top1"] > 0.9

    def test_mixture_bundle_lists_its_training_recordings(self, smellnet: Path) -> None:
        bundle = load_bundle("mixtures-12", precision="int8")
        data = load_mixtures(smellnet / "mixture", labels=bundle.manifest.labels)
        assert data.sha256 == bundle.manifest.training["data_sha256"]
        some = data.subset(np.arange(len(data.samples)) % 20 == 0)
        answers = run_network(bundle, some)
        result = score_bundle(bundle, some, answers)
        assert result["seen_in_training"] == len(some.samples)
        target = some.targets[answers.owner]
        constant = np.broadcast_to(best_constant(some.targets), target.shape)
        # On its own compositions it finds more than a constant; on others see its card.
        number = len(target)
        tally = mixture_tally(constant, constant > 0, target, np.arange(number), number)
        assert result["top_k"] > 1.1 * total_scores(tally)["top_k"]

    def test_int8_and_float32_agree_on_unseen_recordings(self, nuts: Dataset) -> None:
        answers = [
            run_network(load_bundle("substances-50", precision=p), nuts) for p in ("int8", "fp32")
        ]
        first, second = (answer.logits for answer in answers)
        assert first is not None
        assert second is not None
        assert (first.argmax(axis=1) == second.argmax(axis=1)).mean() >= 0.97
