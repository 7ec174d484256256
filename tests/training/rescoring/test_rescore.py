"""`scent-train rescore`: the predictions of `scentd replay`, resumable, whatever is damaged."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import main as scentd
from hardware.archive import archive_recording
from hardware.checksum_line import with_checksum
from hardware.encoding import encode_csv
from hardware.recording_labels import LabelledStretch, RecordingLabels, write_labels
from hardware.recording_rows import OWN_HEADER
from models.manifest import MANIFEST
from tests.sandbox import PATIENCE_S, ROOT, Odours, wait_until
from training.cli import main as scent_train
from training.rescoring.results import SUMMARY

dataset = pytest.importorskip(
    "pyarrow.dataset", reason="pyarrow is not installed: pip install 'scentd[archive]'"
)

STORED = ROOT / "tests" / "models" / "stored_predictions"
NOT_OF_A_RESULT = {"ts", "topic", "clock_synced", "boot_id", "latency_ms", "buffered", "type"}
"""Of a message, or of the clock; `ts` is that of `t_ms`."""
SEGMENTS = ("r000001-0001-20260131T120000Z.live.csv", "r000001-0002-20260131T120200Z.live.csv")
NO2, VOC = 0, 2


def rescore(data: Path, output: Path, *models: object, args: tuple[str, ...] = ()) -> int:
    names = ["--data", str(data), "--output", str(output), "--model", *map(str, models)]
    return scent_train(["rescore", *names, *args])


def rows(output: Path) -> list[dict[str, Any]]:
    found = dataset.dataset(output, partitioning="hive").to_table().to_pylist()
    order = ("rig", "day", "recording", "model", "model_version", "seq")
    return sorted(found, key=lambda row: [str(row[name]).zfill(9) for name in order])


def replayed(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert scentd(["replay", *args, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def assert_as_replayed(found: list[dict[str, Any]], printed: list[dict[str, Any]]) -> None:
    """Compare every field of every prediction, and nothing else."""
    expected = [line for line in printed if line.get("topic") in {"substance", "mixture"}]
    assert len(found) == len(expected) > 3
    for row, line in zip(found, expected, strict=True):
        fields = line.keys() - NOT_OF_A_RESULT
        assert {name: row[name] for name in fields} == {name: line[name] for name in fields}
        assert row["task"] == line["topic"]
        assert line["ts"].endswith(f"{row['t_ms'] % 60000 / 1000:06.3f}Z")


def archive_of(folder: Path, root: Path, rig: str = "kitchen") -> Path:
    for path in sorted(folder.glob("*.csv*")):
        if path.name.endswith(".yaml"):
            continue
        archive_recording(root, path, rig=rig, session="today", labels=RecordingLabels())
    return root


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a folder with a run of two segments, labelled, and a recording of its own."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    readings = list(Odours(((None, 150), (NO2, 60), (None, 90))))
    lines = [encode_csv(row, 1000 * t) for t, row in enumerate(readings)]
    (folder / SEGMENTS[0]).write_bytes(OWN_HEADER + b"".join(lines[:180]))
    (folder / SEGMENTS[1]).write_bytes(OWN_HEADER + b"".join(lines[180:]))
    write_labels(
        folder / SEGMENTS[0], RecordingLabels((LabelledStretch(151_000, 179_000, "lemon"),))
    )
    lines = [encode_csv(row, 1000 * t) for t, row in enumerate(Odours(((VOC, 90),)))]
    (folder / "garlic.csv").write_bytes(OWN_HEADER + b"".join(lines))
    return folder


@pytest.mark.parametrize(
    ("model", "recording", "archived"),
    [
        ("substances-50", "substances", False),
        ("substances-50", "substances", True),
        ("mixtures-12", "mixtures", True),
        ("fruits-5", "fruits", True),
        pytest.param("paper-50", "substances", True, marks=pytest.mark.slow),
    ],
)
def test_every_field_is_that_of_a_replay(
    model: str,
    recording: str,
    archived: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "data" / f"{recording}.csv.gz"
    source.parent.mkdir()
    shutil.copy(STORED / source.name, source)
    data = archive_of(source.parent, tmp_path / "archive") if archived else source.parent
    assert rescore(data, tmp_path / "out", model) == 0
    assert_as_replayed(rows(tmp_path / "out"), replayed(capsys, str(source), "--model", model))


@pytest.mark.data
def test_every_field_is_that_of_a_replay_of_real_recordings(
    smellnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    real = [*sorted(smellnet.glob("base/*/*.csv"))[::60], *sorted(smellnet.glob("mixture/*.csv"))]
    chosen = [path for path in real if "index" not in path.name][:8]
    for path in chosen:
        shutil.copy(path, data)
    models = ("substances-50", "mixtures-12")
    assert rescore(archive_of(data, tmp_path / "archive"), tmp_path / "out", *models) == 0
    found = rows(tmp_path / "out")
    scored = 0
    for path in chosen:
        for model in models:
            own = [row for row in found if (row["recording"], row["model"]) == (path.stem, model)]
            if own:
                scored += 1
                assert_as_replayed(own, replayed(capsys, str(path), "--model", model))
    assert scored >= len(chosen)


def test_the_page_reads_the_results(
    recordings: Path, toy_substances: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pandas", "duckdb"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")
    assert rescore(recordings, tmp_path / "scores", toy_substances) == 0
    page = (ROOT / "docs" / "archive.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(page.partition("```python")[2].partition("```")[0], names)  # noqa: S102 - our own page
    assert len(names["predictions"]) == len(rows(tmp_path / "scores"))
    assert len(names["recordings"]) == 2


def test_segments_of_a_run_are_scored_as_one_recording(
    recordings: Path, toy_substances: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rescore(recordings, tmp_path / "loose", toy_substances) == 0
    archive = archive_of(recordings, tmp_path / "archive", "recordings")
    assert rescore(archive, tmp_path / "archived", toy_substances) == 0
    loose, archived = rows(tmp_path / "loose"), rows(tmp_path / "archived")
    run = [row for row in loose if row["recording"] == SEGMENTS[0].removesuffix(".csv")]
    paths = [str(recordings / name) for name in SEGMENTS]
    printed = replayed(capsys, "--joined", *paths, "--model", str(toy_substances))
    assert_as_replayed(run, printed)
    assert {row["state"] for row in run} >= {"warming_up", "ambient"}
    named = {row["timestamp_ms"] for row in run if row["true_label"] == "lemon"}
    assert named
    assert all(151_000 <= t_ms <= 179_000 for t_ms in named)
    # The archive was written without labels, and with a session.
    assert {row["session"] for row in archived} == {"today"}
    for row in (*loose, *archived):
        row["true_label"] = row["session"] = None
    for one, other in zip(loose, archived, strict=True):
        assert one == other


def test_finished_parts_are_kept_and_changed_ones_scored_anew(
    recordings: Path, toy_substances: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = tmp_path / "model", tmp_path / "out"
    shutil.copytree(toy_substances, model)

    def counts() -> tuple[int, int]:
        capsys.readouterr()
        assert rescore(recordings, output, model, args=("--json",)) == 0
        report = json.loads(capsys.readouterr().out)
        return report["scored"], report["kept"]

    assert counts() == (2, 0)
    before = rows(output)
    assert counts() == (0, 2)
    lines = [encode_csv(row, 1000 * t) for t, row in enumerate(Odours(((VOC, 80),)))]
    (recordings / "garlic.csv").write_bytes(OWN_HEADER + b"".join(lines))
    assert counts() == (1, 1)
    assert len(rows(output)) < len(before)
    (part,) = output.glob("rig=*/*/garlic--*.parquet")
    part.write_bytes(part.read_bytes()[:-5])  # as no run leaves it, but a disk might
    assert counts() == (1, 1)
    write_labels(
        recordings / SEGMENTS[1], RecordingLabels((LabelledStretch(181_000, 190_000, "mint"),))
    )
    assert counts() == (1, 1)
    manifest = model / MANIFEST
    text = manifest.read_bytes().partition(b"manifest_sha256")[0]
    assert b"confirm: 2" in text
    changed = text.replace(b"confirm: 2", b"confirm: 3")
    manifest.write_bytes(with_checksum(changed, "manifest_sha256"))
    assert counts() == (2, 0)
    assert len(rows(output)) == len({(row["recording"], row["seq"]) for row in rows(output)})


def test_a_damaged_recording_is_named_and_the_others_go_on(
    recordings: Path, toy_substances: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = archive_of(recordings, tmp_path / "archive")
    (path,) = archive.glob("rig=kitchen/*/garlic.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    assert rescore(archive, tmp_path / "out", toy_substances, args=("--json",)) == 1
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert (report["recordings"], report["scored"]) == (2, 1)
    assert list(report["failed"]) == ["kitchen undated garlic"]
    assert str(path) in output.err
    archive_of(recordings, archive)
    assert rescore(archive, tmp_path / "out", toy_substances) == 0


def test_a_recording_that_cannot_feed_a_model_is_no_failure(
    recordings: Path,
    toy_substances: Path,
    toy_mixtures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = (toy_substances, toy_mixtures)
    for _ in range(2):
        assert rescore(recordings, tmp_path / "out", *models, args=("--json",)) == 0
        assert json.loads(capsys.readouterr().out)["not_fed"] == 2
    summary = dataset.dataset(tmp_path / "out" / SUMMARY).to_table().to_pylist()
    statuses = {(row["model"], row["status"]) for row in summary}
    assert statuses == {("toy-substance", "scored"), ("toy-mixture", "not_fed")}
    assert {row["label"] for row in summary if row["recording"] == "garlic"} == {"garlic", None}
    assert "1 reading a second" in next(row["reason"] for row in summary if row["reason"])


@pytest.mark.parametrize("engine", ["local", "dask"])
def test_several_workers_give_the_same(
    engine: str, recordings: Path, toy_substances: Path, tmp_path: Path
) -> None:
    if engine == "dask":
        pytest.importorskip(
            "distributed", reason="distributed is not installed: pip install 'scentd[dask]'"
        )
    assert rescore(recordings, tmp_path / "one", toy_substances) == 0
    args = ("--engine", engine, "--workers", "2")
    assert rescore(recordings, tmp_path / "two", toy_substances, args=args) == 0
    assert rows(tmp_path / "one") == rows(tmp_path / "two")


def test_a_killed_run_goes_on_and_leaves_no_worker(
    recordings: Path, toy_substances: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(60):
        shutil.copy(recordings / "garlic.csv", recordings / f"garlic-{number:02}.csv")
    output = tmp_path / "out"
    command = [sys.executable, "-m", "training.cli", "rescore", "--workers", "2"]
    paths = ["--data", str(recordings), "--output", str(output), "--model", str(toy_substances)]
    process = subprocess.Popen([*command, *paths], cwd=ROOT, start_new_session=True)
    wait_until(lambda: len(list(output.glob("rig=*/*/*.parquet"))) >= 3, "the first results")
    process.kill()
    process.wait(PATIENCE_S)
    wait_until(lambda: not group_lives(process.pid), "the workers to end")
    assert rescore(recordings, output, toy_substances, args=("--json",)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kept"] >= 3
    assert report["kept"] + report["scored"] == 62
    assert rescore(recordings, tmp_path / "whole", toy_substances) == 0
    assert rows(output) == rows(tmp_path / "whole")
    assert not list(output.rglob(".*"))


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    # A worker that has ended stays until its new parent has asked for it.
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            states.append(path.read_text().rpartition(")")[2].split())
    return any(int(fields[2]) == group and fields[0] != "Z" for fields in states)


def test_a_worker_that_is_killed_ends_the_run_with_a_plain_message(tmp_path: Path) -> None:
    from training.engines import EngineChoice, EngineError, open_engine

    with (
        pytest.raises(EngineError, match="run the same command again"),
        open_engine(EngineChoice(workers=2)) as engine,
    ):
        list(engine.run(kill_itself, [1, 2, 3]))


def kill_itself(_task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--workers", "0"), "at least one worker"),
        (("--scheduler", "tcp://x:1"), "--engine dask"),
        (("--rig", "x"), "knows its rigs"),
    ],
)
def test_wrong_use_is_said(
    args: tuple[str, ...],
    text: str,
    recordings: Path,
    toy_substances: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = archive_of(recordings, tmp_path / "archive")
    assert rescore(archive, tmp_path / "out", toy_substances, args=args) == 2
    assert text in capsys.readouterr().err
    assert scent_train(["rescore", "--data", str(archive)]) == 2
    (tmp_path / "empty").mkdir()
    assert rescore(tmp_path / "empty", tmp_path / "out", toy_substances) == 2


def test_the_benchmark_prints_each_case(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.rescoring import benchmark

    monkeypatch.setattr(benchmark, "REPEATS", 1)
    monkeypatch.setattr(benchmark, "CASES", benchmark.CASES[1:2])
    result = benchmark.run_benchmark("local", recordings=2, minutes={10.0: 1, 1.0: 1})
    (row,) = result["rows"]
    assert row["readings_per_s"].keys() == {"1", "2"}
    assert row["readings_per_processor_s"] > 0
    assert len(benchmark.benchmark_lines(result)) == 3
