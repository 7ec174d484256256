"""Imports run one way, docstrings name the layer, and no command loads what it does not need."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec

import pytest

from tests.project.source_tree import MAY_IMPORT, ROOT, Module, modules, project_files

NAMED = {
    "hardware": ("Ground floor", "Simulator"),
    "models": ("Models", "models/"),
    "calibration": ("Calibration",),
    "daemon": ("Daemon", "Leaf", "Demo", "Soak"),
    "training": ("training/", "Trainer"),
}
"""How the docstring of a layer's module begins."""

DEVELOPERS_PATH = re.compile(r"(?<![\w.~-])/(?:home|Users|root|work|workspace|mnt)/[\w.-]+")
"""An absolute path that exists on one developer's machine only."""


def forbidden_imports(module: Module) -> list[str]:
    allowed = MAY_IMPORT[module.layer] | {module.layer}
    return [
        f"{module.path.relative_to(ROOT)}:{line} imports {name}"
        for line, name in module.imports()
        if name.split(".")[0] in MAY_IMPORT.keys() - allowed
    ]


def test_every_layer_is_searched() -> None:
    found = Counter(module.layer for module in modules())
    assert found.keys() == MAY_IMPORT.keys()
    assert found["hardware"] >= 15
    assert found["models"] >= 11
    assert found["daemon"] >= 30
    assert found["training"] >= 18
    assert sum(1 for module in modules() for _ in module.imports()) > 400


def test_imports_run_one_way() -> None:
    assert [line for module in modules() for line in forbidden_imports(module)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import training.fit",
        "def f():\n    from training import data",
        "if TYPE_CHECKING:\n    from training.config import TrainConfig",
        "from ..training import data",
    ],
)
def test_imports_inside_functions_and_blocks_are_found(text: str) -> None:
    module = Module("daemon.commands.x", ROOT / "daemon/commands/x.py", ast.parse(text))
    if ".." in text:  # two levels up from daemon.commands.x is daemon, not the checkout
        module = Module("daemon.x", ROOT / "daemon/x.py", ast.parse(text))
    assert len(forbidden_imports(module)) == 1


def test_only_the_trainer_imports_torch() -> None:
    importing = {
        module.layer
        for module in modules()
        for _, name in module.imports()
        if name.split(".")[0] in {"torch", "onnx", "onnxscript"}
    }
    assert importing == {"training"}


def loaded_by(*names: str) -> set[str]:
    """Import modules in a fresh interpreter; return the top-level packages that came along."""
    program = (
        f"import importlib, json, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_no_module_of_the_daemon_loads_torch() -> None:
    names = [module.name for module in modules() if module.layer == "daemon"]
    loaded = loaded_by(*names)
    assert {"daemon", "numpy"} <= loaded
    assert "onnxruntime" not in loaded  # only with the first session: it may end the process
    assert loaded & {"torch", "onnx", "training"} == set()


def test_the_service_loads_nothing_that_only_other_commands_need() -> None:
    loaded = loaded_by("daemon.cli", "daemon.commands.run", "daemon.service.main")
    assert {"daemon", "numpy"} <= loaded
    assert "onnxruntime" not in loaded  # only with the first session: it may end the process
    needless = {"torch", "scipy", "rich", "asyncio", "amqtt", "onnx"}
    if find_spec("socks") is None:
        needless |= {"http", "email"}  # paho-mqtt needs them for proxies
    assert loaded & needless == set()


def test_a_configuration_is_read_without_numpy() -> None:
    """Processes that recognise nothing read it too, and numpy costs 20 MB."""
    assert loaded_by("daemon.config.loading") & {"numpy", "onnxruntime"} == set()


def test_the_web_server_loads_nothing_that_computes() -> None:
    """It may use 40 MB, and numpy alone costs 20."""
    loaded = loaded_by("daemon.cli", "daemon.commands.web", "daemon.web.server")
    assert {"daemon", "starlette", "uvicorn"} <= loaded
    assert loaded & {"numpy", "scipy", "onnxruntime", "torch", "amqtt", "rich"} == set()


def test_only_the_demo_needs_its_extra() -> None:
    loaded = loaded_by("daemon.soak.main", "daemon.commands.bench", "daemon.sandbox.relay")
    assert "daemon" in loaded
    assert loaded & {"amqtt", "rich"} == set()


def test_judging_a_bundle_needs_no_torch() -> None:
    loaded = loaded_by("training.cli", "training.commands.evaluate", "training.config")
    assert "training" in loaded
    assert loaded & {"torch", "onnx"} == set()


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_the_docstring_of_every_module_names_its_layer(module: Module) -> None:
    text = ast.get_docstring(module.tree)
    assert text, "it has no docstring"
    if module.path.name != "__init__.py":
        assert text.startswith(NAMED[module.layer])


def test_no_file_holds_a_path_of_a_developers_machine() -> None:
    found, read = [], 0
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        read += 1
        found += [
            f"{path.relative_to(ROOT)}: {match[0]}"
            for match in DEVELOPERS_PATH.finditer(text)
            if not match[0].startswith("/home/pi")
        ]
    assert read > 100
    assert found == []
