"""Daemon: lets this process, and the children that it starts, open enough files for a fleet."""

from __future__ import annotations

import resource

from hardware.errors import ScentdError

OTHER_FILES = 100
"""Open files that a process needs beside those of its rigs or clients, with some to spare."""


class OpenFilesError(ScentdError):
    """A process may not open as many files as it needs."""


def raise_limit(files: int, what: str) -> None:
    """Raise the limit of open files to `files` if it is lower.

    Raises
    ------
    OpenFilesError: only the administrator may raise it so far; `what` needs them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= files:
        return
    if hard != resource.RLIM_INFINITY and hard < files:
        raise OpenFilesError(
            f"{what} need {files} open files, and a process of this user may have {hard}. Raise "
            "the limit (ulimit -Hn as root, or LimitNOFILE= of a unit), or ask for fewer rigs."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
