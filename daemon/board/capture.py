"""Daemon: captures so many seconds of readings of a live board, from now on.

From the port itself, for a command while no service holds it, or from the running service's
history. Knows nothing of what the readings are for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.board.diagnosis import BoardError, explain_no_reading
from daemon.board.history import HISTORY_S, History, ReadingSpan
from daemon.board.port import Chunk, PortClosed, PortOpened, SourceError, read_port
from daemon.system.signals import StopEvent
from hardware.protocol import LineDecoder
from models.timing import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from daemon.config.settings import SourceConfig

CAPTURE_TIMEOUT_S = 30.0
"""Time without a reading that ends the capture: the slowest board sends every 10 s."""

MAX_CAPTURE_S = HISTORY_S
SHOW_EVERY_S = 0.5

NOTHING_KEPT = "An incomplete capture is not kept: start again and let it run."


class CaptureEndedError(BoardError):
    """The board was lost, or the capture was stopped, before there were enough readings."""


@dataclass(frozen=True, slots=True)
class CaptureProgress:
    """Progress of a capture.

    Attributes
    ----------
    seconds, wanted_s: of the board's time, captured and requested.
    span: the readings so far.
    """

    seconds: float
    wanted_s: float
    span: ReadingSpan


def capture_from_history(
    history: History, seconds: float, clock: Callable[[], float] = time.monotonic
) -> Generator[CaptureProgress, None, ReadingSpan]:
    """Return the next `seconds` of a running service's readings; yield the progress.

    Raises
    ------
    CaptureEndedError: the board falls silent.
    """
    start_ms = history.newest_ms
    newest_ms, received_s, shown_s = start_ms, clock(), -SHOW_EVERY_S
    progress = CaptureProgress(0.0, seconds, history.since(0 if start_ms is None else start_ms))
    while True:
        now_ms, now_s = history.newest_ms, clock()
        if now_ms is not None and now_ms != newest_ms:
            newest_ms, received_s = now_ms, now_s
            start_ms = now_ms if start_ms is None else start_ms
            captured_s = (now_ms - start_ms) / 1000.0
            if captured_s >= seconds:
                return history.since(start_ms)
            if now_s - shown_s >= SHOW_EVERY_S:
                shown_s = now_s
                progress = CaptureProgress(captured_s, seconds, history.since(start_ms))
        elif now_s - received_s > CAPTURE_TIMEOUT_S:
            raise CaptureEndedError(
                f"The board sent nothing for {CAPTURE_TIMEOUT_S:g} s, after {progress.seconds:.0f} "
                f"s of the {seconds:g} s asked for. Check that it is plugged in and start again."
            )
        yield progress


def capture_from_port(
    source: SourceConfig, seconds: float, stop: StopEvent, show: Callable[[CaptureProgress], None]
) -> ReadingSpan:
    """Return the next `seconds` of the board on a port.

    Parameters
    ----------
    source: the port.
    seconds: of the board's time.
    stop: ends it early, which is an error.
    show: called about twice a second with the progress.

    Raises
    ------
    ScentdError: the port cannot be used, or the board is silent, sends nonsense or is lost.
    """
    history = History(seconds + CAPTURE_TIMEOUT_S)
    decoder, timeline = LineDecoder(), Timeline(source.rate_hz)
    received_bytes, began_s, shown_s, opened = 0, time.monotonic(), 0.0, False
    start_ms: int | None = None
    timeout = _ReadingTimeout(stop)
    for arrival in read_port(source, timeout):
        opened = opened or isinstance(arrival, PortOpened)
        if isinstance(arrival, PortClosed):
            if not opened:
                raise SourceError(arrival.reason)
            raise CaptureEndedError(
                f"The board went away after {history.seconds:.0f} s of the {seconds:g} s asked "
                f"for. {NOTHING_KEPT} Plug it in again first."
            )
        if isinstance(arrival, Chunk):
            received_bytes += len(arrival.data)
            for frame in decoder.feed(arrival.data):
                t_ms = timeline.stamp(frame, arrival.arrival_ms)
                history.push(t_ms, frame.values)
                timeout.restart()
                start_ms = t_ms if start_ms is None else start_ms
                if t_ms - start_ms >= seconds * 1000.0:
                    return history.since(start_ms - 1)
        now_s = time.monotonic()
        if now_s - shown_s >= SHOW_EVERY_S and start_ms is not None:
            shown_s = now_s
            show(CaptureProgress(history.seconds, seconds, history.since(start_ms - 1)))
    why = explain_no_reading(
        decoder.counts,
        received_bytes=received_bytes,
        listened_s=time.monotonic() - began_s,
        baud=source.baud,
        problem=decoder.problem,
    )
    if why is None:
        silent = f"The board sent no reading for {CAPTURE_TIMEOUT_S:g} s. "
        why = (
            f"{'' if stop.is_set() else silent}Stopped after {history.seconds:.0f} s of the "
            f"{seconds:g} s asked for. {NOTHING_KEPT}"
        )
    raise CaptureEndedError(why)


class _ReadingTimeout(StopEvent):
    """Set when `stop` is, or when no reading was received for `CAPTURE_TIMEOUT_S`."""

    def __init__(self, stop: StopEvent) -> None:
        super().__init__()
        self._stop = stop
        self.restart()

    def restart(self) -> None:
        """Wait for the next reading."""
        self._deadline_s = time.monotonic() + CAPTURE_TIMEOUT_S

    def is_set(self) -> bool:
        """Whether to stop."""
        return self._stop.is_set() or super().is_set()
