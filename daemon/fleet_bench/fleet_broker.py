"""Daemon: Mosquitto with the settings of a fleet; its observer's session survives a kill."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from daemon.fleet_bench.open_files import OTHER_FILES, raise_limit
from daemon.sandbox.broker import BrokerStartError, Mosquitto

if TYPE_CHECKING:
    from pathlib import Path

_SAVE_WITHIN_S = 10.0
_SETTINGS = """allow_anonymous true
max_queued_messages 100000
persistence true
persistence_location {folder}/
autosave_interval 0
"""
"""Without `max_queued_messages` Mosquitto drops what a subscriber has not taken beyond 1,000
messages."""


class FleetBroker(Mosquitto):
    """A Mosquitto for so many clients.

    What it keeps on disk is what `save` wrote, no more: after a kill the rigs restore their
    retained messages themselves.
    """

    def __init__(self, folder: Path, clients: int) -> None:
        super().__init__(folder, _SETTINGS.format(folder=folder))
        self._database = folder / "mosquitto.db"
        self._clients = clients

    def start(self) -> None:
        """Start it, with enough open files; return once its log states that it runs."""
        raise_limit(self._clients + OTHER_FILES, f"{self._clients} clients of a broker")
        super().start()

    def save(self) -> None:
        """Write sessions and retained messages to disk."""
        self._database.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        give_up_s = time.monotonic() + _SAVE_WITHIN_S
        while not self._database.exists():
            if time.monotonic() > give_up_s:
                raise BrokerStartError(
                    f"Mosquitto did not write its database within {_SAVE_WITHIN_S:.0f} s."
                )
            time.sleep(0.01)
