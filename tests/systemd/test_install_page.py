"""`install.sh --web` installs the page, an upgrade keeps it, and `uninstall.sh` removes it.

In the fast tests a program takes the place of Python and logs the calls of pip; in the slow one the
pinned packages are installed and the page answers.
"""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from daemon.commands.web import EXTRA
from tests.sandbox import free_port, wait_until
from tests.systemd.test_install import (
    REFUSED,
    SYSTEMD,
    files,
    install,
    packages,
    run,
    wheels,
    write_fake_python,
)

__all__ = ["packages", "wheels"]  # fixtures

PAGE_UNITS = {"etc/systemd/system/scentd-web.service", "etc/systemd/system/scentd-web.socket"}
pytestmark = pytest.mark.timeout(900)


class Installer:
    """The installer below a scratch root, with a program in place of Python."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.log = folder / "log"
        self._folder = folder
        self._python = folder / "python"
        self.let_import(succeed=True)

    def let_import(self, *, succeed: bool) -> None:
        """Let the packages of the page be usable, or not."""
        write_fake_python(self._python, self.log, imported=0 if succeed else 1)

    def __call__(self, *words: str, version: str = "1") -> subprocess.CompletedProcess[str]:
        wheel = self._folder / f"scentd-{version}-py3-none-any.whl"
        wheel.write_text(version, encoding="utf-8")
        self.log.write_text("", encoding="utf-8")
        return run(
            *(SYSTEMD / "install.sh", "--root", self.root, "--python", self._python),
            *("--wheel", wheel, *words),
        )

    def installs_packages_of_the_page(self) -> bool:
        """Return whether the last run let pip install them, by their hashes."""
        calls = [line for line in self.log.read_text().splitlines() if "-web.txt" in line]
        return any("install" in call and "--require-hashes" in call for call in calls)

    def unit(self, name: str) -> str:
        return (self.root / "etc/systemd/system" / name).read_text(encoding="utf-8")


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    return Installer(tmp_path)


def test_the_page_comes_only_when_it_is_asked_for(installer: Installer) -> None:
    done = installer()
    assert done.returncode == 0, done.stderr
    assert not installer.installs_packages_of_the_page()
    assert not files(installer.root) & PAGE_UNITS
    assert "scentd-web" not in done.stderr
    without = (installer.root / "opt/scentd/current").readlink()

    done = installer("--web")
    assert done.returncode == 0, done.stderr
    assert installer.installs_packages_of_the_page()
    assert files(installer.root) >= PAGE_UNITS
    assert done.stderr.rstrip().endswith("enable scentd.service scentd-web.socket")
    assert (installer.root / "opt/scentd/current").readlink() != without
    for unit in PAGE_UNITS:
        assert (installer.root / unit).read_text() == (SYSTEMD / Path(unit).name).read_text()


def test_an_upgrade_keeps_the_page(installer: Installer) -> None:
    assert installer("--web").returncode == 0
    (installer.root / "etc/systemd/system/scentd-web.service").write_text("older")
    done = installer(version="2")
    assert done.returncode == 0, done.stderr
    assert installer.installs_packages_of_the_page()
    assert "scentd-web.socket" in done.stderr
    assert "ExecStart=" in installer.unit("scentd-web.service")
    assert "is already installed" in installer(version="2").stderr


def test_packages_that_cannot_be_used_change_nothing(installer: Installer) -> None:
    assert installer().returncode == 0
    before = (installer.root / "opt/scentd/current").readlink()
    installer.let_import(succeed=False)
    done = installer("--web", version="2")
    assert done.returncode == REFUSED
    assert "packages of the page" in done.stderr
    assert (installer.root / "opt/scentd/current").readlink() == before
    assert not files(installer.root) & PAGE_UNITS


def test_where_rigs_have_names_the_page_keeps_the_first_and_reads_all(
    installer: Installer,
) -> None:
    def check(*others: str) -> None:
        unit = installer.unit("scentd-web.service")
        also = "".join(f" --also /etc/scentd/{rig}/scentd.yaml" for rig in others)
        folders = " ".join(f"scentd-{rig}" for rig in ("kitchen", *others))
        assert f"--config /etc/scentd/kitchen/scentd.yaml{also}\n" in unit
        assert "\nLoadCredential=scentd:/etc/scentd/kitchen/credentials\n" in unit
        assert f"\nStateDirectory={folders}\n" in unit
        assert "\nAfter=network.target scentd@kitchen.service\n" in unit

    assert installer("--rig", "kitchen", "--rig", "lab", "--web").returncode == 0
    check("lab")
    assert installer("--rig", "attic", version="2").returncode == 0
    check("attic", "lab")


def test_a_named_rig_beside_the_unnamed_one_is_read_too(installer: Installer) -> None:
    assert installer("--web").returncode == 0
    assert installer("--rig", "attic", version="2").returncode == 0
    unit = installer.unit("scentd-web.service")
    assert "--config /etc/scentd/scentd.yaml --also /etc/scentd/attic/scentd.yaml\n" in unit
    assert "\nStateDirectory=scentd scentd-attic\n" in unit


def test_uninstalling_removes_the_page_and_its_links(installer: Installer) -> None:
    assert installer("--web").returncode == 0
    system = installer.root / "etc/systemd/system"
    (system / "sockets.target.wants").mkdir()
    (system / "sockets.target.wants/scentd-web.socket").symlink_to("../scentd-web.socket")
    own = system / "scentd-web.socket.d/override.conf"
    own.parent.mkdir()
    own.write_text("[Socket]\n")
    assert run(SYSTEMD / "uninstall.sh", "--root", installer.root).returncode == 0
    assert files(installer.root) == {
        "etc/scentd/scentd.yaml",
        "etc/systemd/system/scentd-web.socket.d/override.conf",
    }
    assert run(SYSTEMD / "uninstall.sh", "--root", installer.root, "--purge").returncode == 0
    assert files(installer.root) == set()


def test_what_the_page_imports_is_pinned_and_nothing_twice() -> None:
    def pinned(name: str) -> set[str]:
        text = (SYSTEMD / name).read_text(encoding="utf-8")
        return set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))

    page = pinned("requirements-web.txt")
    assert {name.replace("_", "-") for name in EXTRA} <= page
    assert not page & pinned("requirements.txt")


@pytest.mark.slow
def test_the_page_answers_from_the_pinned_packages(
    tmp_path: Path, packages: Path, wheels: tuple[Path, Path]
) -> None:
    root = tmp_path / "root"
    install(root, packages, wheels[0], "--web")
    config, port = tmp_path / "scentd.yaml", free_port()
    rig = {"rig_id": "rig", "source": {"port": "./board"}, "models": ["substances-50"]}
    broker = {"host": "127.0.0.1", "port": free_port()}
    config.write_text(json.dumps({**rig, "mqtt": broker, "state_dir": "state"}))
    program = root / "opt/scentd/current/bin/python"
    words = ("web", "--config", config, "--listen", f"127.0.0.1:{port}")

    def status() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return 0

    with subprocess.Popen([program, "-I", "-m", "scentd", *words]) as process:
        try:
            wait_until(lambda: status() == 503, "the page")  # no broker
        finally:
            process.terminate()
    assert process.returncode == 0
