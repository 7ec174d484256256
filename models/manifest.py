"""Models: what a bundle says of itself, read, checked and written.

May import hardware, models.preprocess, models.decision_spec, models.board_identity and yaml. Must
never run a model: this module opens no ONNX file, it only knows which bytes every file must have.

A bundle is one folder. `manifest.yaml` names every other file with its SHA-256, and ends
with the SHA-256 of its own text without that last line, so one changed byte anywhere is
found before anything runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from hardware.channels import CHANNEL_NAMES
from hardware.checksum_line import checksum_is_right, with_checksum
from hardware.errors import ScentdError
from hardware.files import open_plain
from hardware.safe_yaml import abbreviate
from hardware.typed_yaml import TypedYamlError, YamlMapping, to_plain
from models.board_identity import BoardFigures  # noqa: TC001 - read by get_type_hints
from models.decision_spec import DecisionSpec
from models.preprocess import PreprocessSpec  # noqa: TC001 - read by get_type_hints

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

FORMAT = 1
"""The bundle format that this scentd reads and writes."""

MANIFEST = "manifest.yaml"
MANIFEST_BYTES = 1 << 20
"""Most that a manifest holds; the longest shipped one has a seventieth."""

INT8_MODEL = "model.onnx"
FP32_MODEL = "model.fp32.onnx"
CARD = "README.md"
TRAINING_FILES = "training_files.txt"
ARRAYS = "arrays.npz"

Quantisation = Literal["dynamic", "static"]
"""How an int8 file scales the activations."""

_OWN_CHECKSUM = "manifest_sha256"
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_BUNDLE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BundleError(ScentdError):
    """A bundle cannot be used; the subclass says which way."""


class BundleMissingError(BundleError):
    """There is no such bundle, or a file of it is gone."""


class BundleDamagedError(BundleError):
    """A file is not the one that the manifest names."""


class BundleVersionError(BundleError):
    """The bundle's format is not one that this scentd reads."""


class ManifestError(BundleError):
    """The manifest is whole but says something that cannot be."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a board must have for the model to run at all.

    Attributes
    ----------
    required_channels: names without which the model reports `fault`, or is disabled where
        the board never had them.
    min_channels: how many of the preprocessing's channels must be usable.
    """

    required_channels: tuple[str, ...] = ()
    min_channels: int = 1


