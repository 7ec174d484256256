"""ONNX Runtime reports nothing to its makers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.source_tree import ROOT

PROGRAM = """
import os
import {module}
import onnxruntime
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize("module", ["models.bundle", "training.export.bundle"])
def test_onnx_runtime_reports_nothing_and_stores_no_identity(tmp_path: Path, module: str) -> None:
    own = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)],
        cwd=ROOT,
        env={**own, "HOME": str(tmp_path), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
    assert list(tmp_path.rglob("*onnxruntime*")) == []
