"""The layers, modules and files of the project, for the tests of this folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
"""The pages of the documentation."""

MAY_IMPORT: dict[str, frozenset[str]] = {
    "hardware": frozenset(),
    "models": frozenset({"hardware"}),
    "calibration": frozenset({"hardware", "models"}),
    "daemon": frozenset({"hardware", "models", "calibration"}),
    "training": frozenset({"hardware", "models", "calibration"}),
}
"""Every layer with those that it may import: hardware <- models <- calibration <- the others."""


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a layer, parsed but not imported."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def layer(self) -> str:
        return self.name.split(".", maxsplit=1)[0]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield line and absolute name of every import, inside functions and blocks as well."""
        package = self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")
                base = above[: len(above) - node.level + 1] if node.level else []
                yield node.lineno, ".".join([*base, *([node.module] if node.module else [])])


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of every layer."""
    found = []
    for layer in MAY_IMPORT:
        for path in sorted((ROOT / layer).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"))))
    return tuple(found)


NOT_OURS = frozenset({".git", ".venv", "runs", "build", "dist", "__pycache__"})
"""Ignored files and folders; `.git` is a file in a worktree. Caches are named `.*_cache`."""


@cache
def project_files() -> tuple[Path, ...]:
    """Return every file of the project, without ignored ones."""
    found: list[Path] = []
    waiting = [ROOT]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if _is_ignored(path.name):
                continue
            (waiting if path.is_dir() else found).append(path)
    return tuple(found)


def _is_ignored(name: str) -> bool:
    cache_folder = name in {".cache", ".hypothesis"} or name.endswith("_cache")
    return name in NOT_OURS or cache_folder or name.endswith(".egg-info")
