"""Simulator: a board on a pseudo-terminal that real serial software opens.

May import the simulator's firmware, signals and faults. The only module of the simulator with a
thread, a clock and file descriptors; for Linux. Writes no log: `BoardReport` has the counts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
import threading
import time
import tty
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from hardware.errors import ScentdError, UsageError
from hardware.simulator.board_firmware import Dialect, SimulatedFirmware
from hardware.simulator.faults import Fault, FaultKind, parse_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from numpy.typing import NDArray

    from hardware.simulator.signals import Signal

_DRAIN_S = 3.0
_PATIENCE_S = 0.5
"""An accelerated board may be faster than a listener on a busy machine. It waits this long for
room, but not again until there is some: a listener that never reads delays it once."""
_POLL_S = 0.02
_EMPTY_POLLS = 4


class SimulatorError(ScentdError):
    """The link to the simulated board cannot be made."""


@dataclass(frozen=True, slots=True)
class BoardReport:
    """Counts of a simulated board.

    Attributes
    ----------
    readings: rows of the signal that were sent, or lost on the way.
    sent_bytes: bytes written to the pseudo-terminal.
    lines_without_listener: lines while nobody had the port open.
    overrun_bytes: bytes lost because the listener did not read in time.
    missed_readings: readings during a pause or while unplugged.
    boots: starts of the board, the first one included.
    faults: faults begun.
    finished: whether the signal has ended.
    """

    readings: int = 0
    sent_bytes: int = 0
    lines_without_listener: int = 0
    overrun_bytes: int = 0
    missed_readings: int = 0
    boots: int = 0
    faults: int = 0
    finished: bool = False


@dataclass(frozen=True, slots=True)
class SentLine:
    """One reading as a board sent it.

    Attributes
    ----------
    sent_s: seconds since 1970 just before it was written.
    plugged: how often the board had been plugged in.
    frame_seq: the board's number of the reading.
    data: the bytes that were written; empty without a listener.
    whole: whether there was room for all of them.
    faults: the kinds of the faults that were active.
    """

    sent_s: float
    plugged: int
    frame_seq: int
    data: bytes
    whole: bool
    faults: frozenset[FaultKind]


class PseudoTerminal:
    """A pseudo-terminal behind an optional link; closing it looks like unplugging."""

    __slots__ = ("_link", "_master", "_poll", "_waits", "name")

    def __init__(self, link: Path | None) -> None:
        self._link = link
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.name = os.ttyname(slave)
        # Closed, so that POLLHUP at the master means that nobody has the port open.
        os.close(slave)
        os.set_blocking(self._master, False)
        self._poll = select.poll()
        self._poll.register(self._master, select.POLLOUT)
        self._waits = True
        if link is not None:
            try:
                _place_link(link, self.name)
            except BaseException:
                os.close(self._master)
                raise

    def has_listener(self) -> bool:
        """Whether somebody has the port open."""
        return not any(event & select.POLLHUP for _, event in self._poll.poll(0))

    def send(self, data: bytes) -> int:
        """Write, waiting at most `_PATIENCE_S` for room; return the number of bytes written."""
        sent = self._write(data)
        give_up = time.monotonic() + _PATIENCE_S
        while sent < len(data) and self._waits and time.monotonic() < give_up:
            self._poll.poll(_POLL_S * 1000)
            sent += self._write(data[sent:])
        self._waits = sent == len(data)
        return sent

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EIO:  # the listener has just closed the port
                return 0
            raise

    def discard_input(self) -> None:
        """Discard what the listener wrote, as a board without commands does."""
        with contextlib.suppress(OSError):
            os.read(self._master, 4096)

    def unread_bytes(self) -> int | None:
        """Return how much the listener has not read yet; None if that is unknown."""
        try:
            slave = os.open(self.name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            return None  # held exclusively by another user's process
        try:
            packed = fcntl.ioctl(slave, termios.FIONREAD, b"\0\0\0\0")
        finally:
            os.close(slave)
        return int(struct.unpack("i", packed)[0])

    def close(self) -> None:
        """Remove link and port."""
        with contextlib.suppress(OSError):  # another board may have replaced the link
            if self._link is not None and str(self._link.readlink()) == self.name:
                self._link.unlink()
        os.close(self._master)


def _place_link(link: Path, target: str) -> None:
    if os.path.lexists(link) and not link.is_symlink():
        raise UsageError(
            f"{link} exists and is not a symbolic link, so the simulated board's port cannot be "
            "put there. Choose another --link, or move that file away."
        )
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
    except OSError as error:
        raise SimulatorError(
            f"The link {link} to the simulated board's port cannot be made ({error.strerror}). "
            "Its folder must exist and be writable; choose another --link."
        ) from error


class SimulatedBoard:
    """A board on a pseudo-terminal, plugged in within its `with` block.

    Its thread plays the signal in time. A host that does not read never blocks it: bytes without a
    listener, or without room, are lost and counted, as on a real line.

    Parameters
    ----------
    signal: what the board reads.
    dialect: of its lines; only SCENT and CSV contain the board's clock.
    link: path of a symbolic link to the port, removed while the board is unplugged. Without one
        the port's name changes whenever the board is plugged in again.
    speed: board seconds per real second. The device clock counts board time.
    faults: a schedule, as text or parsed.
    seed: of the garbage, the dropped bytes and the jitter.
    wait_for_listener: begin when the port is first opened, so that no reading is missed.
    clock: real seconds, monotonic.
    sleep: waits for real seconds; the default ends early when the board is stopped.
    on_line: called in the board's thread with every line, sent or not.

    Raises
    ------
    UsageError
        A speed that is not above zero, an unreadable schedule, or a link where a file is.
    SimulatorError
        The link cannot be made.

    Examples
    --------
    >>> from hardware.simulator.signals import SyntheticSignal
    >>> with SimulatedBoard(SyntheticSignal("air:60"), speed=100) as board:
    ...     board.port.startswith("/dev/")
    True
    """

    _SETTLE_S = 0.3
    """A port is configured and flushed after it was opened, before it is read."""

    def __init__(
        self,
        signal: Signal,
        *,
        dialect: Dialect | str = Dialect.SCENT,
        link: Path | str | None = None,
        speed: float = 1.0,
        faults: str | tuple[Fault, ...] = (),
        seed: int = 0,
        wait_for_listener: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        on_line: Callable[[SentLine], None] = lambda _line: None,
    ) -> None:
        if not 0 < speed < np.inf:
            raise UsageError(f"A board's speed must be above zero, got {speed:g}; 1 is real time.")
        self._signal = signal
        self._link = None if link is None else Path(link)
        self._speed = speed
        self._wait_for_listener = wait_for_listener
        self._clock = clock
        self._stop = threading.Event()
        self._sleep = self._stop.wait if sleep is None else sleep
        self._rng = np.random.default_rng(seed)
        self._firmware = SimulatedFirmware(Dialect(dialect), self._rng)
        self._lock = threading.Lock()
        self._pending = parse_faults(faults) if isinstance(faults, str) else faults
        self._active: tuple[Fault, ...] = ()
        self._now_s = 0.0
        self._on_line = on_line
        self._plugged = 0
        self._report = BoardReport(boots=1)
        self._terminal: PseudoTerminal | None = None
        self._port = ""
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="simulated-board", daemon=True)

    def __enter__(self) -> Self:
        self._plug_in()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._pull_out()
        if self._failure is not None and error is None:
            raise self._failure

    @property
    def port(self) -> str:
        """Path to open: the link, or without one the pseudo-terminal's current name."""
        return self._port if self._link is None else str(self._link)

    @property
    def plugged(self) -> bool:
        """Whether the port exists."""
        return self._terminal is not None

    @property
    def pluggings(self) -> int:
        """How often the board was plugged in, the first time included."""
        return self._plugged

    @property
    def now_s(self) -> float:
        """Board time of the latest reading, in seconds since the board was started."""
        return self._now_s

    @property
    def report(self) -> BoardReport:
        """The counts so far."""
        with self._lock:
            return self._report

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the signal has ended and been read; return whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def inject(self, faults: str | tuple[Fault, ...]) -> None:
        """Schedule faults relative to the present: ``inject("stuck:VOC@0:20")``."""
        parsed = parse_faults(faults) if isinstance(faults, str) else faults
        with self._lock:
            shifted = tuple(replace(fault, start_s=fault.start_s + self._now_s) for fault in parsed)
            self._pending += shifted

    def unplug(self) -> None:
        """Remove the port at the next reading, until `replug`."""
        self.inject((Fault(FaultKind.UNPLUG, 0.0, np.inf),))

    def replug(self) -> None:
        """Plug the board in again, rebooted, at the next reading."""
        with self._lock:
            self._pending = _without_unplug(self._pending)
            self._active = _without_unplug(self._active)

    # The thread

    def _run(self) -> None:
        try:
            if self._wait_for_listener:
                self._wait_for_opener()
            self._play(iter(self._signal))
            if not self._stop.is_set():
                self._drain()
                with self._lock:
                    self._report = replace(self._report, finished=True)
        except BaseException as failure:  # noqa: BLE001 - raised when the block ends
            self._failure = failure

    def _play(self, rows: Iterator[NDArray[np.float32]]) -> None:
        period_s = 1.0 / self._signal.rate_hz
        started = self._clock()
        for reading, values in enumerate(rows):
            due_s = reading * period_s
            if any(fault.kind is FaultKind.JITTER for fault in self._active):
                due_s = max(self._now_s, due_s + period_s * float(self._rng.uniform(-0.5, 0.5)))
            wait_s = started + due_s / self._speed - self._clock()
            if wait_s > 0:
                self._sleep(wait_s)
            if self._stop.is_set():
                return
            self._take_reading(values, due_s)

    def _take_reading(self, values: NDArray[np.float32], now_s: float) -> None:
        active = self._faults_at(now_s)
        kinds = {fault.kind for fault in active}
        if FaultKind.UNPLUG in kinds:
            self._pull_out()
        elif self._terminal is None:
            self._plug_in()
            self._reboot(now_s)
        if self._terminal is None or FaultKind.PAUSE in kinds:
            self._count(missed_readings=1)
            return
        for kind in kinds:
            if kind is FaultKind.REBOOT:
                self._reboot(now_s)
            elif kind in (FaultKind.CLOCK_JUMP, FaultKind.CLOCK_WRAP):
                self._firmware.set_clock(kind, now_s)
        frame_seq = self._firmware.frame_seq
        data = self._firmware.encode(values, now_s, active)
        sent_s = time.time()
        written = self._transmit(self._terminal, data)
        line = SentLine(
            sent_s,
            self._plugged,
            frame_seq,
            data[:written],
            written == len(data),
            frozenset(kinds),
        )
        self._on_line(line)

    def _faults_at(self, now_s: float) -> tuple[Fault, ...]:
        """Begin and end faults by their time; each affects at least one reading."""
        with self._lock:
            self._now_s = now_s
            begun = tuple(fault for fault in self._pending if fault.start_s <= now_s)
            self._pending = tuple(fault for fault in self._pending if fault.start_s > now_s)
            self._active = tuple(fault for fault in self._active if now_s < fault.end_s) + begun
            self._report = replace(self._report, faults=self._report.faults + len(begun))
            return self._active

    def _transmit(self, terminal: PseudoTerminal, data: bytes) -> int:
        """Send a line; return the number of bytes written."""
        terminal.discard_input()
        if not terminal.has_listener():
            self._count(readings=1, lines_without_listener=1)
            return 0
        sent = terminal.send(data)
        self._count(readings=1, sent_bytes=sent, overrun_bytes=len(data) - sent)
        return sent

    def _reboot(self, now_s: float) -> None:
        self._firmware.boot(now_s)
        self._count(boots=1)

    def _plug_in(self) -> None:
        self._terminal = PseudoTerminal(self._link)
        self._plugged += 1
        self._port = self._terminal.name

    def _pull_out(self) -> None:
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.close()

    def _wait_for_opener(self) -> None:
        terminal = self._terminal
        while terminal is not None and not self._stop.is_set() and not terminal.has_listener():
            self._stop.wait(_POLL_S)
        self._stop.wait(self._SETTLE_S)

    def _drain(self) -> None:
        """Wait until the listener has read everything, while it keeps the port open."""
        terminal = self._terminal
        give_up = time.monotonic() + _DRAIN_S
        empty = 0
        # The kernel passes bytes on in the background, so "nothing unread" must last.
        while terminal is not None and empty < _EMPTY_POLLS and time.monotonic() < give_up:
            if not terminal.has_listener() or self._stop.wait(_POLL_S):
                return
            empty = empty + 1 if terminal.unread_bytes() == 0 else 0

    def _count(self, **more: int) -> None:
        with self._lock:
            counts = {name: getattr(self._report, name) + n for name, n in more.items()}
            self._report = replace(self._report, **counts)


def _without_unplug(faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    return tuple(fault for fault in faults if fault.kind is not FaultKind.UNPLUG)
