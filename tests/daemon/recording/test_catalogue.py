"""The recordings' folder: looked at, labelled, cut and exported, and never left."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.cli import main
from daemon.recording.catalogue import Catalogue, CatalogueError
from hardware.encoding import encode_csv
from hardware.errors import UsageError
from hardware.recording import read_recording
from hardware.recording_labels import LabelledStretch, LabelsError
from hardware.recording_rows import OWN_HEADER, RowsError
from training.data.dataset import load_substances

if TYPE_CHECKING:
    from collections.abc import Callable

SEGMENT = "r000001-0001-20260131T120000Z.live.csv"
NEXT = "r000001-0002-20260131T130000Z.live.csv"
NAN = float("nan")


def write(path: Path, seconds: range, level: float = 300.0) -> Path:
    rows = [encode_csv([level + t, *[300.0] * 10, NAN], 1000 * t) for t in seconds]
    content = OWN_HEADER + b"".join(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    folder = tmp_path / "state" / "recordings"
    write(folder / f"{SEGMENT}.gz", range(200))
    write(folder / NEXT, range(200, 400))
    (folder / "notes.txt").write_text("no recording")
    (folder / ".lock").write_text("")
    return Catalogue(folder)


def test_recordings_are_listed_newest_first_with_labels(catalogue: Catalogue) -> None:
    catalogue.label(SEGMENT, 60_000, 120_000, "tea", "page")
    newest, oldest = catalogue.list()
    assert (newest.name, oldest.name) == (NEXT, f"{SEGMENT}.gz")
    assert (oldest.session, oldest.is_segment) == ("2026-01-31", True)
    assert oldest.labels.stretches == (LabelledStretch(60_000, 120_000, "tea", "page"),)
    assert newest.labels.stretches == ()
    assert Catalogue(Path("/nowhere/at/all")).list() == []


def test_a_curve_has_few_points_and_no_absent_channel(catalogue: Catalogue) -> None:
    curve = catalogue.curve(SEGMENT, 10)
    assert (curve.first_ms, curve.last_ms, curve.readings) == (0, 199_000, 200)
    assert len(curve.t_ms) == 10
    assert curve.channels["NO2"][0] == pytest.approx(309.5)
    assert "Altitude" not in curve.channels
    part = catalogue.curve(SEGMENT, 1000, start_ms=10_000, end_ms=12_000)
    assert part.channels["NO2"] == (310, 311, 312)


@pytest.mark.parametrize(
    "name", ["../secret.csv", "/etc/passwd", "notes.txt", "no.csv", "", "a" * 9999, ".lock"]
)
def test_no_name_leads_out_of_the_folder(catalogue: Catalogue, name: str) -> None:
    write(catalogue.folder.parent / "secret.csv", range(5))
    with pytest.raises(CatalogueError, match="no recording"):
        catalogue.curve(name)
    if name not in ("no.csv", ""):
        with pytest.raises(UsageError):
            catalogue.cut(SEGMENT, 0, 9000, name)


def test_a_link_is_no_recording(catalogue: Catalogue) -> None:
    secret = write(catalogue.folder.parent / "secret.csv", range(5))
    (catalogue.folder / "link.csv").symlink_to(secret)
    assert "link.csv" not in [item.name for item in catalogue.list()]
    with pytest.raises(CatalogueError):
        catalogue.curve("link.csv")


def test_a_cut_keeps_times_and_labels_and_overwrites_nothing(catalogue: Catalogue) -> None:
    catalogue.label(SEGMENT, 60_000, 120_000, "tea")
    name = catalogue.cut(SEGMENT, 100_000, 150_000)
    curve = catalogue.curve(name)
    assert (curve.first_ms, curve.last_ms) == (100_000, 150_000)
    assert catalogue.labels(name).stretches == (LabelledStretch(100_000, 120_000, "tea"),)
    with pytest.raises(CatalogueError, match="exists already"):
        catalogue.cut(SEGMENT, 100_000, 150_000)
    with pytest.raises(CatalogueError, match="no readings"):
        catalogue.cut(SEGMENT, 900_000, 950_000)
    assert [item.session for item in catalogue.list()] == ["2026-01-31"] * 3


def test_labels_are_removed_and_wrong_stretches_refused(catalogue: Catalogue) -> None:
    catalogue.label(SEGMENT, 60_000, 120_000, "tea")
    assert catalogue.label(SEGMENT, 0, 90_000, None).stretches[0].start_ms == 90_000
    with pytest.raises(LabelsError, match="ends after"):
        catalogue.label(SEGMENT, 50, 50, "tea")
    with pytest.raises(UsageError):
        catalogue.label(SEGMENT, 0, 50, "x" * 10_000)


def test_an_export_is_what_the_trainer_reads(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.label(SEGMENT, 70_000, 120_000, "tea / milk")
    catalogue.label(NEXT, 300_000, 350_000, "coffee")
    exported = catalogue.export(tmp_path / "data")
    assert exported.files == {
        "tea _ milk/2026-01-31/r000001-0001-20260131T120000Z-70000.csv": 111,
        "coffee/2026-01-31/r000001-0001-20260131T120000Z-300000.csv": 111,
    }
    data = load_substances(tmp_path / "data")
    assert {sample.session for sample in data.samples} == {"2026-01-31"}
    assert len(read_recording(tmp_path / "data" / next(iter(exported.files)))) == 111


def test_the_trainer_reads_the_same_from_the_folder_itself(catalogue: Catalogue) -> None:
    catalogue.label(SEGMENT, 70_000, 120_000, "tea")
    catalogue.label(NEXT, 300_000, 350_000, "coffee")
    catalogue.label(NEXT, 380_000, 390_000, "tea")
    write(catalogue.folder / "loose.csv", range(50))
    data = load_substances(catalogue.folder)
    assert data.labels == ("coffee", "tea")
    assert [(s.name.partition("#")[2], len(s.values), s.session) for s in data.samples] == [
        ("300000-350000", 111, "2026-01-31"),
        ("380000-390000", 40, "2026-01-31"),
        ("70000-120000", 111, "2026-01-31"),
    ]
    assert len({sample.sha256 for sample in data.samples}) == 3
    loose, partly = data.notices
    assert "loose.csv" in loose
    assert "3 labelled stretches" in partly
    assert "the rest is left out" in partly


def test_a_stretch_that_goes_on_in_the_next_segment_is_exported_as_one(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    for name in (SEGMENT, NEXT):
        catalogue.label(name, 150_000, 250_000, "tea")
    exported = catalogue.export(tmp_path / "data")
    assert exported.files == {"tea/2026-01-31/r000001-0001-20260131T120000Z-150000.csv": 161}
    assert len(load_substances(catalogue.folder).samples) == 1


def test_nothing_labelled_is_nothing_to_export(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="Nothing is labelled"):
        catalogue.export(tmp_path / "data")


def test_a_foreign_file_is_refused_and_still_listed(catalogue: Catalogue) -> None:
    (catalogue.folder / "foreign.csv").write_text("time,co\n1,2\n")
    assert "foreign.csv" in [item.name for item in catalogue.list()]
    with pytest.raises(RowsError, match="data import"):
        catalogue.curve("foreign.csv")


def test_a_removed_recording_takes_its_labels_with_it(catalogue: Catalogue) -> None:
    catalogue.label(SEGMENT, 60_000, 120_000, "tea")
    catalogue.remove(SEGMENT)
    assert [path.name for path in catalogue.folder.glob("r*")] == [NEXT]


def test_numpy_is_not_imported() -> None:
    code = "import sys, daemon.recording.catalogue; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def shell(
    catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    def run(*arguments: object) -> tuple[int, str]:
        place = ("--folder", str(catalogue.folder))
        action, *rest = map(str, arguments)
        code = main(["recordings", action, *place, *rest])
        return code, capsys.readouterr().out

    return run


def test_the_command_labels_shows_cuts_and_exports(
    shell: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert shell("label", SEGMENT, 70, 120, "tea") == (0, f"{SEGMENT}: tea 70-120 s\n")
    code, out = shell("list", "--json")
    assert code == 0
    assert json.loads(out)[1]["labels"][0]["author"] == "shell"
    assert "tea 70-120 s" in shell("list")[1]
    assert "70 to 120 s: tea (by shell)" in shell("show", SEGMENT)[1]
    shown = json.loads(shell("show", SEGMENT, "--points", 5, "--json")[1])
    assert len(shown["channels"]["NO2"]) == 5
    assert shell("cut", SEGMENT, 60, 90, "--output", "tea.csv") == (0, "tea.csv\n")
    code, out = shell("export", "--output", tmp_path / "data", SEGMENT, "--session", "monday")
    assert code == 0
    assert "scent-train init --data" in out
    assert len(list((tmp_path / "data" / "tea" / "monday").iterdir())) == 1
    assert shell("label", SEGMENT, 0, 200, "--none")[1] == f"{SEGMENT}: nothing is labelled\n"
    assert shell("label", SEGMENT, 0, 200)[0] == 2
    assert shell("show", "../x.csv")[0] == 1
