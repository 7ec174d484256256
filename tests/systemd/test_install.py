"""The installer and the uninstaller, run as an owner runs them, below a scratch root.

The pinned packages are fetched once, by their hashes, into a folder; every installation after that
uses no network. Nothing of this machine's systemd is touched.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.project.environment import build_wheel
from tests.project.source_tree import ROOT

SYSTEMD = ROOT / "systemd"
PAGE = (ROOT / "docs" / "install-the-service.md").read_text(encoding="utf-8")
REFUSED, MISUSED = 1, 2
pytestmark = pytest.mark.timeout(900)


def run(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fetch the pinned packages as the page says; skip if they cannot be fetched."""
    folder = tmp_path_factory.mktemp("packages")
    (command,) = re.findall(r"^pip download (?:.*\\\n)*.*", PAGE, re.MULTILINE)
    words = shlex.split(command.replace("\\\n", " ").replace("--dest wheels", f"--dest {folder}"))
    assert str(folder) in words
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and "hash" not in done.stderr.lower():
        pytest.skip(f"the pinned packages cannot be fetched here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the project's wheel, and one of a later version."""
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"))
    version = wheel.name.split("-")[1]
    after = f"{version}.post1"
    newer = wheel.with_name(wheel.name.replace(version, after))
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(newer, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith(("/METADATA", "/RECORD")):
                data = data.replace(f"Version: {version}".encode(), f"Version: {after}".encode())
                data = data.replace(f"scentd-{version}.".encode(), f"scentd-{after}.".encode())
            name = item.filename.replace(f"scentd-{version}.", f"scentd-{after}.")
            new.writestr(name, data)
    return wheel, newer


def install(root: Path, packages: Path, wheel: Path, *more: str, **variables: str) -> str:
    """Run the installer; return its messages."""
    done = run(
        *(SYSTEMD / "install.sh", "--root", root, "--find-links", packages),
        *("--python", sys.executable, "--wheel", wheel, *more),
        **variables,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def scentd(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program as the unit runs it."""
    python = root / "opt/scentd/current/bin/python"
    return run(python, "-I", "-m", "scentd", *words)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(root: Path) -> set[str]:
    """Return the files below `root`, without those of releases."""
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if not path.is_dir() and "opt/scentd/releases" not in str(path)
    }


@pytest.mark.slow
def test_install_upgrade_and_uninstall_with_the_real_packages(
    tmp_path: Path, packages: Path, wheels: tuple[Path, Path]
) -> None:
    root = tmp_path / "root"
    older, newer = wheels
    # A hostile pip configuration of the user must have no effect.
    hostile = tmp_path / "pip.conf"
    hostile.write_text("[install]\nuser = true\nindex-url = http://127.0.0.1:9/\n", "utf-8")
    hostility = {"PIP_CONFIG_FILE": str(hostile), "PIP_TARGET": str(tmp_path / "elsewhere")}
    install(root, packages, older, "--rig", "kitchen", "--rig", "attic", **hostility)
    assert not (tmp_path / "elsewhere").exists()
    assert files(root) >= {
        "etc/systemd/system/scentd.service",
        "etc/systemd/system/scentd@.service",
        "etc/udev/rules.d/99-scentd.rules",
        "etc/scentd/kitchen/scentd.yaml",
        "etc/scentd/attic/scentd.yaml",
        "usr/local/bin/scentd",
        "opt/scentd/uninstall.sh",
    }
    verified = scentd(root, "models", "verify", "--json")
    assert {item["ok"] for item in json.loads(verified.stdout)} == {True}
    assert mode(root / "etc/scentd/kitchen/credentials") == stat.S_IRWXU

    config = root / "etc/scentd/kitchen/scentd.yaml"
    written = yaml.safe_load(config.read_text(encoding="utf-8"))
    assert (written["rig_id"], written["state_dir"]) == ("kitchen", "/var/lib/scentd-kitchen")
    config.write_text(config.read_text(encoding="utf-8") + "record: true\n", encoding="utf-8")
    outbox = root / "var/lib/scentd-kitchen/outbox.db"
    outbox.parent.mkdir(parents=True)
    outbox.write_bytes(b"undelivered messages")
    edited = config.read_bytes()
    first = (root / "opt/scentd/current").readlink()

    assert "is already installed" in install(root, packages, older)
    assert (root / "opt/scentd/current").readlink() == first

    install(root, packages, newer)
    assert (root / "opt/scentd/current").readlink() != first
    assert (root / "opt/scentd" / first).is_dir(), "the previous release is not kept"
    version = newer.name.split("-")[1]
    assert version in scentd(root, "--version").stdout
    assert config.read_bytes() == edited
    assert outbox.read_bytes() == b"undelivered messages"
    assert not (root / "etc/scentd/scentd.yaml").exists(), "a rig that was not requested"

    for _ in range(2):
        assert run(SYSTEMD / "uninstall.sh", "--root", root).returncode == 0
        assert not (root / "opt/scentd").exists()
        kept = {"etc/scentd/kitchen/scentd.yaml", "etc/scentd/attic/scentd.yaml"}
        assert files(root) == kept | {"var/lib/scentd-kitchen/outbox.db"}
    assert config.read_bytes() == edited
    assert run(SYSTEMD / "uninstall.sh", "--root", root, "--purge").returncode == 0
    assert files(root) == set()


@pytest.mark.slow
def test_a_checkout_is_built_and_installed_without_a_network(
    tmp_path: Path, packages: Path
) -> None:
    """And every place that the last line names exists."""
    root = tmp_path / "root"
    done = run(
        *(SYSTEMD / "install.sh", "--root", root, "--find-links", packages),
        *("--python", sys.executable),
        http_proxy="http://127.0.0.1:9",
        https_proxy="http://127.0.0.1:9",
    )
    assert done.returncode == 0, done.stderr
    assert "scentd" in scentd(root, "--version").stdout
    last = done.stderr.strip().splitlines()[-1]
    assert "was not started" in last
    assert "journalctl" not in last
    places = re.findall(rf"{root}[\w/]*", last)
    assert [Path(place).is_dir() for place in places] == [True, True, True]
    assert f"systemctl --root={root} enable scentd.service" in last
    if systemctl := shutil.which("systemctl"):
        assert run(systemctl, f"--root={root}", "enable", "scentd.service").returncode == 0
        wanted = root / "etc/systemd/system/multi-user.target.wants/scentd.service"
        assert wanted.is_symlink()


@pytest.mark.slow
def test_a_package_with_a_wrong_hash_is_refused_and_nothing_is_installed(
    tmp_path: Path, packages: Path, wheels: tuple[Path, Path]
) -> None:
    forged = shutil.copytree(packages, tmp_path / "forged")
    (victim,) = forged.glob("structlog-*.whl")
    with zipfile.ZipFile(victim, "a") as wheel:
        wheel.writestr("structlog/backdoor.py", "print('hello')")
    root = tmp_path / "root"
    done = run(
        *(SYSTEMD / "install.sh", "--root", root, "--find-links", forged),
        *("--python", sys.executable, "--wheel", wheels[0]),
    )
    assert done.returncode != 0
    assert "do not match the hashes" in done.stderr.lower()
    assert not any((root / "opt/scentd/releases").iterdir())
    assert not (root / "opt/scentd/current").is_symlink()


def test_a_32_bit_kernel_is_refused_with_the_reason(tmp_path: Path) -> None:
    other = shutil.which("setarch")
    if other is None or run(other, "linux32", "true").returncode != 0:
        pytest.skip("this kernel cannot imitate a 32-bit one (setarch linux32)")
    done = run(other, "linux32", SYSTEMD / "install.sh", "--root", tmp_path / "root")
    assert done.returncode == REFUSED
    assert "32-bit" in done.stderr
    assert "ONNX Runtime" in done.stderr
    assert files(tmp_path) == set()


def test_a_32_bit_system_on_a_64_bit_kernel_is_refused_with_the_reason(tmp_path: Path) -> None:
    """As on many a Raspberry Pi: only the interpreter shows it, not the kernel."""
    python = tmp_path / "python32"
    python.write_text("#!/bin/sh\necho 32\n", encoding="utf-8")
    python.chmod(0o755)
    done = run(SYSTEMD / "install.sh", "--root", tmp_path / "root", "--python", python)
    assert done.returncode == REFUSED
    assert "64-bit Raspberry Pi OS" in done.stderr


def test_a_second_installation_at_the_same_time_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "root" / "opt" / "scentd" / ".install.lock"
    lock.parent.mkdir(parents=True)
    wheel = tmp_path / "scentd-1-py3-none-any.whl"
    wheel.touch()
    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run(
            *(SYSTEMD / "install.sh", "--root", tmp_path / "root", "--wheel", wheel),
            *("--python", sys.executable),
        )
        removal = run(SYSTEMD / "uninstall.sh", "--root", tmp_path / "root")
    assert removal.returncode == done.returncode == REFUSED
    assert "an installation is under way" in removal.stderr
    assert "another installation is under way" in done.stderr
    assert [path.name for path in lock.parent.iterdir()] == [lock.name]


def test_beside_the_debian_package_nothing_is_installed(tmp_path: Path) -> None:
    packaged = tmp_path / "root" / "lib/systemd/system/scentd.service"
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    words = ("--root", tmp_path / "root", "--python", sys.executable)
    done = run(SYSTEMD / "install.sh", *words)
    assert done.returncode == REFUSED
    assert "sudo apt remove scentd" in done.stderr
    assert files(tmp_path) == {"root/lib/systemd/system/scentd.service"}


PYTHON_THAT_LOGS = """#!/bin/sh
case "$*" in
    *calcsize*) echo 64 ;;
    *"-m venv "*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
    *"-m pip "*) echo "$@" >>LOG; exit PIP ;;
    *"import prometheus_client"*) exit IMPORTED ;;
esac
"""


def write_fake_python(path: Path, log: Path, *, pip: int = 0, imported: int = 0) -> None:
    """Write a program in place of Python that logs calls of pip, with the exit status of each."""
    text = PYTHON_THAT_LOGS.replace("LOG", str(log)).replace("PIP", str(pip))
    path.write_text(text.replace("IMPORTED", str(imported)), encoding="utf-8")
    path.chmod(0o755)


def test_pip_trusts_the_authority_that_the_owner_names(tmp_path: Path) -> None:
    python, log, authority = tmp_path / "python", tmp_path / "log", tmp_path / "ca.pem"
    write_fake_python(python, log, pip=1)
    for path in (authority, tmp_path / "scentd-1-py3-none-any.whl"):
        path.touch()
    done = run(
        *(SYSTEMD / "install.sh", "--root", tmp_path / "root", "--ca", authority),
        *("--python", python, "--wheel", tmp_path / "scentd-1-py3-none-any.whl"),
    )
    assert done.returncode == REFUSED, done.stderr
    assert f"--cert {authority} install" in log.read_text()
    help_text = run(SYSTEMD / "install.sh", "--help").stdout
    assert "--ca FILE" in help_text


@pytest.mark.parametrize(
    "words",
    [("--rig", "../etc"), ("--wheel", "nowhere.whl"), ("--ca", "nowhere.pem"), ("--colour",)],
)
def test_wrong_use_prints_the_usage_and_changes_nothing(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = run(SYSTEMD / "install.sh", "--root", tmp_path / "root", *words)
    assert done.returncode == MISUSED
    assert "usage:" in done.stderr
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh"])
def test_help_shows_an_example(script: str) -> None:
    done = run(SYSTEMD / script, "--help")
    assert done.returncode == 0
    assert "Example: sudo " in done.stdout
