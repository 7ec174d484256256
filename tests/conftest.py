"""What tests of every part share: where the real recordings are, and logs of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def fresh_logs() -> Iterator[None]:
    """Forget how a command configured the logs: its standard error ends with the test."""
    yield
    structlog.reset_defaults()


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
