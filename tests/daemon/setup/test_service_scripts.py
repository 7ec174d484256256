"""Whether the service could run an environment: readable, and not hidden by the unit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daemon.setup import service_scripts
from daemon.setup.service_scripts import SCRIPTS, UnusableEnvironmentError, check_usable


def test_the_interpreter_of_the_system_can_be_used() -> None:
    program = Path("/usr/bin/env")
    if any(not folder.stat().st_mode & 0o001 for folder in program.parents):
        pytest.skip("other users may not enter /usr/bin here")
    check_usable(program)


def test_an_environment_that_the_units_hide_is_refused() -> None:
    for folder in ("/root", "/home"):
        with pytest.raises(UnusableEnvironmentError, match="sudo python3 -m venv /opt/"):
            check_usable(Path(folder, "smell", "bin", "python"))
    unit = (SCRIPTS / "scentd.service").read_text(encoding="utf-8")
    assert {"ProtectHome=yes", "PrivateTmp=yes"} <= set(unit.splitlines())


def test_an_environment_that_links_to_a_hidden_interpreter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "home" / "python"
    real.parent.mkdir()
    real.touch()
    link = tmp_path / "python"
    link.symlink_to(real)
    monkeypatch.setattr(service_scripts, "HIDDEN", (str(real.parent),))
    with pytest.raises(UnusableEnvironmentError, match=re.escape(f"may not enter {real.parent}.")):
        check_usable(link)


def test_an_environment_in_a_closed_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_scripts, "HIDDEN", ())
    folder = tmp_path / "closed" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").touch()
    folder.parent.chmod(0o700)
    with pytest.raises(UnusableEnvironmentError, match="may not enter"):
        check_usable(folder / "python")
