"""Daemon: a stretch of readings taken on purpose: so many seconds from now on, of a live board.

Two ways to the same `ReadingSpan`: the port itself, for a command while no service holds it, and
the running service's history. Knows nothing of what the stretch is for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.board.diagnosis import BoardError, explain_no_reading
from daemon.board.history import HISTORY_S, History, ReadingSpan
from daemon.board.port import Chunk, PortClosed, PortOpened, SerialSource, SourceError
from daemon.system.signals import StopEvent
from hardware.protocol import LineDecoder
from models.timing import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from daemon.config.settings import SourceConfig

CAPTURE_TIMEOUT_S = 30.0
"""A board that sent nothing for so long ends the capture: the slowest sends every 10 s."""

MAX_CAPTURE_S = HISTORY_S
SHOW_EVERY_S = 0.5

NOTHING_KEPT = "Half a capture is none, so nothing was kept: start again and let it run."


class CaptureEndedError(BoardError):
    """The board went away, or was not allowed to finish, before enough readings were there."""


@dataclass(frozen=True, slots=True)
class CaptureProgress:
    """How far a capture is.

    Attributes
    ----------
    seconds, wanted_s: of the board's time, there and asked for.
    span: the readings so far.
    """

    seconds: float
    wanted_s: float
    span: ReadingSpan


def capture_from_history(
    history: History, seconds: float, clock: Callable[[], float] = time.monotonic
) -> Generator[CaptureProgress, None, ReadingSpan]:
    """Take the next `seconds` of a running service's readings, one look per step.

    Raises
    ------
    CaptureEndedError
        If the board falls silent.
    """
    start_ms = history.newest_ms
    newest_ms, heard_s, shown_s = start_ms, clock(), -SHOW_EVERY_S
    taken = CaptureProgress(0.0, seconds, history.since(0 if start_ms is None else start_ms))
    while True:
        now_ms, now_s = history.newest_ms, clock()
        if now_ms is not None and now_ms != newest_ms:
            newest_ms, heard_s = now_ms, now_s
            start_ms = now_ms if start_ms is None else start_ms
            passed_s = (now_ms - start_ms) / 1000.0
            if passed_s >= seconds:
                return history.since(start_ms)
            if now_s - shown_s >= SHOW_EVERY_S:
                shown_s = now_s
                taken = CaptureProgress(passed_s, seconds, history.since(start_ms))
        elif now_s - heard_s > CAPTURE_TIMEOUT_S:
            raise CaptureEndedError(
                f"The board sent nothing for {CAPTURE_TIMEOUT_S:g} s, and {taken.seconds:.0f} s of "
                f"the {seconds:g} s asked for were there. See that it is plugged in and ask again."
            )
        yield taken


def capture_from_port(
    source: SourceConfig, seconds: float, stop: StopEvent, show: Callable[[CaptureProgress], None]
) -> ReadingSpan:
    """Take the next `seconds` of the board on a port.

    Parameters
    ----------
    source : SourceConfig
        Where the board is.
    seconds : float
        Of the board's time.
    stop : StopEvent
        Ends it early, which is an error: half a capture is none.
    show : callable
        Called about twice a second with what is there.

    Raises
    ------
    ScentdError
        If the port cannot be had, or the board is silent, talks nonsense or goes away.
    """
    history = History(seconds + CAPTURE_TIMEOUT_S)
    decoder, timeline = LineDecoder(), Timeline(source.rate_hz)
    received_bytes, began_s, shown_s, opened = 0, time.monotonic(), 0.0, False
    start_ms: int | None = None
    patience = _Patience(stop)
    for arrival in SerialSource(source).arrivals(patience):
        opened = opened or isinstance(arrival, PortOpened)
        if isinstance(arrival, PortClosed):
            raise _went_away(history, seconds) if opened else SourceError(arrival.reason)
        if isinstance(arrival, Chunk):
            received_bytes += len(arrival.data)
            for frame in decoder.feed(arrival.data):
                t_ms = timeline.stamp(frame, arrival.arrival_ms)
                history.push(t_ms, frame.values)
                patience.renew()
                start_ms = t_ms if start_ms is None else start_ms
                if t_ms - start_ms >= seconds * 1000.0:
                    return history.since(start_ms - 1)
        now_s = time.monotonic()
        if now_s - shown_s >= SHOW_EVERY_S and start_ms is not None:
            shown_s = now_s
            show(CaptureProgress(history.seconds, seconds, history.since(start_ms - 1)))
    trouble = explain_no_reading(
        decoder.counts,
        received_bytes=received_bytes,
        listened_s=time.monotonic() - began_s,
        baud=source.baud,
    )
    silent = f"The board sent no reading for {CAPTURE_TIMEOUT_S:g} s. " if patience.lost else ""
    raise CaptureEndedError(
        trouble
        or f"{silent}Stopped after {history.seconds:.0f} s of the {seconds:g} s asked for. "
        f"{NOTHING_KEPT}"
    )


def _went_away(history: History, seconds: float) -> CaptureEndedError:
    return CaptureEndedError(
        f"The board went away after {history.seconds:.0f} s of the {seconds:g} s asked for. "
        f"{NOTHING_KEPT} Plug it in again first."
    )


class _Patience(StopEvent):
    """Another's stop, and one of its own once no reading came for `CAPTURE_TIMEOUT_S`."""

    def __init__(self, stop: StopEvent) -> None:
        super().__init__()
        self._stop = stop
        self.renew()

    def renew(self) -> None:
        """Wait as long again: a reading came."""
        self._heard_s = time.monotonic()

    @property
    def lost(self) -> bool:
        """Whether the last reading is too long ago."""
        return time.monotonic() - self._heard_s > CAPTURE_TIMEOUT_S

    def is_set(self) -> bool:
        """Whether it is time to stop."""
        return self.lost or self._stop.is_set() or super().is_set()
