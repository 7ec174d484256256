"""Daemon: the web application: its routes, and the parts that answer them, joined.

The only module that knows all parts of the page. Everything in it runs in one event loop.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute

from daemon.fleet.rigs import RIGS_KEPT, Rigs
from daemon.system.memory import resident_mb
from daemon.web.bodies import NO_STORE, read_object
from daemon.web.broker_link import BrokerLink, LinkState
from daemon.web.guard import BodyError, Guard
from daemon.web.library_api import LibraryApi
from daemon.web.live import LivePages
from daemon.web.metrics import CONTENT_TYPE, RigCollector, exposition
from daemon.web.recordings_api import RecordingsApi
from daemon.web.refusals import Refusal, RefusalLog
from daemon.web.rig_requests import RequestRefusedByPageError, RigRequests
from daemon.web.server_state import ServerState
from daemon.web.static_files import INDEX, StaticFiles
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp
    from starlette.websockets import WebSocket

    from daemon.config.settings import Config
    from daemon.web.access import Token
    from daemon.web.options import WebOptions

BATCH_EVERY_S = 0.25
"""Time between two batches of readings, or lists of rigs, that the pages are given."""

SAMPLE_S = 60
ASK_EVERY_S = 25.0
"""How long, and how often, raw readings are requested from a rig that a page shows."""


class WebApp:
    """The application and its state.

    Parameters
    ----------
    config: of a rig, for the broker.
    options: how the server was started.
    token: that a browser must have shown; None where only this computer can call.
    """

    def __init__(self, config: Config, options: WebOptions, token: Token | None) -> None:
        self._config = config
        self._options = options
        self._token = token
        self.refusals = RefusalLog()
        self._static = StaticFiles()
        self.pages = LivePages(
            greeting=self._greeting,
            snapshot=self._snapshot,
            watched=self._ask_for_samples,
            refusals=self.refusals,
        )
        self.rigs = Rigs(tuple(options.state_dirs), self.pages.publish, self._answered)
        self.requests = RigRequests(self._send_request, self.pages.publish)
        self._collector = RigCollector(self.rigs.by_id.values, self._server_state)
        self._link: BrokerLink | None = None
        app = Starlette(
            routes=[
                Route("/", self._index),
                Route("/static/{path:path}", self._file),
                Route("/healthz", self._health),
                Route("/metrics", self._metrics),
                Route("/api/session", self._session),
                Route("/api/login", self._login, methods=["POST"]),
                Route("/api/rigs/{rig}/requests/{command}", self._request, methods=["POST"]),
                Route("/api/answers/{transaction}", self._answer),
                WebSocketRoute("/api/live", self._live),
                *RecordingsApi(options.state_dirs, options.configs).routes,
                *LibraryApi(options.state_dirs).routes,
            ],
            exception_handlers={
                BodyError: self._body_refused,
                RequestRefusedByPageError: self._request_refused,
                HTTPException: _as_json,
                ScentdError: _as_json,
                OSError: _as_json,
            },
            lifespan=self._lifespan,
        )
        self._guard = Guard(app, options, token, self.refusals)
        self.asgi: ASGIApp = self._guard

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Keep the connection to the broker, and the regular work, while the server runs."""
        self._link = BrokerLink(
            self._config,
            most=RIGS_KEPT,
            loop=asyncio.get_running_loop(),
            receive=self.rigs.receive,
            changed=self._link_changed,
        )
        self._link.start()
        work = asyncio.ensure_future(self._work())
        try:
            yield
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            self._link.stop()

    async def _work(self) -> None:
        """Give the pages their readings and rigs, ask for more, and give up old requests."""
        asked_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(BATCH_EVERY_S)
            self._publish_rigs()
            for rig, rows in self.rigs.take_readings().items():
                self.pages.publish(
                    rig, {"kind": "readings", "rig": rig, "rows": rows}, droppable=True
                )
            if loop.time() - asked_s >= ASK_EVERY_S:
                asked_s = loop.time()
                self.requests.give_up_old()
                for rig in self.pages.rigs:
                    self._ask_for_samples(rig)

    def _ask_for_samples(self, rig: str) -> None:
        if self._link is not None:
            self._link.request(rig, "sample", {"seconds": SAMPLE_S})

    def _publish_rigs(self) -> None:
        """Tell all pages which rigs there are, and who is online, if that has changed."""
        summary = self.rigs.take_summary()
        if summary is None:
            return
        for state in self.rigs.by_id.values():
            if not state.is_online:
                self.requests.rig_went_offline(state.rig_id)
        self.pages.publish(None, summary)

    def _answered(self, rig: str, command: str, answer: dict[str, Any]) -> None:
        if command != "sample":
            self.requests.receive(rig, command, answer)

    def _link_changed(self, state: LinkState) -> None:
        if not state.connected:
            self.rigs.forget_presence()
        self.pages.publish(None, _link_message(state))

    def _send_request(self, rig: str, command: str, payload: dict[str, Any]) -> bool:
        return self._link is not None and self._link.request(rig, command, payload)

    def _greeting(self) -> list[dict[str, Any]]:
        state = LinkState(connected=False) if self._link is None else self._link.state
        return [_link_message(state), self.rigs.summary()]

    def _snapshot(self, rig: str) -> dict[str, Any] | None:
        state = self.rigs.by_id.get(rig)
        if state is None:
            return None
        return {
            **state.snapshot(),
            "has_recordings": rig in self._options.state_dirs,
            "teaching": self.requests.open_requests(rig),
        }

    def _server_state(self) -> ServerState:
        link = self._link
        return ServerState(
            broker_connected=link is not None and link.state.connected,
            pages=self.pages.count,
            dropped=0 if link is None else link.dropped,
            unreadable=self.rigs.unreadable,
            refused=self.refusals.counts,
            resident_mb=resident_mb(),
        )

    async def _index(self, request: Request) -> Response:
        if request.scope.get("prefix_missing_slash"):
            return RedirectResponse(f"{self._options.root_path}/", 308)
        return self._static.respond(request, INDEX)

    async def _file(self, request: Request) -> Response:
        return self._static.respond(request, request.path_params["path"])

    async def _live(self, socket: WebSocket) -> None:
        await self.pages.serve(socket)

    async def _health(self, _request: Request) -> Response:
        state = self._server_state()
        return JSONResponse(
            {"status": "ok" if state.broker_connected else "no broker"},
            200 if state.broker_connected else 503,
            NO_STORE,
        )

    async def _metrics(self, _request: Request) -> Response:
        # The text of a thousand rigs takes a quarter of a second, which pages need not wait for.
        text = await asyncio.to_thread(exposition, list(self._collector.collect()))
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def _session(self, request: Request) -> Response:
        return JSONResponse(
            {"logged_in": self._guard.is_logged_in(request.scope)}, headers=NO_STORE
        )

    async def _login(self, request: Request) -> Response:
        shown = (await read_object(request)).get("token")
        if self._token is None:
            return JSONResponse({"logged_in": True})
        if not isinstance(shown, str) or not self._token.matches(shown.strip()):
            self.refusals.add(Refusal.WRONG_TOKEN, "log in")
            return JSONResponse(
                {
                    "error": "This is not the token. It was printed when the page was first "
                    "started, and lies in the file web-token in the rig's state folder."
                },
                403,
                NO_STORE,
            )
        response = JSONResponse({"logged_in": True}, headers=NO_STORE)
        response.set_cookie(
            self._token.cookie_name,
            self._token.cookie,
            max_age=365 * 86_400,
            path=f"{self._options.root_path}/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def _request(self, request: Request) -> Response:
        rig = self.rigs.by_id.get(request.path_params["rig"])
        if rig is None:
            raise HTTPException(404, "No rig of that name is on the broker.")
        payload = await read_object(request)
        if not rig.is_online:
            raise HTTPException(503, f"The service of rig {rig.rig_id!r} does not run now.")
        sent = self.requests.begin(rig.rig_id, request.path_params["command"], payload)
        return JSONResponse({"transaction": sent.transaction}, 202)

    async def _answer(self, request: Request) -> Response:
        answer = self.requests.answer_to(request.path_params["transaction"])
        if answer is None:
            raise HTTPException(404, "This request is not known any more.")
        return JSONResponse(answer, headers=NO_STORE)

    async def _body_refused(self, request: Request, error: Exception) -> Response:
        self.refusals.add(Refusal.BODY, f"{request.url.path}: {error}")
        status = error.status if isinstance(error, BodyError) else 413
        # The rest of the body is not read, so that the connection cannot be used again.
        return JSONResponse({"error": str(error)}, status, {"connection": "close"})

    async def _request_refused(self, request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, RequestRefusedByPageError) else 422
        if status == _UNUSABLE:
            self.refusals.add(Refusal.LABEL, f"{request.url.path}: {error}")
        return JSONResponse({"error": str(error)}, status)


_UNUSABLE = 422


async def _as_json(_request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return JSONResponse({"error": f"The disk refused this: {reason}."}, 507)
    return JSONResponse({"error": str(error)}, _UNUSABLE)


def _link_message(state: LinkState) -> dict[str, Any]:
    return {"kind": "broker", "connected": state.connected, "why": state.why}
