"""The wheel installs and works without a checkout, with its declared dependencies only."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from models.manifest import read_manifest, write_bundle
from tests.project.environment import Environment, build_wheel
from tests.project.source_tree import ROOT, modules

IN_THE_WHEEL = ("mixtures-12", "substances-50")
LARGEST_WHEEL = 4_000_000
TOP = "scentd"
NAMED_RIGHT = re.compile(r" says +\S.* \(right, ")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"), wheel, extras=("demo",))


def test_the_wheel_holds_every_module_and_data_file_below_one_name(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(module.path.relative_to(ROOT)) for module in modules()}
    for pattern in (
        "hardware/simulator/*.csv",
        "daemon/schemas/*.json",
        "daemon/soak/*.c",
        "training/configs/*.yaml",
        "systemd/*.service",
        "systemd/*.socket",
        "systemd/*.rules",
        "systemd/[!i]*.sh",  # install.sh is for a checkout
    ):
        beside = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
        assert beside
        wanted |= beside
    for name in IN_THE_WHEEL:
        files = {str(path.relative_to(ROOT)) for path in ROOT.glob(f"models/bundles/{name}/*")}
        wanted |= {file for file in files if not file.endswith("model.fp32.onnx")}
    assert {f"{TOP}/app/{path}" for path in wanted} - held == set()
    tops = {name.split("/")[0] for name in held}
    assert {top for top in tops if not top.endswith(".dist-info")} == {TOP}
    assert wheel.stat().st_size <= LARGEST_WHEEL


def test_the_contents_of_the_wheel_are_clean(wheel: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_wheel_contents", str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


FOREIGN = ("daemon", "hardware", "models", "training", "calibration")


def test_other_packages_of_the_names_of_our_folders_change_nothing(
    installed: Environment, tmp_path: Path
) -> None:
    """As python-daemon in the same environment, and a user's own models/ in the folder."""
    program = "import daemon, scentd, sys; print(daemon.__file__, 'scentd.app' in str(sys.path))"
    for name in FOREIGN:
        for folder in (installed.packages, tmp_path):
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text("raise ImportError('not ours')\n")
    (installed.packages / "daemon" / "__init__.py").write_text("")
    try:
        for command in (
            ("scentd", "models", "verify", "mixtures-12"),
            ("scent-train", "--help"),
            ("python", "-m", "scentd", "models", "verify", "mixtures-12"),
            ("python", "-P", "-m", "scentd", "simulate", "--help"),
        ):
            run_in(tmp_path, installed, *command)
        theirs = run_in(tmp_path, installed, "python", "-P", "-c", program)
        assert theirs == f"{installed.packages / 'daemon' / '__init__.py'} False\n"
    finally:
        for name in FOREIGN:
            shutil.rmtree(installed.packages / name)


def run_in(folder: Path, installed: Environment, *command: str) -> str:
    """Return what a command printed that succeeds."""
    done = subprocess.run(
        installed.command(*command),
        cwd=folder,
        env=installed.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_checkout_is_not_imported(installed: Environment, tmp_path: Path) -> None:
    program = (
        "import scentd.__main__ as start; start.find_folders(); import daemon, models, sys; "
        "print(daemon.__file__, models.__file__, *sys.path)"
    )
    printed = run_in(tmp_path, installed, "python", "-c", program)
    assert str(ROOT) not in printed.replace(str(installed.bin.parent), "")


def test_the_service_of_an_installed_wheel_runs_its_environment(
    installed: Environment, tmp_path: Path
) -> None:
    run_in(tmp_path, installed, "scentd", "service", "install", "--root", str(tmp_path / "image"))
    for unit in ("scentd.service", "scentd-web.service"):
        text = (tmp_path / "image/etc/systemd/system" / unit).read_text(encoding="utf-8")
        assert f"\nExecStart={installed.bin / 'python'} -I " in text
    assert (tmp_path / "image/etc/scentd/scentd.yaml").is_file()
    run_in(tmp_path, installed, "scentd", "service", "uninstall", "--root", str(tmp_path / "image"))


def test_models_left_out_of_the_wheel_are_installed_and_known_by_their_hash(
    installed: Environment, tmp_path: Path
) -> None:
    config = tmp_path / "rig.yaml"
    config.write_text(
        "rig_id: rig\nsource: {port: /dev/null}\nmodels: [paper-50]\nstate_dir: state\n"
    )
    whole = ROOT / "models" / "bundles" / "paper-50"
    run_in(tmp_path, installed, "scentd", "models", "install", str(whole), "--config", str(config))
    manifest = read_manifest(whole)
    other = replace(manifest, metrics={**manifest.metrics, "better": 1.0})
    write_bundle(
        tmp_path / "other",
        other,
        {name: (whole / name).read_bytes() for name in manifest.files},
    )
    done = subprocess.run(
        installed.command(
            "scentd", "models", "install", str(tmp_path / "other"), "--config", str(config)
        ),
        cwd=tmp_path,
        env=installed.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "This is not paper-50" in done.stderr


@pytest.mark.parametrize("program", ["scentd", "scent-train"])
def test_an_installed_program_prints_the_version_of_the_wheel(
    installed: Environment, wheel: Path, tmp_path: Path, program: str
) -> None:
    done = subprocess.run(
        installed.command(program, "--version"),
        cwd=tmp_path,
        env=installed.variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [program, wheel.name.split("-")[1]]


def test_installed_models_pass_verification(installed: Environment, tmp_path: Path) -> None:
    done = subprocess.run(
        installed.command("scentd", "models", "verify", "--json"),
        cwd=tmp_path,
        env=installed.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [(item["bundle"], item["ok"], item["precisions"]) for item in results] == [
        (name, True, ["int8"]) for name in IN_THE_WHEEL
    ]


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
