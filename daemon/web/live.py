"""Daemon: what open pages are told while things happen: a websocket each, with a bounded queue.

A page that reads too slowly loses readings first, which the next ones replace; when its queue is
still full, or one message takes too long, it is cut, and connects again by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from daemon.web.refusals import Refusal
from hardware.safe_json import read_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.web.refusals import RefusalLog

PAGES_LIMIT = 100
"""Pages open at a time."""

QUEUE_LIMIT = 200
"""Messages that wait for one page: those of about half a minute."""

SEND_WITHIN_S = 10.0
"""Seconds in which a page must take a message."""

SLOW_CODE = 1013
"""Close code: try again later (RFC 6455 and the IANA registry of close codes)."""


class Page:
    """One open page.

    Attributes
    ----------
    rig: that it shows, None before it said so.
    """

    def __init__(self, socket: WebSocket) -> None:
        self.rig: str | None = None
        self._socket = socket
        self._queue: deque[tuple[str, bool]] = deque()
        self._ready = asyncio.Event()
        self.cut = False

    def put(self, text: str, *, droppable: bool = False) -> None:
        """Queue a message; make room by dropping readings, or mark the page to be cut."""
        if len(self._queue) >= QUEUE_LIMIT:
            self._queue = deque(item for item in self._queue if not item[1])
            self.cut = len(self._queue) >= QUEUE_LIMIT
        if not self.cut:
            self._queue.append((text, droppable))
        self._ready.set()

    async def send_queued(self) -> None:
        """Send what is queued until the page is cut or gone.

        Raises
        ------
        TimeoutError: the page does not read.
        """
        while not self.cut:
            await self._ready.wait()
            self._ready.clear()
            while self._queue and not self.cut:
                text, _ = self._queue.popleft()
                # Not wait_for, which before Python 3.12 could lose a cancellation.
                async with asyncio.timeout(SEND_WITHIN_S):
                    await self._socket.send_text(text)
        raise TimeoutError


class LivePages:
    """All open pages.

    Parameters
    ----------
    greeting: returns the messages that a new page is given first.
    snapshot: returns the state of a rig for a page that begins to show it; None for no such rig.
    watched: called when a page begins to show a rig.
    """

    def __init__(
        self,
        *,
        greeting: Callable[[], list[dict[str, Any]]],
        snapshot: Callable[[str], dict[str, Any] | None],
        watched: Callable[[str], None],
        refusals: RefusalLog,
    ) -> None:
        self._greeting = greeting
        self._snapshot = snapshot
        self._watched = watched
        self._refusals = refusals
        self._pages: set[Page] = set()

    @property
    def count(self) -> int:
        """Number of open pages."""
        return len(self._pages)

    @property
    def rigs(self) -> set[str]:
        """The rigs that open pages show."""
        return {page.rig for page in self._pages if page.rig is not None}

    def publish(self, rig: str | None, message: dict[str, Any], *, droppable: bool = False) -> None:
        """Queue a message for the pages that show a rig; None for all pages."""
        pages = [page for page in self._pages if rig is None or page.rig == rig]
        if not pages:
            return
        text = json.dumps(message, separators=(",", ":"))
        for page in pages:
            page.put(text, droppable=droppable)

    async def serve(self, socket: WebSocket) -> None:
        """Serve one page until it goes, or is cut."""
        if len(self._pages) >= PAGES_LIMIT:
            self._refusals.add(Refusal.TOO_MANY, f"{PAGES_LIMIT} pages are open")
            await socket.close(SLOW_CODE)
            return
        await socket.accept()
        page = Page(socket)
        for message in self._greeting():
            page.put(json.dumps(message))
        self._pages.add(page)
        reading = asyncio.ensure_future(self._read(socket, page))
        sending = asyncio.ensure_future(page.send_queued())
        try:
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pages.discard(page)
            slow = sending.done() and isinstance(sending.exception(), TimeoutError)
            for task in (reading, sending):
                task.cancel()
            await asyncio.gather(reading, sending, return_exceptions=True)
        if slow:
            self._refusals.add(Refusal.SLOW, "a page did not read and was cut")
            with suppress(RuntimeError, TimeoutError, WebSocketDisconnect):
                async with asyncio.timeout(SEND_WITHIN_S):
                    await socket.close(SLOW_CODE)

    async def _read(self, socket: WebSocket, page: Page) -> None:
        """Read which rig the page shows, until it goes."""
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                rig = _watched_rig(await socket.receive_text())
                if rig is None:
                    continue
                snapshot = self._snapshot(rig)
                page.rig = rig if snapshot is not None else None
                if snapshot is not None:
                    page.put(json.dumps({"kind": "snapshot", **snapshot}))
                    self._watched(rig)


def _watched_rig(text: str) -> str | None:
    """Return the rig of `{"watch": "kitchen"}`, None for other texts."""
    try:
        value = read_json(text)
    except ValueError:
        return None
    rig = value.get("watch") if isinstance(value, dict) else None
    return rig if isinstance(rig, str) else None
