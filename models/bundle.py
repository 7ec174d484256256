"""Models: a bundle, loaded, verified, warmed up and ready to run.

May import hardware and models; this is the only module that uses ONNX Runtime
(`runtime_import` imports it, with the first session: a wheel that does not suit the processor ends
the process). Must never import torch or onnx: a Raspberry Pi has neither.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from hardware.safe_arrays import read_arrays
from models.board_identity import TrainingBoard
from models.embedding_space import EmbeddingSpace
from models.manifest import (
    ARRAYS,
    CARD,
    FP32_MODEL,
    INT8_MODEL,
    MANIFEST,
    TRAINING_FILES,
    BundleError,
    BundleMissingError,
    Manifest,
    read_manifest,
    read_verified,
    verify_file,
)
from models.onnx_file import refers_to_other_files
from models.runtime_import import import_runtime

if TYPE_CHECKING:
    from types import ModuleType

    import onnxruntime
    from numpy.typing import NDArray

    from models.decision_spec import DecisionSpec

Precision = Literal["int8", "fp32", "auto"]

RIG_BUNDLES = ("substances-50", "mixtures-12")
"""Shipped bundles that a rig runs by default; the others are shipped for comparison."""

INTEGER_MATMULS = (b"MatMulInteger", b"DynamicQuantizeMatMul", b"QLinearMatMul", b"QGemm")
"""Operators of which a quantised graph must have at least one."""

_MAY_BE_UNKNOWN = ("rig_", "held_out_")
"""Prefixes of the arrays that may hold NaN: of the training rig where it lacked a channel, of
held-out recordings after their end."""

_BENCHMARK_RUNS = 15
"""Timed runs per file for precision "auto": about 40 ms; the median ignores interruptions."""


class BundleRunError(BundleError):
    """ONNX Runtime cannot run the model here."""


class BundleMismatchError(BundleError):
    """The model's inputs, outputs or numbers do not agree with the manifest."""


