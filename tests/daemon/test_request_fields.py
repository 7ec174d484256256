"""Fields of requests: checked by name, kind and limits, with one set of messages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from daemon.request_fields import (
    Action,
    Actions,
    RequestError,
    flag,
    number,
    path_below,
    paths_below,
    text,
)
from daemon.system.background import Data


def values(**fields: Any) -> Data:
    return fields


TEACH = Action(
    values,
    ("seconds", "last_s"),
    label=text(),
    seconds=number(1, 60, 5.0),
    last_s=number(1, 60, None),
    promote=flag(default=False),
    model=text(None),
)


def test_a_function_gets_the_values_of_all_fields() -> None:
    assert TEACH({"label": " mint ", "seconds": 30, "promote": True}) == {
        "label": "mint",
        "seconds": 30.0,
        "last_s": None,
        "promote": True,
        "model": None,
    }


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "label must be text, and nothing came"),
        ({"label": None}, "label must be text, and null came"),
        ({"label": "  "}, "label must be text"),
        ({"label": "mint", "model": 3}, "model must be text, and 3 came"),
        ({"label": "mint", "promote": 1}, "promote must be true or false, and 1 came"),
        ({"label": "mint", "seconds": True}, "seconds must be a number from 1 to 60, and true"),
        ({"label": "mint", "seconds": "9"}, 'seconds must be a number from 1 to 60, and "9" came'),
        ({"label": "mint", "seconds": 61}, "1 to 60, and 61 came"),
        ({"label": "mint", "seconds": float("nan")}, "1 to 60, and NaN came"),
        ({"label": "mint", "seconds": 9, "last_s": 9}, "Give seconds or last_s, not both"),
        ({"label": "mint", "colour": "green"}, "no field colour. Its fields are: label, last_s"),
    ],
)
def test_a_wrong_field_is_refused_with_what_it_must_be(payload: Data, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TEACH(payload)


def found(action: Action, payload: Data) -> Data:
    """Return the values of an action's fields, once their paths were followed on the disk."""
    answer = action(payload)
    assert isinstance(answer, dict)
    return {name: value() for name, value in answer.items()}


def test_paths_must_lie_below_the_state_folder(tmp_path: Path) -> None:
    action = Action(values, file=path_below(tmp_path), files=paths_below(tmp_path))
    file = tmp_path.resolve() / "a" / "b.csv"
    inside = {"file": "a/b.csv", "files": ["a/b.csv", str(file)]}
    assert found(action, inside) == {"file": file, "files": (file, file)}
    assert found(action, {"file": "a"}) == {"file": file.parent, "files": ()}
    (tmp_path / "link").symlink_to("/etc")
    for outside in ("../x", "/etc/passwd", "link/passwd", "a\0b", 7, None):
        with pytest.raises(RequestError, match="file must be a path below the rig's state_dir"):
            found(action, {"file": outside})
        with pytest.raises(RequestError, match="files must be a list of paths below"):
            found(action, {"file": "a", "files": ["a", outside]})
    with pytest.raises(RequestError, match="files must be a list"):
        found(action, {"file": "a", "files": "a"})


def test_a_request_names_its_action_or_gets_the_default() -> None:
    actions = Actions(
        "list", list=Action(lambda: {"did": "list"}), hide=Action(values, label=text())
    )
    assert actions({}) == actions({"action": "list"}) == {"did": "list"}
    assert actions({"action": "hide", "label": "mint"}) == {"label": "mint"}
    with pytest.raises(RequestError, match='action must be one of list, hide, and "eat" came'):
        actions({"action": "eat"})
    with pytest.raises(RequestError, match="action must be text, and 3 came"):
        actions({"action": 3})


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "line\nbreak", "\x1b[2J"])
def test_text_that_no_name_can_have_is_answered_as_what_it_is(value: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="control characters or half of a surrogate pair"):
        TEACH({"label": value})
    with pytest.raises(RequestError, match="path must be a path below the rig's state_dir"):
        path_below(tmp_path).value("path", {"path": value})()
    with pytest.raises(RequestError, match="files must be a list of paths below"):
        paths_below(tmp_path).value("files", {"files": [value]})()


def test_a_path_that_leads_nowhere_is_answered_as_what_it_is(tmp_path: Path) -> None:
    field = path_below(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        ("loop", "a link to itself"),
        ("loop/below", "a link to itself"),
        ("pipe", "neither a file nor a folder"),
        ("x" * 5000, "File name too long"),
    ):
        with pytest.raises(RequestError, match=reason) as refused:
            field.value("path", {"path": path})()
        assert str(tmp_path) not in str(refused.value)
    assert field.value("path", {"path": "not-there-yet"})() == tmp_path / "not-there-yet"
