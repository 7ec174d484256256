"""Bundles: written whole, verified to the byte, run as their manifest says."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bundle import (
    BundleMismatchError,
    BundleRunError,
    available_precisions,
    bundle_folder,
    integer_matmuls,
    load_bundle,
    verify_bundle,
)
from models.manifest import (
    BundleDamagedError,
    BundleMissingError,
    BundleVersionError,
    Manifest,
    ManifestError,
    read_manifest,
    write_bundle,
)
from tests.models.toys import LABELS, masked_mean, pooling_network, toy_files, toy_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = ("manifest.yaml", "model.onnx", "model.fp32.onnx", "README.md", "training_files.txt")


def signed(body: bytes) -> bytes:
    """Return a manifest's text with a self-hash that fits, whatever it says."""
    return body + f"manifest_sha256: {hashlib.sha256(body).hexdigest()}\n".encode()


def edited(manifest: Manifest, old: bytes, new: bytes) -> bytes:
    body = manifest.to_yaml().rsplit(b"manifest_sha256", 1)[0]
    assert old in body
    return signed(body.replace(old, new, 1))


def test_a_written_bundle_loads_and_runs(toy_bundles: Callable[..., Path]) -> None:
    bundle = load_bundle(toy_bundles())
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 17, 4), dtype=np.float32)
    mask = (rng.random((4, 17)) < 0.8).astype(np.float32)
    outputs = bundle.run(x, mask)
    expected = 4 * masked_mean(x, mask)[:, : len(LABELS)]
    np.testing.assert_allclose(outputs.logits, expected, atol=0.15)
    assert outputs.embedding.shape == (4, 8)
    assert outputs.proportions.size == 0


def test_fp32_is_exact_and_int8_is_close(toy_bundles: Callable[..., Path]) -> None:
    folder = toy_bundles("mixture")
    rng = np.random.default_rng(5)
    x, mask = rng.standard_normal((2, 30, 4), dtype=np.float32), np.ones((2, 30), np.float32)
    fp32 = load_bundle(folder, "fp32").run(x, mask)
    int8 = load_bundle(folder, "int8").run(x, mask)
    logits = 4 * masked_mean(x, mask)[:, : len(LABELS)].astype(np.float64)
    np.testing.assert_allclose(fp32.presence, 1 / (1 + np.exp(-logits)), atol=1e-5)
    np.testing.assert_allclose(fp32.proportions.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(int8.proportions, fp32.proportions, atol=0.05)
    assert not np.array_equal(int8.proportions, fp32.proportions)


def test_auto_chooses_one_of_the_two_files(toy_bundles: Callable[..., Path]) -> None:
    assert load_bundle(toy_bundles(), "auto").precision in ("int8", "fp32")


@pytest.mark.parametrize("name", FILES)
def test_a_bundle_with_one_changed_byte_is_refused_with_the_files_name(
    toy_bundles: Callable[..., Path], name: str
) -> None:
    path = toy_bundles() / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x04
    path.write_bytes(data)
    with pytest.raises(BundleDamagedError, match=name.replace(".", r"\.")):
        load_bundle(path.parent)


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_every_changed_bit_of_a_manifest_is_detected(place: int, bit: int) -> None:
    data = bytearray(toy_manifest().to_yaml())
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(BundleDamagedError):
        Manifest.from_yaml(bytes(data))


def test_a_bundle_without_its_float32_model_runs_as_int8(toy_bundles: Callable[..., Path]) -> None:
    folder = toy_bundles()
    assert available_precisions(folder) == ("int8", "fp32")
    (folder / "model.fp32.onnx").unlink()
    assert available_precisions(folder) == ("int8",)
    assert load_bundle(folder, "auto").precision == "int8"
    with pytest.raises(BundleMissingError, match=r"holds no model\.fp32\.onnx.*install the whole"):
        load_bundle(folder, "fp32")


@pytest.mark.parametrize("name", [name for name in FILES if name != "model.fp32.onnx"])
def test_a_missing_file_is_named(toy_bundles: Callable[..., Path], name: str) -> None:
    path = toy_bundles() / name
    path.unlink()
    with pytest.raises(BundleMissingError, match=name.replace(".", r"\.")):
        load_bundle(path.parent)


def test_a_bundle_of_a_later_format_is_refused_with_a_request_to_upgrade() -> None:
    data = edited(toy_manifest(), b"format: 1\n", b"format: 2\n")
    with pytest.raises(BundleVersionError, match=r"format 2; this scentd reads format 1\. Upgrade"):
        Manifest.from_yaml(data)


def test_a_file_outside_the_bundle_is_refused() -> None:
    for name in ("../secret", "/etc/passwd", "a/b", "..", "manifest.yaml", ""):
        with pytest.raises(ManifestError, match="not a plain file name"):
            toy_manifest(files={name: "0" * 64})


def test_every_problem_of_a_manifest_is_listed_at_once() -> None:
    manifest = toy_manifest()
    data = edited(manifest, b"task: substance", b"task: smell")
    data = data.replace(b"temperature: 1.0", b"temperature: hot").replace(
        b"min_channels: 3", b"min_chanels: 3"
    )
    with pytest.raises(ManifestError) as caught:
        Manifest.from_yaml(signed(data.rsplit(b"manifest_sha256", 1)[0]))
    text = str(caught.value)
    assert "line 4: task must be 'substance' or 'mixture', and 'smell' came" in text
    assert "decision.temperature must be a number, and 'hot' came" in text
    assert "requirements.min_chanels is not a key; did you mean requirements.min_channels?" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"channels: [NO2,", b"channels: [Smoke,", "channels must be names of the channel table"),
        (b"withdraw: 0.3", b"withdraw: 0.9", "withdraw <= announce"),
        (b"rate_ratio: [0.7, 1.5]", b"rate_ratio: [0.7]", "rate_ratio must be a list"),
        (
            b"presence_thresholds: []",
            b"presence_thresholds: [0.5]",
            "none in a substance model, got 1",
        ),
        (b"name: toy-substance\n", b"", "name is missing"),
        (b"max_hold: 3", b"max_hold: .nan", "max_hold must be a whole number"),
    ],
)
def test_an_impossible_value_is_refused_with_its_name(old: bytes, new: bytes, message: str) -> None:
    data = edited(toy_manifest(), old, new)
    with pytest.raises(ManifestError, match=message):
        Manifest.from_yaml(data)


