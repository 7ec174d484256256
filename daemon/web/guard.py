"""Daemon: what every request to the page passes first: host, origin, token, size of its body.

Pure ASGI, around the application. A page of another site in the same browser can send requests here
and, by a name that it lets resolve to this computer, even read the answers: so the name by which
this server was called and the site of the calling page are checked, not the address alone.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daemon.web.options import LOCAL_NAMES
from daemon.web.refusals import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from daemon.web.access import Token
    from daemon.web.options import WebOptions
    from daemon.web.refusals import RefusalLog

BODY_BYTES = 65_536
"""Largest body of a request; the longest holds verdicts on some hundred announcements."""

LARGE_BODY_BYTES = 16 << 20
"""Largest file of an imported library."""

_LARGE_BODY_PATH = re.compile(r"/api/rigs/[^/]+/library")

BODY_WITHIN_S = 20.0
"""Seconds in which a body must arrive."""

PUBLIC_PATHS = frozenset({"/", "/healthz", "/api/session", "/api/login"})
"""Paths that are answered without a token, as are the files below /static/."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


class BodyError(Exception):
    """A body is too large, or takes too long; the application answers with `status`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Refused:
    """Status and text of an answer that refuses a request."""

    status: int
    kind: Refusal
    text: str


class Guard:
    """Passes on the requests that may be answered, and refuses the others.

    Parameters
    ----------
    app: the application.
    options: whom it may trust, and by which names it is called.
    token: that a browser must have shown; None where only this computer can call.
    refusals: counts what is refused.
    """

    def __init__(
        self, app: ASGIApp, options: WebOptions, token: Token | None, refusals: RefusalLog
    ) -> None:
        self._app = app
        self._options = options
        self._token = token
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one connection, and pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope = self._without_prefix(scope)
        refused = self._refusal(scope)
        if refused is not None:
            self._refusals.add(refused.kind, f"{scope.get('method', 'GET')} {scope['path']}")
            await _refuse(scope, send, refused.status, refused.text)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                extra = [header for header in HEADERS if header[0] not in given]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await self._app(scope, _bounded(scope, receive), send_with_headers)

    def _without_prefix(self, scope: Scope) -> Scope:
        """Remove the prefix of the path, which a proxy may leave there or remove itself."""
        prefix = self._options.root_path
        path = scope["path"]
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            return {
                **scope,
                "path": path[len(prefix) :] or "/",
                "prefix_missing_slash": path == prefix,
            }
        return scope

    def _refusal(self, scope: Scope) -> _Refused | None:
        if self._options.only_trusted and not self._is_trusted(scope):
            return _Refused(
                403, Refusal.CALLER, "This page answers only requests that come through its proxy."
            )
        headers = _headers(scope)
        host = _called_host(headers, trusted=self._is_trusted(scope))
        known = LOCAL_NAMES | self._options.allowed_hosts
        if self._token is None and not self._options.only_trusted and host not in known:
            return _Refused(
                421,
                Refusal.HOST,
                f"This page answers by the names of its own computer, such as localhost, and was "
                f"called as {host or 'nothing'!r}. Start it with --allow-host NAME to let it "
                "answer by another.",
            )
        if not _from_this_site(scope, headers, trusted=self._is_trusted(scope)):
            return _Refused(403, Refusal.ORIGIN, "This request comes from a page of another site.")
        if not self.is_logged_in(scope) and not _is_public(scope):
            return _Refused(
                401,
                Refusal.TOKEN,
                "Log in with the token first. It was printed when the page was first started, and "
                "lies in the file web-token in the rig's state folder.",
            )
        return None

    def is_logged_in(self, scope: Scope) -> bool:
        """Whether a request shows the token or its cookie, or needs none."""
        if self._token is None or self._is_trusted(scope):
            return True
        headers = _headers(scope)
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._token.matches(shown.strip()):
            return True
        cookie = _cookie(headers, self._token.cookie_name)
        return cookie is not None and self._token.matches_cookie(cookie)

    def _is_trusted(self, scope: Scope) -> bool:
        client = scope.get("client")
        return client is not None and client[0] in self._options.trusted


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case names; of a repeated one the first."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found


def _called_host(headers: dict[str, str], *, trusted: bool) -> str:
    """Return the name by which the browser called this server, in lower case and without port."""
    return _host_and_port(headers, trusted=trusted)[0]


def _host_and_port(headers: dict[str, str], *, trusted: bool) -> tuple[str, str]:
    shown = headers.get("host", "")
    if trusted:
        shown = headers.get("x-forwarded-host", shown)
    shown = shown.strip().lower()
    if shown.startswith("["):
        name, _, port = shown.partition("]")
        return f"{name}]", port.removeprefix(":")
    name, _, port = shown.partition(":")
    return name, port


def _from_this_site(scope: Scope, headers: dict[str, str], *, trusted: bool) -> bool:
    """Whether a request comes from this site's own page, or from no page of a site at all.

    Browsers state the site of every request that can change something, and of every websocket. What
    another site may embed or link to, without reading it, changes nothing here.
    """
    fetch_site = headers.get("sec-fetch-site", "none")
    reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    if reads and headers.get("sec-fetch-mode") == "navigate":
        return True
    if fetch_site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    name = parts.hostname or ""
    shown = f"[{name}]" if ":" in name else name
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host, host_port = _host_and_port(headers, trusted=trusted)
    called_port = int(host_port) if host_port.isdigit() else default
    return shown == host and (port or default) == called_port


def _is_public(scope: Scope) -> bool:
    path = scope["path"]
    return scope["type"] == "http" and (path in PUBLIC_PATHS or path.startswith("/static/"))


def _cookie(headers: dict[str, str], name: str) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if found is None else found.value


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """Return `receive` that ends a body which is too large or too slow."""
    limit = LARGE_BODY_BYTES if _LARGE_BODY_PATH.fullmatch(scope["path"]) else BODY_BYTES
    stated = _headers(scope).get("content-length", "0")
    got = 0
    whole = False

    async def bounded() -> Message:
        nonlocal got, whole
        if whole:
            return await receive()  # waits for the end of the connection
        if not stated.isdigit() or int(stated) > limit:
            raise BodyError(413, f"A request holds at most {limit} bytes.")
        try:
            async with asyncio.timeout(BODY_WITHIN_S):
                message = await receive()
        except TimeoutError:
            raise BodyError(408, f"A request must arrive within {BODY_WITHIN_S:g} s.") from None
        if message["type"] == "http.request":
            got += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if got > limit:
                raise BodyError(413, f"A request holds at most {limit} bytes.")
        return message

    return bounded


async def _refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    """Answer with an error as JSON; a websocket is refused before it opens."""
    body = json.dumps({"error": text}).encode()
    headers: list[Any] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
        *HEADERS,
    ]
    if scope["type"] == "websocket":
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
