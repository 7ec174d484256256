"""Commands that root runs act as the owner of the state folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.system.owner import acting_as_owner, with_own_rights
from hardware.file_owner import other_owner
from hardware.files import write_atomically
from models.manifest import write_bundle
from tests.models.toys import toy_files, toy_manifest
from tests.sandbox import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")

CONFIG = """\
rig_id: kitchen
source: {port: /dev/ttyNONE}
models: [substances-50]
mqtt: {host: localhost, port: 1}
"""

OWNER = 54_321
"""Of no account: nothing on a computer belongs to this user."""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """Return a state folder of another user, below a folder that this user may not enter."""
    tmp_path.chmod(0o700)
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, OWNER, OWNER)
    yield folder
    assert (os.geteuid(), os.getegid()) == (0, 0)


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


def test_what_root_writes_belongs_to_the_owner_of_the_folder(state: Path) -> None:
    with acting_as_owner(state) as reached:
        assert os.geteuid() == OWNER
        write_atomically(reached / "models" / "active.json", b"{}")
    assert owners(state) == {OWNER}
    assert (state / "models" / "active.json").read_bytes() == b"{}"


def test_a_link_reaches_what_the_owner_can_reach_and_no_more(state: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"root's")
    secret.chmod(0o600)
    (state / "link").symlink_to(secret)
    with acting_as_owner(state) as reached, pytest.raises(PermissionError):
        (reached / "link").write_bytes(b"taken")
    assert secret.read_bytes() == b"root's"


def test_root_has_its_own_rights_for_what_it_names_itself(state: Path, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o600)
    groups = os.getgroups()
    with acting_as_owner(state):
        with with_own_rights():
            assert (os.geteuid(), os.getgroups()) == (0, groups)
            assert password.read_text() == "secret"
        assert os.geteuid() == OWNER
    assert os.getgroups() == groups


def test_the_owner_is_whoever_can_change_a_part_of_the_path(state: Path, tmp_path: Path) -> None:
    assert other_owner(tmp_path) is None
    inside = state / "of-root"
    inside.mkdir()
    owner = other_owner(inside)
    assert owner is not None
    assert (owner.uid, owner.name) == (OWNER, str(OWNER))
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    os.chown(link, OWNER, OWNER, follow_symlinks=False)
    assert other_owner(link) == owner


def scentd(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon.cli", *words],
        cwd=ROOT,
        env={**os.environ, "SCENTD_STATE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def install(tmp_path: Path) -> list[str]:
    """Return the words of a command that installs a model which only root may read."""
    model = tmp_path / "made" / "substances-50"
    files = toy_files("substance")
    write_bundle(model, toy_manifest(name="substances-50", version="9.9"), files)
    (tmp_path / "made").chmod(0o700)
    config = tmp_path / "rig.yaml"
    config.write_text(CONFIG)
    return ["models", "install", str(model), "--config", str(config)]


def test_a_model_that_root_installs_belongs_to_the_owner(state: Path, install: list[str]) -> None:
    done = scentd(state, *install)
    assert done.returncode == 0, done.stderr
    assert (state / "models" / "substances-50" / "9.9" / "model.onnx").exists()
    assert owners(state) == {OWNER}


def test_root_gives_no_other_place_away_and_empties_no_file(
    state: Path, install: list[str], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("kept")
    (state / "models").symlink_to(elsewhere)
    done = scentd(state, *install)
    assert done.returncode == 1
    assert "models is a link" in done.stderr
    (state / "models").unlink()
    (state / "models").mkdir()
    os.chown(state / "models", OWNER, OWNER)
    (state / "models" / ".lock").symlink_to(elsewhere / "file")
    done = scentd(state, *install)
    assert done.returncode == 1
    assert ".lock is a link" in done.stderr
    assert (elsewhere / "file").read_text() == "kept"
    assert owners(elsewhere) == {0}


def test_a_state_folder_behind_a_link_of_another_user_is_refused(
    state: Path, install: list[str], tmp_path: Path
) -> None:
    (state / "here").symlink_to(tmp_path / "made")
    done = scentd(state / "here", *install)
    assert done.returncode == 1
    assert "root follows no path that another user can change" in done.stderr
    assert owners(tmp_path / "made") == {0}


def test_the_service_is_not_started_with_roots_rights_in_anothers_folder(
    state: Path, install: list[str]
) -> None:
    *_, config = install
    done = scentd(state, "run", "--config", config)
    assert done.returncode == 1
    assert f"belongs to user {OWNER}" in done.stderr
    assert list(state.iterdir()) == []