def test_a_manifest_is_read_as_it_was_written(toy_bundles: Callable[..., Path]) -> None:
    folder = toy_bundles("mixture")
    read = read_manifest(folder)
    again = Manifest.from_yaml(read.to_yaml())
    assert again == read
    assert read.sha256
    assert read.preprocessing.scale == (0.05,) * 4
    assert read.training == {"seed": 7}


def test_numbers_and_strings_of_libraries_are_written_plainly() -> None:
    """torch.__version__ is a subclass of str, a metric often a numpy scalar."""

    class Version(str):
        __slots__ = ()

    manifest = toy_manifest(
        metrics={"crossval": {"top1": np.float32(0.5), "n": np.int64(3)}},
        training={"versions": {"torch": Version("2.13.0")}},
    )
    read = Manifest.from_yaml(manifest.to_yaml())
    assert read.metrics == {"crossval": {"top1": 0.5, "n": 3}}
    assert read.training == {"versions": {"torch": "2.13.0"}}


def test_an_int8_file_without_integer_products_is_refused(tmp_path: Path) -> None:
    files = toy_files()
    files["model.onnx"] = files["model.fp32.onnx"]
    write_bundle(tmp_path / "b", toy_manifest(), files)
    with pytest.raises(BundleMismatchError, match="no integer matrix product"):
        load_bundle(tmp_path / "b")


def test_integer_products_are_counted_without_the_onnx_package() -> None:
    files = toy_files()
    assert integer_matmuls(files["model.onnx"]) == 2
    assert integer_matmuls(files["model.fp32.onnx"]) == 0


def test_a_model_of_another_task_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", toy_manifest("mixture"), toy_files("substance"))
    with pytest.raises(BundleMismatchError, match="proportions, presence, embedding; it takes"):
        load_bundle(tmp_path / "b")


def test_a_model_of_other_features_is_refused(tmp_path: Path) -> None:
    files = toy_files() | {"model.fp32.onnx": pooling_network("substance", 5)}
    write_bundle(tmp_path / "b", toy_manifest(), files)
    with pytest.raises(BundleMismatchError, match="takes rows of 5 features"):
        load_bundle(tmp_path / "b", "fp32")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", toy_manifest(), toy_files() | {"model.fp32.onnx": b"not ONNX"})
    with pytest.raises(BundleRunError, match=r"cannot run .*model\.fp32\.onnx"):
        load_bundle(tmp_path / "b", "fp32")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BundleMissingError, match="no model bundle called 'no-such-model'"):
        bundle_folder("no-such-model")


def test_a_bundle_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    write_bundle(folder, toy_manifest(), toy_files() | {"extra.txt": b"old"})
    write_bundle(folder, toy_manifest(version="2.0.0"), toy_files())
    assert verify_bundle(folder).version == "2.0.0"
    assert not (folder / "extra.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_training_files_are_known_by_hash(toy_bundles: Callable[..., Path]) -> None:
    assert load_bundle(toy_bundles()).training_hashes == {"00ff", "11ee"}
