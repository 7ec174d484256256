"""The wheel installs and works without a checkout, with its declared dependencies only."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.project.environment import Environment, build_wheel
from tests.project.source_tree import ROOT, modules

SHIPPED = ("fruits-5", "mixtures-12", "paper-50", "substances-50")
LARGEST_SHIPPED = 29_000_000
NAMED_RIGHT = re.compile(r" says +\S.* \(right, ")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"), wheel, extras=("demo",))


def test_all_models_are_shipped_within_the_size_limit() -> None:
    folders = [path for path in (ROOT / "models/bundles").iterdir() if path.is_dir()]
    assert sorted(p.name for p in folders if not p.name.startswith("_")) == list(SHIPPED)
    sizes = [path.stat().st_size for folder in folders for path in folder.rglob("*")]
    assert sum(sizes) <= LARGEST_SHIPPED


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(module.path.relative_to(ROOT)) for module in modules()}
    for pattern in (
        "hardware/simulator/*.csv",
        "daemon/schemas/*.json",
        "daemon/soak/*.c",
        "training/configs/*.yaml",
    ):
        beside = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
        assert beside
        wanted |= beside
    for name in SHIPPED:
        wanted |= {str(path.relative_to(ROOT)) for path in ROOT.glob(f"models/bundles/{name}/*")}
    assert wanted - held == set()
    assert not any(name.startswith("tests/") for name in held)


def test_the_checkout_is_not_imported(installed: Environment, tmp_path: Path) -> None:
    program = "import daemon, models, sys; print(daemon.__file__, models.__file__, *sys.path)"
    done = subprocess.run(
        installed.command("python", "-c", program),
        cwd=tmp_path,
        env=installed.variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(ROOT) not in done.stdout.replace(str(installed.bin.parent), "")


def test_installed_models_pass_verification(installed: Environment, tmp_path: Path) -> None:
    done = subprocess.run(
        installed.command("scentd", "models", "verify", *SHIPPED, "--json"),
        cwd=tmp_path,
        env=installed.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [item["ok"] for item in json.loads(done.stdout)] == [True] * len(SHIPPED)


@pytest.mark.timeout(400)
def test_the_installed_demo_names_a_smell_and_ends_on_ctrl_c(
    installed: Environment, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        # --seconds ends it on a machine that is too slow to name anything; the test then fails.
        installed.command("scentd", "demo", "--plain", "--seed", "1", "--seconds", "300"),
        cwd=tmp_path,
        env=installed.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if NAMED_RIGHT.search(line):
            process.send_signal(signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=60)
    output = "".join([*lines, rest])
    assert process.returncode == 0, output + errors
    assert NAMED_RIGHT.search(output), output + errors
    assert "Traceback" not in errors
