"""`scentd web` with several rigs on one computer: each shows its own recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.commands.web import _load_rigs
from hardware.errors import UsageError


def written(folder: Path, rig: str) -> Path:
    path = folder / f"{rig}.yaml"
    path.write_text(
        f"rig_id: {rig}\nsource: {{port: ./board}}\nmodels: [substances-50]\n"
        f"mqtt: {{host: 127.0.0.1}}\nstate_dir: ./{rig}\n"
    )
    return path


def test_each_rig_has_the_folder_of_its_own_configuration(tmp_path: Path) -> None:
    rigs = _load_rigs(written(tmp_path, "kitchen"), [written(tmp_path, "attic")])
    assert {rig: config.state_dir.name for rig, (config, _) in rigs.items()} == {
        "kitchen": "kitchen",
        "attic": "attic",
    }


def test_another_rig_that_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "attic.yaml").write_text("rig_id: [")
    rigs = _load_rigs(written(tmp_path, "kitchen"), [tmp_path / "attic.yaml"])
    assert list(rigs) == ["kitchen"]
    assert "attic.yaml" in capsys.readouterr().err


def test_two_configurations_of_one_rig_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "kitchen")
    with pytest.raises(UsageError, match="both of rig 'kitchen'"):
        _load_rigs(path, [path])
