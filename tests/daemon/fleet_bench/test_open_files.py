"""The limit of open files is raised as far as it may be, and named where that is not enough."""

from __future__ import annotations

import subprocess
import sys

from tests.sandbox import ROOT

SET = "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, (64, 512))\n"
IMPORT = "from daemon.fleet_bench.open_files import OpenFilesError, raise_limit\n"


def printed(program: str) -> str:
    """Run a program with a limit of 64 open files that may be raised to 512."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT + SET + program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_more_files_than_the_user_may_open_are_refused_with_the_numbers() -> None:
    program = "try:\n    raise_limit(513, '9 rigs')\nexcept OpenFilesError as e:\n    print(e)"
    assert printed(program).startswith("9 rigs need 513 open files, and a process of this user")


def test_a_low_limit_is_raised() -> None:
    assert printed("raise_limit(300, 'x')\nprint(r.getrlimit(r.RLIMIT_NOFILE))") == "(300, 512)"
