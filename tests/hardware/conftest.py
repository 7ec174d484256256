"""Fixtures of the hardware tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smellnet() -> Path:
    """Return the folder of published recordings, where SCENTD_DATA names one."""
    root = os.environ.get("SCENTD_DATA")
    if not root or not (Path(root) / "smellnet" / "base").is_dir():
        pytest.skip("SCENTD_DATA does not name a folder that holds smellnet/base")
    return Path(root) / "smellnet"
