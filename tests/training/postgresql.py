"""A PostgreSQL server of a test's own, in a temporary folder; skips where it is not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from daemon.sandbox.broker import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD, DATABASE = "searcher", "s3cret-of-the-test", "studies"


@contextmanager
def postgresql() -> Iterator[str]:
    """Start a server that asks for a password; yield the address of an empty database."""
    pytest.importorskip(
        "psycopg", reason="psycopg is not installed: pip install 'scentd[postgresql]'"
    )
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not installed: sudo apt install postgresql")
    # The server refuses to run as root, and its user must reach the folder.
    person: dict[str, Any] = {}
    if os.geteuid() == 0:
        person = {"user": "postgres", "group": "postgres"}
    folder = Path(tempfile.mkdtemp(prefix="scentd-"))
    try:
        if person:
            shutil.chown(folder, "postgres", "postgres")
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        port, data = free_port(), folder / "data"

        def run(program: str, *args: object) -> None:
            command = [str(programs[-1] / program), *map(str, args)]
            # The server keeps an inherited pipe open.
            with (folder.parent / f"{folder.name}.log").open("ab") as log:
                subprocess.run(
                    command, check=True, stdout=log, stderr=log, cwd=folder,
                    env={**os.environ, "PGPASSWORD": PASSWORD}, timeout=120, **person,
                )  # fmt: skip

        run(
            "initdb", "--pgdata", data, "--username", USER, "--pwfile", password,
            "--auth", "scram-sha-256", "--no-sync", "--encoding", "UTF8", "--locale", "C",
        )  # fmt: skip
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "start", "--wait", "--pgdata", data, "--options", options)
        try:
            where = ("--host", "127.0.0.1", "--port", port, "--username", USER)
            run("createdb", *where, DATABASE)
            yield f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}"
        finally:
            run("pg_ctl", "stop", "--mode", "immediate", "--pgdata", data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f"{folder.name}.log").unlink(missing_ok=True)