def _nothing() -> NDArray[np.float32]:
    return np.empty((0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """Outputs of one run, one row per window.

    Attributes
    ----------
    embedding: float32[batch, D].
    logits: float32[batch, labels]; of mixtures empty.
    proportions: float32[batch, labels], rows sum to 1; of substances empty.
    presence: float32[batch, labels], each 0..1; of substances empty.
    descriptors: float32[batch, descriptors], each 0..1, how well the odour descriptors of the
        manifest fit; empty where it names none.
    """

    embedding: NDArray[np.float32] = field(default_factory=_nothing)
    logits: NDArray[np.float32] = field(default_factory=_nothing)
    proportions: NDArray[np.float32] = field(default_factory=_nothing)
    presence: NDArray[np.float32] = field(default_factory=_nothing)
    descriptors: NDArray[np.float32] = field(default_factory=_nothing)


class Bundle:
    """A model ready to run; make one with `load_bundle`.

    Attributes
    ----------
    folder: its path.
    manifest: its description.
    precision: of the file in use, "int8" or "fp32".
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        precision: Literal["int8", "fp32"],
        session: onnxruntime.InferenceSession,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.precision: Literal["int8", "fp32"] = precision
        self._session = session
        self._names = output_names(manifest)

    def with_decision(self, spec: DecisionSpec) -> Bundle:
        """Return a copy that decides by other constants; it shares the session.

        Raises
        ------
        ManifestError: the constants contradict the manifest.
        """
        changed = copy(self)
        changed.manifest = replace(self.manifest, decision=spec)
        return changed

    def run(self, x: NDArray[np.float32], mask: NDArray[np.float32]) -> Outputs:
        """Run the network.

        Parameters
        ----------
        x: float32[batch, time, feature], as `models.preprocess` makes it; time up to the
            window. The graph's time axis is the window, so a shorter x is padded here.
        mask: float32[batch, time], 1 for a real row, 0 for one that is held or padding.
        """
        missing = self.manifest.preprocessing.window - x.shape[1]
        if missing > 0:
            x = np.pad(x, ((0, 0), (0, missing), (0, 0)))
            mask = np.pad(mask, ((0, 0), (0, missing)))
        results = self._session.run(list(self._names), {"x": x, "mask": mask})
        return Outputs(**dict(zip(self._names, results, strict=True)))

    @cached_property
    def training_hashes(self) -> frozenset[str]:
        """SHA-256 of every file that the model was trained on; empty where not listed."""
        if TRAINING_FILES not in self.manifest.files:
            return frozenset()
        text = read_verified(self.folder, self.manifest, TRAINING_FILES).decode(errors="replace")
        return frozenset(line.split()[0] for line in text.splitlines() if line.strip())

    @cached_property
    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Large arrays of the bundle (class means, covariance, scores); empty where it has none."""
        if ARRAYS not in self.manifest.files:
            return {}
        path = self.folder / ARRAYS
        try:
            arrays = read_arrays(read_verified(self.folder, self.manifest, ARRAYS))
        except ValueError as error:
            raise BundleMismatchError(
                f"{path} cannot be used: {error}. Export it again."
            ) from error
        for name, array in arrays.items():
            usable = array.dtype.kind in "iuf" and not np.isinf(array).any()
            if not usable or (not name.startswith(_MAY_BE_UNKNOWN) and np.isnan(array).any()):
                raise BundleMismatchError(
                    f"{path} cannot be used: {name} must be an array of finite numbers. Export it "
                    "again."
                )
        return arrays

    @cached_property
    def space(self) -> EmbeddingSpace | None:
        """The space of the embeddings; None of a bundle without one."""
        return EmbeddingSpace.from_arrays(self.manifest.labels, self.arrays)

    @cached_property
    def board(self) -> TrainingBoard | None:
        """The board that the model was trained on; None of a bundle that says nothing of it."""
        return TrainingBoard.from_bundle(self.manifest.board, self.arrays)


def bundle_folder(path_or_name: str | Path) -> Path:
    """Return the folder of a bundle: a folder as given, else a shipped bundle's name.

    Raises
    ------
    BundleMissingError: there is neither.
    """
    path = Path(path_or_name).expanduser()
    if path.is_dir():
        return path
    shipped = _shipped_root() / path
    if len(path.parts) == 1 and shipped.is_dir():
        return shipped
    names = ", ".join(shipped_bundles()) or "none"
    raise BundleMissingError(
        f"There is no model bundle called {str(path_or_name)!r}, and no folder of that name. "
        f"Bundles of this installation: {names}. Give one of these names, the folder of another "
        "bundle, or install one (scentd models install FILE)."
    )


def shipped_bundles() -> tuple[str, ...]:
    """Return the names of the shipped bundles."""
    root = _shipped_root()
    return tuple(sorted(path.parent.name for path in root.glob(f"*/{MANIFEST}")))


def verify_bundle(folder: Path) -> Manifest:
    """Check a bundle's manifest and the bytes of every file, without running anything.

    The float32 model may be absent: a small installation leaves it out (`available_precisions`).

    Raises
    ------
    BundleError: the first problem, naming the file.
    """
    manifest = read_manifest(folder)
    absent = () if "fp32" in available_precisions(folder) else (FP32_MODEL,)
    for name in dict.fromkeys((INT8_MODEL, FP32_MODEL, CARD, *manifest.files)):
        if name not in absent:
            verify_file(folder, manifest, name)
    return manifest


def available_precisions(folder: Path) -> tuple[Literal["int8", "fp32"], ...]:
    """Return the precisions that a bundle can run in: int8, and fp32 where its file is there."""
    # A link counts as there, also one that leads nowhere, so that it is refused by name.
    twin = folder / FP32_MODEL
    return ("int8", "fp32") if twin.is_symlink() or twin.exists() else ("int8",)


def load_bundle(path_or_name: str | Path, precision: Precision | None = None) -> Bundle:
    """Load a bundle: verify every file, make the session, warm up, check its outputs.

    Parameters
    ----------
    path_or_name: a folder, or the name of a shipped bundle.
    precision: "int8", "fp32" or "auto"; None for what the manifest says.

    Raises
    ------
    BundleMissingError, BundleDamagedError, BundleVersionError, ManifestError: the files.
    BundleRunError: ONNX Runtime cannot run it on this machine.
    BundleMismatchError: it runs, but does not agree with the manifest.
    """
    folder = bundle_folder(path_or_name)
    manifest = verify_bundle(folder)
    choice = precision or manifest.runtime.precision
    if choice != "auto":
        return _ready(folder, manifest, choice)
    candidates = [_ready(folder, manifest, each) for each in available_precisions(folder)]
    return min(candidates, key=_median_run_s)


def _median_run_s(bundle: Bundle) -> float:
    """Return the median seconds of one full window's run."""
    x, mask = _probe(bundle.manifest, bundle.manifest.preprocessing.window)
    durations = []
    for _ in range(_BENCHMARK_RUNS):
        started_s = time.perf_counter()
        bundle.run(x, mask)
        durations.append(time.perf_counter() - started_s)
    return float(np.median(durations))


def output_names(manifest: Manifest) -> tuple[str, ...]:
    """Return the outputs that a model with this manifest must have."""
    described = ("descriptors",) if manifest.descriptors else ()
    if manifest.task == "substance":
        return ("logits", "embedding", *described)
    return ("proportions", "presence", "embedding", *described)


def integer_matmuls(model: bytes) -> int:
    """Return how many integer matrix products an ONNX file has.

    A node has its operator's name in field 4 of NodeProto: the byte 0x22, the length and the
    name. A search for these bytes needs no protobuf reader, and 15 random bytes of weights will
    not equal them.
    """
    return sum(model.count(bytes([0x22, len(name)]) + name) for name in INTEGER_MATMULS)


def _shipped_root() -> Path:
    return Path(str(resources.files("models.bundles")))


def _ready(folder: Path, manifest: Manifest, precision: Literal["int8", "fp32"]) -> Bundle:
    """Create the session of one file, warm it up and check its outputs."""
    name = INT8_MODEL if precision == "int8" else FP32_MODEL
    if precision not in available_precisions(folder):
        raise BundleMissingError(
            f"{folder} holds no {name}: the wheel of scentd leaves the float32 models out. Run the "
            f"model as int8, or install the whole bundle (scentd models install FILE)."
        )
    data = read_verified(folder, manifest, name)
    if precision == "int8" and not integer_matmuls(data):
        raise BundleMismatchError(
            f"{folder / name} should be the int8 model but has no integer matrix product, so "
            "quantising it was silently skipped. Export the bundle again."
        )
    path = str(folder / name)
    if _refers_to_other_files(data, path):
        raise BundleMismatchError(
            f"{path} keeps numbers in other files, which no hash of the bundle covers. Export it "
            "with all its numbers inside."
        )
    try:
        session = open_session(data)
        _check_interface(session, manifest, path)
        bundle = Bundle(folder, manifest, precision, session)
        _check_outputs(bundle, path)
    except BundleError:
        raise
    except Exception as error:  # onnxruntime raises its own types, without a common base
        raise BundleRunError(
            f"ONNX Runtime {_version()} cannot run {path} on this machine: "
            f"{type(error).__name__}: {str(error).splitlines()[0]}. Not every onnxruntime wheel "
            "suits every processor: install another version (>= 1.22), or a bundle exported "
            "for this one."
        ) from error
    return bundle


def _refers_to_other_files(model: bytes, path: str) -> bool:
    try:
        return refers_to_other_files(model)
    except ValueError as error:
        raise BundleRunError(
            f"ONNX Runtime cannot run {path}: it is no ONNX file ({error}). Export it again."
        ) from error


def _version() -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version("onnxruntime")
    return "(not installed)"


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Return a session that runs `model` and does not keep its bytes.

    A session that is given bytes holds them as long as it lives (1.8 MB for substances-50), one
    that is given a path reads the file. The anonymous file holds exactly the bytes whose hash was
    checked.
    """
    runtime = import_runtime()
    with os.fdopen(os.memfd_create("model.onnx"), "wb") as file:
        file.write(model)
        file.flush()
        return runtime.InferenceSession(
            f"/proc/self/fd/{file.fileno()}",
            sess_options=_session_options(runtime),
            providers=["CPUExecutionProvider"],
        )


def _session_options(runtime: ModuleType) -> onnxruntime.SessionOptions:
    # Recent wheels can report their use to their makers, which a rig must not do.
    runtime.disable_telemetry_events()
    options: onnxruntime.SessionOptions = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    # Spinning would occupy a core between predictions, which are five seconds apart.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return options


def _check_interface(session: onnxruntime.InferenceSession, manifest: Manifest, path: str) -> None:
    features = manifest.preprocessing.n_features
    inputs = {item.name: list(item.shape) for item in session.get_inputs()}
    outputs = {item.name for item in session.get_outputs()}
    missing = [name for name in output_names(manifest) if name not in outputs]
    if set(inputs) != {"x", "mask"} or missing:
        raise BundleMismatchError(
            f"{path} should take x and mask and give {', '.join(output_names(manifest))}; it takes "
            f"{', '.join(inputs)} and gives {', '.join(sorted(outputs))}. Export the bundle again."
        )
    window = manifest.preprocessing.window
    if isinstance(inputs["x"][1], int) and inputs["x"][1] != window:
        raise BundleMismatchError(
            f"{path} takes windows of {inputs['x'][1]} rows, the manifest says {window}. "
            "Export the bundle again."
        )
    if inputs["x"][-1] != features:
        raise BundleMismatchError(
            f"{path} takes rows of {inputs['x'][-1]} features, the manifest's preprocessing makes "
            f"{features}. Export the bundle again."
        )


def _check_outputs(bundle: Bundle, path: str) -> None:
    """Run a shortest and a full window: the warm-up, and a check that both work."""
    manifest = bundle.manifest
    widths = {"embedding": manifest.network.embedding, "descriptors": len(manifest.descriptors)}
    for steps in (manifest.preprocessing.min_steps, manifest.preprocessing.window):
        outputs = bundle.run(*_probe(manifest, steps))
        for name in output_names(manifest):
            array = getattr(outputs, name)
            width = widths.get(name, len(manifest.labels))
            if array.shape != (1, width) or not np.isfinite(array).all():
                raise BundleMismatchError(
                    f"{path} should give finite {name}[1, {width}] for a window of {steps} rows, "
                    f"it gave {name}{list(array.shape)}. Export the bundle again."
                )


def _probe(manifest: Manifest, steps: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a window of numbers in the range of features, always the same.

    Loading numpy.random for random ones would cost the daemon 6 MB.
    """
    count = steps * manifest.preprocessing.n_features
    x = np.sin(np.arange(count, dtype=np.float32)).reshape(1, steps, -1)
    return x, np.ones((1, steps), dtype=np.float32)
