"""Soak: the line between rig and broker: a relay on the loopback that can fail in every way.

Knows bytes, not MQTT. The rig connects to the gate, the gate to the broker; so the broker may
come back on another port, and what it says can be held up or swallowed.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from dataclasses import dataclass
from enum import Enum
from typing import Self

from daemon.sandbox.broker import LOOPBACK

_POLL_S = 0.02
_CHUNK_BYTES = 65536
_SEND_WITHIN_S = 5.0
_RESET = struct.pack("ii", 1, 0)


class Mode(Enum):
    """What the gate does with what comes."""

    OPEN = "open"
    REFUSING = "refusing"
    """New connections end at once."""
    STALLED = "stalled"
    """Nothing passes; what is sent waits."""
    DEAF = "deaf"
    """What the rig says passes; what the broker says is swallowed, acknowledgements included."""
    CUTTING = "cutting"
    """The next bytes of the rig pass by half, then both ends are reset."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """One relayed connection."""

    rig: socket.socket
    broker: socket.socket

    def close(self, *, reset: bool = False) -> None:
        for end in (self.rig, self.broker):
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()


class Relay:
    """A context manager that owns one thread; every method may be called from any other.

    Attributes
    ----------
    port: where the rig finds its broker; the same as long as the gate stands.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._mode = Mode.REFUSING
        self._target = 0
        self._pairs: list[_Pair] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._drop_all()
        self._listener.close()

    def open(self, target: int | None = None) -> None:
        """Let everything pass, to the broker's port `target` if that is new."""
        with self._lock:
            self._target = self._target if target is None else target
            self._mode = Mode.OPEN

    def set(self, mode: Mode) -> None:
        """Fail in the way that `mode` says."""
        with self._lock:
            self._mode = mode

    def drop(self) -> None:
        """End all connections without passing on what still waits, and refuse new ones."""
        with self._lock:
            self._mode = Mode.REFUSING
            self._drop_all()

    def _drop_all(self, *, reset: bool = False) -> None:
        for pair in self._pairs:
            pair.close(reset=reset)
        self._pairs.clear()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                held_up = self._mode is Mode.STALLED
                ends = [] if held_up else [end for pair in self._pairs for end in _ends(pair)]
            # A socket that is dropped meanwhile shows as ready or as an error: both are looked at.
            with contextlib.suppress(OSError, ValueError):
                ready, _, _ = select.select([self._listener, *ends], [], [], _POLL_S)
                with self._lock:
                    self._serve(ready)

    def _serve(self, ready: list[socket.socket]) -> None:
        if self._listener in ready:
            self._accept()
        if self._mode is Mode.STALLED:
            return
        for pair in tuple(self._pairs):
            for source, sink in ((pair.rig, pair.broker), (pair.broker, pair.rig)):
                if source in ready and pair in self._pairs and not self._relay(pair, source, sink):
                    pair.close()
                    self._pairs.remove(pair)

    def _accept(self) -> None:
        rig, _ = self._listener.accept()
        if self._mode is Mode.REFUSING:
            rig.close()
            return
        try:
            broker = socket.create_connection((LOOPBACK, self._target), _SEND_WITHIN_S)
        except OSError:
            rig.close()
            return
        rig.settimeout(_SEND_WITHIN_S)
        self._pairs.append(_Pair(rig, broker))

    def _relay(self, pair: _Pair, source: socket.socket, sink: socket.socket) -> bool:
        """Pass on what came; return whether the connection goes on."""
        try:
            data = source.recv(_CHUNK_BYTES)
            if not data:
                return False
            from_rig = source is pair.rig
            if self._mode is Mode.CUTTING and from_rig:
                sink.sendall(data[: len(data) // 2])
                self._mode = Mode.OPEN
                self._drop_all(reset=True)
            elif from_rig or self._mode is not Mode.DEAF:
                sink.sendall(data)
        except OSError:
            return False
        return True


def _ends(pair: _Pair) -> tuple[socket.socket, socket.socket]:
    return pair.rig, pair.broker
