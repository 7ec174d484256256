"""The Debian package, as far as it can be tested without building it: `make test-deb` does that.

The maintainer scripts run with the paths of a scratch root in place of those of the system.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project.source_tree import ROOT
from tests.systemd.test_install import MISUSED, files, run

PACKAGING = ROOT / "packaging"
DEBIAN = PACKAGING / "debian"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def run_script(name: str, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a maintainer script on a scratch root."""
    text = (DEBIAN / f"scentd.{name}").read_text(encoding="utf-8")
    script = root.parent / name
    script.write_text(re.sub(r"(?<![\w.}])/(?=(etc|opt|var)/)", f"{root}/", text), encoding="utf-8")
    return run("sh", script, *words)


@pytest.mark.parametrize("name", SCRIPTS)
def test_maintainer_scripts_are_valid_and_stop_at_the_first_failure(name: str) -> None:
    path = DEBIAN / f"scentd.{name}"
    assert run("sh", "-n", path).returncode == 0
    text = path.read_text(encoding="utf-8")
    assert "\nset -e\n" in text
    assert "\n#DEBHELPER#\n" in text


def owned(root: Path) -> None:
    """Create what an owner of two rigs has, and a file of another package."""
    for name in (
        "etc/scentd/scentd.yaml",
        "etc/scentd/attic/scentd.yaml",
        "etc/scentd/credentials/mqtt-password",
        "etc/systemd/system/scentd.service.d/override.conf",
        "etc/systemd/system/scentd@attic.service.d/override.conf",
        "etc/systemd/system/multi-user.target.wants/scentd@attic.service",
        "var/lib/private/scentd/outbox.db",
        "var/lib/private/scentd-attic/outbox.db",
        "var/log/private/scentd/log",
        "var/lib/private/other/kept",
        "etc/other/kept",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for rig in ("scentd", "scentd-attic"):
        (root / "var/lib" / rig).symlink_to(f"private/{rig}")


def test_removal_keeps_configuration_and_state_and_a_purge_removes_both(tmp_path: Path) -> None:
    root = tmp_path / "root"
    owned(root)
    before = files(root)
    for action in ("upgrade", "failed-upgrade", "abort-install"):
        assert run_script("postrm", root, action).returncode == 0
        assert files(root) == before
    assert run_script("postrm", root, "remove").returncode == 0
    links = {"etc/systemd/system/multi-user.target.wants/scentd@attic.service"}
    assert files(root) == before - links
    assert run_script("postrm", root, "purge").returncode == 0
    assert files(root) == {"var/lib/private/other/kept", "etc/other/kept"}
    assert not list((root / "var/lib").glob("scentd*")), "a link to removed state"


def test_a_purge_removes_what_the_purge_of_the_uninstaller_removes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    owned(root)
    assert run(ROOT / "systemd" / "uninstall.sh", "--root", root, "--purge").returncode == 0
    left = files(root)
    assert run_script("postrm", root, "purge").returncode == 0
    assert files(root) == left


def test_the_package_does_not_mix_with_what_the_installer_put(tmp_path: Path) -> None:
    root = tmp_path / "root"
    current = root / "opt/scentd/current"
    current.parent.mkdir(parents=True)
    assert run_script("preinst", root, "install").returncode == 0
    current.symlink_to("releases/1")
    done = run_script("preinst", root, "install")
    assert done.returncode == 1
    assert "sudo" in done.stderr
    assert "uninstall.sh" in done.stderr


def test_the_units_name_the_interpreter_of_the_package() -> None:
    environment = "/opt/scentd/current"
    built = (PACKAGING / "build-deb").read_text(encoding="utf-8")
    assert f"environment=$root{environment}\n" in built
    for unit in (ROOT / "systemd").glob("*.service"):
        assert f"\nExecStart={environment}/bin/python -I " in unit.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "script",
    [
        "packaging/build-deb",
        "packaging/try-deb",
        "packaging/try-deb-booted",
        "packaging/wheels",
        "tests/arm64/run",
    ],
)
def test_scripts_explain_themselves_and_refuse_wrong_use(script: str) -> None:
    path = ROOT / script
    assert run("bash", "-n", path).returncode == 0
    helped = run(path, "--help")
    assert helped.returncode == 0
    assert "Example: " in helped.stdout
    assert run(path, "--colour").returncode == MISUSED


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="there is no dpkg: sudo apt install dpkg")
def test_processors_and_releases_without_a_package_are_refused() -> None:
    for words, reason in (
        (("--arch", "armhf"), "ONNX Runtime"),
        (("--debian", "11"), "Debian 12 or 13"),
    ):
        done = run(PACKAGING / "build-deb", *words)
        assert done.returncode == MISUSED
        assert reason in done.stderr


def test_what_the_package_adds_for_the_demo_is_pinned_and_nothing_twice() -> None:
    def pinned(path: Path) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+)==.*\\\n    --hash=", path.read_text(), re.MULTILINE))

    own = {name: pinned(PACKAGING / f"requirements-{name}.txt") for name in ("demo", "build")}
    assert own == {"demo": {"rich"}, "build": {"argparse-manpage"}}
    others = pinned(ROOT / "systemd/requirements.txt") | pinned(
        ROOT / "systemd/requirements-web.txt"
    )
    assert not (own["demo"] | own["build"]) & others
