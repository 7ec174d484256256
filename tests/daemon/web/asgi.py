"""Calls the web application without a network: one request or one websocket at a time."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.config.settings import Config, SourceConfig
from daemon.web.access import Token
from daemon.web.app import WebApp
from daemon.web.options import WebOptions

HOST = "localhost:8733"


def web_app(
    tmp_path: Path, token: Token | None = None, rig: str = "kitchen", **options: Any
) -> WebApp:
    """Return an application that is connected to no broker."""
    config = Config(
        rig_id=rig,
        source=SourceConfig(port="./board"),
        models=("substances-50",),
        state_dir=tmp_path,
    )
    return WebApp(config, WebOptions(state_dirs={rig: tmp_path}, **options), token)


@dataclass
class Answer:
    """Of the application to one request."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def scope_of(
    kind: str, path: str, headers: dict[str, str], client: str = "127.0.0.1", method: str = "GET"
) -> dict[str, Any]:
    shown = {"host": HOST, **headers}
    path, _, query = path.partition("?")
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http" if kind == "http" else "ws",
        "client": (client, 50000),
        "server": ("127.0.0.1", 8733),
        "headers": [(name.encode(), value.encode()) for name, value in shown.items()],
        "extensions": {"websocket.http.response": {}},
        "subprotocols": [],
    }


def call(
    app: WebApp,
    path: str,
    *,
    method: str = "GET",
    body: Any = None,
    raw: bytes | None = None,
    client: str = "127.0.0.1",
    **headers: str,
) -> Answer:
    """Send one request; `body` is sent as JSON, `raw` as it is."""
    content = b"" if body is None else json.dumps(body).encode()
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        shown.setdefault("content-type", "application/json")
    content = content if raw is None else raw
    if method == "POST":
        shown.setdefault("content-length", str(len(content)))
    answer = Answer()

    async def run() -> None:
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent:
                await asyncio.sleep(60)
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        await app.asgi(scope_of("http", path, shown, client, method), receive, send)

    asyncio.run(run())
    return answer


def open_websocket(app: WebApp, **headers: str) -> int:
    """Try to open the live connection; return 101, or the status that refuses it."""
    statuses: list[int] = []

    async def run() -> None:
        received = iter([{"type": "websocket.connect"}])

        async def receive() -> dict[str, Any]:
            return next(received, {"type": "websocket.disconnect", "code": 1000})

        async def send(message: Any) -> None:
            if message["type"] == "websocket.accept":
                statuses.append(101)
            elif message["type"] == "websocket.http.response.start":
                statuses.append(message["status"])

        await app.asgi(scope_of("websocket", "/api/live", headers), receive, send)

    asyncio.run(run())
    return statuses[0]
