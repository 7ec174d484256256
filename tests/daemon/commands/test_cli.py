"""The command line: output, exit codes, and for every error how to mend it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from daemon.cli import main
from hardware.encoding import encode_csv, encode_csv_header
from hardware.recording import read_recording
from hardware.simulator.board import SimulatedBoard
from tests.sandbox import PATIENCE_S, ROOT, Board, Mosquitto, Odours, wait_until

NO2 = 0
SUMMARY = json.loads((ROOT / "daemon/schemas/replay_summary.json").read_text(encoding="utf-8"))


def scentd_command(*args: str) -> list[str]:
    return [sys.executable, "-m", "daemon.cli", *args]


def scentd(*args: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        scentd_command(*args),
        cwd=ROOT,
        capture_output=True,
        check=False,
        input=stdin,
        timeout=PATIENCE_S,
    )


def write_recording(path: Path, odours: Odours, *, timestamps: bool = True) -> Path:
    lines = [encode_csv_header(timestamps)]
    for number, row in enumerate(odours):
        lines.append(encode_csv(row, int(number * 1000 / odours.rate_hz) if timestamps else None))
    path.write_bytes(b"".join(lines))
    return path


@pytest.fixture
def lemon(tmp_path: Path) -> Path:
    """Write a recording of one exposure, in the published layout."""
    return write_recording(tmp_path / "lemon.csv", Odours(((NO2, 60),)), timestamps=False)


@pytest.mark.parametrize("args", [[], ["nonsense"], ["replay"], ["recordings"]])
def test_wrong_use_exits_2(args: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2


@pytest.mark.parametrize("command", ["run", "check", "status"])
def test_without_a_configuration_most_commands_are_wrong_use(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command]) == (1 if command == "check" else 2)
    captured = capsys.readouterr()
    assert "SCENTD_CONFIG" in captured.out + captured.err


class TestReplay:
    """Recognise the smells in recordings."""

    def test_the_last_line_is_a_summary_of_the_recording(
        self, lemon: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["replay", str(lemon), "--model", str(toy_substances), "--json"]) == 0
        *said, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        jsonschema.validate(summary, SUMMARY)
        assert summary["label"] == "lemon"
        assert summary["frames"] == 60
        assert 0 < summary["decided_s"] < 60
        assert {line["topic"] for line in said} <= {"substance", "event"}

    def test_air_alone_is_undecided(
        self, tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        air = write_recording(tmp_path / "air.csv", Odours(((None, 12),)))
        assert main(["replay", str(air), "--model", str(toy_substances), "--json"]) == 0
        summary = json.loads(capsys.readouterr().out.splitlines()[-1])
        jsonschema.validate(summary, SUMMARY)
        assert summary["label"] is None
        assert summary["probability"] is None

    def test_a_replay_is_the_same_twice(
        self, lemon: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        outputs = []
        for _ in range(2):
            main(["replay", str(lemon), "--model", str(toy_substances), "--json"])
            lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            outputs.append([{**line, "latency_ms": 0} for line in lines])
        assert outputs[0] == outputs[1]

    def test_a_slower_boards_recording_is_interpolated_and_says_so(
        self, tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = Odours(((NO2, 180),))
        path = tmp_path / "slow.csv"
        lines = [encode_csv(row, number * 1000) for number, row in enumerate(rows)]
        path.write_bytes(b"".join([encode_csv_header(timestamps=True), *lines[::3]]))
        assert main(["replay", str(path), "--model", str(toy_substances), "--json"]) == 0
        *said, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert summary["label"] == "lemon"
        assert all(line["resampled"] for line in said if line["topic"] == "substance")
        assert main(["replay", str(path), "--model", str(toy_substances)]) == 0
        assert "interpolated to its rate" in capsys.readouterr().out

    def test_standard_input_is_a_file_called_dash(self, lemon: Path, toy_substances: Path) -> None:
        done = scentd(
            "replay", "-", "--model", str(toy_substances), "--json", stdin=lemon.read_bytes()
        )
        assert done.returncode == 0
        summary = json.loads(done.stdout.splitlines()[-1])
        assert (summary["file"], summary["label"]) == ("-", "lemon")

    def test_without_json_a_table_is_printed(
        self, lemon: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["replay", str(lemon), "--model", str(toy_substances)]) == 0
        assert "=> lemon (probability" in capsys.readouterr().out

    def test_the_other_files_are_replayed_when_one_is_bad(
        self, lemon: Path, tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        files = [str(tmp_path / "none.csv"), str(lemon)]
        assert main(["replay", *files, "--model", str(toy_substances), "--json"]) == 1
        printed = capsys.readouterr()
        assert "none.csv" in printed.err
        assert json.loads(printed.out.splitlines()[-1])["label"] == "lemon"

    def test_the_summary_of_a_mixture_names_its_components(
        self, tmp_path: Path, toy_mixtures: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = write_recording(tmp_path / "mixed.csv", Odours(((NO2, 200),), rate_hz=10.0))
        assert main(["replay", str(file), "--model", str(toy_mixtures), "--json"]) == 0
        summary = json.loads(capsys.readouterr().out.splitlines()[-1])
        jsonschema.validate(summary, SUMMARY)
        assert summary["label"] == "lemon"

    def test_a_reader_that_closes_the_pipe_early_is_no_error(
        self, lemon: Path, toy_substances: Path
    ) -> None:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "daemon.cli",
                "replay",
                *([str(lemon)] * 40),
                "--model",
                str(toy_substances),
                "--json",
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == b""
        process.stderr.close()


class TestBadInput:
    """One paragraph that says how to mend it, the right exit code, no traceback."""

    def failing(self, capsys: pytest.CaptureFixture[str], *args: str) -> str:
        assert main(list(args)) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        said, error = printed.err.rsplit("scentd: ", maxsplit=1)
        assert said == "" or said.startswith("Recording from")
        return error

    def test_an_empty_file(
        self, tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "empty.csv").touch()
        file = str(tmp_path / "empty.csv")
        assert "empty" in self.failing(capsys, "replay", file, "--model", str(toy_substances))

    def test_a_csv_with_other_columns(
        self, tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "other.csv"
        file.write_text("date,price\n2024-01-01,3\n", encoding="utf-8")
        error = self.failing(capsys, "replay", str(file), "--model", str(toy_substances))
        assert "date,price" in error
        assert "NO2" in error

    def test_a_bundle_with_a_changed_byte(
        self, lemon: Path, tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        damaged = tmp_path / "toy-substance"
        damaged.mkdir()
        for file in toy_substances.iterdir():
            (damaged / file.name).write_bytes(file.read_bytes())
        model = damaged / "model.onnx"
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        model.write_bytes(data)
        assert "model.onnx" in self.failing(capsys, "replay", str(lemon), "--model", str(damaged))
        assert main(["models", "verify", str(damaged), str(toy_substances)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["FAILED", "ok"]

    def test_a_model_that_does_not_exist(
        self, lemon: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        error = self.failing(capsys, "replay", str(lemon), "--model", "substances-51")
        assert "substances-51" in error

    def test_a_model_that_needs_channels_the_recording_lacks(
        self, tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "two.csv"
        rows = "".join(f"{200 + n},{300 + n % 2}\n" for n in range(60))
        file.write_text(f"NO2,CO\n{rows}", encoding="utf-8")
        error = self.failing(capsys, "replay", str(file), "--model", str(toy_substances))
        assert "the board has no VOC, which the model cannot do without" in error
        assert "scentd models list" in error

    def test_a_configuration_with_a_typo(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = tmp_path / "scentd.yaml"
        config.write_text("rig_id: a\nsorce: {port: /dev/x}\nmodels: [m]\n", encoding="utf-8")
        error = self.failing(capsys, "run", "--config", str(config))
        assert "line 2: sorce is not a setting; did you mean source?" in error

    def test_a_missing_port(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        output = tmp_path / "out.csv"
        error = self.failing(
            capsys, "record", "--port", str(tmp_path / "ttyNONE"), "--output", str(output)
        )
        assert "There is no serial port" in error
        assert not output.exists()

    @pytest.mark.parametrize(
        ("option", "said"), [(["--usb", "1"], "vendor:product"), (["--baud", "9"], "between 300")]
    )
    def test_an_impossible_source_is_wrong_use(
        self, option: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = option if option[0] == "--usb" else ["--port", "/dev/x", *option]
        assert main(["record", *source, "--output", str(tmp_path / "x.csv")]) == 2
        assert said in capsys.readouterr().err

    def test_a_board_that_sends_nothing_decodable(
        self, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "out.csv"
        with board.sending(b"\xff\xfe\x80nonsense\r\nmore nonsense\r\n"):
            error = self.failing(
                capsys,
                "record",
                "--port",
                str(board.link),
                "--seconds",
                "1",
                "--output",
                str(output),
            )
        assert "but no line was a reading" in error
        assert " text, " in error
        assert " binary" in error
        assert "115200" in error
        assert not output.exists()

    def test_a_silent_board(
        self, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = str(tmp_path / "out.csv")
        error = self.failing(
            capsys, "record", "--port", str(board.link), "--seconds", "1", "--output", output
        )
        assert "the board sent nothing in 1 s" in error

    def test_an_output_file_that_exists(
        self, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "out.csv"
        output.write_text("precious", encoding="utf-8")
        error = self.failing(
            capsys, "record", "--port", str(board.link), "--seconds", "1", "--output", str(output)
        )
        assert "never overwritten" in error
        assert output.read_text(encoding="utf-8") == "precious"

    def test_debug_shows_the_traceback(self, tmp_path: Path) -> None:
        done = scentd("--debug", "replay", str(tmp_path / "none.csv"))
        assert done.returncode == 1
        assert b"Traceback" in done.stderr
        done = scentd("replay", str(tmp_path / "none.csv"))
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr


class TestRecord:
    """Write a board's readings to a file."""

    def test_ctrl_c_is_a_clean_end_with_whole_lines(self, tmp_path: Path) -> None:
        output = tmp_path / "out.csv"
        with SimulatedBoard(Odours(((None, 10_000),)), link=tmp_path / "tty", speed=50) as board:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "daemon.cli",
                    "record",
                    "--port",
                    board.port,
                    "--output",
                    str(output),
                ],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
            )
            wait_until(lambda: output.exists() and output.stat().st_size > 1000, "some rows")
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert "readings in" in error
        assert output.read_bytes().endswith(b"\n")
        recording = read_recording(output)
        assert recording.nominal_rate_hz == pytest.approx(1.0)
        assert recording.counts.damaged == 0

    def test_standard_output_holds_only_the_data(self, tmp_path: Path) -> None:
        with SimulatedBoard(Odours(((None, 10_000),)), link=tmp_path / "tty", speed=50) as board:
            done = scentd("record", "--port", board.port, "--seconds", "1", "--output", "-")
        assert done.returncode == 0
        assert done.stdout.startswith(b"timestamp_ms,NO2,")
        assert b"Recording from" in done.stderr


