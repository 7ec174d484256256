"""A hub on this machine: as much of the Hugging Face hub's HTTP API as a download uses.

Real HTTP, hashes and ranges; it can break a connection half-way and change a byte.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


@dataclass
class Hub:
    """The hub's files, its faults and the requests it received.

    Attributes
    ----------
    dataset: the one there is.
    files: path -> content.
    large: paths kept as large files, with SHA-256 for a hash.
    break_once: paths whose first answer ends after half of its bytes.
    corrupt: paths that come with a byte changed.
    requests: (method, path, Range header) of each request for a file's content.
    """

    dataset: str
    files: dict[str, bytes]
    large: set[str] = field(default_factory=set)
    break_once: set[str] = field(default_factory=set)
    corrupt: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    endpoint: str = ""

    @property
    def fetched(self) -> list[str]:
        return sorted({path for method, path, _ in self.requests if method == "GET"})

    def tree(self) -> list[dict[str, object]]:
        folders = {path.rsplit("/", n)[0] for path in self.files for n in range(1, path.count("/"))}
        entries: list[dict[str, object]] = [
            {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            for folder in sorted(folders)
        ]
        for path, data in self.files.items():
            entry: dict[str, object] = {
                "type": "file", "path": path, "size": len(data), "oid": git_sha1(data),
            }  # fmt: skip
            if path in self.large:
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
            entries.append(entry)
        return entries


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, hub = unquote(urlsplit(self.path).path), self.hub
        if path.startswith("/api/datasets/") and hub.dataset not in path:
            self._send(404, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif path.startswith(f"/api/datasets/{hub.dataset}/tree/{COMMIT}"):
            self._send(200, json.dumps(hub.tree()).encode(), {})
        elif path.startswith(f"/api/datasets/{hub.dataset}"):
            info = {"id": hub.dataset, "sha": COMMIT, "siblings": [], "tags": []}
            self._send(200, json.dumps(info).encode(), {})
        elif path.startswith(start := f"/datasets/{hub.dataset}/resolve/{COMMIT}/"):
            self._file(path.removeprefix(start))
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _file(self, path: str) -> None:
        hub, asked = self.hub, self.headers.get("Range")
        hub.requests.append((self.command, path, asked))
        data = hub.files[path]
        etag = hashlib.sha256(data).hexdigest() if path in hub.large else git_sha1(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if path in hub.corrupt:
            data = bytes([data[0] ^ 1]) + data[1:]
        status, first = 200, 0
        if asked and self.command == "GET":
            first = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            status = 206
        half = self.command == "GET" and path in hub.break_once
        self._send(status, data[first:], headers, broken=half)
        if half:
            hub.break_once.discard(path)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, broken: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if broken else body)
        if broken:
            self.close_connection = True


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` on a free port of this machine; its `endpoint` says where."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="hub", daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
