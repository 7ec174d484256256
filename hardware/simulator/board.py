"""Simulator: the board itself, on a pseudo-terminal that real serial software opens.

May import the line protocol, signals and faults. The one module of the simulator with a thread,
a clock and file descriptors; Linux only, as pseudo-terminals are. Writes no log: what happened
is in `BoardReport`.
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
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from hardware.channels import CHANNELS, UINT32_INFINITY, channel_index
from hardware.errors import ScentdError, UsageError
from hardware.protocol import (
    UPSTREAM_LABELS,
    encode_csv,
    encode_csv_header,
    encode_labelled,
    encode_scent,
)
from hardware.simulator.faults import Fault, FaultKind, parse_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from numpy.typing import NDArray

    from hardware.simulator.signals import Signal

_UINT32 = 1 << 32
_CLOCK_JUMP_MS = 3_600_000
_WRAP_AHEAD_MS = 1_500
"""A wrapping clock is set so close to 2**32 that the wrap itself happens in sight."""
_DROP_SHARE = 0.02
"""One byte in fifty goes missing: most lines of 90 bytes are hit, some survive."""
_GARBAGE_BYTES = 64
_HEADER_EVERY_ROWS = 10
"""Upstream firmware repeats its header every few seconds."""
_BANNER = b"test\r\nSetting up sensors...\r\n"
_UPSTREAM_HEADER = ("timestamp," + ",".join(UPSTREAM_LABELS) + "\r\n").encode()

_FROZEN_BME680 = {
    "Temperature": 33.59,
    "Pressure": 688.6,
    "Humidity": 100.0,
    "Gas_Resistance": 0.0,
    "Altitude": 3170.54,
}
"""The row that a hung BME680 repeats for ever, as in the published recordings."""

_DRAIN_S = 3.0
_PATIENCE_S = 0.5
"""An accelerated board outruns a listener whom the machine keeps waiting. It waits for room this
long, and not again until there is some: a listener who never reads stalls it once."""
_POLL_S = 0.02
_EMPTY_POLLS = 4


class SimulatorError(ScentdError):
    """The simulated board cannot be put where it was asked to be."""


class Dialect(Enum):
    """Which of the line protocol's dialects the board speaks."""

    SCENT = "scent"
    LABELLED = "labelled"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class BoardReport:
    """What the board has done so far.

    Attributes
    ----------
    readings: rows taken from the signal and sent, or lost on the way.
    sent_bytes: bytes that the pseudo-terminal took.
    lines_without_listener: lines nobody had the port open for.
    overrun_bytes: bytes lost because the listener did not read in time.
    missed_readings: readings that fell into a pause or an unplugged time.
    boots: times the board started, the first one included.
    faults: faults begun.
    finished: the signal has come to its end.
    """

    readings: int = 0
    sent_bytes: int = 0
    lines_without_listener: int = 0
    overrun_bytes: int = 0
    missed_readings: int = 0
    boots: int = 0
    faults: int = 0
    finished: bool = False


class _PseudoTerminal:
    """One pseudo-terminal behind an optional link; closing it is what unplugging looks like."""

    __slots__ = ("_link", "_master", "_patient", "_poll", "_room", "name")

    def __init__(self, link: Path | None) -> None:
        self._link = link
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.name = os.ttyname(slave)
        # Closed, so that the master can tell whether anybody listens (POLLHUP says nobody).
        os.close(slave)
        os.set_blocking(self._master, False)
        self._poll = select.poll()
        self._poll.register(self._master, 0)
        self._room = select.poll()
        self._room.register(self._master, select.POLLOUT)
        self._patient = True
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
        """Write, waiting a moment for room at most; return how many bytes found it."""
        sent = self._write(data)
        give_up = time.monotonic() + _PATIENCE_S
        while sent < len(data) and self._patient and time.monotonic() < give_up:
            self._room.poll(_POLL_S * 1000)
            sent += self._write(data[sent:])
        self._patient = sent == len(data)
        return sent

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EIO:  # the listener has just gone
                return 0
            raise

    def discard_input(self) -> None:
        """Throw away what the listener wrote to the board, as a board without commands does."""
        with contextlib.suppress(OSError):
            os.read(self._master, 4096)

    def unread_bytes(self) -> int | None:
        """Return how much the listener has not read yet; None if that cannot be asked."""
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
        """Take link and port away."""
        if self._link is not None and _links_to(self._link, self.name):
            self._link.unlink(missing_ok=True)
        os.close(self._master)


def _links_to(link: Path, target: str) -> bool:
    try:
        return str(link.readlink()) == target
    except OSError:
        return False


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


