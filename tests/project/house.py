"""The project as the tests of this folder see it: its rooms, modules and files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

MAY_IMPORT: dict[str, frozenset[str]] = {
    "hardware": frozenset(),
    "models": frozenset({"hardware"}),
    "calibration": frozenset({"hardware", "models"}),
    "daemon": frozenset({"hardware", "models", "calibration"}),
    "training": frozenset({"hardware", "models", "calibration"}),
}
"""Every room with the rooms below it: hardware <- models <- calibration <- the two leaves."""


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a room, parsed but not run."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
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
    """Return every module of every room."""
    found = []
    for room in MAY_IMPORT:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"))))
    return tuple(found)


NOT_OURS = frozenset({".git", ".venv", "runs", "build", "dist", "__pycache__"})
"""What holds nothing of the project; `.git` is a file in a worktree. Caches begin with a dot and
end with `_cache`."""


@cache
def project_files() -> tuple[Path, ...]:
    """Return every file of the project, ignored folders left out."""
    found: list[Path] = []
    waiting = [ROOT]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if _left_out(path.name):
                continue
            (waiting if path.is_dir() else found).append(path)
    return tuple(found)


def _left_out(name: str) -> bool:
    cache_folder = name in {".cache", ".hypothesis"} or name.endswith("_cache")
    return name in NOT_OURS or cache_folder or name.endswith(".egg-info")
