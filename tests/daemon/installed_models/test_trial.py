"""Bundles with the right hashes and contents that would end the service: refused, in a child."""

from __future__ import annotations

import io
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from daemon.installed_models import trial
from daemon.installed_models.archive import UnpackingError
from daemon.installed_models.store import STARTS, STARTS_TRIED, ModelStore
from daemon.installed_models.usable import check_usable
from daemon.system.bounded import Bounds
from daemon.system.memory import resident_mb
from models.bundle import load_bundle
from models.manifest import BundleError, write_bundle
from tests.models.toys import toy_files, toy_manifest
from tests.sandbox import ROOT

FILES = toy_files("substance")
NAME = "toy-substance"
SMALL = Bounds(memory_mb=200, cpu_s=20, wall_s=300.0, file_mb=64)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "state")


def bundle(folder: Path, version: str = "1.0", **files: bytes) -> Path:
    """Write a bundle whose hashes are right, whatever the contents of its files."""
    named = {name.replace("_", "."): content for name, content in files.items()}
    write_bundle(folder / NAME, toy_manifest(version=version), FILES | named)
    return folder / NAME


def saved(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


UNREADABLE = {
    "no-zip": b"text that is no zip",
    "objects": saved(embedding_middle=np.array([{}], dtype=object)),
    "text": saved(embedding_middle=np.array(["a", "b"])),
    "nan": saved(embedding_middle=np.full(8, np.nan)),
    "shape": saved(
        embedding_middle=np.zeros(3), embedding_whitening=np.eye(2), class_means=np.zeros((1, 9))
    ),
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_arrays_that_cannot_be_used_are_refused(tmp_path: Path, content: bytes) -> None:
    made = bundle(tmp_path, arrays_npz=content)
    with pytest.raises(BundleError, match=r"cannot be used"):
        check_usable(load_bundle(made))


def test_such_a_bundle_is_not_installed_and_leaves_nothing(
    store: ModelStore, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"arrays\.npz cannot be used"):
        store.install(bundle(tmp_path, arrays_npz=UNREADABLE["no-zip"]))
    assert store.names() == ()
    assert [path.name for path in store.root.iterdir()] == [".lock"]


def hungry_model(shape: list[int]) -> bytes:
    """Return the toy model, with a constant of any size that is only made when it runs."""
    model = onnx.load_from_string(FILES["model.onnx"])
    size = helper.make_tensor("size", TensorProto.INT64, [len(shape)], shape)
    model.graph.initializer.append(size)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["size"], ["large"]))
    model.graph.node.insert(1, helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0))
    first = model.graph.node[2]
    model.graph.node.insert(2, helper.make_node("Mul", ["sum", "zero"], ["nothing"]))
    model.graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]))
    model.graph.node.insert(3, helper.make_node("Add", ["x", "nothing"], ["added"]))
    for node in model.graph.node[4:]:
        node.input[:] = ["added" if name == "x" else name for name in node.input]
    assert first.op_type
    return model.SerializeToString()


def endless_model() -> bytes:
    """Return the toy model with a loop that never ends."""
    model = onnx.load_from_string(FILES["model.onnx"])
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still_going"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("still_going", TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(helper.make_tensor("start", TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("Loop", ["", "start"], [], body=body))
    # Something of the loop must be wanted, or it is optimised away.
    body.node.insert(0, helper.make_node("Cast", ["turn"], ["number"], to=TensorProto.FLOAT))
    body.output.append(helper.make_tensor_value_info("number", TensorProto.FLOAT, []))
    loop = model.graph.node[-1]
    loop.output.append("numbers")
    loop.attribute[0].g.CopyFrom(body)
    model.graph.output.append(
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["turns"])
    )
    return model.SerializeToString()


