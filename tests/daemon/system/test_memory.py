"""Memory that only the start needed is given back, and nothing else."""

from __future__ import annotations

import subprocess
import sys

from tests.sandbox import ROOT

PROGRAM = """
import numpy as np
from daemon.system.memory import drop_startup_pages, resident_mb
import onnxruntime

matrix = np.arange(10_000.0).reshape(100, 100)
product = matrix @ matrix
before_mb = resident_mb()
drop_startup_pages()
after_mb = resident_mb()
assert (matrix @ matrix == product).all()
print(before_mb - after_mb)
"""


def test_dropped_text_is_resident_no_more_and_still_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    # What is mapped at all depends on the page cache; that a megabyte of it goes does not.
    assert float(done.stdout) > 1.0
