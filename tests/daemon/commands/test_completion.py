"""Completion scripts: a shell completes commands, their options and sub-commands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.cli import main


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("scentd", "recor"), {"record", "recordings"}),
        (("scentd", "models", "ver"), {"verify"}),
        (("scentd", "replay", "--stat"), {"--state"}),
    ],
)
def test_bash_completes_the_command_line(
    words: tuple[str, ...],
    expected: set[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "scentd.bash"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    program = (
        f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        f'_shtab_scentd scentd "{words[-1]}" "{words[-2]}"; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    bash = shutil.which("bash") or pytest.skip("there is no bash")
    done = subprocess.run([bash, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_every_shell_has_a_script_with_all_commands(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("enroll", "recordings", "completion"))
