"""Cross-modal training on small synthetic smells: every switch learns, and off is off."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from hardware.typed_yaml import TypedYamlError, build
from models.bundle import load_bundle
from models.decision_spec import DecisionSpec
from models.preprocess import PreprocessSpec
from tests.training.tiny import (
    SPEC,
    assert_same_weights,
    interrupt,
    periodic,
    with_optimiser,
)
from training.config import (
    CrossModalConfig,
    TrainConfig,
    TrainConfigError,
    load_train_config,
)
from training.data.dataset import Dataset
from training.data.substance_tables import (
    SubstanceTable,
    SubstanceTableError,
    SubstanceTables,
    TextEncoder,
    cosine_similarities,
    number_distinct_rows,
    read_descriptions,
    read_descriptors,
    read_element_counts,
    read_substance_tables,
)

torch = pytest.importorskip("torch", reason="the trainer needs the extra `train`")
pytest.importorskip("sklearn", reason="the trainer needs the extra `train`")

from training.export.bundle import Provenance, export_bundle  # noqa: E402
from training.fit import non_default_settings, train_network, training_identity  # noqa: E402
from training.network.cross_modal import CrossModalNet  # noqa: E402
from training.network.cross_modal_losses import (  # noqa: E402
    balanced_bce,
    choose_hidden,
    masked_prediction_loss,
    purest_windows,
    signed_pair_loss,
    similarity_loss,
    split_cross_entropy,
    symmetric_info_nce,
)
from training.network.cross_modal_objective import CrossModalObjective  # noqa: E402
from training.network.losses import substance_loss  # noqa: E402
from training.sampling.windows import WindowSampler  # noqa: E402

torch.set_num_threads(1)

LABELS = ("almond", "banana", "cloves", "garlic", "lemon", "mint")
ELEMENTS = {
    "almond": (900, 1500, 20, 0), "banana": (400, 800, 300, 0), "cloves": (700, 800, 150, 0),
    "garlic": (50, 90, 4, 800), "lemon": (600, 990, 5, 0), "mint": (500, 900, 60, 1),
}  # fmt: skip
TEXTS = {
    "almond": "Almond is sweet and nutty with a buttery scent. In gas sensor data it is mild.",
    "banana": "Banana is sweet, fruity and tropical, with a floral scent.",
    "cloves": "Cloves are warm, spicy, sweet and medicinal. Sensors see sharp signals.",
    "garlic": "Garlic is pungent, sulphurous and savory; its scent stays.",
    "lemon": "Lemon is a citrus fruit, fresh, tangy and fruity.",
    "mint": "Mint is herbal, fresh and camphoraceous, sweet and cool.",
}
CONFIG = dataclasses.replace(with_optimiser(batch=24), seed=3)
ALL_ON = CrossModalConfig(
    gcms=0.5, similarity=0.4, signed=0.5, masked=0.4, pretrain=0.1, balancer=True, descriptors=0.5
)


def switched(settings: CrossModalConfig | None, steps: int = 40) -> TrainConfig:
    return dataclasses.replace(with_optimiser(CONFIG, steps=steps), cross_modal=settings)


def smells(folder: Path | None, per_label: int = 3) -> Dataset:
    periods_s = {label: 5.0 + 3 * place for place, label in enumerate(LABELS)}
    return periodic(periods_s, per_label=per_label, folder=folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The smells in a folder with the two tables above it, as the published data has them."""
    above = tmp_path_factory.mktemp("smells")
    with (above / "gcms_elements.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["food_name", "C", "H", "O", "S"])
        writer.writerows([name, *counts] for name, counts in ELEMENTS.items())
    (above / "text_description.json").write_text(json.dumps(TEXTS))
    (above / "base").mkdir()
    return smells(above / "base")


def batch_of(
    data: Dataset, spec: PreprocessSpec = SPEC, size: int = 24
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return WindowSampler(data, spec, CONFIG.augment, seed=5).batch(size)


# --- tables ---------------------------------------------------------------------------------


def test_every_substance_has_descriptors_and_every_descriptor_substances() -> None:
    path = Path(__file__).parents[3] / "training" / "data" / "descriptors.csv"
    labels = [row["substance"] for row in csv.DictReader(path.open())]
    table = read_descriptors(labels)
    assert len(labels) == len(set(labels)) == 50
    assert 25 <= len(table.names) <= 35
    assert table.values.sum(axis=1).min() >= 2
    assert table.values.sum(axis=0).min() >= 3


@pytest.mark.data
def test_descriptors_cover_the_published_substances(smellnet: Path) -> None:
    labels = sorted(path.name for path in (smellnet / "base").iterdir() if path.is_dir())
    assert len(labels) == 50
    assert read_descriptors(labels).known.all()


@pytest.mark.data
def test_published_tables_know_every_substance(smellnet: Path) -> None:
    labels = sorted(path.name for path in (smellnet / "base").iterdir() if path.is_dir())
    elements = read_element_counts(smellnet / "gcms_elements.csv", labels)
    assert elements.values.shape == (50, 17)
    assert elements.known.all()
    texts = read_descriptions(smellnet / "text_description.json", labels)
    assert min(map(len, texts)) > 50
    assert not any("sensor" in text for text in texts)


def test_tables_are_found_above_the_data(data: Dataset) -> None:
    knowledge = read_substance_tables(ALL_ON, data)
    assert knowledge.elements is not None
    assert knowledge.descriptors is not None
    np.testing.assert_allclose(knowledge.elements.values[0], np.log1p(ELEMENTS["almond"]))
    assert knowledge.texts is not None
    assert "sensor" not in knowledge.texts[0]
    assert "almond" not in knowledge.texts[0]
    assert "nutty" in knowledge.texts[0]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (CrossModalConfig(gcms=1.0), "gcms_elements.csv"),
        (CrossModalConfig(similarity=1.0), "gcms_elements.csv"),
        (CrossModalConfig(masked=1.0), "gcms_elements.csv"),
        (CrossModalConfig(signed=1.0), "text_description.json"),
    ],
)
def test_missing_table_is_named_with_the_way_out(
    settings: CrossModalConfig, name: str, tmp_path: Path
) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    with pytest.raises(SubstanceTableError, match=name) as caught:
        read_substance_tables(settings, smells(deep, per_label=1))
    assert "cross_modal." in str(caught.value)


