"""Daemon: memory and processor time of another process, from Linux's `/proc`."""

from __future__ import annotations

import os
from pathlib import Path


def resident_mb(pid: int) -> float:
    """Return a process's resident memory in megabytes (10^6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def proportional_mb(pid: int) -> float:
    """Return the same with every page that processes share divided among them (PSS)."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / 1e3


def peak_mb(pid: int) -> float:
    """Return a process's largest resident memory so far in megabytes."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:") / 1e3


def processor_s(pid: int) -> float:
    """Return the processor time of all threads of a process in seconds."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    # The name, the second field, may hold blanks and brackets.
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _kilobytes(path: Path, name: str) -> float:
    """Return a field in 10^3 bytes; the kernel gives it in units of 1,024."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1.024
    raise ValueError(f"{path} has no field {name}")
