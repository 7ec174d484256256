"""Daemon: whether ONNX Runtime works on this machine, found out in a child process.

A wheel of ONNX Runtime may be missing, may not load, or may use instructions that this processor
lacks, which ends the process at once. So a child loads it first and runs a small model. What
worked is remembered in the state folder, by version and processor, so that a start does not pay
for it again.
"""

from __future__ import annotations

import contextlib
import platform
import re
import signal
import sys
from hashlib import sha256
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.system.bounded import Bounds, OutOfBoundsError, call_bounded
from hardware.errors import ScentdError
from hardware.files import read_regular, write_atomically
from hardware.safe_json import read_state, write_state
from models import runtime_import
from models.manifest import INT8_MODEL

if TYPE_CHECKING:
    from typing import Any

RUNTIME = "onnxruntime"
RUNTIME_FILE = "onnxruntime.json"
"""File below `state_dir` that says what worked."""

_MODULE = "daemon.installed_models.onnx_runtime"
BOUNDS = Bounds(memory_mb=384, cpu_s=60, wall_s=120.0, file_mb=1)
_CPU_INFO = Path("/proc/cpuinfo")
_PROCESSOR_FIELDS = ("model name", "Hardware", "Model", "cpu model", "Processor", "uarch")
"""Names of the line that names the processor or board: x86, 32- and 64-bit Arm, MIPS, RISC-V."""
_DEADLY = {signal.SIGILL: "it uses an instruction that this processor does not have"}


class RuntimeUnusableError(ScentdError):
    """ONNX Runtime cannot be loaded or run on this machine."""


def require_runtime(state_dir: Path | None = None, *, remember: bool = True) -> None:
    """Return if ONNX Runtime works here, tried in a child unless that is known.

    Parameters
    ----------
    state_dir: where what worked is remembered; None remembers nothing.
    remember: whether to write there.

    Raises
    ------
    RuntimeUnusableError: it does not; the text names the processor and what to do.
    """
    if RUNTIME in sys.modules:
        return
    known = _identity()
    path = None if state_dir is None else state_dir / RUNTIME_FILE
    if path is not None:
        with contextlib.suppress(OSError, ValueError):
            if read_state(read_regular(path)) == known:
                return
    errors = {RuntimeUnusableError.__name__: RuntimeUnusableError}
    try:
        call_bounded(f"{_MODULE}:run_once", bounds=BOUNDS, errors=errors)
    except OutOfBoundsError as error:
        raise RuntimeUnusableError(explain(_why(error))) from None
    except RuntimeUnusableError as error:
        raise RuntimeUnusableError(explain(str(error))) from None
    if state_dir is not None and remember:
        remember_runtime(state_dir)


def remember_runtime(state_dir: Path) -> None:
    """Note in a state folder that ONNX Runtime works here."""
    with contextlib.suppress(OSError):  # then it is tried again at the next start
        write_atomically(state_dir / RUNTIME_FILE, write_state(_identity()))


def run_once() -> None:
    """Load ONNX Runtime and run a shipped model; called in the child."""
    # Not above: this process must not load what the child tries.
    from models.bundle import bundle_folder, load_bundle, shipped_bundles  # noqa: PLC0415

    try:
        folders = [bundle_folder(name) for name in shipped_bundles()]
        load_bundle(min(folders, key=lambda folder: (folder / INT8_MODEL).stat().st_size))
    except Exception as error:  # whatever it raises, it cannot be used
        cause = error.__cause__ or error
        (first, *_) = str(cause).splitlines() or [""]
        raise RuntimeUnusableError(f"{type(cause).__name__}: {first}") from error


def explain(why: str) -> str:
    """Return the paragraph that says why ONNX Runtime cannot be used here, and what to do."""
    about = (f"The processor is {processor()}.", note_on_hidden_processors())
    processors = " ".join(filter(None, about))
    return (
        f"ONNX Runtime {_version() or '(not installed)'}, which runs the models, cannot be used on "
        f"this machine ({why}). {processors} Install a version for it: pip install "
        "--force-reinstall 'onnxruntime>=1.22' (on a Raspberry Pi, with a 64-bit system), or run "
        "scentd on another computer."
    )


def note_on_hidden_processors() -> str:
    """Return a sentence that says so if the system hides its processors from this process."""
    if runtime_import.CPU_FOLDER.is_dir():
        return ""
    return (
        f"{runtime_import.CPU_FOLDER} is absent here, where ONNX Runtime looks up what the "
        "processor can do; it may run more slowly. Let this process see /sys (in a container, "
        "mount it read-only)."
    )


def _why(error: OutOfBoundsError) -> str:
    """Return the reason of a child's end, for a signal in words."""
    ended = re.search(r"ended with -(\d+)", str(error))
    if ended is None:
        return str(error)
    number = int(ended[1])
    with contextlib.suppress(ValueError):
        name = signal.Signals(number).name
        return _DEADLY.get(signal.Signals(number), f"the process that tried it died of {name}")
    return str(error)


def processor() -> str:
    """Return the name of this processor, as far as the system tells it."""
    machine = platform.machine() or "of an unknown kind"
    found = _processor_name()
    return f"{found} ({machine})" if found else machine


def _processor_name() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    values: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and value.strip():
            values.setdefault(name.strip(), value.strip())
    names = [values[field] for field in _PROCESSOR_FIELDS if field in values]
    if not names and "CPU part" in values:  # 64-bit Arm gives numbers alone
        names = [
            f"implementer {values.get('CPU implementer', 'unknown')}, part {values['CPU part']}"
        ]
    return ", ".join(dict.fromkeys(names))


def _version() -> str:
    try:
        return metadata.version(RUNTIME)
    except metadata.PackageNotFoundError:
        return ""


def _identity() -> dict[str, Any]:
    """Return what decides whether ONNX Runtime works, as a state file keeps it."""
    instructions = b""
    with contextlib.suppress(OSError):
        # The flags of x86 ("flags") and Arm ("Features"); clock rates differ between two reads.
        lines = _CPU_INFO.read_bytes().splitlines()
        kept = (b"flags", b"features", b"model", b"cpu ", b"hardware", b"isa")
        instructions = b"\n".join(sorted({one for one in lines if one.lower().startswith(kept)}))
        instructions = re.sub(rb"(?m)^cpu MHz.*$", b"", instructions)
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = util.find_spec(RUNTIME)
    origin = None if spec is None else spec.origin
    changed = 0
    if origin is not None:
        with contextlib.suppress(OSError):
            changed = Path(origin).stat().st_mtime_ns
    return {
        "version": _version(),
        "file": origin,
        "changed": changed,
        "processor": processor(),
        "instructions": sha256(instructions).hexdigest(),
        "cpu_folder": runtime_import.CPU_FOLDER.is_dir(),
    }