def test_named_table_that_is_not_there_is_named(data: Dataset, tmp_path: Path) -> None:
    settings = CrossModalConfig(gcms=1.0, gcms_file=str(tmp_path / "other.csv"))
    with pytest.raises(SubstanceTableError, match=r"other\.csv"):
        read_substance_tables(settings, data)


def test_table_of_other_substances_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elements.csv").write_text("name,C\nrose,3\n")
    with pytest.raises(SubstanceTableError, match="none of the substances"):
        read_element_counts(tmp_path / "elements.csv", LABELS)


def test_substances_without_descriptors_are_told_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(SubstanceTableError, match="descriptors_file"):
        read_descriptors(["my_socks", "my_shoes"])
    own = tmp_path / "own.csv"
    own.write_text("substance,descriptors\nmy_socks,cheesy sour\nmy_hat,sour woolly\n")
    table = read_descriptors(["my_socks", "my_shoes"], CrossModalConfig(descriptors_file=str(own)))
    assert table.names == ("cheesy", "sour", "woolly")
    assert table.values.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert table.known.tolist() == [True, False]


@pytest.mark.parametrize("text", ["", "name,C\n", "name,C\nmint\n", "name,C\nmint,much\n"])
def test_broken_table_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "elements.csv").write_text(text)
    with pytest.raises(SubstanceTableError, match=r"elements\.csv"):
        read_element_counts(tmp_path / "elements.csv", LABELS)


def test_broken_descriptions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "texts.json").write_text("[1]")
    with pytest.raises(SubstanceTableError, match="object"):
        read_descriptions(tmp_path / "texts.json", LABELS)