class _Firmware:
    """What runs on the board: its counter, its clock, its dialect, and the faults of its lines.

    Pure but for its random generator: board time and readings in, bytes out.
    """

    def __init__(self, dialect: Dialect, rng: np.random.Generator) -> None:
        self._dialect = dialect
        self._rng = rng
        self._held: dict[int, np.float32] = {}
        self.boot(0.0)

    def boot(self, now_s: float) -> None:
        """Start anew: counter and clock at zero, the banner before the next line."""
        self._booted_s = now_s
        self._clock_offset_ms = 0
        self._frame_seq = 0
        self._greeted = False

    def set_clock(self, kind: FaultKind, now_s: float) -> None:
        """Let the clock jump ahead, or put it just before its wrap."""
        if kind is FaultKind.CLOCK_WRAP:
            self._clock_offset_ms = 0
            self._clock_offset_ms = _UINT32 - _WRAP_AHEAD_MS - self._device_ms(now_s)
        else:
            self._clock_offset_ms += _CLOCK_JUMP_MS

    def say(self, values: NDArray[np.float32], now_s: float, faults: Iterable[Fault]) -> bytes:
        """Return the bytes of one reading, with every active fault acted out."""
        striking = list(faults)
        spoilt = self._spoil_values(values, striking)
        line = self._before_line() + self._encode(spoilt, self._device_ms(now_s))
        self._frame_seq = (self._frame_seq + 1) % _UINT32
        for fault in striking:
            line = self._spoil_line(line, fault.kind)
        return line

    def _device_ms(self, now_s: float) -> int:
        return (round((now_s - self._booted_s) * 1000) + self._clock_offset_ms) % _UINT32

    def _encode(self, values: NDArray[np.float32], device_ms: int) -> bytes:
        if self._dialect is Dialect.SCENT:
            return encode_scent(self._frame_seq, device_ms, values)
        if self._dialect is Dialect.LABELLED:
            return encode_labelled(values)
        return encode_csv(values, device_ms)

    def _before_line(self) -> bytes:
        """Return the banner of a board that has just started, and the headers of its dialect."""
        before = b"" if self._greeted else _BANNER
        if self._dialect is Dialect.CSV and not self._greeted:
            before += encode_csv_header()
        if self._dialect is Dialect.LABELLED and self._frame_seq % _HEADER_EVERY_ROWS == 0:
            before += b"\r\n" + _UPSTREAM_HEADER
        self._greeted = True
        return before

    def _spoil_values(
        self, values: NDArray[np.float32], faults: Iterable[Fault]
    ) -> NDArray[np.float32]:
        spoilt = values.copy()
        stuck: dict[int, np.float32] = {}
        for fault in faults:
            if fault.kind is FaultKind.FREEZE:
                for name, value in _FROZEN_BME680.items():
                    spoilt[channel_index(name)] = value
            elif fault.channel is not None:
                if fault.kind is FaultKind.STUCK:
                    held = self._held.get(fault.channel, values[fault.channel])
                    stuck[fault.channel] = held
                spoilt[fault.channel] = stuck.get(fault.channel, _wrong_number(fault))
        self._held = stuck
        return spoilt

    def _spoil_line(self, line: bytes, kind: FaultKind) -> bytes:
        if kind is FaultKind.GARBAGE:
            return self._rng.bytes(_GARBAGE_BYTES) + line
        if kind is FaultKind.DROP:
            kept = self._rng.random(len(line)) >= _DROP_SHARE
            return bytes(byte for byte, keep in zip(line, kept, strict=True) if keep)
        if kind is FaultKind.TRUNCATE:
            # Another fault may have left next to nothing of it.
            return line[: int(self._rng.integers(1, max(2, len(line) - 1)))]
        return line


def _wrong_number(fault: Fault) -> float:
    """Return what a channel reads under a fault that replaces its number."""
    if fault.kind is FaultKind.SATURATE and fault.channel is not None:
        channel = CHANNELS[fault.channel]
        return channel.high if channel.saturates_at is None else channel.saturates_at
    wrong = {FaultKind.INF: np.inf, FaultKind.UINT32: UINT32_INFINITY}
    return float(wrong.get(fault.kind, np.nan))


