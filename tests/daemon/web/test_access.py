"""The token lies in a file that only its owner reads, and is made once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from daemon.web.access import Token, TokenError, load_token


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "web-token"
    made = load_token(path)
    assert made.is_new
    assert len(made.text) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = load_token(path)
    assert (again.text, again.is_new) == (made.text, False)
    assert load_token(tmp_path / "other").text != made.text


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "web-token"
    load_token(path)
    path.chmod(0o640)
    with pytest.raises(TokenError, match="0640"):
        load_token(path)


@pytest.mark.parametrize("content", [b"", b"short", b"two words of many letters indeed", b"\xff"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "web-token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(TokenError, match="20 to 200"):
        load_token(path)


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("x" * 30)
    target.chmod(0o600)
    (tmp_path / "web-token").symlink_to(target)
    with pytest.raises(TokenError):
        load_token(tmp_path / "web-token")


def test_another_token_ends_every_session() -> None:
    one, other = Token("a" * 30), Token("b" * 30)
    assert one.matches_cookie(one.cookie)
    assert not other.matches_cookie(one.cookie)
    assert one.cookie_name != other.cookie_name
