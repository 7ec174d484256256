"""Daemon: who may use the page: the token in a file, and the cookie of a browser that showed it.

Knows files and digests, but no HTTP. The cookie holds no token, and no session is stored: it is a
keyed digest of the token, so that another token ends every session.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.errors import ScentdError
from hardware.files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_FILE = "web-token"  # noqa: S105 - the name of a file
TOKEN_BYTES = 24
_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,200}")
_PURPOSE = b"scentd web: cookie, version 1"


class TokenError(ScentdError):
    """The file with the token cannot be used."""


@dataclass(frozen=True, slots=True)
class Token:
    """The token of a rig's page.

    Attributes
    ----------
    text: what is typed to log in.
    is_new: whether it was made just now.
    """

    text: str
    is_new: bool = False

    @property
    def cookie_name(self) -> str:
        """A name of its own: cookies of one host are shared by all its ports."""
        return f"scentd_{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"

    @property
    def cookie(self) -> str:
        """The value of the cookie."""
        return hmac.new(self.text.encode(), _PURPOSE, hashlib.sha256).hexdigest()

    def matches(self, text: str) -> bool:
        """Whether a text is the token; takes the same time for every text."""
        return hmac.compare_digest(self.text.encode(), text.encode("utf-8", "replace"))

    def matches_cookie(self, value: str) -> bool:
        """Whether a value is that of the cookie."""
        return hmac.compare_digest(self.cookie.encode(), value.encode("utf-8", "replace"))


def load_token(path: Path) -> Token:
    """Return the token in a file; make the file, for this user alone, where there is none.

    Raises
    ------
    TokenError: the file holds no token, or others may read it.
    """
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return Token(_read_token(path))
    except OSError as error:
        raise TokenError(
            f"The token of the page cannot be written to {path} ({error.strerror}). Make the "
            "folder writable for this user, or name another file: --token-file FILE."
        ) from None
    text = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(f"{text}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())
    return Token(text, is_new=True)


def _read_token(path: Path) -> str:
    try:
        with os.fdopen(open_regular(path), "rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            text = stream.read(1024).decode("utf-8", "replace").strip()
    except OSError as error:
        raise TokenError(
            f"The token of the page cannot be read from {path} ({error.strerror})."
        ) from None
    if mode & 0o077:
        raise TokenError(
            f"{path} may be read or written by other users (mode {mode:04o}), so its token is no "
            f"secret. Remove the file, and a new token is made; or: chmod 600 {path}"
        )
    if not _TOKEN.fullmatch(text):
        raise TokenError(
            f"{path} must hold one line of 20 to 200 letters, digits, - and _, and holds something "
            "else. Remove the file, and a new token is made."
        )
    return text
