"""A hub on this machine: as much of the Hugging Face hub's HTTP API as its client uses for us.

Real HTTP, hashes, ranges, commits and large files (git-lfs; the client's Xet is switched off by
`client_of`). It can break a connection half-way, change a byte, state a wrong size, and redirect.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
import yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""The first commit of every repository."""

TOKEN = "hf_a_token_that_no_output_may_hold"  # noqa: S105 - of no real hub


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _next_commit(commit: str) -> str:
    return hashlib.sha1(commit.encode(), usedforsecurity=False).hexdigest()


@dataclass
class Repository:
    """Commits, the oldest first: (id, content by path)."""

    commits: list[tuple[str, dict[str, bytes]]]
    private: bool = False
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def commit_of(self, revision: str) -> str | None:
        if revision == "main":
            return self.head
        known = {commit for commit, _ in self.commits}
        return self.tags.get(revision, revision if revision in known else None)

    def files_at(self, revision: str) -> dict[str, bytes]:
        commit = self.commit_of(revision)
        return next(files for one, files in self.commits if one == commit)


@dataclass
class Hub:
    """The hub's repositories, its faults and the requests it received.

    Attributes
    ----------
    dataset: name of the data set there is at first, if any; its content is `files`.
    files: path -> content.
    large: paths kept as large files, with SHA-256 for a hash.
    break_once, broken: paths whose first answer, or whose every answer, ends after half its bytes.
    corrupt: paths that come with a byte changed.
    listed_bytes: sizes that are listed in place of the right ones.
    redirected: paths whose content is at another address of this hub.
    models: repositories of models, by name.
    requests: (method, path, Range header) of each request for a file's content.
    answered: (method, path of the address) of every request.
    tokens: those that came.
    """

    dataset: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    break_once: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    corrupt: set[str] = field(default_factory=set)
    listed_bytes: dict[str, int] = field(default_factory=dict)
    redirected: set[str] = field(default_factory=set)
    models: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    answered: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    endpoint: str = ""

    def __post_init__(self) -> None:
        self._dataset = Repository([(COMMIT, self.files)])

    @property
    def fetched(self) -> list[str]:
        return sorted({path for method, path, _ in self.requests if method == "GET"})

    def add_model(self, name: str, files: dict[str, bytes], *, private: bool = False) -> Repository:
        self.models[name] = Repository([(COMMIT, files)], private)
        return self.models[name]

    def repository(self, kind: str, name: str) -> Repository | None:
        if kind == "datasets":
            return self._dataset if name == self.dataset else None
        return self.models.get(name)

    def entry(self, path: str, data: bytes) -> dict[str, object]:
        size = self.listed_bytes.get(path, len(data))
        entry: dict[str, object] = {
            "type": "file", "path": path, "size": size, "oid": git_sha1(data),
        }  # fmt: skip
        if path in self.large:
            digest = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 130}
        return entry

    def tree(self, files: dict[str, bytes]) -> list[dict[str, object]]:
        folders = {path.rsplit("/", n)[0] for path in files for n in range(1, path.count("/"))}
        entries: list[dict[str, object]] = [
            {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            for folder in sorted(folders)
        ]
        return entries + [self.entry(path, data) for path, data in files.items()]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.answered.append((self.command, path))
        if token := self.headers.get("Authorization", "").removeprefix("Bearer "):
            self.hub.tokens.add(token)
        first, *rest = path.strip("/").split("/")
        if path == "/api/validate-yaml":
            self._validate()
        elif path == "/api/repos/create":
            self._create()
        elif first == "lfs":
            self._store_large(rest[0])
        elif first == "api":
            self._api(rest[0], "/".join(rest[1:3]), rest[3:])
        elif first == "datasets":
            self._content(first, "/".join(rest[:2]), rest[2:])
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._large_files()
        else:
            self._content("models", f"{first}/{rest[0]}", rest[1:])

    def _found(self, kind: str, name: str) -> Repository | None:
        """Return a repository that this client may see, or answer that there is none."""
        repository = self.hub.repository(kind, name)
        asked = self.headers.get("Authorization")
        if asked is not None and asked != f"Bearer {TOKEN}":
            message = "Invalid credentials in Authorization header"
            self._send(401, b"{}", {"X-Error-Message": message})
        elif repository is None or (repository.private and asked is None):
            status = 404 if asked else 401
            self._send(
                status, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"}
            )
        else:
            return repository
        return None

    def _api(self, kind: str, name: str, rest: list[str]) -> None:
        repository = self._found(kind, name)
        if repository is None:
            return
        action, revision = (*rest, "", "main")[0], unquote("/".join(rest[1:])) or "main"
        commit = repository.commit_of(revision)
        if action == "preupload":
            self._upload_modes()
        elif action == "commit":
            self._commit(name, repository)
        elif commit is None:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif action == "tree":
            self._json(self.hub.tree(repository.files_at(revision)))
        elif action == "paths-info":
            files, asked = repository.files_at(revision), parse_qs(self.body.decode())["paths"]
            self._json([self.hub.entry(path, files[path]) for path in asked if path in files])
        else:
            private = repository.private
            info = {"id": name, "sha": commit, "siblings": [], "tags": [], "private": private}
            self._json(info)

    def _content(self, kind: str, name: str, rest: list[str]) -> None:
        repository = self._found(kind, name)
        if repository is None:
            return
        commit = repository.commit_of(rest[1]) if rest[:1] == ["resolve"] else None
        path = "/".join(rest[2:])
        if commit is None:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path not in repository.files_at(commit):
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        else:
            self._file(path, repository.files_at(commit)[path], commit)

    def _file(self, path: str, data: bytes, commit: str) -> None:
        hub, asked = self.hub, self.headers.get("Range")
        hub.requests.append((self.command, path, asked))
        etag = hashlib.sha256(data).hexdigest() if path in hub.large else git_sha1(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if path in hub.redirected and "?moved" not in self.path:
            headers["X-Linked-Size"] = str(len(data))
            headers["X-Linked-ETag"] = f'"{etag}"'
            headers["Location"] = f"{hub.endpoint}{quote(unquote(self.path))}?moved"
            self._send(302, b"", headers)
            return
        if path in hub.corrupt:
            data = bytes([data[0] ^ 1]) + data[1:]
        status, first = 200, 0
        if asked and self.command == "GET":
            first = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            status = 206
        half = self.command == "GET" and path in hub.break_once | hub.broken
        self._send(status, data[first:], headers, broken=half)
        if half:
            hub.break_once.discard(path)

    # What a publication needs

    def _validate(self) -> None:
        content = json.loads(self.body)["content"]
        fence, text, _ = content.split("---\n", 2)
        good = fence == "" and isinstance(yaml.safe_load(text), dict)
        errors = [] if good else [{"message": "the front matter is no YAML mapping"}]
        self._json({"errors": errors, "warnings": []}, 200 if good else 400)

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._send(401, b'{"error":"Unauthorized"}', {})
        return False

    def _create(self) -> None:
        if not self._may_write():
            return
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.models:
            self._json({"error": "exists", "url": f"{self.hub.endpoint}/{name}"}, 409)
            return
        files = {".gitattributes": b"*.onnx filter=lfs\n*.npz filter=lfs\n"}
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.add_model(name, files, private=bool(private))
        self._json({"url": f"{self.hub.endpoint}/{name}", "name": name})

    def _upload_modes(self) -> None:
        if not self._may_write():
            return
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith((".onnx", ".npz")) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": modes})

    def _large_files(self) -> None:
        if not self._may_write():
            return
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}"}}}
            for one in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _store_large(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._json({"error": "another hash"}, 400)
            return
        self.hub.uploaded[oid] = self.body
        self._json({})

    def _commit(self, name: str, repository: Repository) -> None:
        if not self._may_write():
            return
        files = dict(repository.files)
        for line in self.body.splitlines():
            operation = json.loads(line)
            value: dict[str, Any] = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.uploaded[value["oid"]]
                    self.hub.large.add(value["path"])
                case "deletedFile":
                    del files[value["path"]]
        repository.commits.append((_next_commit(repository.head), files))
        url = f"{self.hub.endpoint}/{name}/commit/{repository.head}"
        self._json({"success": True, "commitOid": repository.head, "commitUrl": url})

    def _json(self, content: object, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, broken: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
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


def client_of(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None = None) -> None:
    """Let the hub's client in this process use `hub`, with this token or none."""
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent/token")
    # Its handler holds the standard error of the test that imported it.
    client = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(client, "handlers", [logging.NullHandler()])
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