@dataclass(frozen=True, slots=True)
class Network:
    """The network's shape.

    Attributes
    ----------
    architecture: its name, as the trainer knows it.
    embedding: width of the `embedding` output.
    parameters: how many it has.
    dims: whatever else the trainer needs to build it again.
    """

    architecture: str
    embedding: int
    parameters: int
    dims: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """Which of the two ONNX files runs.

    Attributes
    ----------
    precision: "int8", "fp32", or "auto" to time both at load and take the faster.
    tolerance: largest difference between the two files' probabilities (substances) or
        proportions (mixtures) that was accepted at export, over the parity windows.
    quantisation: how the int8 file scales activations: "dynamic" by each window's own range,
        "static" by a range fixed at export.
    """

    precision: Literal["int8", "fp32", "auto"] = "int8"
    tolerance: float = 0.05
    quantisation: Quantisation = "dynamic"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a bundle says of itself.

    Attributes
    ----------
    name, version: of the bundle; the name is also its folder's.
    task: "substance" or "mixture".
    labels: in the order of the outputs.
    preprocessing: how inputs are made.
    requirements: what the board must have.
    rate_ratio: board rate after decimation over the model's rate, lowest and highest accepted.
    network: its shape.
    decision: the decision layer's constants.
    runtime: which file runs.
    metrics: figures by protocol, free form.
    training: command, seed, configuration, data hash, versions, date; free form.
    board: what the readings of the training board look like; None where a model's names are
        announced on any board.
    descriptors: what the `descriptors` output says of a smell, in its order ("nutty", "citrus");
        empty where the model has no such output.
    files: SHA-256 of every other file of the folder.
    sha256: of the manifest's text, and so of the whole bundle; empty before it is written.
    """

    name: str
    version: str
    task: Literal["substance", "mixture"]
    labels: tuple[str, ...]
    preprocessing: PreprocessSpec
    network: Network
    requirements: Requirements = field(default_factory=Requirements)
    rate_ratio: tuple[float, float] = (0.7, 1.5)
    decision: DecisionSpec = field(default_factory=DecisionSpec)
    runtime: PrecisionChoice = field(default_factory=PrecisionChoice)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    descriptors: tuple[str, ...] = ()
    board: BoardFigures | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ManifestError(f"The manifest {self.name} cannot be used: {'; '.join(problems)}.")

    @classmethod
    def from_yaml(cls, data: bytes, source: str = MANIFEST) -> Manifest:
        """Read a manifest's bytes; `source` names them in errors.

        Raises
        ------
        BundleDamagedError: the text is not the one that was written.
        BundleVersionError: a format of another scentd.
        ManifestError: everything else that is wrong, listed at once.
        """
        _check_self_hash(data, source)
        try:
            document = YamlMapping(data)
            _check_format(document.values.pop("format", None), source)
            document.values["sha256"] = document.values.pop(_OWN_CHECKSUM)
            return document.build(cls)
        except TypedYamlError as error:
            raise ManifestError(f"The manifest {source} cannot be used: {error}") from error

    def to_yaml(self) -> bytes:
        """Return the manifest's bytes, its own hash as the last line."""
        content = {"format": FORMAT, **to_plain(self)}
        del content["sha256"]
        text: str = yaml.dump(
            content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=100
        )
        return with_checksum(text.encode(), _OWN_CHECKSUM)

    def _problems(self) -> Iterator[str]:
        if not _BUNDLE_NAME.fullmatch(self.name):
            yield f"name must be of a-z, 0-9 and . _ -, got {self.name!r}"
        if not self.labels or len(set(self.labels)) != len(self.labels):
            yield "labels must be there, each once"
        if len(set(self.descriptors)) != len(self.descriptors):
            yield "descriptors must be there once each"
        expected, given = len(self.labels), len(self.decision.presence_thresholds)
        if given != (expected if self.task == "mixture" else 0):
            yield (
                f"decision.presence_thresholds must have a number for each of {expected} labels in "
                f"a mixture model and none in a substance model, got {given}"
            )
        grouped = {label for group in self.decision.groups for label in group}
        if strange := sorted(grouped - set(self.labels)):
            yield f"decision.groups must hold labels of the model, got {strange}"
        used, required = self.preprocessing.channels, self.requirements.required_channels
        if foreign := [name for name in required if name not in used]:
            yield (
                f"requirements.required_channels must be among preprocessing.channels "
                f"{list(used)}, got {foreign}; the table has {list(CHANNEL_NAMES)}"
            )
        least = self.requirements.min_channels
        if not 1 <= least <= len(used):
            yield f"requirements.min_channels must lie in 1..{len(used)}, got {least}"
        low, high = self.rate_ratio
        if not 0 < low <= 1 <= high:
            yield f"rate_ratio must be [low <= 1, high >= 1], got {[low, high]}"
        yield from self._file_problems()
        yield from (f"decision: {problem}" for problem in self.decision.problems())
        if self.board is not None:
            yield from (f"board: {problem}" for problem in self.board.problems())

    def _file_problems(self) -> Iterator[str]:
        for name, digest in self.files.items():
            if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
                yield f"files: {name!r} is not a plain file name inside the bundle"
            elif not _SHA256.fullmatch(digest):
                yield f"files: {name} needs a SHA-256 of 64 hex digits, got {digest!r}"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bundle's folder, without its other files."""
    path = folder / MANIFEST
    try:
        with os.fdopen(open_plain(path), "rb") as stream:
            data = stream.read(MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleMissingError(
            f"There is no model bundle at {folder}: it has no {MANIFEST}. Give the name of a "
            "shipped bundle (`scentd models list` shows them) or the folder of another."
        ) from error
    except OSError as error:
        raise BundleMissingError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(data) > MANIFEST_BYTES:
        raise ManifestError(f"{path} holds more than {MANIFEST_BYTES} bytes, too much for one.")
    return Manifest.from_yaml(data, str(path))


def read_verified(folder: Path, manifest: Manifest, name: str) -> bytes:
    """Return the bytes of a bundle's file once their hash is the manifest's.

    Raises
    ------
    BundleMissingError: no such file in the manifest or in the folder.
    BundleDamagedError: other bytes than the manifest says.
    """
    with _opened(folder, manifest, name) as stream:
        data = stream.read()
    _check_digest(folder / name, manifest, hashlib.sha256(data).hexdigest())
    return data


def verify_file(folder: Path, manifest: Manifest, name: str) -> None:
    """Check a file as `read_verified` does, without holding it in memory."""
    with _opened(folder, manifest, name) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _check_digest(folder / name, manifest, digest)


def _opened(folder: Path, manifest: Manifest, name: str) -> BufferedReader:
    if name not in manifest.files:
        raise BundleMissingError(
            f"The manifest of {folder} names no {name}; export the bundle again."
        )
    try:
        return os.fdopen(open_plain(folder / name), "rb")
    except OSError as error:
        raise BundleMissingError(
            f"{folder / name} is named in the manifest but cannot be read "
            f"({error.strerror or error}). Install the bundle again."
        ) from error


def _check_digest(path: Path, manifest: Manifest, digest: str) -> None:
    expected = manifest.files[path.name]
    if digest != expected:
        raise BundleDamagedError(
            f"{path} is damaged: the manifest expects SHA-256 {expected[:16]}..., the file has "
            f"{digest[:16]}.... Install the bundle again."
        )


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a bundle so that its folder is there whole or not at all.

    Parameters
    ----------
    folder: where to; a bundle already there is replaced.
    manifest: its `files` are filled from `files` here.
    files: content of every other file by its name.

    Returns
    -------
    The manifest as written.
    """
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    complete = dataclasses.replace(manifest, files=hashes)
    folder.parent.mkdir(parents=True, exist_ok=True)
    written = complete.to_yaml()
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in {**files, MANIFEST: written}.items():
            with (fresh / name).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        fresh.chmod(0o755)  # mkdtemp's folders are private
        _replace_folder(folder, fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Manifest.from_yaml(written)


def _replace_folder(folder: Path, fresh: Path) -> None:
    """Put `fresh` in the place of `folder`; what was there comes back if that fails."""
    if not folder.exists():
        fresh.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _check_self_hash(data: bytes, source: str) -> None:
    if not checksum_is_right(data, _OWN_CHECKSUM):
        raise BundleDamagedError(
            f"{source} is damaged or was edited by hand: its text is not the one that its last "
            "line, manifest_sha256, was made from. Install the bundle again, or export it anew."
        )


def _check_format(version: Any, source: str) -> None:
    if version == FORMAT:
        return
    advice = (
        "Upgrade scentd, or install a bundle of this format"
        if isinstance(version, int) and version > FORMAT
        else "Export the bundle anew"
    )
    raise BundleVersionError(
        f"{source} has bundle format {abbreviate(version)}; this scentd reads format {FORMAT}. "
        f"{advice}."
    )
