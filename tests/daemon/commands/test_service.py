"""`scentd service` adds this environment to a scratch root as a service, and removes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from daemon.cli import main
from daemon.setup.service_scripts import PACKAGED_UNIT, SCRIPTS
from tests.systemd.test_install import files

UNITS = {f"etc/systemd/system/scentd{name}" for name in (".service", "@.service")}
PAGE = {f"etc/systemd/system/scentd-web{name}" for name in (".service", ".socket")}
CONFIG = "etc/scentd/scentd.yaml"


def service(root: Path, action: str, *options: str) -> int:
    return main(["service", action, "--root", str(root), *options])


def test_install_puts_units_that_run_this_environment(tmp_path: Path) -> None:
    assert service(tmp_path, "install") == 0
    rule, command = "etc/udev/rules.d/99-scentd.rules", "usr/local/bin/scentd"
    assert files(tmp_path) == UNITS | PAGE | {CONFIG, rule, command}
    for name in ("scentd.service", "scentd@.service", "scentd-web.service"):
        text = (tmp_path / "etc/systemd/system" / name).read_text(encoding="utf-8")
        unit = (SCRIPTS / name).read_text(encoding="utf-8")
        assert text == unit.replace("/opt/scentd/current/bin/python", sys.executable)
        assert f"\nExecStart={sys.executable} -I " in text
    assert f"exec {sys.executable} -I -m scentd" in (tmp_path / command).read_text()


def test_installing_again_keeps_the_configuration_and_adds_rigs(tmp_path: Path) -> None:
    assert service(tmp_path, "install") == 0
    config = tmp_path / CONFIG
    config.write_text(config.read_text(encoding="utf-8") + "record: true\n", encoding="utf-8")
    edited = config.read_bytes()
    assert service(tmp_path, "install", "--rig", "attic") == 0
    assert config.read_bytes() == edited
    attic = yaml.safe_load((tmp_path / "etc/scentd/attic/scentd.yaml").read_text())
    assert (attic["rig_id"], attic["state_dir"]) == ("attic", "/var/lib/scentd-attic")


def test_the_page_is_served_only_where_its_packages_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.commands.service.find_spec", lambda _name: None)
    assert service(tmp_path, "install") == 0
    assert not files(tmp_path) & PAGE


def test_an_environment_inside_the_root_is_named_by_its_place_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "opt/smell/bin/python"))
    assert service(tmp_path, "install") == 0
    unit = (tmp_path / "etc/systemd/system/scentd.service").read_text(encoding="utf-8")
    assert "\nExecStart=/opt/smell/bin/python -I " in unit


def test_uninstall_keeps_configuration_and_state_unless_purged(tmp_path: Path) -> None:
    assert service(tmp_path, "install") == 0
    environment = tmp_path / "opt/scentd/mine/bin/python"
    state = tmp_path / "var/lib/scentd/outbox.db"
    for path in (environment, state):
        path.parent.mkdir(parents=True)
        path.touch()
    mine = str(environment.relative_to(tmp_path))
    assert service(tmp_path, "uninstall") == 0
    assert files(tmp_path) == {CONFIG, mine, "var/lib/scentd/outbox.db"}
    assert service(tmp_path, "uninstall", "--purge") == 0
    assert files(tmp_path) == {mine}


def test_beside_the_debian_package_only_its_own_environment_adds_rigs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    packaged = tmp_path / PACKAGED_UNIT
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    assert service(tmp_path, "install") == 1
    assert "the Debian package scentd is installed" in capfd.readouterr().err
    assert service(tmp_path, "uninstall") == 1
    assert "sudo apt remove scentd" in capfd.readouterr().err

    monkeypatch.setattr(sys, "executable", str(tmp_path / "opt/scentd/current/bin/python"))
    assert service(tmp_path, "install", "--rig", "attic") == 0
    assert not files(tmp_path) & UNITS
    assert "etc/scentd/attic/scentd.yaml" in files(tmp_path)