class SimulatedBoard:
    """A board on a pseudo-terminal; the block it manages is the time it is plugged in.

    It owns one thread, which plays the signal in time. It never blocks on a host that does not
    read: bytes that find no listener, or no room, are lost and counted, as on a real line.

    Parameters
    ----------
    signal: what the board reads.
    dialect: what it speaks; only SCENT and CSV carry the board's clock.
    link: path of a symbolic link to the port; it goes away with an unplugged board and comes
        back with it. Without one the port's own name changes at every replug.
    speed: board seconds per real second. The device clock counts board time.
    faults: a schedule, as text or as parsed.
    seed: chooses the garbage, the dropped bytes and the jitter.
    wait_for_listener: begin when the port is first opened, so that nothing of it is missed.
    clock: real seconds, monotonic.
    sleep: waits for real seconds; the default ends early when the board is stopped.

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
    """A port just opened is configured and flushed before its opener reads."""

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
        self._firmware = _Firmware(Dialect(dialect), self._rng)
        self._lock = threading.Lock()
        self._pending = parse_faults(faults) if isinstance(faults, str) else faults
        self._active: tuple[Fault, ...] = ()
        self._now_s = 0.0
        self._report = BoardReport(boots=1)
        self._terminal: _PseudoTerminal | None = None
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
        """Path to open: the link where there is one, else the pseudo-terminal's current name."""
        return self._port if self._link is None else str(self._link)

    @property
    def plugged(self) -> bool:
        """Whether the port is there."""
        return self._terminal is not None

    @property
    def now_s(self) -> float:
        """Board time of the latest reading, in seconds since the board was started."""
        return self._now_s

    @property
    def report(self) -> BoardReport:
        """A snapshot of what has happened so far."""
        with self._lock:
            return self._report

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the signal has ended and has been read; return whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def inject(self, faults: str | tuple[Fault, ...]) -> None:
        """Let faults happen, their starts counted from now: ``inject("stuck:VOC@0:20")``."""
        parsed = parse_faults(faults) if isinstance(faults, str) else faults
        with self._lock:
            shifted = tuple(replace(fault, start_s=fault.start_s + self._now_s) for fault in parsed)
            self._pending += shifted

    def unplug(self) -> None:
        """Take the port away at the next reading, until `replug`."""
        self.inject((Fault(FaultKind.UNPLUG, 0.0, np.inf),))

    def replug(self) -> None:
        """Bring an unplugged board back, rebooted, at the next reading."""
        with self._lock:
            self._pending = _without_unplug(self._pending)
            self._active = _without_unplug(self._active)

    # The thread

    def _run(self) -> None:
        try:
            if self._wait_for_listener:
                self._await_listener()
            self._play(iter(self._signal))
            if not self._stop.is_set():
                self._drain()
                self._count(finished=True)
        except BaseException as failure:  # noqa: BLE001 - handed to whoever leaves the block
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
        self._transmit(self._terminal, self._firmware.say(values, now_s, active))

    def _faults_at(self, now_s: float) -> tuple[Fault, ...]:
        """Begin what is due, drop what is over; a fault strikes one reading at least."""
        with self._lock:
            self._now_s = now_s
            begun = tuple(fault for fault in self._pending if fault.start_s <= now_s)
            self._pending = tuple(fault for fault in self._pending if fault.start_s > now_s)
            lasting = tuple(fault for fault in self._active if now_s < fault.end_s)
            self._active = lasting + begun
            self._report = replace(self._report, faults=self._report.faults + len(begun))
            return self._active

    def _transmit(self, terminal: _PseudoTerminal, data: bytes) -> None:
        terminal.discard_input()
        if not terminal.has_listener():
            self._count(readings=1, lines_without_listener=1)
            return
        sent = terminal.send(data)
        self._count(readings=1, sent_bytes=sent, overrun_bytes=len(data) - sent)

    def _reboot(self, now_s: float) -> None:
        self._firmware.boot(now_s)
        self._count(boots=1)

    def _plug_in(self) -> None:
        self._terminal = _PseudoTerminal(self._link)
        self._port = self._terminal.name

    def _pull_out(self) -> None:
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.close()

    def _await_listener(self) -> None:
        terminal = self._terminal
        while terminal is not None and not self._stop.is_set() and not terminal.has_listener():
            self._stop.wait(_POLL_S)
        self._stop.wait(self._SETTLE_S)

    def _drain(self) -> None:
        """Let the listener read what it has been sent, for as long as it keeps the port open."""
        terminal = self._terminal
        give_up = time.monotonic() + _DRAIN_S
        empty = 0
        # The kernel hands bytes over in the background, so "nothing unread" counts when it stays.
        while terminal is not None and empty < _EMPTY_POLLS and time.monotonic() < give_up:
            if not terminal.has_listener() or self._stop.wait(_POLL_S):
                return
            empty = empty + 1 if terminal.unread_bytes() == 0 else 0

    def _count(self, *, finished: bool = False, **more: int) -> None:
        with self._lock:
            counted = {name: getattr(self._report, name) + n for name, n in more.items()}
            self._report = replace(
                self._report, finished=finished or self._report.finished, **counted
            )


def _without_unplug(faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    return tuple(fault for fault in faults if fault.kind is not FaultKind.UNPLUG)