class TestCheck:
    """Try everything that a rig needs."""

    @pytest.fixture
    def config(self, tmp_path: Path, toy_substances: Path, broker: Mosquitto) -> Path:
        path = tmp_path / "scentd.yaml"
        path.write_text(
            f"rig_id: rig\nsource: {{port: {tmp_path / 'tty'}}}\nmodels: [{toy_substances}]\n"
            f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\n",
            encoding="utf-8",
        )
        return path

    def test_a_working_rig_is_ok(
        self, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with SimulatedBoard(Odours(((None, 10_000),)), link=tmp_path / "tty", speed=20):
            assert main(["check", "--config", str(config)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert all(line.startswith("ok ") for line in lines)
        assert "speaks scent, 1 Hz, 12 channels" in lines[1]
        assert "speaks MQTT 5" in lines[2]

    def test_a_state_folder_that_cannot_be_written_fails(
        self, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with config.open("a", encoding="utf-8") as text:
            text.write("state_dir: /proc/scentd\n")
        assert main(["check", "--config", str(config), "--listen", "1"]) == 1
        assert "The folder /proc/scentd cannot be made or written" in capsys.readouterr().out

    def test_a_board_unlike_that_of_the_training_is_mentioned(
        self,
        config: Path,
        tmp_path: Path,
        toy_substances: Path,
        foreign_substances: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace(str(toy_substances), str(foreign_substances)))
        with SimulatedBoard(Odours(((None, 10_000),)), link=tmp_path / "tty", speed=20):
            assert main(["check", "--config", str(config)]) == 0
        assert "its names mean nothing here; teach the rig" in capsys.readouterr().out

    def test_every_failure_is_found_in_one_run(
        self, config: Path, broker: Mosquitto, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broker.stop()
        text = config.read_text(encoding="utf-8").replace("models: [", "models: [no-such-model, ")
        config.write_text(text, encoding="utf-8")
        assert main(["check", "--config", str(config), "--json"]) == 1
        results = {item["what"]: item for item in json.loads(capsys.readouterr().out)}
        assert results["config"]["ok"]
        assert "There is no serial port" in results["board"]["detail"]
        assert "No MQTT broker answers" in results["broker"]["detail"]
        assert not results["model no-such-model"]["ok"]
        assert [item["ok"] for item in results.values()].count(False) == 3

    def test_a_board_that_cannot_feed_the_model_is_found(
        self,
        config: Path,
        tmp_path: Path,
        toy_mixtures: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        text = config.read_text(encoding="utf-8").replace("models: [", f"models: [{toy_mixtures}, ")
        config.write_text(text, encoding="utf-8")
        with SimulatedBoard(Odours(((None, 10_000),)), link=tmp_path / "tty", speed=20):
            assert main(["check", "--config", str(config)]) == 1
        out = capsys.readouterr().out
        assert "this board cannot feed it: the board sends 1 reading a second" in out


def test_models_verify_prints_ok_for_an_undamaged_bundle(
    toy_substances: Path, toy_mixtures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "verify", str(toy_substances), str(toy_mixtures), "--json"]) == 0
    assert [item["ok"] for item in json.loads(capsys.readouterr().out)] == [True, True]
