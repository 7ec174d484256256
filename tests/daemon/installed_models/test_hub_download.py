"""`scentd models install hf:...` and `scent-train publish`, against a hub on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="pip install 'scentd[hub]'")

from daemon.cli import main
from daemon.installed_models.archive import SIZE_LIMIT
from daemon.installed_models.store import ModelStore
from hardware.checksum_line import with_checksum
from models.manifest import MANIFEST, read_manifest, write_bundle
from tests.hub import COMMIT, TOKEN, Hub, client_of, running
from tests.models.toys import toy_files, toy_manifest
from tests.sandbox import ROOT
from training.cli import main as train

NAME = "toy-substance"
VERSION = "1.2.3"
ADDRESS = "hf:someone/smells"
FILES = {**toy_files("substance"), "training_files.txt": b"0" * 64 + b"  mint/monday/1.csv\n"}

Install = Callable[..., int]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / NAME
    metrics = {"sessions": {"top1": 0.625, "announced": 0.5}, "intervals": {}}
    write_bundle(folder, toy_manifest(metrics=metrics), FILES)
    return folder


@pytest.fixture(scope="module")
def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running(Hub(large={"model.onnx", "model.fp32.onnx"})) as served:
        client_of(served, monkeypatch)
        yield served


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "state")


@pytest.fixture
def install(tmp_path: Path) -> Install:
    config = tmp_path / "scentd.yaml"
    config.write_text(
        f"rig_id: rig\nsource: {{port: /dev/x}}\nmodels: [{NAME}]\n"
        "mqtt: {host: localhost, port: 9}\nstate_dir: state\n",
        encoding="utf-8",
    )

    def run(address: str, *options: str) -> int:
        return main(["models", "install", address, "--config", str(config), *options])

    return run


def everything_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name not in (".lock", "models", "state")]


def refused(
    install: Install, store: ModelStore, capsys: pytest.CaptureFixture[str], address: str = ADDRESS
) -> str:
    """Return what the command says; nothing is installed, in whole or in part."""
    assert install(address) in (1, 2)
    assert everything_below(store.root) == []
    said = capsys.readouterr().err
    assert "Traceback" not in said
    # The client's own lines about retries may come first.
    message = said.strip().splitlines()[-1]
    assert message.startswith("scentd: ")
    return message


def test_a_bundle_is_installed_from_the_hub_and_the_commit_is_stated(
    hub: Hub,
    install: Install,
    store: ModelStore,
    contents: dict[str, bytes],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    others = {"setup.py": b"raise SystemExit", "coffee.csv": b"NO2\n1\n", "../up": b"x"}
    hub.add_model("someone/smells", contents | others)
    assert install(ADDRESS) == 0
    assert f"{ADDRESS}@{COMMIT}" in capsys.readouterr().err
    (version,) = store.versions(NAME)
    installed = store.root / NAME / version
    assert {path.name for path in installed.iterdir()} == set(contents)
    assert read_manifest(installed).sha256 == read_manifest(folder).sha256
    assert store.choice(NAME).active == version
    assert set(hub.fetched) == set(contents)


def test_a_revision_is_a_tag_or_a_commit_and_need_not_be_the_newest(
    hub: Hub, install: Install, store: ModelStore, contents: dict[str, bytes]
) -> None:
    repository = hub.add_model("someone/smells", contents)
    repository.tags["v1"] = COMMIT
    repository.commits.append(("f" * 40, {"README.md": b"all is gone"}))
    assert install(f"{ADDRESS}@v1", "--no-switch") == 0
    assert install(f"{ADDRESS}@{COMMIT}", "--no-switch") == 0
    assert store.versions(NAME) == (VERSION,)


def test_what_was_published_is_installed_with_the_same_hash(
    hub: Hub,
    install: Install,
    store: ModelStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client_of(hub, monkeypatch, TOKEN)
    where = ["publish", str(folder), "--to", ADDRESS]
    assert train([*where, "--license", "mit", "--private"]) == 0
    printed = capsys.readouterr()
    address = printed.out.split()[-1]
    assert address.startswith(f"{ADDRESS}@")
    assert hub.models["someone/smells"].files["README.md"].startswith(b"---\nlicense: mit\n")
    assert install(address) == 0
    installed = store.root / NAME / VERSION
    assert read_manifest(installed).sha256 == read_manifest(folder).sha256
    assert (installed / "README.md").read_bytes() == (folder / "README.md").read_bytes()
    assert TOKEN not in printed.out + printed.err + capsys.readouterr().err
    assert hub.tokens == {TOKEN}


def test_a_repository_that_was_fetched_by_hand_is_installed_as_well(
    hub: Hub, install: Install, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_of(hub, monkeypatch, TOKEN)
    assert train(["publish", str(folder), "--to", ADDRESS, "--yes"]) == 0
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in hub.models["someone/smells"].files.items():
        (copy / name).write_bytes(content)
    assert install(str(copy)) == 0


def test_a_private_model_needs_the_token(
    hub: Hub,
    install: Install,
    store: ModelStore,
    contents: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.add_model("someone/smells", contents, private=True)
    assert "HF_TOKEN" in refused(install, store, capsys)
    client_of(hub, monkeypatch, "hf_ended")
    said = refused(install, store, capsys)
    assert "the token is wrong" in said
    assert "hf_ended" not in said
    client_of(hub, monkeypatch, TOKEN)
    assert install(ADDRESS) == 0


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf:someone/other", "Check the name"),
        (f"{ADDRESS}@v9", "no such revision"),
        ("hf:someone", "hf:OWNER/NAME"),
        ("hf:../../etc@x", "hf:OWNER/NAME"),
        ("hf:a/b@../x", "hf:OWNER/NAME"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(
    hub: Hub,
    install: Install,
    store: ModelStore,
    contents: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    address: str,
    said: str,
) -> None:
    hub.add_model("someone/smells", contents)
    assert said in refused(install, store, capsys, address)


def test_a_repository_without_a_bundle_is_refused(
    hub: Hub, install: Install, store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add_model("someone/smells", {"model.safetensors": b"0"})
    assert "no manifest.yaml" in refused(install, store, capsys)


def test_a_download_that_breaks_once_goes_on(
    hub: Hub,
    install: Install,
    contents: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # the client's waits
    hub.add_model("someone/smells", contents)
    hub.break_once.add("model.onnx")
    assert install(ADDRESS) == 0


def test_an_interrupted_download_installs_nothing(
    hub: Hub,
    install: Install,
    store: ModelStore,
    contents: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    hub.add_model("someone/smells", contents)
    hub.broken.add("model.onnx")
    said = refused(install, store, capsys)
    assert "Check the network" in said
    assert "Nothing was installed" in said


def test_a_redirected_file_is_followed(
    hub: Hub, install: Install, contents: dict[str, bytes]
) -> None:
    hub.add_model("someone/smells", contents)
    hub.redirected |= {"model.onnx", "arrays.npz"}
    assert install(ADDRESS) == 0


def test_changed_bytes_are_refused(
    hub: Hub,
    install: Install,
    store: ModelStore,
    contents: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.add_model("someone/smells", contents)
    hub.corrupt.add("model.onnx")
    assert "model.onnx" in refused(install, store, capsys)


def test_sizes_are_limited_before_anything_is_fetched(
    hub: Hub,
    install: Install,
    store: ModelStore,
    contents: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.add_model("someone/smells", contents)
    hub.listed_bytes["model.onnx"] = SIZE_LIMIT + 1
    assert "at most" in refused(install, store, capsys)
    assert hub.fetched == [MANIFEST]
    hub.listed_bytes = {MANIFEST: 2 << 20}
    hub.requests.clear()
    assert MANIFEST in refused(install, store, capsys)
    assert hub.fetched == []


def test_a_file_of_another_size_than_listed_is_refused(
    hub: Hub,
    install: Install,
    store: ModelStore,
    contents: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.add_model("someone/smells", contents)
    hub.listed_bytes["model.onnx"] = len(contents["model.onnx"]) - 1
    assert "the hub lists" in refused(install, store, capsys)


@pytest.mark.parametrize("name", ["../../escaped", "manifest.yaml"])
def test_a_manifest_that_names_files_elsewhere_is_refused(
    hub: Hub,
    install: Install,
    store: ModelStore,
    contents: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    text = contents[MANIFEST].rpartition(b"manifest_sha256")[0]
    assert text.count(b"model.onnx:") == 1
    bad = with_checksum(text.replace(b"model.onnx:", f'"{name}":'.encode()), "manifest_sha256")
    hub.add_model("someone/smells", {**contents, name: b"x", MANIFEST: bad})
    assert "plain file name" in refused(install, store, capsys)
    assert hub.fetched == [MANIFEST]


def test_no_network_and_offline_mode_are_explained(
    hub: Hub,
    install: Install,
    store: ModelStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused(install, store, capsys)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "Check the network" in refused(install, store, capsys)


def test_without_the_client_the_extra_is_named(
    install: Install,
    store: ModelStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # type: ignore[arg-type]
    assert "pip install 'scentd[hub]'" in refused(install, store, capsys)


def test_the_client_honours_hf_endpoint_and_hf_token(
    hub: Hub, tmp_path: Path, install: Install, contents: dict[str, bytes]
) -> None:
    """In a process of its own, as a user runs it."""
    hub.add_model("someone/smells", contents, private=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "scentd", "models", "install", ADDRESS, "--no-switch"),
            *("--config", str(tmp_path / "scentd.yaml")),
        ],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(tmp_path),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert VERSION in done.stdout
    assert TOKEN not in done.stdout + done.stderr
