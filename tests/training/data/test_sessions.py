"""The session of a recording, and folds of whole sessions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.tiny import in_sessions, periodic, write_recordings
from training.data.dataset import load_substances
from training.data.sessions import (
    MAX_FOLDS,
    SessionError,
    known_sessions,
    labels_of_one_session,
    read_session_table,
    session_folds,
)


def test_a_table_names_sessions_and_wins_over_the_folder(tmp_path: Path) -> None:
    write_recordings(in_sessions(2), tmp_path)
    first = load_substances(tmp_path).samples[0]
    assert first.session == "day-0"
    table = tmp_path / "sessions.csv"
    table.write_text(f"recording,session\n{first.name},kitchen\n")
    assert load_substances(tmp_path).samples[0].session == "kitchen"
    table.write_text("recording,day\na.csv,1\n")
    with pytest.raises(SessionError, match=r"columns recording and session.*line 2"):
        load_substances(tmp_path)


@given(
    st.binary(max_size=200).flatmap(
        lambda rest: st.sampled_from([rest, b"recording,session\n" + rest])
    )
)
def test_any_bytes_are_a_table_or_a_session_error(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        Path(folder, "sessions.csv").write_bytes(content)
        try:
            table = read_session_table(Path(folder))
        except SessionError:
            return
    assert all(isinstance(text, str) for pair in table.items() for text in pair)


def test_every_session_is_held_out_whole_and_once() -> None:
    data = in_sessions(4)
    folds = session_folds(data)
    assert [fold.sessions for fold in folds] == [(f"day-{k}",) for k in range(4)]
    tested = np.sum([fold.test for fold in folds], axis=0)
    np.testing.assert_array_equal(tested, 1)
    for fold in folds:
        here = {sample.session for sample, out in zip(data.samples, fold.test, strict=True) if out}
        rest = {
            sample.session for sample, is_in in zip(data.samples, fold.train, strict=True) if is_in
        }
        assert not here & rest


def test_many_sessions_make_five_folds() -> None:
    folds = session_folds(in_sessions(12, per_label=12))
    assert len(folds) == MAX_FOLDS
    assert sorted(len(fold.sessions) for fold in folds) == [2, 2, 2, 3, 3]


def test_a_label_of_one_session_is_neither_trained_nor_judged_without_it() -> None:
    data = in_sessions(2)
    samples = [s for s in data.samples if s.session == "day-0" or not s.name.startswith("mango")]
    data = dataclasses.replace(data, samples=tuple(samples))
    assert labels_of_one_session(data) == ["mango"]
    fold = session_folds(data)[0]
    assert fold.not_judged == ("mango",)
    mango = np.array([sample.name.startswith("mango") for sample in samples])
    assert not (mango & (fold.test | fold.train)).any()


def test_recordings_without_a_session_always_train() -> None:
    data = in_sessions(2)
    samples = [
        dataclasses.replace(s, session="") if s.name.startswith("mango") else s
        for s in data.samples
    ]
    for fold in session_folds(dataclasses.replace(data, samples=tuple(samples))):
        assert all(train for s, train in zip(samples, fold.train, strict=True) if not s.session)


def test_one_session_cannot_be_judged() -> None:
    with pytest.raises(SessionError, match="LABEL/SESSION"):
        session_folds(periodic())


@pytest.mark.data
def test_published_recordings_of_two_sessions_are_known(smellnet: Path) -> None:
    base = load_substances(smellnet / "base")
    assert Counter(sample.session for sample in base.samples) == {"": 235, "a": 8, "b": 7}
    assert [int(fold.test.sum()) for fold in session_folds(base)] == [8, 7]
    nuts = load_substances(smellnet / "crosssession" / "nuts")
    assert len(known_sessions()) == len(base.samples) - 235 + len(nuts.samples)
    assert {sample.session for sample in nuts.samples} == {"nuts-of-another-day"}
    assert len(nuts.samples) == 10
