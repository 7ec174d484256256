"""Daemon: runs the web application on a socket until a signal stops it.

Listens on the address that the command names, or on the socket that systemd hands over.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from daemon.system.logs import get_logger
from daemon.system.memory import drop_startup_pages
from daemon.system.systemd import ServiceManager
from daemon.web.access import TOKEN_FILE, load_token
from daemon.web.app import WebApp
from daemon.web.connection import BoundedConnection
from daemon.web.options import is_loopback
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daemon.config.settings import Config
    from daemon.web.access import Token
    from daemon.web.options import WebOptions

CONNECTIONS_LIMIT = 300
"""Open connections; more are answered with 503."""

BACKLOG = 64
WEBSOCKET_MESSAGE_BYTES = 4096
"""Largest message of a page: the name of the rig that it shows."""

FIRST_SOCKET = 3
"""Number of the first socket that systemd hands over (sd_listen_fds(3))."""

SETTLED_AFTER_S = 5.0
"""Seconds after which the memory that only the start needed is released once more: the connection
to the broker and the first browser come after the server is ready."""


class ListenError(ScentdError):
    """The address cannot be listened on."""


class _Server(uvicorn.Server):
    """A server that leaves signals to its caller."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: uvicorn would raise them again after its end."""
        yield


def serve(
    config: Config,
    options: WebOptions,
    token_file: Path | None,
    announce: Callable[[str, Token | None], None],
) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Parameters
    ----------
    config: of a rig, for the broker.
    options: where to listen, and whom to trust.
    token_file: file of the token; `web-token` in the rig's state folder by default.
    announce: called with the address, and the token if one is needed, once it listens.

    Raises
    ------
    ListenError: the address is in use, or not this computer's.
    TokenError: the file with the token cannot be used.
    """
    manager = ServiceManager()
    with _listening_socket(options) as listener:
        host, port = listener.getsockname()[:2]
        token = None
        if not options.only_trusted and (not is_loopback(host) or options.allowed_hosts):
            token = load_token(token_file or config.state_dir / TOKEN_FILE)
        app = WebApp(config, options, token)
        server = _Server(
            uvicorn.Config(
                app.asgi,
                http=BoundedConnection,
                ws="websockets-sansio",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS_LIMIT,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=1,
                ws_max_size=WEBSOCKET_MESSAGE_BYTES,
                ws_per_message_deflate=False,
            )
        )
        address = page_address(host, port, options)

        def ready() -> None:
            announce(address, token)
            manager.ready(f"The page is at {address}")
            get_logger("web").info("ready", address=address, login=token is not None)

        asyncio.run(_run(server, listener, ready))
    manager.stopping()


async def _run(server: uvicorn.Server, listener: socket.socket, ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.call_soon(ready)
    loop.call_soon(drop_startup_pages)
    loop.call_later(SETTLED_AFTER_S, drop_startup_pages)
    await server.serve(sockets=[listener])


def page_address(host: str, port: int, options: WebOptions) -> str:
    """Return the address at which a browser finds the page."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - every address: name this computer instead
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}{options.root_path}/"


@contextmanager
def _listening_socket(options: WebOptions) -> Iterator[socket.socket]:
    handed = _handed_over()
    if handed is not None:
        with handed:
            yield handed
        return
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options.host, options.port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise ListenError(
                f"The page cannot listen on {options.host} port {options.port} ({error.strerror}). "
                "Another program may have the port; choose another: --listen 127.0.0.1:8734"
            ) from None
        yield listener


def _handed_over() -> socket.socket | None:
    """Return the socket of a unit `scentd-web.socket`, None without one."""
    process, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    if process != str(os.getpid()) or count != "1":
        return None
    return socket.socket(fileno=FIRST_SOCKET)
