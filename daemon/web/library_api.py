"""Daemon: files of a rig that the page hands out and takes: its library of smells, models' cards.

The rig's service writes and reads the library itself; here its file is only moved.
"""

from __future__ import annotations

import asyncio
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from daemon.web.bodies import NO_STORE, read_file
from hardware.files import read_regular, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.requests import Request

EXPORTED = "exports/smells.zip"
"""Where `request/enroll` with the action `export` writes (`daemon.enroll`)."""

IMPORTED = "imports/smells.zip"

INSTALLED = "models"
SHIPPED = "shipped"
"""Folder of the installed models below the state folder, and the name of the version that came with
scentd (`daemon.installed_models.store`, whose import takes more memory than the page has)."""

CARD = "README.md"
MOST_CARD_BYTES = 500_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_VERSION = re.compile(r"^version: *['\"]?([^'\"\s]+)", re.MULTILINE)


class LibraryApi:
    """The requests for files of a rig.

    Parameters
    ----------
    state_dirs: state folders by rig.
    """

    def __init__(self, state_dirs: Mapping[str, Path]) -> None:
        self._state_dirs = state_dirs
        self.routes = [
            Route("/api/rigs/{rig}/library", self._export, methods=["GET"]),
            Route("/api/rigs/{rig}/library", self._import, methods=["PUT"]),
            Route("/api/rigs/{rig}/models/{name}/card", self._card),
        ]

    def _state_dir(self, request: Request) -> Path:
        state_dir = self._state_dirs.get(request.path_params["rig"])
        if state_dir is None:
            raise HTTPException(404, "The files of this rig lie on another computer.")
        return state_dir

    async def _export(self, request: Request) -> Response:
        path = self._state_dir(request) / EXPORTED
        try:
            content = await asyncio.to_thread(read_regular, path)
        except FileNotFoundError:
            raise HTTPException(404, "Nothing was exported yet.") from None
        headers = {**NO_STORE, "content-disposition": 'attachment; filename="smells.zip"'}
        return Response(content, media_type="application/zip", headers=headers)

    async def _import(self, request: Request) -> Response:
        """Put a file where the rig's service can read it; the service checks what it holds."""
        path = self._state_dir(request) / IMPORTED
        content = await read_file(request)
        await asyncio.to_thread(write_atomically, path, content)
        return JSONResponse({"path": IMPORTED})

    async def _card(self, request: Request) -> Response:
        """Return the card of a version of a model, shipped or installed on the rig, as text."""
        name = request.path_params["name"]
        version = request.query_params.get("version", SHIPPED)
        if version == SHIPPED:
            return await asyncio.to_thread(_shipped_card, name)
        if not (_NAME.fullmatch(name) and _NAME.fullmatch(version)):
            raise HTTPException(404, "No model has such a name and version.")
        path = self._state_dir(request) / INSTALLED / name / version / CARD
        try:
            content = await asyncio.to_thread(read_regular, path, MOST_CARD_BYTES)
        except FileNotFoundError:
            raise HTTPException(
                404, f"{name} {version} was installed without a card ({CARD})."
            ) from None
        return JSONResponse({"text": content.decode("utf-8", "replace"), "version": version})


def _shipped_card(name: str) -> Response:
    bundles = files("models.bundles")
    shipped = {entry.name: entry for entry in bundles.iterdir() if entry.is_dir()}
    if name not in shipped or not (shipped[name] / CARD).is_file():
        raise HTTPException(404, "No model of that name was shipped with scentd.")
    version = _VERSION.search((shipped[name] / "manifest.yaml").read_text(encoding="utf-8"))
    text = (shipped[name] / CARD).read_text(encoding="utf-8")
    return JSONResponse({"text": text, "version": version[1] if version else ""})
