"""Demo: an MQTT broker inside this process, on a free port of the loopback interface.

The only module that knows amqtt (MQTT 3.1.1, pure Python): the demo must work where no
Mosquitto is installed. Knows no topic and no payload.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from typing import Self

from amqtt.broker import Broker

from hardware.errors import ScentdError

LOOPBACK = "127.0.0.1"
_START_S = 15.0
_SHUTDOWN_S = 1.0
_STOP_S = 5.0


class EmbeddedBrokerError(ScentdError):
    """The demo's own broker does not come up."""


class EmbeddedBroker:
    """A broker that everyone on this machine may use; the block it manages is its life.

    It owns one thread with an event loop of its own.

    Attributes
    ----------
    port: TCP port on the loopback interface, once inside the block.

    Raises
    ------
    EmbeddedBrokerError
        It did not start.
    """

    def __init__(self) -> None:
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def __enter__(self) -> Self:
        # A client that leaves is no news in a demo, and amqtt warns of each.
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)
        logging.getLogger("transitions").setLevel(logging.CRITICAL)
        self._thread.start()
        if not self._started.wait(_START_S) or self._failure is not None:
            raise EmbeddedBrokerError(
                f"The demo's own MQTT broker did not start on {LOOPBACK} "
                f"({self._failure or 'no answer'}). The loopback interface must be usable, and "
                "amqtt 0.11 or newer installed: pip install --upgrade 'scentd[demo]'."
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._done.set)
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - told by the thread that waits for the start
            self._failure = failure
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self.port = _free_port()
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{LOOPBACK}:{self.port}"}},
                "plugins": {
                    "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
                },
            }
        )
        await broker.start()
        self._started.set()
        await self._done.wait()
        # amqtt waits longer for messages that nobody is left to hear.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(broker.shutdown(), _SHUTDOWN_S)


def _free_port() -> int:
    """Return a port that is free now: amqtt cannot say which one the system chose for it."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


LOOPBACK = "127.0.0.1"
