"""`scentd models list --labels`: what each model recognises."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from daemon.cli import main
from models.bundle import bundle_folder, shipped_bundles
from models.manifest import read_manifest
from tests.sandbox import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LABELS = {name: list(read_manifest(bundle_folder(name)).labels) for name in shipped_bundles()}


def test_the_labels_of_every_shipped_model_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--labels", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == LABELS
    assert main(["models", "list", "--labels"]) == 0
    words = re.findall(r"\w+", capsys.readouterr().out)
    assert {label for labels in LABELS.values() for label in labels} <= set(words)


def test_a_rig_lists_what_its_own_models_recognise(
    tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "scentd.yaml"
    config.write_text(
        f"rig_id: rig\nsource: {{port: /dev/x}}\nmodels: [{toy_substances}, mixtures-12]\n"
        "mqtt: {host: localhost, port: 1883}\nstate_dir: state\n",
        encoding="utf-8",
    )
    assert main(["models", "list", "--labels", "--config", str(config), "--json"]) == 0
    toy = list(read_manifest(toy_substances).labels)
    listed = json.loads(capsys.readouterr().out)
    assert list(listed.values()) == [toy, LABELS["mixtures-12"]]


def test_the_error_about_an_unknown_label_names_a_list_that_shows_the_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ("--state", str(tmp_path), "--model", "substances-50")
    assert main(["enroll", "--hide", "petrol", *state]) == 1
    error = capsys.readouterr().err
    (command,) = re.findall(r"`scentd (models list[^`]*)`", error)
    assert main(command.split()) == 0
    assert "walnuts" in capsys.readouterr().out


def test_the_page_lists_the_labels_of_every_model() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for name, labels in LABELS.items():
        assert f"| `{name}` | {', '.join(labels)} |" in page
