"""The units and the udev rule are valid, and allow nothing that the service does not need."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from daemon.config.loading import load_config
from tests.project.source_tree import ROOT

SYSTEMD = ROOT / "systemd"
UNITS = ("scentd.service", "scentd@.service")
HIGHEST_EXPOSURE = 1.3
INSTALLED = "/opt/scentd/current"
RULES = (SYSTEMD / "99-scentd.rules").read_text(encoding="utf-8")
BRIDGES = {"10c4:ea60", "1a86:7523", "1a86:55d4", "0403:6001", "303a:1001"}


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed: sudo apt install systemd")
    return subprocess.run([tool, *words], capture_output=True, text=True, check=False)


def settings(unit: str) -> list[str]:
    """Return the lines of a unit that are neither comments nor empty, in order."""
    lines = (SYSTEMD / unit).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture
def units(tmp_path: Path) -> Iterator[Path]:
    """Yield the units as installed, with an interpreter that exists."""
    program = tmp_path / "current" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    for unit in UNITS:
        text = (SYSTEMD / unit).read_text(encoding="utf-8")
        assert INSTALLED in text
        there = text.replace(INSTALLED, str(tmp_path / "current"))
        (tmp_path / unit).write_text(there, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_unit(units: Path, unit: str) -> None:
    done = analyze("verify", str(units / unit))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_check_detects_a_misspelt_setting(units: Path) -> None:
    unit = units / "scentd.service"
    text = unit.read_text(encoding="utf-8")
    unit.write_text(text.replace("ProtectHome=", "ProtectHouse="), encoding="utf-8")
    assert "ProtectHouse" in analyze("verify", str(unit)).stderr


@pytest.mark.parametrize("unit", UNITS)
def test_exposure_is_at_most_the_documented_one(units: Path, unit: str) -> None:
    threshold = f"--threshold={round(10 * HIGHEST_EXPOSURE)}"
    done = analyze("security", "--offline=true", threshold, str(units / unit))
    assert done.returncode == 0, done.stdout
    exposure = re.search(r"exposure level for scentd.*: ([0-9.]+)", done.stdout)
    assert exposure, done.stdout
    assert float(exposure[1]) <= HIGHEST_EXPOSURE


def test_the_unit_explains_every_setting_that_adds_exposure(units: Path) -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(units / "scentd.service"))
    costs = re.findall(r"^\N{BALLOT X} (\w+)=(?:/\w+=|~\(?(\w+)[^ ]*)?", done.stdout, re.MULTILINE)
    names = {family or setting for setting, family in costs}
    assert {"PrivateNetwork", "PrivateDevices"} <= names
    comments = "\n".join(
        line
        for line in (SYSTEMD / "scentd.service").read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    )
    unexplained = {name for name in names if not re.search(rf"\b{name}\b", comments)}
    assert not {name for name in unexplained if name != "AF_"}


def test_the_template_equals_the_unit_apart_from_its_folders() -> None:
    def plain(line: str) -> str:
        for name in ("/%i/", "-%i"):
            line = line.replace(name, "/" if name == "/%i/" else "")
        return re.sub(r"^Description=.*", "Description=", line)

    one, template = UNITS
    assert [plain(line) for line in settings(template)] == [plain(line) for line in settings(one)]
    folders = [line for line in settings(template) if "%i" in line]
    assert len(folders) == len([*filter(lambda line: "Directory=" in line, settings(one))]) + 3


def test_devices_are_allowed_by_class_and_not_by_path() -> None:
    allowed = [line for line in settings("scentd.service") if line.startswith("DeviceAllow=")]
    assert allowed == ["DeviceAllow=char-ttyUSB rw", "DeviceAllow=char-ttyACM rw"]
    # systemd does not know a class without a loaded driver, and would keep it forbidden.
    assert "modprobe@usbserial.service modprobe@cdc_acm.service" in "\n".join(
        line for line in settings("scentd.service") if line.startswith("Wants=")
    )


def test_the_udev_rule_is_well_formed() -> None:
    """Lines consist of matches and assignments, GOTOs lead forward, every chip is named twice."""
    part = r'[A-Z]+(?:\{[^}]+\})?(?:==|!=|\+=|=)"[^"]*"'
    labels, goals = [], []
    for number, line in enumerate(RULES.splitlines()):
        if not line or line.startswith("#"):
            continue
        assert re.fullmatch(rf"{part}(, {part})*", line), line
        labels += [(label, number) for label in re.findall(r'LABEL="(\w+)"', line)]
        goals += [(label, number) for label in re.findall(r'GOTO="(\w+)"', line)]
    places = dict(labels)
    assert all(places[label] > number for label, number in goals)
    assert {label for label, _ in goals} == set(places)
    for kind in (r'ATTR\{idVendor\}=="(\w+)", ATTR\{idProduct\}', r'ID_VENDOR_ID\}=="(\w+)", .*?'):
        chips = set()
        for vendor, products in re.findall(kind + r'=="([\w|]+)"', RULES):
            chips |= {f"{vendor}:{product}" for product in products.split("|")}
        assert chips >= BRIDGES, kind


def test_udev_accepts_the_rule() -> None:
    tool = shutil.which("udevadm")
    if tool is None:
        pytest.skip("udevadm is not installed: sudo apt install udev")
    known = subprocess.run([tool, "--help"], capture_output=True, text=True, check=False).stdout
    if "verify" not in known:
        pytest.skip("this udevadm is older than 254 and cannot verify rules")
    done = subprocess.run(
        [tool, "verify", str(SYSTEMD / "99-scentd.rules")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_modem_manager_and_brltty_ignore_the_board() -> None:
    for mark in (
        'ENV{ID_MM_DEVICE_IGNORE}="1"',
        'ENV{ID_MM_PORT_IGNORE}="1"',
        'ENV{BRLTTY_BRAILLE_DRIVER}=""',
        'ENV{SYSTEMD_WANTS}=="*brltty*", ENV{SYSTEMD_WANTS}=""',
    ):
        assert f"\n{mark}\n" in RULES


def test_the_installed_configuration_is_valid(tmp_path: Path) -> None:
    config = load_config(SYSTEMD / "scentd.yaml", {})
    assert config.source.port == "/dev/scent/board"
    assert 'SYMLINK+="scent/board"' in RULES
    text = (SYSTEMD / "scentd.yaml").read_text(encoding="utf-8")
    whole = tmp_path / "scentd.yaml"
    whole.write_text(
        re.sub(r"^(\s*)# (username|password_file|tls)", r"\1\2", text, flags=re.MULTILINE)
    )
    mqtt = load_config(whole, {}).mqtt
    assert mqtt.password_file == tmp_path / "credentials" / "mqtt-password"
    assert set(yaml.safe_load(text)) == {"rig_id", "source", "models", "mqtt", "state_dir"}


def test_every_installed_package_is_pinned_with_hashes() -> None:
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in ("requirements.txt", "requirements-web.txt", "build-requirements.txt"):
        text = (SYSTEMD / name).read_text(encoding="utf-8")
        packages = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
        for package in packages:
            assert re.match(r"[a-z0-9-]+==[0-9.]+ ", package), package
            assert "--hash=sha256:" in package
        assert "://" not in text
    pinned = set(
        re.findall(r"^([a-z0-9-]+)==", (SYSTEMD / "requirements.txt").read_text(), re.MULTILINE)
    )
    block = re.search(r"^dependencies = \[\n(.*?)^\]", declared, re.MULTILINE | re.DOTALL)
    assert block
    assert set(re.findall(r'"([a-z0-9-]+)[<>=]', block[1])) <= pinned
