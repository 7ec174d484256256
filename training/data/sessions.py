"""training/: the session of each recording, and folds that hold out whole sessions.

A session is one rig, one place, one day. Its name comes from, in this order:

1. `sessions.csv` in the data folder: columns `recording` (path below the folder) and `session`;
2. the table of published recordings that comes with scentd (`known_sessions.csv`, by file hash);
3. the folder between label and file: `LABEL/SESSION/*.csv`;
4. the UTC date in the name of a segment that the service wrote.

A recording without any of these has no session (an empty name) and is never held out.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hardware.errors import ScentdError
from training.data.recording_files import SESSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.data.dataset import Dataset

MAX_FOLDS = 5
"""Sessions are put together into at most so many folds, each of whole sessions."""

_KNOWN = "known_sessions.csv"
_COLUMNS = ("recording", "session")
_NAMED = 5


class SessionError(ScentdError):
    """Sessions are not known, or a table of them cannot be read."""


def read_session_table(folder: Path) -> dict[str, str]:
    """Return the sessions by recording from `sessions.csv` in a folder; empty without the file.

    Raises
    ------
    SessionError: it lacks a column, or a row lacks a value.
    """
    path = folder / SESSION_TABLE
    if not path.is_file():
        return {}
    return _read(path, *_COLUMNS)


@cache
def known_sessions() -> dict[str, str]:
    """Return the sessions of published recordings by the SHA-256 of their files."""
    return _read(Path(str(resources.files("training.data"))) / _KNOWN, "sha256", "session")


def session_of(name: str, sha256: str, from_path: str, table: dict[str, str]) -> str:
    """Return the session of a recording: of the table, of the known ones, or of its path."""
    return table.get(name) or known_sessions().get(sha256) or from_path


@dataclass(frozen=True, slots=True, eq=False)
class SessionFold:
    """Sessions that are held out together.

    Attributes
    ----------
    sessions: their names.
    train, test: bool[recordings]. The test recordings are those of the sessions, without labels
        that have no recording in `train`.
    not_judged: the labels left out of the test for that reason.
    """

    sessions: tuple[str, ...]
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    not_judged: tuple[str, ...]

    @property
    def name(self) -> str:
        """The sessions in a few words."""
        return ", ".join(self.sessions)


def session_folds(data: Dataset) -> list[SessionFold]:
    """Return the folds that hold out whole sessions, of which something can be judged.

    Every session is a fold of its own, up to five; more are put together, sessions that share few
    labels first, so that a label keeps sessions to be trained on.

    Raises
    ------
    SessionError: no label has recordings of two sessions.
    """
    label = data.targets.argmax(axis=1)
    sessions = [sample.session for sample in data.samples]
    folds = []
    for group in _group_sessions(sessions, label):
        held_out = np.array([session in group for session in sessions])
        train = ~held_out
        trained = np.isin(label, label[train])
        test = held_out & trained
        lost = sorted({data.labels[k] for k in label[held_out & ~trained]})
        if test.any():
            folds.append(SessionFold(tuple(sorted(group)), train, test, tuple(lost)))
    if not folds:
        named = sorted(set(sessions) - {""})
        raise SessionError(
            "Expected recordings of one label in at least two sessions, to train on one and judge "
            f"on another; found {_listed(named) if named else 'no session named'}. Lay the "
            f"recordings out as LABEL/SESSION/*.csv, or name sessions in a {SESSION_TABLE} with "
            "the columns recording and session in the data folder. Where there is one session "
            "only, record every label again on another day."
        )
    return folds


def labels_of_one_session(data: Dataset) -> list[str]:
    """Return the labels whose recordings are all of one session, or of none that is named."""
    sessions: dict[int, set[str]] = defaultdict(set)
    for sample in data.samples:
        sessions[int(sample.target.argmax())].add(sample.session)
    return [data.labels[k] for k in sorted(sessions) if len(sessions[k] - {""}) < 2]  # noqa: PLR2004


def _group_sessions(sessions: Sequence[str], label: NDArray[np.intp]) -> list[set[str]]:
    """Put sessions into at most `MAX_FOLDS` groups, the largest session first."""
    labels: dict[str, set[int]] = defaultdict(set)
    for session, one in zip(sessions, label.tolist(), strict=True):
        if session:
            labels[session].add(one)
    sizes = Counter(sessions)
    groups: list[set[str]] = [set() for _ in range(min(MAX_FOLDS, len(labels)))]
    for session in sorted(labels, key=lambda name: (-sizes[name], name)):
        best = min(
            groups,
            key=lambda group: (
                sum(len(labels[session] & labels[other]) for other in group),
                sum(sizes[other] for other in group),
            ),
        )
        best.add(session)
    return sorted((group for group in groups if group), key=min)


def _read(path: Path, key: str, value: str) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SessionError(f"{path} cannot be read as a table: {error}.") from error
    wrong = [number for number, row in enumerate(rows, 2) if not (row.get(key) and row.get(value))]
    if wrong or not rows:
        where = f"line {wrong[0]} lacks one" if wrong else "it has no rows"
        raise SessionError(
            f"Expected the columns {key} and {value} in every row of {path}; {where}. Correct the "
            "table, or remove it and lay the recordings out as LABEL/SESSION/*.csv."
        )
    return {row[key].strip(): row[value].strip() for row in rows}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"the sessions {', '.join(names[:_NAMED])}{more}, no label in two of them"
