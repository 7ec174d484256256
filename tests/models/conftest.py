"""Fixtures of the models' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from models.bundle import Bundle, load_bundle
from models.manifest import write_bundle
from tests.models.toys import (
    DESCRIPTORS,
    NOVELTY_SPEC,
    Task,
    toy_arrays,
    toy_files,
    toy_manifest,
    toy_space,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.embedding_space import EmbeddingSpace


@pytest.fixture(scope="session")
def toy_bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a writer of toy bundles, each in a folder of its own.

    With a `space` the bundle holds its arrays; with `descriptors` the network has that output.
    """
    files: dict[tuple[Task, bool], dict[str, bytes]] = {}

    def write(
        task: Task = "substance", *, space: EmbeddingSpace | None = None, **changes: object
    ) -> Path:
        describes = "descriptors" in changes
        if (task, describes) not in files:
            files[task, describes] = toy_files(task, describes=describes)
        content = files[task, describes]
        if space is not None:
            content = {**content, "arrays.npz": toy_arrays(space)}
        manifest = toy_manifest(task, **changes)
        folder = tmp_path_factory.mktemp("bundle") / manifest.name
        write_bundle(folder, manifest, content)
        return folder

    return write


@pytest.fixture(scope="session")
def substance(toy_bundles: Callable[..., Path]) -> Bundle:
    return load_bundle(toy_bundles("substance"))


@pytest.fixture(scope="session")
def mixture(toy_bundles: Callable[..., Path]) -> Bundle:
    return load_bundle(toy_bundles("mixture", rate_hz=10.0))


@pytest.fixture(scope="session")
def novelty_model(toy_bundles: Callable[..., Path]) -> Bundle:
    """A model with a novelty score, a space and descriptors."""
    return load_bundle(
        toy_bundles(decision=NOVELTY_SPEC, space=toy_space(), descriptors=DESCRIPTORS)
    )
