"""Cross-modal training: every switch reduces its loss, and without switches nothing changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hardware.typed_yaml import TypedYamlError, build
from models.bundle import load_bundle
from models.decision_spec import DecisionSpec
from models.preprocess import PreprocessSpec
from tests.training.described import ALL_ON, ELEMENTS, LABELS, described_recordings
from tests.training.tiny import (
    SPEC,
    assert_same_weights,
    interrupt,
    with_optimiser,
)
from training.config import (
    CrossModalConfig,
    TrainConfig,
    TrainConfigError,
    load_train_config,
    non_default_settings,
)
from training.data.dataset import Dataset
from training.data.substance_tables import (
    SubstanceTable,
    SubstanceTables,
    read_descriptors,
    read_substance_tables,
)

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
pytest.importorskip("sklearn", reason="the trainer needs the extra `train`")

from training.export.bundle import Provenance, export_bundle  # noqa: E402
from training.fit import train_network, training_identity  # noqa: E402
from training.network.cross_modal import CrossModalNet  # noqa: E402
from training.network.cross_modal_objective import CrossModalObjective  # noqa: E402
from training.network.losses import substance_loss  # noqa: E402
from training.sampling.windows import WindowSampler  # noqa: E402

torch.set_num_threads(1)

CONFIG = dataclasses.replace(with_optimiser(batch=24), seed=3)
SWITCHES = {
    "gcms": CrossModalConfig(gcms=0.5),
    "similarity": CrossModalConfig(similarity=0.4),
    "signed": CrossModalConfig(signed=0.5),
    "masked": CrossModalConfig(masked=0.4),
    "descriptors": CrossModalConfig(descriptors=0.5),
}


def switched(settings: CrossModalConfig | None, steps: int = 40) -> TrainConfig:
    return dataclasses.replace(with_optimiser(CONFIG, steps=steps), cross_modal=settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return described_recordings(tmp_path_factory.mktemp("smells"))


def batch_of(
    data: Dataset, spec: PreprocessSpec = SPEC, size: int = 24
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return WindowSampler(data, spec, CONFIG.augment, seed=5).batch(size)


@pytest.mark.parametrize("name", SWITCHES)
def test_loss_reaches_the_trunk_and_falls_when_trained(name: str, data: Dataset) -> None:
    """The switch's loss is that of the whole objective minus that of the labels."""
    config = switched(SWITCHES[name])
    torch.manual_seed(0)
    tables = read_substance_tables(SWITCHES[name], data)
    n_descriptors = len(tables.descriptors.names) if SWITCHES[name].descriptors else 0
    network = CrossModalNet(config.network, SPEC, 6, n_descriptors=n_descriptors)
    objective = CrossModalObjective(config, SPEC, tables, np.ones(6, dtype=bool))
    x, mask, target = batch_of(data)
    start = objective.generator.get_state()
    network.eval()

    def own_loss() -> torch.Tensor:
        objective.generator.set_state(start)
        labels = substance_loss(network(x, mask)[0], target, label_smoothing=0.1)
        whole = objective(network, x, mask, target, 0.5, label_target=target, label_smoothing=0.1)
        return whole - labels

    optimiser = torch.optim.Adam([*network.parameters(), *objective.parameters()], lr=5e-3)
    first = own_loss()
    first.backward()
    assert network.trunk.stem.linear.weight.grad.abs().sum() > 0
    for _ in range(40):
        optimiser.zero_grad()
        own_loss().backward()
        optimiser.step()
    assert own_loss().item() < 0.85 * first.item()


def test_training_with_all_switches_off_gives_the_same_weights(data: Dataset) -> None:
    plain = train_network(switched(None), data)
    off = train_network(switched(CrossModalConfig()), data)
    assert plain.objective is None
    assert plain.loss == off.loss
    assert_same_weights(plain.network, off.network)


def test_only_cross_modal_trainings_are_identified_by_their_tables(data: Dataset) -> None:
    settings = non_default_settings(switched(None))
    assert "cross_modal" not in settings
    assert non_default_settings(switched(CrossModalConfig(gcms=0.5)))["cross_modal"] == {
        "gcms": 0.5
    }
    less = dataclasses.replace(data, folder=None)
    tables = read_substance_tables(CrossModalConfig(gcms=0.5), data)
    config = switched(CrossModalConfig(gcms=0.5))
    identity = training_identity(config, data, tables)
    assert identity == training_identity(config, less, tables)
    other = SubstanceTables(elements=tables.elements.standardise(np.ones(6, dtype=bool)))
    assert identity != training_identity(config, data, other)


