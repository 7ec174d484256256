"""What tests of every part share: where the real recordings are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smellnet() -> Path:
    """Return the folder of the real recordings; without it the test is skipped."""
    data = os.environ.get("SCENTD_DATA", "")
    if not data:
        pytest.skip("needs real recordings: set SCENTD_DATA to the folder that holds smellnet/")
    folder = Path(data) / "smellnet"
    if not folder.is_dir():
        pytest.skip(f"SCENTD_DATA is {data}, which holds no smellnet/")
    return folder
