"""The audit finds planted leaks, and no others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from hardware.channels import N_CHANNELS, channel_index
from tests.training.tiny import write_recordings
from training.cli import main
from training.data.dataset import DataError, Dataset, Sample, load_substances
from training.experiments.audit.controls import CONTROLS, Control, find_excerpts
from training.experiments.audit.verdicts import (
    CLEAN,
    LEAKS,
    MIN_RECORDINGS,
    SHUFFLED,
    STEPS,
    TOO_FEW,
    Audit,
    AuditScores,
    ModelFigures,
    audit,
    verdict_of,
)
from training.experiments.baselines.inputs import OURS, cut_input_windows
from training.reports.audit import audit_page, audit_table

pytest.importorskip("sklearn", reason="the audit needs the extra `train`")

LABELS = tuple("abcdef")
TEMPERATURE, VOC = channel_index("Temperature"), channel_index("VOC")


def recordings(
    *,
    labels: int = 6,
    per_label: int = 5,
    rows: int = 260,
    seed: int = 3,
    leak: str = "",
    smell: bool = True,
) -> Dataset:
    """Recordings with a period for each smell, without session effects except a planted leak."""
    rng = np.random.default_rng(seed)
    samples = []
    for label in range(labels):
        for take in range(per_label):
            values = rng.normal(0, 1, (rows, N_CHANNELS)) + rng.uniform(200, 800, N_CHANNELS)
            period_s = (6.0 + 3 * label) if smell else 10.0
            phase = 2 * np.pi * (np.arange(rows) / period_s + rng.random())
            values[:, :6] += 60 * np.sin(phase)[:, None]
            values[:, TEMPERATURE] = 20 + rng.uniform(0, 5) + rng.normal(0, 0.1, rows)
            name = f"{LABELS[label]}/{rng.integers(1e6)}.csv"
            if leak == "weather":
                values[:, TEMPERATURE] += 10 * label
            if leak == "level":
                values[:, VOC] = 200 + 100 * label + rng.normal(0, 3, rows)
            if leak == "counts":
                values[:, VOC] = np.rint(200 + 100 * label + rng.normal(0, 3, rows))
            if leak == "start":
                values[:5, VOC] = 100 + 120 * label
            if leak == "name":
                name = f"{LABELS[label]}/2026-01-{label + 1:02d}-{take}.csv"
            if leak == "broken":
                values[:, label] = np.nan
            target = np.eye(labels, dtype=np.float32)[label]
            readings = values.astype(np.float32)
            samples.append(Sample(name, f"{label}-{take}", readings, target, name, 1.0))
    return Dataset("substance", LABELS[:labels], tuple(samples))


def judged(data: Dataset, model: ModelFigures | None = None) -> Audit:
    return audit(data, trees=40, model=model)


def verdicts(result: Audit) -> dict[str, str]:
    return {row.control: row.verdict for row in result.rows}


def test_data_without_leaks_are_clean() -> None:
    result = judged(recordings())
    assert set(verdicts(result).values()) == {CLEAN}
    assert result.references[0].top1 > 0.6, "the smell itself is there to be learnt"
    assert any("share no session" in line for line in result.summary)


def test_labels_of_one_session_are_named_and_held_out_sessions_recommended() -> None:
    data = recordings()
    single = audit(data, trees=5).summary
    assert any(f"{len(data.labels)} of {len(data.labels)} labels" in line for line in single)
    assert "Record every label on several days" in single[-1]
    samples = tuple(dataclasses.replace(s, session="ab"[k % 2]) for k, s in enumerate(data.samples))
    several = audit(dataclasses.replace(data, samples=samples), trees=5).summary
    assert not any("one session only" in line for line in several)
    assert "crossval --sessions" in several[-1]


@pytest.mark.parametrize(
    ("leak", "found"),
    [
        ("weather", {"environment"}),
        ("level", {"absolute_baseline", "first_seconds"}),
        ("counts", {"absolute_baseline", "first_seconds", "least_step"}),
        ("start", {"first_seconds"}),
        ("name", {"file_order"}),
        ("broken", {"channel_flags", "absolute_baseline", "first_seconds"}),
    ],
)
def test_a_planted_leak_and_no_other_is_found(leak: str, found: set[str]) -> None:
    result = judged(recordings(leak=leak))
    leaking = {name for name, verdict in verdicts(result).items() if verdict == LEAKS}
    assert leaking == found
    strongest = max(result.rows, key=lambda row: row.top1)
    assert strongest.control in found
    assert strongest.top1 > 0.6
    assert any(f"{len(found)} of {len(CONTROLS)} controls leak" in line for line in result.summary)


def test_a_leak_in_the_weather_is_found_without_any_smell() -> None:
    result = judged(recordings(leak="weather", smell=False))
    assert verdicts(result)["environment"] == LEAKS
    assert result.references[0].low < result.rows[0].chance < 0.3


def test_labels_permuted_over_recordings_cannot_be_learnt() -> None:
    shuffled = judged(recordings()).rows[-1]
    assert shuffled.control == SHUFFLED
    assert shuffled.low <= shuffled.chance
    assert shuffled.top1 < 0.35


def test_audit_is_reproducible() -> None:
    data = recordings(per_label=4)
    assert judged(data) == judged(data)


def test_every_control_gives_one_finite_row_per_window() -> None:
    data = recordings(leak="broken", per_label=2)
    windows = cut_input_windows(data, OURS)
    cut = find_excerpts(data, OURS, windows.owner)
    assert len(CONTROLS) == 6
    for control in CONTROLS:
        rows = np.concatenate([control.describe(one) for one in cut])
        assert len(rows) == len(windows.owner), control.name
        assert np.isfinite(rows).all(), control.name


def test_controls_use_the_samples_of_their_window_at_any_rate() -> None:
    data = recordings(labels=2, per_label=1)
    slow = data.samples[0]
    quick = Sample("a/q.csv", "q", slow.values.repeat(4, axis=0), slow.target, "q", 4.0)
    both = Dataset("substance", data.labels, (slow, quick))
    windows = cut_input_windows(both, OURS)
    one, other = find_excerpts(both, OURS, windows.owner)
    assert one.spans == ((0, 150), (50, 200), (100, 250))
    assert other.spans == ((0, 600), (200, 800), (400, 1000))
    for name in ("environment", "absolute_baseline", "first_seconds"):
        control = named(name)
        np.testing.assert_allclose(control.describe(one), control.describe(other), rtol=1e-5)


def named(name: str) -> Control:
    (control,) = (control for control in CONTROLS if control.name == name)
    return control


def test_a_small_data_set_is_too_few_to_judge() -> None:
    result = judged(recordings(labels=2, per_label=2, leak="weather"))
    assert set(verdicts(result).values()) == {TOO_FEW}
    assert any(str(MIN_RECORDINGS) in line for line in result.summary)


@pytest.mark.parametrize(
    ("low", "recordings_", "verdict"),
    [(0.21, 30, LEAKS), (0.2, 30, CLEAN), (0.0, 30, CLEAN), (1.0, MIN_RECORDINGS - 1, TOO_FEW)],
)
def test_a_control_leaks_if_its_whole_interval_is_above_chance(
    low: float, recordings_: int, verdict: str
) -> None:
    assert verdict_of(low, 0.2, recordings_) == verdict


def test_a_label_with_one_recording_is_refused() -> None:
    data = recordings(labels=3, per_label=2)
    with pytest.raises(DataError, match=r"one of c\. Record"):
        judged(data.subset(np.arange(6) != 5))


def test_a_single_label_is_refused() -> None:
    data = recordings(labels=2, per_label=2)
    with pytest.raises(DataError, match="another smell"):
        judged(data.subset(np.arange(4) < 2))


def test_a_recording_without_windows_is_refused_by_name() -> None:
    data = recordings(labels=2, per_label=2)
    stub = data.samples[0]
    short = Sample(stub.name, stub.sha256, stub.values[:30], stub.target, stub.group, 1.0)
    with pytest.raises(DataError, match=stub.name):
        judged(Dataset("substance", data.labels, (short, *data.samples[1:])))


def test_copies_of_a_recording_are_named() -> None:
    data = recordings(labels=2, per_label=3)
    one = data.samples[1]
    copy = Sample("a/copy.csv", one.sha256, one.values, one.target, "a/copy.csv", 1.0)
    result = judged(Dataset("substance", data.labels, (*data.samples, copy)))
    assert any("a/copy.csv" in line and "byte for byte" in line for line in result.summary)


def test_controls_are_compared_with_the_given_network() -> None:
    data = recordings(leak="weather", per_label=4)
    result = judged(data, ModelFigures("nose-6", AuditScores(0.5, 0.5, 0.5, 0.75)))
    row = result.rows[0]
    assert result.references[-1].control == "nose-6"
    assert row.share_of_skill == pytest.approx(
        (row.top1 - row.chance) / (0.5 - row.chance), abs=0.01
    )
    assert "nose-6" in row.sentence


def test_page_and_table_have_every_row() -> None:
    result = judged(recordings(labels=4, per_label=5, leak="weather"))
    text = audit_page(result)
    for row in (*result.references, *result.rows):
        assert f"{row.top1:.3f}" in audit_table(result)
        assert row.sentence in text
    assert len(audit_table(result).splitlines()) == 2 + len(STEPS) + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = recordings(labels=4, per_label=5, rows=180, leak="level")
    return write_recordings(data, tmp_path_factory.mktemp("smells"))


def test_command_prints_verdicts_and_writes_table_and_plot(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(folder), "--run", str(tmp_path), "--trees", "30", "--jobs", "1"]
    assert main(["audit", *arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "audit.json").read_text())
    assert printed["rows"] == written["rows"]
    by_name = {row["control"]: row for row in written["rows"]}
    assert list(by_name) == list(STEPS[1:])
    assert by_name["absolute_baseline"]["verdict"] == LEAKS
    plot = (tmp_path / "audit.svg").read_text()
    assert "absolute baseline" in plot
    assert "leaks" in plot
    assert "audit.svg" in (tmp_path / "audit.md").read_text()
    assert main(["audit", *arguments]) == 0
    assert by_name["absolute_baseline"]["sentence"] in capsys.readouterr().out


def test_a_networks_report_must_be_on_the_same_recordings(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "crossval.json"
    report.write_text(
        json.dumps(
            {"model": "m", "mean": {"top1": 0.5, "recording_top1": 0.5}, "data_sha256": "other"}
        )
    )
    arguments = ["audit", "--data", str(folder), "--run", str(tmp_path), "--model-report"]
    assert main([*arguments, str(report)]) == 2
    assert "other recordings" in capsys.readouterr().err
    report.write_text(report.read_text().replace("other", load_substances(folder).sha256))
    assert main([*arguments, str(report), "--trees", "5"]) == 0
    assert "m names 50 % of windows right" in capsys.readouterr().out
    report.write_text("[]")
    assert main([*arguments, str(report)]) == 2
    assert "crossval" in capsys.readouterr().err
