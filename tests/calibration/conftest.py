"""Fixtures of the tests about taught smells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calibration.smell_store import SmellStore
from models.bundle import Bundle
from tests.calibration.smells import teachable_bundle

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return teachable_bundle(tmp_path_factory.mktemp("model"))


@pytest.fixture
def store(tmp_path: Path, bundle: Bundle) -> SmellStore:
    return SmellStore(tmp_path / "state", [bundle])
