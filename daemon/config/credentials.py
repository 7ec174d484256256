"""Daemon: secrets in files: finds the copy that systemd made, and reads the first line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Mapping

CREDENTIALS = "credentials"
"""Folder beside the configuration for files that only root may read."""

CREDENTIAL_PREFIX = "scentd_"
"""LoadCredential=scentd:FOLDER puts this before the name of every file of the folder."""


class SecretError(ScentdError):
    """A file that should hold a secret cannot be used; the message never shows its contents."""


def credential_path(path: Path, folder: Path, environ: Mapping[str, str]) -> Path:
    """Return systemd's copy of a credential, or the configured path if there is none.

    Parameters
    ----------
    path: as configured, absolute.
    folder: of the configuration; its folder `credentials` belongs to root.
    environ: holds CREDENTIALS_DIRECTORY, the folder of systemd's copies.
    """
    copies = environ.get("CREDENTIALS_DIRECTORY")
    if copies is None or path.parent != folder / CREDENTIALS:
        return path
    copy = Path(copies) / f"{CREDENTIAL_PREFIX}{path.name}"
    return copy if copy.exists() else path


def read_secret(path: Path) -> str:
    """Return the first line of a secret's file; raise `SecretError` if there is none."""
    try:
        # Editors of Windows put a byte order mark first, which is no part of the password.
        text = path.read_text(encoding="utf-8-sig")
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
