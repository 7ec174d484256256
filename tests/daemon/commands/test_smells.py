"""`scentd smells export|import`: files of taught smells, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calibration.smell_store import SmellStore
from daemon.cli import main
from tests.calibration.smells import exposed_values, teachable_bundle, write_recording

if TYPE_CHECKING:
    from models.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return teachable_bundle(tmp_path_factory.mktemp("model"))


def taught(folder: Path, bundle: Bundle, label: str, *, level: float = 0.0, seed: int = 0) -> Path:
    """Return a state folder that was taught a smell above clean air; the air lies at a level."""
    folder.mkdir(exist_ok=True)
    recording = write_recording(folder / f"{label}-{level}-{seed}.csv", exposed_values(level, seed))
    state = folder / f"{label}-state"
    SmellStore(state, [bundle]).enroll(label, recording, source="test", start_ms=90_000)
    return state


def config(folder: Path, bundle: Bundle, rig: str) -> Path:
    path = folder / f"{rig}.yaml"
    path.write_text(
        f"rig_id: {rig}\nsource: {{port: /dev/x}}\nmodels: [{bundle.folder}]\n"
        f"mqtt: {{host: 127.0.0.1, port: 9}}\nstate_dir: {rig}-state\n",
        encoding="utf-8",
    )
    return path


def smells(*arguments: object) -> int:
    return main(["smells", *map(str, arguments)])


def test_a_rig_is_moved_to_a_new_state_folder_under_its_name(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught(tmp_path, bundle, "soap")
    rig, file = config(tmp_path, bundle, "soap"), tmp_path / "soap.zip"
    assert smells("export", file, "--config", rig) == 0
    assert "1 smell written" in capsys.readouterr().out
    (tmp_path / "soap-state").rename(tmp_path / "put-away")
    assert smells("import", file, "--config", rig) == 0
    printed = capsys.readouterr().out
    assert "from rig soap" in printed
    assert "1 exposure taken" in printed
    assert "in shadow" in printed
    assert smells("import", file, "--config", rig) == 0
    assert "1 taught here already" in capsys.readouterr().out


def test_check_says_whether_a_file_fits_and_changes_nothing(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught(tmp_path, bundle, "soap")
    attic = taught(tmp_path, bundle, "tea", level=2.5)
    file = tmp_path / "soap.zip"
    assert smells("export", file, "--config", config(tmp_path, bundle, "soap")) == 0
    capsys.readouterr()
    rig = config(tmp_path, bundle, "tea")
    assert smells("import", file, "--config", rig, "--check") == 1
    printed = capsys.readouterr().out
    assert "another board's" in printed
    assert "It would be refused" in printed
    assert smells("import", file, "--config", rig, "--check", "--json", "--other-board") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["same_board"], answer["problem"]) == (False, None)
    assert answer["origin"]["rig"] == "soap"
    assert "soap" not in SmellStore(attic, [bundle]).smells()
    assert smells("import", file, "--config", rig) == 1
    assert "--other-board" in capsys.readouterr().err
    assert smells("import", file, "--config", rig, "--other-board") == 0
    printed = capsys.readouterr().out
    assert "may not fit" in printed
    assert "of another board" in printed


def test_smells_of_one_name_need_a_choice(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, file = taught(tmp_path / "a", bundle, "soap"), tmp_path / "soap.zip"
    second = taught(tmp_path / "b", bundle, "soap", seed=1)
    assert smells("export", file, "--state", first) == 0
    assert smells("import", file, "--state", second) == 1
    assert "--merge" in capsys.readouterr().err
    assert smells("import", file, "--state", second, "--rename", "soap") == 2
    assert "LABEL=NAME" in capsys.readouterr().err
    assert smells("import", file, "--state", second, "--rename", "soap=soap_a") == 0
    assert "soap as soap_a" in capsys.readouterr().out
    assert main(["enroll", "--import", str(file), "--state", str(second)]) == 0
    assert "1 taught here already" in capsys.readouterr().out
