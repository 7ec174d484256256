"""Daemon: the logs: text for people on a terminal, JSON elsewhere.

Logs go to standard error; standard output is for data. No event may hold a secret; as a second
guard, values whose names suggest a secret are masked.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from daemon.system.imports import without

# structlog loads rich, where it is installed, for coloured tracebacks, and asyncio for its
# coroutine methods. This process uses neither, and on a small machine they are 9 MB of resident
# memory and 0.1 s of the start.
with without("rich", "asyncio"):
    import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from daemon.config.settings import LogConfig

_SECRET_WORDS = ("password", "secret", "token", "private_key")
MASK = "***"


def get_logger(part: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of one part of the daemon: `source`, `pipeline`, `mqtt`, `service`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(part=part)
    return logger


class FaultTolerantStream:
    """A stream for logs that drops lines on a full disk or a closed pipe instead of raising."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            return self._stream.write(text)
        except OSError:
            return 0

    def flush(self) -> None:
        """Write what is buffered, as far as possible."""
        with suppress(OSError):
            self._stream.flush()


def configure_logs(config: LogConfig, *, stream: TextIO | None = None) -> None:
    """Set the level and the format of all logs, which go to `stream` (standard error).

    Under systemd (JOURNAL_STREAM or INVOCATION_ID is set) and where the
    stream is not a terminal, a line is one JSON object.
    """
    stream = sys.stderr if stream is None else stream
    human = config.format == "human" or (config.format == "auto" and _is_terminal(stream))
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=28)
        if human
        else structlog.processors.JSONRenderer(default=str)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S" if human else "iso",
                utc=not human,
                key="ts" if not human else "timestamp",
            ),
            structlog.processors.format_exc_info,
            mask_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelName(config.level.upper())
        ),
        logger_factory=structlog.WriteLoggerFactory(
            file=cast("TextIO", FaultTolerantStream(stream))
        ),
        cache_logger_on_first_use=False,
    )


def _is_terminal(stream: TextIO) -> bool:
    under_systemd = "JOURNAL_STREAM" in os.environ or "INVOCATION_ID" in os.environ
    return stream.isatty() and not under_systemd


def mask_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace every value whose name suggests a secret."""
    for name in event:
        if any(word in name.lower() for word in _SECRET_WORDS) and not name.endswith("_file"):
            event[name] = MASK
    return event
