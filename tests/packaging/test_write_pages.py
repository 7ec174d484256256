"""Manual pages and completions: made from the programs' own parsers, and whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.cli import SCENTD
from tests.project.source_tree import ROOT
from training.cli import SCENT_TRAIN

pytest.importorskip(
    "argparse_manpage", reason="it comes with the extra dev: pip install -e '.[dev]'"
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    program = [sys.executable, str(ROOT / "packaging" / "write_pages.py"), str(folder)]
    subprocess.run(program, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=True)
    return folder


def test_both_programs_have_a_page_with_every_command(written: Path) -> None:
    for program in (SCENTD, SCENT_TRAIN):
        text = (written / f"usr/share/man/man1/{program.program}.1").read_text(encoding="utf-8")
        assert ".SH NAME" in text
        for command in program.commands:
            assert f"{program.program} {command}".replace("-", "\\-") in text, command


def test_the_pages_are_valid_for_man(written: Path) -> None:
    man = shutil.which("man") or pytest.skip("there is no man: sudo apt install man-db")
    for page in written.glob("usr/share/man/man1/*.1"):
        done = subprocess.run(
            [man, "--warnings=w", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)],
            capture_output=True,
            text=True,
            env={"LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80", "PATH": "/usr/bin:/bin"},
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_every_shell_completes_both_programs(written: Path) -> None:
    for program in ("scentd", "scent-train"):
        for place in (
            f"usr/share/bash-completion/completions/{program}",
            f"usr/share/zsh/vendor-completions/_{program}",
            f"usr/share/fish/vendor_completions.d/{program}.fish",
        ):
            assert program in (written / place).read_text(encoding="utf-8")
