"""Tables about the substances: where they are found, what is read, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.training.described import (
    ALL_ON,
    ELEMENTS,
    LABELS,
    TEXTS,
    described_recordings,
    recordings,
)
from training.config import CrossModalConfig
from training.data.substance_tables import (
    SubstanceTableError,
    TextEncoder,
    read_descriptions,
    read_descriptors,
    read_element_counts,
    read_substance_tables,
)

pytest.importorskip("sklearn", reason="the trainer needs the extra `train`")


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
def test_published_tables_have_every_substance(smellnet: Path) -> None:
    labels = sorted(path.name for path in (smellnet / "base").iterdir() if path.is_dir())
    elements = read_element_counts(smellnet / "gcms_elements.csv", labels)
    assert elements.values.shape == (50, 17)
    assert elements.known.all()
    texts = read_descriptions(smellnet / "text_description.json", labels)
    assert min(map(len, texts)) > 50
    assert not any("sensor" in text for text in texts)


def test_tables_are_found_above_the_data(tmp_path: Path) -> None:
    tables = read_substance_tables(ALL_ON, described_recordings(tmp_path))
    assert tables.elements is not None
    assert tables.descriptors is not None
    np.testing.assert_allclose(tables.elements.values[0], np.log1p(ELEMENTS["almond"]))
    assert tables.texts is not None
    assert "sensor" not in tables.texts[0]
    assert "almond" not in tables.texts[0]
    assert "nutty" in tables.texts[0]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (CrossModalConfig(gcms=1.0), "gcms_elements.csv"),
        (CrossModalConfig(similarity=1.0), "gcms_elements.csv"),
        (CrossModalConfig(masked=1.0), "gcms_elements.csv"),
        (CrossModalConfig(signed=1.0), "text_description.json"),
    ],
)
def test_missing_table_is_named_with_the_option_that_names_another(
    settings: CrossModalConfig, name: str, tmp_path: Path
) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    with pytest.raises(SubstanceTableError, match=name) as caught:
        read_substance_tables(settings, recordings(deep, per_label=1))
    assert "cross_modal." in str(caught.value)


def test_missing_file_of_an_option_is_named(tmp_path: Path) -> None:
    settings = CrossModalConfig(gcms=1.0, gcms_file=str(tmp_path / "other.csv"))
    with pytest.raises(SubstanceTableError, match=r"other\.csv"):
        read_substance_tables(settings, recordings())


def test_table_of_other_substances_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elements.csv").write_text("name,C\nrose,3\n")
    with pytest.raises(SubstanceTableError, match="none of the substances"):
        read_element_counts(tmp_path / "elements.csv", LABELS)


def test_unknown_substances_get_descriptors_from_a_file_of_the_user(tmp_path: Path) -> None:
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


def test_texts_of_similar_odours_are_similar() -> None:
    encoder = TextEncoder(list(TEXTS.values()))
    for view in ("words", "characters"):
        vectors = encoder(["fruity and tropical", TEXTS["banana"], TEXTS["garlic"]])[view]
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(SubstanceTableError, match="3 described substances"):
        TextEncoder(["sweet", "sour"])
