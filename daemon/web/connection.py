"""Daemon: an HTTP connection that is ended when its first request does not come.

uvicorn ends idle connections between two requests, but waits for the first one without an end, so
that silent connections could use up all that are allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

REQUEST_WITHIN_S = 20.0
"""Seconds in which the line and the headers of the first request must arrive."""


class BoundedConnection(H11Protocol):
    """A connection with a deadline for its first request."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(REQUEST_WITHIN_S, self._end_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _end_silent(self) -> None:
        """End the connection unless a request has come; a websocket has left this protocol."""
        if self.cycle is None and self.transport.get_protocol() is self:
            self.transport.close()
