"""ONNX Runtime that is missing, does not load, or ends the process that loads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.installed_models import onnx_runtime
from daemon.installed_models.onnx_runtime import RUNTIME, RUNTIME_FILE, processor, require_runtime
from models import runtime_import
from tests.sandbox import ROOT

BROKEN = {
    "missing": ("raise ImportError('libonnxruntime.so: cannot open')", "ImportError: libonnx"),
    "illegal": (
        "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
        "an instruction that this processor does not have",
    ),
    "crash": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "died of SIGSEGV"),
}

COMMANDS = {
    "check": ("check", "--listen", "1", "--config", "CONFIG"),
    "run": ("run", "--config", "CONFIG"),
    "replay": ("replay", "RECORDING"),
    "verify": ("models", "verify"),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_the_processor_where_onnx_runtime_cannot_run(
    tmp_path: Path, broken: str, command: str
) -> None:
    code, reason = BROKEN[broken]
    done = run_with(tmp_path, code, *COMMANDS[command])
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert "Traceback" not in said
    (paragraph,) = [part for part in said.split("ONNX Runtime ")[1:] if "cannot be used" in part]
    assert reason in paragraph
    assert processor() in paragraph
    assert "pip install" in paragraph


def run_with(folder: Path, code: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of scentd with another package in ONNX Runtime's place."""
    package = folder / "path" / RUNTIME
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code, encoding="utf-8")
    config = folder / "rig.yaml"
    config.write_text(
        f"rig_id: rig\nsource: {{port: {folder}/none}}\nmodels: [substances-50]\n"
        f"state_dir: {folder}/state\nmqtt: {{host: 127.0.0.1, port: 1}}\n",
        encoding="utf-8",
    )
    recording = folder / "recording.csv"
    recording.write_text(
        "timestamp_ms,NO2,C2H5OH,VOC,CO\n" + "".join(f"{n}000,1,2,3,4\n" for n in range(9)),
        encoding="utf-8",
    )
    places = {"CONFIG": str(config), "RECORDING": str(recording)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "daemon.cli", *(places.get(part, part) for part in command)],
        env={**os.environ, "PYTHONPATH": f"{package.parent}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_what_worked_is_remembered_until_version_or_processor_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.delitem(sys.modules, RUNTIME, raising=False)
    monkeypatch.setattr(onnx_runtime, "call_bounded", lambda *_, **__: tried.append(1))
    require_runtime(tmp_path)
    require_runtime(tmp_path)
    assert len(tried) == 1
    monkeypatch.setattr(onnx_runtime, "_version", lambda: "0.0.1")
    require_runtime(tmp_path)
    assert len(tried) == 2
    (tmp_path / RUNTIME_FILE).write_bytes(b"[" * 100_000)
    require_runtime(tmp_path)
    assert len(tried) == 3
    monkeypatch.setattr(onnx_runtime, "_CPU_INFO", tmp_path / "none")
    require_runtime(tmp_path)
    assert len(tried) == 4


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel name\t: Intel(R) Atom(TM)\n", "Intel(R) Atom(TM)"),
        ("Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 3\n", "BCM2835, Raspberry Pi 3"),
        (
            "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd08\n",
            "implementer 0x41, part 0xd08",
        ),
        ("\udcff no colon at all\n:\n", ""),
    ],
)
def test_the_processor_is_named_from_every_kind_of_cpuinfo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_bytes(text.encode(errors="surrogateescape"))
    monkeypatch.setattr(onnx_runtime, "_CPU_INFO", info)
    monkeypatch.setattr(onnx_runtime.platform, "machine", lambda: "aarch64")
    assert processor() == (f"{name} (aarch64)" if name else "aarch64")
    monkeypatch.setattr(onnx_runtime, "_CPU_INFO", tmp_path / "none")
    assert processor() == "aarch64"


def test_an_absent_sys_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_import, "CPU_FOLDER", tmp_path / "none")
    assert "Let this process see /sys" in onnx_runtime.explain("it raised an error")
