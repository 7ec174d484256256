"""What ONNX Runtime writes while it is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.source_tree import ROOT

PACKAGE = """
import os
os.write(2, b"Error in cpuinfo: failed to parse both lists of possible and present processors\\n")
os.write(2, b"onnxruntime cpuid_info warning: Unknown CPU vendor. cpuinfo_vendor value: 0\\n")
os.write(2, b"something else\\n")
"""
PROGRAM = """
import sys
from pathlib import Path
from models import runtime_import
runtime_import.CPU_FOLDER = Path({folder!r})
print("before", file=sys.stderr)
runtime_import.import_runtime()
print("after", file=sys.stderr)
"""


@pytest.mark.parametrize(("hidden", "lines"), [(True, 3), (False, 5)])
def test_complaints_about_hidden_processors_are_left_out_and_nothing_else(
    tmp_path: Path, *, hidden: bool, lines: int
) -> None:
    (tmp_path / "onnxruntime.py").write_text(PACKAGE, encoding="utf-8")
    folder = tmp_path / "none" if hidden else tmp_path
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folder=str(folder))],
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    written = done.stderr.splitlines()
    assert len(written) == lines
    assert [line for line in written if "cpu" not in line] == ["before", "something else", "after"]
