"""Daemon: secrets in files: which copy of a file to read, and its first line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Mapping

CREDENTIALS = "credentials"
"""Folder beside the configuration for files that only root may read."""

CREDENTIAL_PREFIX = "scentd_"
"""Prefix that LoadCredential=scentd:FOLDER gives to the name of every file of the folder."""


class SecretError(ScentdError):
    """A file that should hold a secret cannot be used; the message never shows its contents."""


def credential_path(path: Path, folder: Path, environ: Mapping[str, str]) -> Path:
    """Return the copy of a credential that systemd made for this service, if it made one.

    Parameters
    ----------
    path : Path
        As configured, absolute.
    folder : Path
        Of the configuration. Its folder `credentials` belongs to root.
    environ : mapping
        With CREDENTIALS_DIRECTORY, where systemd names the folder of the copies.
    """
    copies = environ.get("CREDENTIALS_DIRECTORY")
    if copies is None or path.parent != folder / CREDENTIALS:
        return path
    copy = Path(copies) / f"{CREDENTIAL_PREFIX}{path.name}"
    return copy if copy.exists() else path


def read_secret(path: Path) -> str:
    """Return the first line of a secret's file, without its end.

    Raises
    ------
    SecretError
        If the file is missing, unreadable or empty.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SecretError(
            f"The password file {path} does not exist. Write the password into it, alone on one "
            "line, and let only scentd's user read it (chmod 600)."
        ) from None
    except (PermissionError, IsADirectoryError) as error:
        raise SecretError(
            f"The password file {path} cannot be read ({error.strerror}). "
            "It must be a file that scentd's user may read."
        ) from None
    except UnicodeDecodeError:
        raise SecretError(
            f"The password file {path} is not UTF-8 text. Save it as UTF-8."
        ) from None
    secret = text.split("\n", maxsplit=1)[0].strip("\r")
    if not secret:
        raise SecretError(
            f"The first line of the password file {path} is empty. It must hold the password."
        )
    return secret
