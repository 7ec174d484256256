"""A power cut leaves of the outbox's files what was synchronised, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from daemon.mqtt.outbox_values import OUTBOX_FILE
from daemon.soak.power_cut import SyncedFiles, compiler

if TYPE_CHECKING:
    from pathlib import Path

WRITE = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA wal_autocheckpoint = 0")
database.execute("PRAGMA synchronous = FULL")
database.execute("CREATE TABLE numbers (number)")
database.execute("INSERT INTO numbers VALUES (1)")
database.execute("PRAGMA synchronous = OFF")
database.execute("INSERT INTO numbers VALUES (2)")
os._exit(0)  # as a kill: without the checkpoint of an orderly end
"""
READ = """
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT * FROM numbers").fetchall())
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    if compiler() is None:
        pytest.skip("needs a C compiler: sudo apt install gcc")
    folder = tmp_path.resolve() / "state"
    folder.mkdir()
    return folder


def run(source: str, database: Path, **environ: str) -> str:
    """Run Python in a process of its own, with a database; return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", source, str(database)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_a_power_cut_takes_what_was_not_synchronised(state_dir: Path) -> None:
    database = state_dir / OUTBOX_FILE
    synced = SyncedFiles(state_dir.parent, state_dir)
    run(WRITE, database, **synced.build())
    synced.cut_power()
    assert run(READ, database) == "[(1,)]"


def test_after_any_other_end_everything_reaches_the_disk(state_dir: Path) -> None:
    database = state_dir / OUTBOX_FILE
    synced = SyncedFiles(state_dir.parent, state_dir)
    run(WRITE, database, **synced.build())
    synced.write_back()
    synced.cut_power()
    assert run(READ, database) == "[(1,), (2,)]"
