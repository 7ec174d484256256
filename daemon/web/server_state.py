"""Daemon: the numbers of the web server itself, for its metrics and its health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.web.refusals import Refusal


@dataclass(frozen=True, slots=True)
class ServerState:
    """The web server at one moment.

    Attributes
    ----------
    pages: open now.
    dropped: messages of the broker for which there was no room.
    unreadable: messages that are no JSON object.
    refused: requests and pages, by reason.
    """

    broker_connected: bool
    pages: int
    dropped: int
    unreadable: int
    refused: Mapping[Refusal, int]
    resident_mb: float
