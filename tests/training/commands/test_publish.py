"""`scent-train publish`: what is uploaded, what never is, and what it asks first."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("huggingface_hub", reason="pip install 'scentd[hub]'")

from huggingface_hub import ModelCard

from models.bundle import bundle_folder, shipped_bundles
from models.front_matter import with_front_matter, without_front_matter
from models.manifest import read_manifest, write_bundle
from tests.hub import TOKEN, Hub, client_of, running
from tests.models.toys import toy_files, toy_manifest
from training.cli import main
from training.export.hub_card import front_matter
from training.export.hub_upload import BUNDLE_FILES

ADDRESS = "hf:me/smells"
METRICS = {"crossval": {"top1": 0.75, "invented": 1.0}, "streaming": {"accuracy_60s": 0.9}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "toy-substance"
    write_bundle(folder, toy_manifest(metrics=METRICS), toy_files("substance"))
    (folder / "monday.csv").write_text("NO2\n1\n")  # a recording that lies there
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running(Hub()) as served:
        client_of(served, monkeypatch, TOKEN)
        yield served


def publish(folder: Path, *options: str) -> int:
    return main(["publish", str(folder), "--to", ADDRESS, *options])


def test_only_the_files_of_the_bundle_are_uploaded(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(folder, "--yes", "--license", "mit", "--dataset", "them/recordings") == 0
    files = hub.models["me/smells"].files
    assert set(files) - {".gitattributes"} == set(read_manifest(folder).files) | {"manifest.yaml"}
    assert set(files) - {".gitattributes"} <= set(BUNDLE_FILES)
    content = yaml.safe_load(files["README.md"].split(b"---\n")[1])
    assert content["license"] == "mit"
    assert content["library_name"] == "scentd"
    assert content["datasets"] == ["them/recordings"]
    assert content["metrics"] == ["accuracy"]
    (result,) = content["model-index"][0]["results"]
    assert [metric["value"] for metric in result["metrics"]] == [0.75]
    printed = capsys.readouterr()
    assert "model.onnx" in printed.out
    assert "No recording" in printed.out
    assert TOKEN not in printed.out + printed.err


def test_a_dry_run_prints_the_files_and_asks_the_hub_nothing(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(folder, "--dry-run") == 0
    assert hub.answered == []
    printed = capsys.readouterr()
    assert "manifest.yaml" in printed.out
    assert "No licence" in printed.err


def test_what_becomes_public_needs_a_yes(
    hub: Hub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert publish(folder) == 2
    assert "--yes" in capsys.readouterr().err
    terminal = io.StringIO("n\ny\n")
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    assert publish(folder) == 2
    assert hub.models == {}
    assert publish(folder) == 0
    assert not hub.models["me/smells"].private


def test_a_private_repository_needs_none_and_stays_private(hub: Hub, folder: Path) -> None:
    assert publish(folder, "--private") == 0
    assert hub.models["me/smells"].private
    assert publish(folder) == 0
    assert hub.models["me/smells"].private


def test_a_public_repository_is_not_taken_for_private(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(folder, "--yes") == 0
    assert publish(folder, "--private") == 2
    assert "public already" in capsys.readouterr().err


def test_files_of_an_earlier_version_are_removed(hub: Hub, folder: Path) -> None:
    files = {"manifest.yaml": b"old", "arrays.npz": b"old", "LICENSE": b"MIT"}
    hub.add_model("me/smells", files, private=True)
    assert "arrays.npz" not in read_manifest(folder).files
    assert publish(folder) == 0
    assert "arrays.npz" not in hub.models["me/smells"].files
    assert hub.models["me/smells"].files["LICENSE"] == b"MIT"


def test_a_repository_of_something_else_is_left_alone(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add_model("me/smells", {"config.json": b"{}"}, private=True)
    assert publish(folder) == 2
    assert "no bundle" in capsys.readouterr().err
    assert hub.models["me/smells"].files == {"config.json": b"{}"}


def test_without_a_token_the_command_says_how_to_log_in(
    hub: Hub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client_of(hub, monkeypatch)
    assert publish(folder, "--private") != 0
    assert "hf auth login" in capsys.readouterr().err
    assert hub.models == {}


def test_a_damaged_bundle_is_not_uploaded(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "b", toy_manifest(), toy_files("substance"))
    with (tmp_path / "b" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert publish(tmp_path / "b", "--yes") == 1
    assert "model.onnx" in capsys.readouterr().err
    assert hub.answered == []


def test_a_bundle_with_a_file_of_another_kind_is_not_uploaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {**toy_files("substance"), "monday.csv": b"NO2\n1\n"}
    write_bundle(tmp_path / "b", toy_manifest(), files)
    assert publish(tmp_path / "b", "--dry-run") == 2
    assert "monday.csv" in capsys.readouterr().err


def test_a_revision_is_no_place_to_publish_to(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(folder), "--to", f"{ADDRESS}@v1", "--dry-run"]) == 2
    assert "without @v1" in capsys.readouterr().err


@pytest.mark.parametrize("name", shipped_bundles())
def test_the_hub_reads_the_front_matter_of_every_shipped_bundle(name: str) -> None:
    """By the hub's own reader; every figure is in the manifest."""
    manifest = read_manifest(bundle_folder(name))
    card = (bundle_folder(name) / "README.md").read_bytes()
    whole = with_front_matter(card, front_matter(manifest, "mit", ["a/b"]))
    assert without_front_matter(whole) == card
    data = ModelCard(whole.decode()).data
    assert data.library_name == "scentd"
    assert data.eval_results
    figures = {round(value, 4) for scores in manifest.metrics.values() if isinstance(scores, dict)
               for value in scores.values() if isinstance(value, int | float)}  # fmt: skip
    assert {result.metric_value for result in data.eval_results} <= figures


def test_a_card_without_front_matter_stays_as_it_is() -> None:
    for card in (b"# title\n", b"---\nno end\n", b""):
        assert without_front_matter(card) == card
