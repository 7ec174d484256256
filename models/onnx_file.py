"""Models: what an ONNX file refers to, found without running it and without the package `onnx`.

Pure: bytes in, a truth value out. An ONNX file is a protobuf message: https://onnx.ai/onnx/repo-docs/IR.html
and the field numbers in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TENSOR = "tensor"
_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
"""The messages inside each message, by their field numbers, as far as they can hold a tensor."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MOST_LEVELS = 64
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


def refers_to_other_files(model: bytes) -> bool:
    """Tell whether any tensor of an ONNX file has its numbers in another file.

    No hash of a bundle covers such a file, and it can be any file of the computer.

    Raises
    ------
    ValueError: it is no ONNX file.
    """
    return _holds_external(memoryview(model), "model", 0)


def _holds_external(data: memoryview, kind: str, level: int) -> bool:
    if level > _MOST_LEVELS:
        raise ValueError("it is nested too deeply")
    for number, content in _fields(data):
        if kind == _TENSOR and number in (_EXTERNAL_DATA, _DATA_LOCATION) and content != 0:
            return True
        inner = _NESTED[kind].get(number)
        if inner is None:
            continue
        if isinstance(content, int):
            raise ValueError(f"field {number} of a {kind} is no message")  # noqa: TRY004 - content
        if _holds_external(content, inner, level + 1):
            return True
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and content of every field of a message; a number that is no varint as 0."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        content: int | memoryview = 0
        if key & 7 == _VARINT:
            content, place = _varint(data, place)
        elif key & 7 == _BYTES:
            length, place = _varint(data, place)
            content, place = data[place : place + length], place + length
        elif key & 7 in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if key & 7 == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"there is no field of type {key & 7}")
        if place > len(data):
            raise ValueError("it is cut short")
        yield key >> 3, content


def _varint(data: memoryview, start: int) -> tuple[int, int]:
    value = 0
    for shift, place in enumerate(range(start, min(start + 10, len(data)))):
        value |= (data[place] & 0x7F) << 7 * shift
        if data[place] < 0x80:  # noqa: PLR2004 - the last byte of the number
            return value, place + 1
    raise ValueError("it is cut short")