def test_resumed_cross_modal_training_equals_an_uninterrupted_one(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fit.SAVE_EVERY_STEPS", 5)
    config = switched(ALL_ON, steps=14)
    interrupt(config, data, tmp_path, 8)
    resumed = train_network(config, data, folder=tmp_path)
    whole = train_network(config, data)
    assert_same_weights(resumed.network, whole.network)
    assert_same_weights(resumed.objective, whole.objective)


def test_substances_without_a_recording_are_unknown(data: Dataset) -> None:
    """Held-out substances are no negatives, and no scale depends on them."""
    trained = np.arange(6) != 3
    objective = CrossModalObjective(
        switched(ALL_ON), SPEC, read_substance_tables(ALL_ON, data), trained
    )
    assert objective.matcher is not None
    assert not any(objective.matcher.get_buffer(f"{v}_known")[3] for v in objective.matcher.views)
    assert objective.describer is not None
    sulphurous = read_descriptors(LABELS).names.index("sulphurous")
    assert objective.describer.learnable[sulphurous] == 0
    changed = dict(ELEMENTS, garlic=(1, 1, 1, 10**6))
    tables = [
        np.log1p(np.array([source[label] for label in LABELS], dtype=np.float32))
        for source in (ELEMENTS, changed)
    ]
    settings, everyone = CrossModalConfig(gcms=1.0), np.ones(6, dtype=bool)
    alignments = [
        CrossModalObjective(
            switched(settings),
            SPEC,
            SubstanceTables(elements=SubstanceTable((), table, everyone)),
            trained,
        ).gcms
        for table in tables
    ]
    assert torch.equal(alignments[0].vectors, alignments[1].vectors)
    assert alignments[0].known.tolist() == trained.tolist()


def test_two_views_are_averaged(data: Dataset) -> None:
    network = CrossModalNet(CONFIG.network, SPEC, 6, n_descriptors=3, two_views=True).eval()
    x, mask, _ = batch_of(data)
    said = network.head_outputs(x, mask)
    logits, embedding, descriptors = network(x, mask)
    torch.testing.assert_close(logits, (said.logits[0] + said.logits[1]) / 2)
    torch.testing.assert_close(
        descriptors, ((said.descriptors[0] + said.descriptors[1]) / 2).sigmoid()
    )
    assert embedding.shape == (24, 16)
    beyond = x.clone()
    beyond[mask == 0] = 7.0
    torch.testing.assert_close(network(beyond, mask)[0], logits)


def test_exported_bundle_gives_descriptor_probabilities(data: Dataset, tmp_path: Path) -> None:
    config = switched(CrossModalConfig(descriptors=1.0, balancer=True), steps=120)
    fitted = train_network(config, data)
    provenance = Provenance("test", "tiny.yaml")
    export_bundle(tmp_path / "tiny", config, fitted, data, DecisionSpec(), provenance)
    bundle = load_bundle(tmp_path / "tiny", precision="int8")
    names = bundle.manifest.descriptors
    assert names == read_descriptors(LABELS).names
    x, mask, target = batch_of(data, fitted.spec)
    with torch.no_grad():
        reference = fitted.network(x, mask)[2].numpy()
    full = load_bundle(tmp_path / "tiny", precision="fp32").run(x.numpy(), mask.numpy())
    np.testing.assert_allclose(full.descriptors, reference, atol=1e-4)
    said = bundle.run(x.numpy(), mask.numpy()).descriptors
    assert said.shape == (24, len(names))
    assert 0 <= said.min() <= said.max() <= 1
    wanted = target.numpy() @ read_descriptors(LABELS).values > 0.9
    unwanted = target.numpy() @ read_descriptors(LABELS).values < 0.1
    assert said[wanted].mean() > said[unwanted].mean() + 0.2


def test_bundle_without_descriptors_has_no_such_output(data: Dataset, tmp_path: Path) -> None:
    config = switched(CrossModalConfig(gcms=0.5), steps=3)
    fitted = train_network(config, data)
    export_bundle(
        tmp_path / "tiny", config, fitted, data, DecisionSpec(), Provenance("test", "tiny.yaml")
    )
    bundle = load_bundle(tmp_path / "tiny")
    assert bundle.manifest.descriptors == ()
    x, mask, _ = batch_of(data)
    assert bundle.run(x.numpy(), mask.numpy()).descriptors.size == 0


def test_cross_modal_mixture_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(
        "name: x\ntask: mixture\npreprocessing: {channels: [NO2], rate_hz: 1.0}\n"
        "cross_modal: {gcms: 0.5}\n"
    )
    with pytest.raises(TrainConfigError, match="single substances"):
        load_train_config(path)


def test_switches_out_of_range_are_all_named() -> None:
    with pytest.raises(TypedYamlError) as caught:
        build(CrossModalConfig, {"gcms": -1, "pretrain": 1.0, "temperature": 0})
    for word in ("gcms", "pretrain", "temperature"):
        assert word in str(caught.value)
