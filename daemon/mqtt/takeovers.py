"""Daemon: whether another client with the rig's client id keeps taking its place at the broker.

A broker ends a connection when another client connects with the same id. Two services with one
`rig_id` would throw each other off for ever, each as soon as the other is connected. Pure: knows
no MQTT client and no thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon.system.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

TAKEN_OVER = 0x8E
"""Reason code of DISCONNECT (MQTT 5.0, section 3.14.2.1): session taken over."""

STATED_TIMES = 2
"""Takeovers in a row, each stated by the broker: a single one may be a mistake soon corrected."""

EARLY_S = 4.5
EARLY_TIMES = 5
"""Over MQTT 3.1.1 no broker states a reason, and over 5 Mosquitto 2.0.11 does not. Where
connections end so soon, and so often in a row without one that fails in between, another client is
the likely cause: a service that lost its connection tries again within 4 s (`RETRY_EVERY_S` of
`daemon.mqtt.publisher`)."""

FIRST_WAIT_S = 15.0
LONGEST_WAIT_S = 120.0
"""Between two attempts while the place is contested. One of the two is connected at any time."""

FREE_AFTER_S = 1.5 * LONGEST_WAIT_S
"""A connection that lasts so long shows that no other client tries."""


@dataclass(slots=True)
class Takeovers:
    """Counts how connections ended, and says when to slow down.

    Attributes
    ----------
    total: takeovers stated by the broker, ever.
    contested: whether another client keeps taking the rig's place.
    """

    clock: Callable[[], float] = time.monotonic
    total: int = 0
    contested: bool = False
    _in_a_row: int = 0
    _early: int = 0
    _connected_s: float = 0.0
    _backoff: Backoff = field(
        default_factory=lambda: Backoff(first_s=FIRST_WAIT_S, longest_s=LONGEST_WAIT_S)
    )

    def connected(self) -> None:
        """Note that a connection was accepted."""
        self._connected_s = self.clock()

    def failed(self) -> None:
        """Note that a connection could not be made, which no other client causes."""
        self._early = 0

    def ended(self, *, taken_over: bool) -> bool:
        """Note the end of a connection; return whether the place is contested from now on.

        `taken_over` is whether the broker said so.
        """
        lasted_s = self.clock() - self._connected_s
        if taken_over:
            self.total += 1
            self._in_a_row = self._in_a_row + 1 if lasted_s < FREE_AFTER_S else 1
        self._early = self._early + 1 if lasted_s < EARLY_S else 0
        new = not self.contested and (self._in_a_row >= STATED_TIMES or self._early >= EARLY_TIMES)
        self.contested = self.contested or new
        return new

    def wait_s(self) -> float:
        """Return how long to wait before the next attempt while the place is contested."""
        return self._backoff.next_s()

    def is_free_again(self) -> bool:
        """Whether the present connection has lasted so long that the place is contested no more."""
        if not self.contested or self.clock() - self._connected_s < FREE_AFTER_S:
            return False
        self.contested = False
        self._in_a_row = self._early = 0
        self._backoff.reset()
        return True


def explain(rig_id: str, where: str) -> str:
    """Return the paragraph that says what happens, and what to do."""
    return (
        f"The broker at {where} ends this rig's connection again and again as soon as it is made. "
        f"Most likely two services have the rig_id {rig_id!r}, and each takes the other's place: "
        "give each rig a rig_id of its own, or stop one of them. If there is no other, the broker "
        "does not allow what this rig sends: look at its log. Until then the rig connects only "
        f"every {LONGEST_WAIT_S:.0f} s or so; its messages wait meanwhile."
    )
