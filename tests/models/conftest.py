"""Fixtures of the models' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from models.manifest import write_bundle
from tests.models.toys import Task, toy_files, toy_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A busy machine is no failure: no test here asserts times, Hypothesis' deadline would.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def toy_bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a writer of toy bundles, each in a folder of its own."""
    files: dict[Task, dict[str, bytes]] = {}

    def write(task: Task = "substance", **changes: object) -> Path:
        content = files.setdefault(task, toy_files(task))
        manifest = toy_manifest(task, **changes)
        folder = tmp_path_factory.mktemp("bundle") / manifest.name
        write_bundle(folder, manifest, content)
        return folder

    return write
