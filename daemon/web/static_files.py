"""Daemon: the page's own files, held in memory: some 200 kB that never change while this runs.

No path of a request reaches the file system. A file is cached by the browser by its digest.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from starlette.requests import Request

INDEX = "index.html"

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file, compressed."""

    content_type: str
    compressed: bytes
    etag: str


class StaticFiles:
    """All files of the package's folder `static`, by their path in it."""

    def __init__(self) -> None:
        self._files = dict(_read_all(files("daemon.web") / "static", ""))

    def respond(self, request: Request, path: str) -> Response:
        """Return the response for a path below `static`."""
        file = self._files.get(path)
        if file is None:
            return Response("There is no such file.\n", 404, media_type="text/plain")
        # Asked for every time, so that an upgraded page never runs with old parts.
        headers = {"etag": file.etag, "cache-control": "no-cache", "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        body = file.compressed
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
        else:
            body = gzip.decompress(body)
        return Response(body, headers={**headers, "content-type": file.content_type})


def _read_all(folder: Traversable, prefix: str) -> list[tuple[str, StaticFile]]:
    found: list[tuple[str, StaticFile]] = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += _read_all(entry, f"{name}/")
            continue
        content_type = _TYPES.get(entry.name.rpartition(".")[2])
        if content_type is not None:
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found.append((name, StaticFile(content_type, gzip.compress(content, mtime=0), etag)))
    return found