@pytest.mark.parametrize("kind", ["memory", "time"])
def test_a_model_without_bounds_is_ended_in_the_child_and_not_here(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(trial, "BOUNDS", SMALL)
    model = hungry_model([800_000_000]) if kind == "memory" else endless_model()
    before_mb = resident_mb()
    with pytest.raises(BundleError, match=r"takes more than|cannot run|cannot be used"):
        store.install(bundle(tmp_path, model_onnx=model))
    assert resident_mb() - before_mb < 100
    assert store.names() == ()


def archive_with_long_name(path: Path, claimed_bytes: int) -> None:
    """Write a .tar.xz whose first header announces a file name of that length."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, claimed_bytes
    with lzma.open(path, "wb", preset=1) as stream:
        stream.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(claimed_bytes // (1 << 20)):
            stream.write(b"a" * (1 << 20))


def archive_of_folders(path: Path, count: int) -> None:
    with tarfile.open(path, "w:xz", preset=1) as archive:
        for number in range(count):
            folder = tarfile.TarInfo(f"f{number}")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)


@pytest.mark.parametrize("kind", ["long name", "folders"])
def test_what_an_archive_says_of_itself_takes_no_memory_here(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(trial, "BOUNDS", SMALL)
    path = tmp_path / "bundle.tar.xz"
    if kind == "long name":
        archive_with_long_name(path, 300 << 20)
    else:
        archive_of_folders(path, 5000)
    assert path.stat().st_size < 200_000
    before_mb = resident_mb()
    with pytest.raises((UnpackingError, BundleError), match=r"takes more than|more than 64 files"):
        store.install(path)
    assert resident_mb() - before_mb < 100


def test_a_pipe_in_the_place_of_a_manifest_holds_nothing_up(
    store: ModelStore, tmp_path: Path
) -> None:
    folder = bundle(tmp_path)
    (folder / "manifest.yaml").unlink()
    os.mkfifo(folder / "manifest.yaml")
    began_s = time.monotonic()
    with pytest.raises(UnpackingError, match="no regular file"):
        store.install(folder)
    with pytest.raises(BundleError, match="no regular file"):
        load_bundle(folder)
    assert time.monotonic() - began_s < 60


def test_what_a_killed_installation_left_is_removed_by_the_next(
    store: ModelStore, tmp_path: Path
) -> None:
    left = store.root / ".incoming-killed"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    store.install(bundle(tmp_path))
    assert sorted(path.name for path in store.root.iterdir()) == [".lock", NAME]


def test_a_start_falls_back_to_the_version_before_and_says_so(
    store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("1.0", "2.0"):
        store.install(bundle(tmp_path / version, version))
        store.switch(NAME, version)
    # As an update of scentd could: what was usable when it was installed is not any more.
    write_bundle(
        store.root / NAME / "2.0",
        toy_manifest(version="2.0"),
        FILES | {"arrays.npz": UNREADABLE["nan"]},
    )
    capsys.readouterr()
    assert store.load(NAME).manifest.version == "1.0"
    assert "runs in version 1.0 instead" in capsys.readouterr().out
    with pytest.raises(BundleError, match="finite numbers"):
        store.load(NAME, fall_back=False)
    with pytest.raises(BundleError, match="finite numbers"):
        store.switch(NAME, "2.0")


KILLED_BY_A_MODEL = """
import os, signal, sys
from pathlib import Path
from daemon.installed_models import usable
from daemon.installed_models.store import STARTS, STARTS_TRIED, ModelStore
usable.check_usable = lambda bundle: os.kill(os.getpid(), signal.SIGKILL)
ModelStore(Path(sys.argv[1])).load(sys.argv[2])
"""


def test_a_version_that_ends_the_process_at_every_start_is_not_tried_for_ever(
    store: ModelStore, tmp_path: Path
) -> None:
    for version in ("1.0", "2.0"):
        store.install(bundle(tmp_path / version, version))
        store.switch(NAME, version)
    for _ in range(STARTS_TRIED):
        words = [sys.executable, "-c", KILLED_BY_A_MODEL, str(store.root.parent), NAME]
        assert subprocess.run(words, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert store.load(NAME).manifest.version == "1.0"
    with pytest.raises(BundleError, match="the process ended while it was loaded"):
        store.load(NAME, fall_back=False)
    store.switch(NAME, "1.0")
    store.switch(NAME, "2.0")  # to try it again
    assert store.load(NAME).manifest.version == "2.0"
    assert not (store.root / NAME / STARTS).exists()


def test_a_switch_to_a_bundle_that_became_unusable_is_refused_and_the_choice_stays(
    store: ModelStore, tmp_path: Path
) -> None:
    for version in ("1.0", "2.0"):
        store.install(bundle(tmp_path / version, version))
        store.switch(NAME, version)
    before = store.choice(NAME)
    write_bundle(
        store.root / NAME / "1.0",
        toy_manifest(version="1.0"),
        FILES | {"arrays.npz": UNREADABLE["objects"]},
    )
    with pytest.raises(BundleError, match="cannot be used"):
        store.rollback(NAME)
    assert store.choice(NAME) == before


def test_a_bundle_is_tried_by_a_path_from_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / NAME, toy_manifest("substance"), FILES)
    monkeypatch.chdir(tmp_path)
    trial.try_bundle(Path(NAME))