def test_texts_of_like_odours_lie_near_each_other() -> None:
    encoder = TextEncoder(list(TEXTS.values()))
    for view in ("words", "characters"):
        vectors = encoder(["fruity and tropical", TEXTS["banana"], TEXTS["garlic"]])[view]
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(SubstanceTableError, match="3 described substances"):
        TextEncoder(["sweet", "sour"])


# --- losses ---------------------------------------------------------------------------------


def test_one_window_of_each_distinct_vector_is_kept() -> None:
    target = torch.tensor(
        [[0.9, 0.1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0.5, 0.5, 0, 0]]
    )
    vectors = np.array([[1.0, 2.0], [3.0, 1.0], [3.0, 1.0], [9.0, 9.0]], dtype=np.float32)
    kind = torch.from_numpy(number_distinct_rows(vectors))
    known = torch.tensor([True, True, True, False])
    rows, substances = purest_windows(target, kind, known)
    assert rows.tolist() == [1, 2]  # the purest of substance 0; 2 has the vector of 1
    assert substances.tolist() == [0, 1]


def test_info_nce_is_symmetric_and_least_for_pairs() -> None:
    own = torch.eye(5)
    assert symmetric_info_nce(own, own, 0.07) < 1e-4
    other = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        symmetric_info_nce(own, other, 0.07), symmetric_info_nce(other, own, 0.07)
    )
    assert symmetric_info_nce(own, own.roll(1, 0), 0.07) > 5


def test_similarity_loss_is_zero_where_cosines_are_those_of_the_substances() -> None:
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    similarity = torch.from_numpy(cosine_similarities(vectors.numpy()))
    target, known = torch.eye(4), torch.ones(4, dtype=torch.bool)
    assert similarity_loss(vectors, target, similarity, known) < 1e-10
    assert similarity_loss(torch.eye(4), target, similarity, known) > 0.01
    nothing = similarity_loss(torch.eye(4), target, similarity, ~known)
    assert nothing == 0


def test_signed_pairs_weigh_yes_and_no_the_same() -> None:
    positive = torch.eye(50)
    always_no = torch.full((50, 50), -8.0)
    assert signed_pair_loss(always_no, positive) == pytest.approx(4.0, rel=0.01)
    assert signed_pair_loss(16 * positive - 8, positive) < 0.001


def test_hidden_is_a_channel_with_its_lags_or_a_span() -> None:
    x = torch.zeros(200, 20, 6)
    hidden = choose_hidden(x, 3, torch.Generator().manual_seed(0))
    kinds = set()
    for window in hidden:
        if window.all(dim=0).any():
            kinds.add("channel")
            columns = window.all(dim=0).nonzero()[:, 0].tolist()
            assert len(columns) == 2
            assert columns[1] - columns[0] == 3
        else:
            kinds.add("span")
            rows = window.all(dim=1).nonzero()[:, 0]
            assert 3 <= len(rows) <= 11
            assert (rows.diff() == 1).all()
    assert kinds == {"channel", "span"}


def test_masked_prediction_counts_only_what_was_hidden_and_measured() -> None:
    x, hidden, mask = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2, dtype=torch.bool), torch.ones(1, 4)
    hidden[0, 1:3] = True
    mask[0, 2] = 0
    wrong_elsewhere = torch.ones(1, 4, 2)
    wrong_elsewhere[0, 1] = 0
    assert masked_prediction_loss(wrong_elsewhere, x, hidden, mask) == 0
    assert masked_prediction_loss(torch.ones(1, 4, 2), x, hidden, mask) == pytest.approx(0.5)


def test_halves_of_the_labels_add_up_to_the_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(8, 6, generator=generator)
    target = torch.eye(6)[torch.randint(6, (8,), generator=generator)]
    half = torch.tensor([True, False, True, False, False, True])
    both = split_cross_entropy((logits, logits), target, half, 0.1)
    torch.testing.assert_close(both, substance_loss(logits, target, label_smoothing=0.1))


