"""`scentd replay` on files of other programs and projects, and with unusual names and outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.cli import main
from hardware.encoding import encode_csv, encode_csv_header
from tests.sandbox import PATIENCE_S, ROOT, Odours

ROWS = list(Odours(((0, 60),)))


def replay(*args: str) -> int:
    return main(["replay", *args])


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, object]], str]:
    output = capsys.readouterr()
    lines = [json.loads(line) for line in output.out.splitlines()]
    return [{**line, "latency_ms": 0, "file": ""} for line in lines], output.err


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "lemon.csv"
    rows = [encode_csv(row, number * 1000) for number, row in enumerate(ROWS)]
    path.write_bytes(b"".join([encode_csv_header(), *rows]))
    return path


def test_a_foreign_file_gives_the_predictions_of_the_recording_that_it_is(
    own: Path, tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"B {number}" for number in range(12)]
    foreign = tmp_path / "foreign.csv"
    rows = [
        ";".join([str(number), *(f"{value:.9g}" for value in row)]).replace(".", ",")
        for number, row in enumerate(ROWS)
    ]
    foreign.write_text("\n".join(["made in the kitchen", ";".join(["t", *names]), *rows]) + "\n")
    channels = encode_csv_header(timestamps=False).decode().strip().split(",")
    mapping = tmp_path / "map.yaml"
    mapping.write_text(
        "description: x\ntime: t\ntime_unit: s\nchannels:\n"
        + "".join(f"  {c}: {n}\n" for c, n in zip(channels, names, strict=True))
    )
    assert replay(str(own), "--model", str(toy_substances), "--json") == 0
    expected, _ = printed(capsys)
    args = [str(foreign), "--map", str(mapping), "--model", str(toy_substances), "--json"]
    assert replay(*args) == 0
    found, error = printed(capsys)
    assert found[-1]["rejected"] == 1  # the line before the header
    assert [*found[:-1], {**found[-1], "rejected": 0}] == expected
    assert "NO2 from column 'B 0' (as sent)" in error
    assert "time from column 't' (s)" in error


def test_a_mapping_that_does_not_fit_is_one_paragraph(
    own: Path, tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mapping = tmp_path / "map.yaml"
    mapping.write_text("description: x\ntime: t\nchannels: {NO2: nitrogen}\n")
    assert replay(str(own), "--map", str(mapping), "--model", str(toy_substances)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the mapping's column 'nitrogen' is not in it" in error
    mapping.write_text("description: x\ntime: t\n")
    assert replay(str(own), "--map", str(mapping)) == 2
    assert "names no column" in capsys.readouterr().err


def test_an_unknown_format_names_the_known_ones(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(str(own), "--format", "fruits6") == 2
    assert "edge-impulse" in capsys.readouterr().err


def test_columns_that_are_not_plain_are_named(
    own: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = own.read_text().replace("timestamp_ms,", "time(ms),", 1)
    header, *rows = text.splitlines()
    own.write_text("\n".join([f"{header},label", *(f"{row},blood_orange" for row in rows)]) + "\n")
    assert replay(str(own), "--model", str(toy_substances), "--json") == 0
    found, error = printed(capsys)
    assert found[-1]["frames"] == 60
    assert "ignored: label" in error
    assert "time from column 'time(ms)' (ms)" in error


def command(*args: bytes | str) -> list[bytes | str]:
    return [sys.executable, "-m", "daemon.cli", "replay", *args]


def test_a_name_that_is_no_text_is_printed_and_can_be_had_back(
    own: Path, toy_substances: Path
) -> None:
    name = os.fsencode(own.parent) + b"/caf\xe9 \xff.csv"
    os.rename(os.fsencode(own), name)  # noqa: PTH104 - a name of bytes
    for as_json in (True, False):
        done = subprocess.run(
            command(name, "--model", str(toy_substances), *(["--json"] if as_json else [])),
            cwd=ROOT,
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        if as_json:
            summary = json.loads(done.stdout.splitlines()[-1])
            assert os.fsencode(summary["file"]) == name
    missing = subprocess.run(
        command(name + b"x"), cwd=ROOT, capture_output=True, check=False, timeout=PATIENCE_S
    )
    assert missing.returncode == 1
    assert b"Traceback" not in missing.stderr


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&-"])
def test_closed_standard_streams_are_no_error(
    own: Path, toy_substances: Path, redirection: str
) -> None:
    closed = ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh"]
    done = subprocess.run(
        [*closed, *command(str(own), "--json", "--model", str(toy_substances))],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_an_output_that_takes_nothing_is_one_error(own: Path, toy_substances: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command(str(own), "--model", str(toy_substances), "--json"),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            timeout=PATIENCE_S,
        )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


def test_few_characters_in_the_terminal_leave_json_readable(
    own: Path, toy_substances: Path
) -> None:
    path = own.rename(own.with_name("\u8377.csv"))
    done = subprocess.run(
        command(str(path), "--model", str(toy_substances), "--json"),
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert json.loads(done.stdout.splitlines()[-1])["file"] == str(path)
