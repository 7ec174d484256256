"""training/: where the study of a search lies: a file in the run folder, or a database.

A file serves one computer. A database (PostgreSQL, or another that Optuna takes) serves several
searchers of one study: each trial there has a heartbeat, so that one whose searcher was killed
counts as failed. Passwords are never part of a message.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.errors import ScentdError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import optuna
    from sqlalchemy.engine import URL

STUDY = "study.journal"

HEARTBEAT_S = 60
GRACE = 3
"""Heartbeats without which a trial counts as failed."""

_CONNECT_S = 10
_POSTGRESQL = frozenset({"postgresql", "postgres"})


class StudyStorageError(ScentdError):
    """The database of a study cannot be used."""


@dataclass(frozen=True, slots=True)
class StudyPlace:
    """Where a study lies.

    Attributes
    ----------
    folder: of the run; the study is a file in it, unless there is a `url`.
    url: of a database, as SQLAlchemy takes it; None without one.
    name: of the study; a database may hold many.
    heartbeat_s: seconds between two signs of life of a trial in a database.
    """

    folder: Path
    url: str | None = None
    name: str = "search"
    heartbeat_s: int = HEARTBEAT_S

    @property
    def shared(self) -> bool:
        """Whether other searchers may work on the study."""
        return self.url is not None

    def __str__(self) -> str:
        if self.url is None:
            return str(self.folder / STUDY)
        return f"study {self.name!r} in {shown(self.url)}"

    def open(self) -> optuna.storages.BaseStorage:
        """Open the storage, and make it if it is missing; call this within `explained`.

        Raises
        ------
        StudyStorageError: the driver of the database is missing.
        UsageError: the address is none.
        """
        from optuna.storages import JournalStorage, RDBStorage  # noqa: PLC0415 - of the extra train
        from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415

        if self.url is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(self.folder / STUDY)))
        url = _parsed(self.url)
        arguments = {"connect_timeout": _CONNECT_S} if url.drivername.startswith("postgres") else {}
        try:
            return RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs={"pool_pre_ping": True, "connect_args": arguments},
                heartbeat_interval=self.heartbeat_s,
                grace_period=GRACE * self.heartbeat_s,
            )
        except ImportError:
            driver = url.drivername.partition("+")[2] or url.drivername
            mend = "pip install 'scentd[postgresql]'" if driver == "psycopg" else "install it"
            raise StudyStorageError(
                f"The driver {driver} for the database {shown(self.url)} is not installed: {mend}."
            ) from None


def shown(url: str) -> str:
    """Return the address of a database without its password."""
    return _parsed(url).render_as_string(hide_password=True)


@contextmanager
def explained(url: str | None) -> Iterator[None]:
    """Turn errors of the database inside the block into `StudyStorageError`.

    Where the study is in a file (no `url`), every error passes.
    """
    from optuna.exceptions import StorageInternalError  # noqa: PLC0415 - of the extra train
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        if url is None:
            raise
        raise StudyStorageError(
            f"The database {shown(url)} cannot be used: {_cause(error, url)}. Check that its "
            "server runs and takes connections from here, that the database exists (createdb "
            "NAME), and that the user may make tables in it. The password may be part of the "
            "address, or lie in PGPASSWORD or ~/.pgpass."
        ) from None


def _parsed(url: str) -> URL:
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - of the extra train
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not shown: it may hold a password.
        raise UsageError(
            "Expected --storage as an address such as postgresql://USER@HOST/DATABASE or "
            "sqlite:////absolute/file.db; this one cannot be read."
        ) from None
    # The newer of the two drivers, which comes as a wheel everywhere.
    if parsed.drivername in _POSTGRESQL:
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _cause(error: Exception, url: str) -> str:
    """Return the innermost cause in one line, without the password."""
    inner: BaseException = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    original = getattr(inner, "orig", None) or inner
    text = " ".join(str(original).split())
    password = _parsed(url).password
    return text.replace(str(password), "***") if password else text
