"""Daemon: a TCP relay between client and broker that fails on request.

Knows bytes, not MQTT. It can delay and discard the bytes of either side, and the broker may restart
on another port.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import threading
from enum import Enum
from typing import NamedTuple, Self

from daemon.sandbox.broker import LOOPBACK

_POLL_S = 0.02
_CHUNK_BYTES = 65536
_SLOW_CHUNK_BYTES = 512
_SEND_WITHIN_S = 5.0
_RESET = struct.pack("ii", 1, 0)


class Mode(Enum):
    """What the relay does with connections and their bytes."""

    OPEN = "open"
    REFUSING = "refusing"
    """New connections are closed at once."""
    STALLED = "stalled"
    """No bytes pass; those sent wait."""
    NO_ANSWERS = "no answers"
    """The client's bytes pass; the broker's are discarded, acknowledgements included."""
    CUTTING = "cutting"
    """Half of the client's next bytes pass, then both connections are reset."""


class _Connection(NamedTuple):
    """The two sockets of one relayed connection."""

    client: socket.socket
    broker: socket.socket

    def close(self, *, reset: bool = False) -> None:
        for end in self:
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()


class Relay:
    """A context manager that owns one thread; every method may be called from any other.

    Parameters
    ----------
    target: port of the broker; without one, connections are refused until `open` sets it.
    bytes_per_s: limit of the rate.
    """

    def __init__(self, target: int | None = None, *, bytes_per_s: float = math.inf) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._mode = Mode.REFUSING if target is None else Mode.OPEN
        self._target = target
        self._bytes_per_s = bytes_per_s
        self._chunk_bytes = _CHUNK_BYTES if math.isinf(bytes_per_s) else _SLOW_CHUNK_BYTES
        self._connections: list[_Connection] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._close_all()
        self._listener.close()

    def open(self, target: int | None = None) -> None:
        """Let everything pass, from now on to the broker's port `target` if it is given."""
        with self._lock:
            self._target = self._target if target is None else target
            self._mode = Mode.OPEN

    def fail(self, mode: Mode) -> None:
        """Set `mode`; `REFUSING` also closes the connections, with the bytes that wait in them."""
        with self._lock:
            self._mode = mode
            if mode is Mode.REFUSING:
                self._close_all()

    def _close_all(self, *, reset: bool = False) -> None:
        for connection in self._connections:
            connection.close(reset=reset)
        self._connections.clear()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                stalled = self._mode is Mode.STALLED
                ends = [] if stalled else [end for pair in self._connections for end in pair]
            # A socket closed meanwhile is ready or raises an error; both are handled.
            with contextlib.suppress(OSError, ValueError):
                ready, _, _ = select.select([self._listener, *ends], [], [], _POLL_S)
                with self._lock:
                    self._serve(ready)

    def _serve(self, ready: list[socket.socket]) -> None:
        if self._listener in ready:
            self._accept()
        if self._mode is Mode.STALLED:
            return
        for connection in tuple(self._connections):
            for source in connection:
                if source not in ready or connection not in self._connections:
                    continue
                if not self._forward(connection, source):
                    connection.close()
                    self._connections.remove(connection)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            if self._mode is Mode.REFUSING or self._target is None:
                raise ConnectionRefusedError
            broker = socket.create_connection((LOOPBACK, self._target), _SEND_WITHIN_S)
        except OSError:
            client.close()
            return
        client.settimeout(_SEND_WITHIN_S)
        self._connections.append(_Connection(client, broker))

    def _forward(self, connection: _Connection, source: socket.socket) -> bool:
        """Forward the received bytes; return whether the connection continues."""
        from_client = source is connection.client
        sink = connection.broker if from_client else connection.client
        try:
            data = source.recv(self._chunk_bytes)
            if not data:
                return False
            self._stop.wait(len(data) / self._bytes_per_s)
            if self._mode is Mode.CUTTING and from_client:
                sink.sendall(data[: len(data) // 2])
                self._mode = Mode.OPEN
                self._close_all(reset=True)
            elif from_client or self._mode is not Mode.NO_ANSWERS:
                sink.sendall(data)
        except OSError:
            return False
        return True