def test_first_view_learns_nothing_of_the_other_half() -> None:
    first, second = (torch.zeros(2, 4, requires_grad=True) for _ in range(2))
    target = torch.eye(4)[[0, 0]]
    half = torch.tensor([False, False, True, True])
    split_cross_entropy((first, second), target, half, 0.0).backward()
    assert first.grad is not None
    assert second.grad is not None
    assert first.grad.abs().sum() == 0
    assert second.grad.abs().sum() > 0


def test_rare_descriptor_weighs_more() -> None:
    logits, wanted, weight = torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2)
    plain = balanced_bce(logits, wanted, torch.ones(2), weight)
    rare = balanced_bce(logits, wanted, torch.tensor([1.0, 9.0]), weight)
    torch.testing.assert_close(rare, 5 * plain)


# --- training -------------------------------------------------------------------------------

SWITCHES = {
    "gcms": CrossModalConfig(gcms=0.5),
    "similarity": CrossModalConfig(similarity=0.4),
    "signed": CrossModalConfig(signed=0.5),
    "masked": CrossModalConfig(masked=0.4),
    "descriptors": CrossModalConfig(descriptors=0.5),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_loss_reaches_the_trunk_and_falls_when_trained(name: str, data: Dataset) -> None:
    """The switch's own loss: that of the whole objective less that of the labels."""
    config = switched(SWITCHES[name])
    torch.manual_seed(0)
    knowledge = read_substance_tables(SWITCHES[name], data)
    n_descriptors = len(knowledge.descriptors.names) if SWITCHES[name].descriptors else 0
    network = CrossModalNet(config.network, SPEC, 6, n_descriptors=n_descriptors)
    objective = CrossModalObjective(config, SPEC, knowledge, np.ones(6, dtype=bool))
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


def test_every_switch_off_trains_the_very_same_weights(data: Dataset) -> None:
    plain = train_network(switched(None), data)
    off = train_network(switched(CrossModalConfig()), data)
    assert plain.objective is None
    assert plain.loss == off.loss
    assert_same_weights(plain.network, off.network)


def test_configuration_without_cross_modal_keeps_its_checkpoints_identity(data: Dataset) -> None:
    settings = non_default_settings(switched(None))
    assert "cross_modal" not in settings
    assert non_default_settings(switched(CrossModalConfig(gcms=0.5)))["cross_modal"] == {
        "gcms": 0.5
    }
    less = dataclasses.replace(data, folder=None)
    knowledge = read_substance_tables(CrossModalConfig(gcms=0.5), data)
    config = switched(CrossModalConfig(gcms=0.5))
    identity = training_identity(config, data, knowledge)
    assert identity == training_identity(config, less, knowledge)
    other = SubstanceTables(elements=knowledge.elements.standardise(np.ones(6, dtype=bool)))
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


def test_substances_without_a_recording_are_no_negatives(data: Dataset) -> None:
    """What is held out must not be learned as "never", and nothing be scaled by it."""
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


def test_two_views_are_fused_into_one_answer(data: Dataset) -> None:
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


def test_exported_bundle_says_what_a_smell_smells_like(data: Dataset, tmp_path: Path) -> None:
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


def test_bundle_without_descriptors_gives_none(data: Dataset, tmp_path: Path) -> None:
    config = switched(CrossModalConfig(gcms=0.5), steps=3)
    fitted = train_network(config, data)
    export_bundle(
        tmp_path / "tiny", config, fitted, data, DecisionSpec(), Provenance("test", "tiny.yaml")
    )
    bundle = load_bundle(tmp_path / "tiny")
    assert bundle.manifest.descriptors == ()
    x, mask, _ = batch_of(data)
    assert bundle.run(x.numpy(), mask.numpy()).descriptors.size == 0


def test_mixture_configuration_with_a_switch_is_refused(tmp_path: Path) -> None:
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
