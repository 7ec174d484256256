"""ONNX files that keep numbers in other files are found without running them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.bundle import BundleMismatchError, load_bundle
from models.manifest import write_bundle
from models.onnx_file import refers_to_other_files
from tests.models.toys import toy_files, toy_manifest

if TYPE_CHECKING:
    from pathlib import Path


def external(tensor: onnx.TensorProto, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def model_with_external(place: str) -> bytes:
    """Return the toy model with one tensor kept elsewhere: an initializer, or inside a node."""
    model = onnx.load_from_string(toy_files()["model.fp32.onnx"])
    if place == "initializer":
        external(model.graph.initializer[0], "/etc/passwd")
        return model.SerializeToString()
    constant = numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]), "inside")
    external(constant, "../../secret")
    node = helper.make_node("Constant", [], ["c"], value=constant)
    if place == "subgraph":
        inner = helper.make_graph([node], "inner", [], [])
        node = helper.make_node("If", ["condition"], ["c"], then_branch=inner, else_branch=inner)
    model.graph.node.insert(0, node)
    return model.SerializeToString()


@pytest.mark.parametrize("place", ["initializer", "constant", "subgraph"])
def test_a_model_with_numbers_in_another_file_is_refused(tmp_path: Path, place: str) -> None:
    model = model_with_external(place)
    assert refers_to_other_files(model)
    write_bundle(tmp_path / "b", toy_manifest(), toy_files() | {"model.fp32.onnx": model})
    with pytest.raises(BundleMismatchError, match="keeps numbers in other files"):
        load_bundle(tmp_path / "b", "fp32")


def test_models_with_all_their_numbers_are_accepted() -> None:
    assert not any(
        refers_to_other_files(content)
        for name, content in toy_files().items()
        if name.endswith(".onnx")
    )


@pytest.mark.parametrize("content", [b"not ONNX", b"\xff" * 40, b"\x3a\x7f\x00", b"\x38\x01"])
def test_what_is_no_onnx_file_is_an_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        refers_to_other_files(content)
