"""Models: imports ONNX Runtime, without what it writes where the system hides its processors.

May import the standard library and onnxruntime. The import is deferred because a wheel that does
not suit the processor ends the process.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

CPU_FOLDER = Path("/sys/devices/system/cpu")
"""ONNX Runtime asks it which processors there are; a container or chroot may hide it."""

_ABOUT_PROCESSORS = (
    b"Error in cpuinfo:",
    b"onnxruntime cpuid_info warning:",
    b"onnxruntime warning: cpuinfo_initialize failed",
)
"""How its lines begin then; it takes instructions that every processor of the kind has."""

_STDERR = 2


def import_runtime() -> ModuleType:
    """Return ONNX Runtime's module.

    Where `CPU_FOLDER` is hidden, its library writes up to nine lines to standard error about lists
    of processors that it cannot parse, at every import; they are left out. `scentd check` says what
    they mean. Everything else that is written meanwhile appears afterwards.
    """
    if "onnxruntime" in sys.modules or CPU_FOLDER.is_dir():
        return _import()
    with _without_lines(_ABOUT_PROCESSORS):
        return _import()


def _import() -> ModuleType:
    import onnxruntime  # noqa: PLC0415 - see above

    module: ModuleType = onnxruntime
    return module


@contextmanager
def _without_lines(beginnings: tuple[bytes, ...]) -> Iterator[None]:
    """Leave out the lines of standard error that begin so, also those of libraries in C."""
    sys.stderr.flush()
    original = os.dup(_STDERR)
    try:
        with os.fdopen(os.memfd_create("stderr"), "w+b") as kept:
            os.dup2(kept.fileno(), _STDERR)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(original, _STDERR)
                kept.seek(0)
                lines = [line for line in kept if not line.startswith(beginnings)]
                os.write(_STDERR, b"".join(lines))
    finally:
        os.close(original)
