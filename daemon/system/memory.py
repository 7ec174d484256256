"""Daemon: releases the memory that only the start needed.

Half of the resident memory after the start is program text that ran once: ONNX Runtime's graph
optimisers, Python's importers. The kernel drops such pages only when memory is short; a board that
shares 512 MB with a broker and a dashboard should not wait for that. A page that is used again is
read from the page cache in microseconds.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

_MADV_DONTNEED = 4

_libc = ctypes.CDLL(None, use_errno=True)


def drop_startup_pages() -> None:
    """Unmap the pages of program text until they are run again, and free unused heap."""
    for start, end in _text_mappings():
        # Refused (EINVAL) for locked or otherwise special mappings, which then simply stay.
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
    if hasattr(_libc, "malloc_trim"):  # glibc's alone
        _libc.malloc_trim(0)


def _text_mappings() -> list[tuple[int, int]]:
    """Return start and end of every executable mapping of a file.

    No process writes to these, so each page can be read from the file again. Pages of a library's
    data may hold relocations, which would be lost.
    """
    found = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, access, _offset, _device, inode, *_path = line.split(maxsplit=5)
        if access == "r-xp" and inode != "0":
            start, end = span.split("-")
            found.append((int(start, 16), int(end, 16)))
    return found


@cache
def _statm(_pid: int) -> int:
    """Open the page counts once per process: later there may be no free file descriptor."""
    return os.open("/proc/self/statm", os.O_RDONLY)


def resident_mb() -> float:
    """Return the resident memory of this process in megabytes (10^6 bytes)."""
    pages = int(os.pread(_statm(os.getpid()), 256, 0).split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
