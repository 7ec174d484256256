"""A bundle describes its own labels."""

from __future__ import annotations

import dataclasses

from models.bundle import bundle_folder, shipped_bundles
from models.manifest import read_manifest
from training.commands._shared import config_path
from training.config import load_train_config
from training.export.description import borrowed_name, describe_bundle

FIVE = ("banana", "blueberry", "lavender", "orange", "pineapple")


def test_five_smells_by_a_shipped_recipe_do_not_call_themselves_fifty_foods() -> None:
    recipe = load_train_config(config_path("substances-50"))
    copied = dataclasses.replace(recipe, name="my-smells")
    for config in (recipe, copied):
        text = describe_bundle(config, FIVE)
        assert text.startswith("5 labels: banana, blueberry, lavender, orange, pineapple;")
        assert "ifty" not in text
    assert "substances-50" in str(borrowed_name(recipe, FIVE))
    assert borrowed_name(copied, FIVE) is None


def test_shipped_bundles_keep_their_descriptions() -> None:
    for name in shipped_bundles():
        config = load_train_config(config_path(name))
        labels = read_manifest(bundle_folder(name)).labels
        assert describe_bundle(config, labels) == config.description
        assert borrowed_name(config, labels) is None


def test_many_labels_are_cut() -> None:
    recipe = load_train_config(config_path("substances-50"))
    text = describe_bundle(recipe, [f"smell_{number}" for number in range(14)])
    assert "smell_11 and 2 more; trained by the recipe of substances-50." in text
