"""Daemon: one service at a time on a state folder.

Two services would both write the outbox, the recordings and the taught smells. The running one
holds a lock on a file in the folder, which says who it is; the kernel releases the lock when the
process ends, however it ends. May import hardware and the standard library.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from daemon.system.logs import get_logger
from hardware.errors import ScentdError
from hardware.files import FILE_MODE, open_regular
from hardware.safe_json import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICE_LOCK = "service.lock"
"""File below `state_dir`: pid and rig of the service that holds it, and since when."""

_HOLDER_BYTES = 4096
_TRY_FOR_S = 1.0
"""A process that has just been killed, or that asks who holds the folder, lets go within this."""
_POLL_S = 0.05


class StateHeldError(ScentdError):
    """A service runs on this state folder already."""


@contextmanager
def held_state(folder: Path, rig_id: str) -> Iterator[None]:
    """Hold a state folder for the service of a rig while the block runs.

    Where the disk allows no lock (full, read-only), the service runs without one and logs that.

    Raises
    ------
    StateHeldError: another service holds it.
    """
    try:
        descriptor = _open(folder)
    except OSError as error:
        get_logger("service").warning(
            f"{folder / SERVICE_LOCK} cannot be made ({error.strerror or error}): a second "
            "service on this state_dir would not be noticed."
        )
        yield
        return
    try:
        give_up_s = time.monotonic() + _TRY_FOR_S
        while not (held := _lock(descriptor)) and time.monotonic() < give_up_s:
            time.sleep(_POLL_S)
        if not held:
            raise StateHeldError(
                f"Another scentd runs on state_dir {folder}: {_describe(descriptor)}. Only one "
                "service may use a state folder: stop that one, or give each rig a state_dir and "
                "a rig_id of its own."
            )
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        holder = json.dumps({"pid": os.getpid(), "rig_id": rig_id, "since": since})
        with suppress(OSError):  # a full disk: the lock holds without the words
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder_of(folder: Path) -> str | None:
    """Return a description of the service that holds a state folder, None where none does."""
    try:
        descriptor = open_regular(folder / SERVICE_LOCK)
    except OSError:
        return None
    try:
        return None if _lock(descriptor) else _describe(descriptor)
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    path = folder / SERVICE_LOCK
    try:
        return open_regular(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    except OSError:
        return open_regular(path)  # of an earlier start, on a disk that is read-only now


def _lock(descriptor: int) -> bool:
    """Lock an open file; return whether no other process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _describe(descriptor: int) -> str:
    """Return who holds the lock, as far as the file says."""
    try:
        holder = read_json(os.pread(descriptor, _HOLDER_BYTES, 0))
        return f"process {holder['pid']}, rig {holder['rig_id']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that could not write its name"
