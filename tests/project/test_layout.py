"""The layout explains itself: no circles, plain names, files of bounded length, mirrored tests."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

from tests.project.source_tree import MAY_IMPORT, ROOT, Module, modules, project_files

LEAVES = ("daemon", "training")

LONGEST_FILE = 450
"""Lines; a longer file states its reason in its docstring, beginning with `REASON`."""
REASON = "Longer than 450 lines"

FORBIDDEN_WORDS = frozenset(
    [
        "act",
        "apart",
        "balance",
        "beside",
        "cast",
        "door",
        "ear",
        "ears",
        "elsewhere",
        "gate",
        "heard",
        "hears",
        "lesson",
        "mind",
        "minds",
        "programme",
        "said",
        "storm",
        "story",
        "tale",
        "teaching",
        "told",
        "workbench",
    ]
)
"""Words that say nothing to a stranger in the name of a module or class; the field has terms."""

OTHER_TEST_FOLDERS = frozenset({"faults", "project", "systemd", "helpers"})
"""Test folders that belong to the whole system rather than to one folder of the source."""


def folder_of(name: str) -> str:
    """Return a module's folder inside its leaf; a module beside the folders stands for itself."""
    return ".".join(name.split(".")[:2])


def folder_imports(leaf: str) -> dict[str, set[str]]:
    """Return, for every folder of a leaf, the other folders of that leaf that it imports."""
    names = {module.name for module in modules()}
    graph: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        if module.layer != leaf or module.name == leaf:
            continue
        for node in ast.walk(module.tree):
            for target in imported(node):
                if target in names and target.startswith(f"{leaf}."):
                    graph[folder_of(module.name)].add(folder_of(target))
    return {folder: targets - {folder} for folder, targets in graph.items()}


def imported(node: ast.AST) -> list[str]:
    """Return the names that may be modules in one import statement."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("leaf", LEAVES)
def test_folders_of_a_leaf_import_each_other_in_one_direction(leaf: str) -> None:
    graph = folder_imports(leaf)
    assert len(graph) > 8
    assert sum(map(len, graph.values())) > 20
    assert circle_in(graph) == []


def test_a_circle_is_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_every_test_folder_mirrors_a_folder_of_the_source() -> None:
    tests = ROOT / "tests"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert len(folders) > 20
    strangers = [
        str(folder)
        for folder in sorted(folders)
        if folder.parts[0] not in OTHER_TEST_FOLDERS and not (ROOT / folder).is_dir()
    ]
    assert strangers == []


def words_of(name: str) -> set[str]:
    """Split `snake_case` and `CamelCase` into lower-case words."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def named(module: Module) -> list[str]:
    """Return the module's own name and those of its classes."""
    classes = (node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))
    return [module.name.rpartition(".")[2], *classes]


def test_names_of_modules_and_classes_hold_no_metaphor() -> None:
    found = [
        f"{module.name}: {name}"
        for module in modules()
        for name in named(module)
        if words_of(name) & FORBIDDEN_WORDS
    ]
    assert found == []


@pytest.mark.parametrize("name", ["StormBroker", "board_told", "_Ears", "MQTTGate"])
def test_a_forbidden_word_inside_a_name_is_found(name: str) -> None:
    assert words_of(name) & FORBIDDEN_WORDS


def test_no_two_public_classes_share_a_name() -> None:
    places = defaultdict(list)
    for module in modules():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module.name)
    assert len(places) > 200
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_module_has_the_name_of_one_of_the_standard_library() -> None:
    found = [
        module.name
        for module in modules()
        if module.name.rpartition(".")[2] in sys.stdlib_module_names
    ]
    assert found == []


def too_long(path: Path, tree: ast.Module) -> bool:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    return lines > LONGEST_FILE and REASON not in (ast.get_docstring(tree) or "")


def test_a_long_file_states_its_reason() -> None:
    assert [module.name for module in modules() if too_long(module.path, module.tree)] == []


def test_all_folders_are_searched() -> None:
    assert {module.layer for module in modules()} == set(MAY_IMPORT)
    assert len(list(chain.from_iterable(map(named, modules())))) > 500


def test_no_file_holds_the_markers_of_a_merge_conflict() -> None:
    marker = re.compile(rb"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)
    files = [path for path in project_files() if path.is_file()]
    assert len(files) > 500
    assert [str(path) for path in files if marker.search(path.read_bytes())] == []
