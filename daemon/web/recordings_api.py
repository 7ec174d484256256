"""Daemon: the recordings of a rig, as the page shows and changes them.

Reads and writes the rig's recordings' folder alone, by `daemon.recording.catalogue`, in threads:
files on an SD card are slow. A recording is played back in a child process, one at a time.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from daemon.recording.catalogue import Catalogue, ListedRecording
from daemon.web.bodies import NO_STORE, milliseconds, optional_text, read_object
from hardware.labels import MAX_LABEL_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

AUTHOR = "page"
"""Author of the labels that are given on the page."""

NAME_CHARACTERS = 200

REPLAY_WITHIN_S = 300.0
REPLAY_BYTES = 32 << 20
"""Most output of a replay that is read: that of a recording of some days."""

POINTS = 60
"""Points of a curve, unless another number is requested."""

_WHOLE = re.compile(r"[0-9]{1,15}")

TIMELINE_KEPT = 400
"""Changes of state in a replay that are shown; the first ones."""

_ROOT = Path(__file__).resolve().parents[2]


class RecordingsApi:
    """The requests below `/api/rigs/RIG/recordings`.

    Parameters
    ----------
    state_dirs: state folders by rig.
    configs: configuration files by rig, with which a recording is played back.
    """

    def __init__(self, state_dirs: Mapping[str, Path], configs: Mapping[str, Path]) -> None:
        self._state_dirs = state_dirs
        self._configs = configs
        self._replaying = asyncio.Lock()
        base = "/api/rigs/{rig}/recordings"
        self.routes = [
            Route(base, self._list),
            Route(f"{base}/export", self._export, methods=["GET"]),
            Route(f"{base}/{{name}}", self._show),
            Route(f"{base}/{{name}}/curve", self._curve),
            Route(f"{base}/{{name}}/label", self._label, methods=["POST"]),
            Route(f"{base}/{{name}}/cut", self._cut, methods=["POST"]),
            Route(f"{base}/{{name}}/remove", self._remove, methods=["POST"]),
            Route(f"{base}/{{name}}/replay", self._replay, methods=["POST"]),
        ]

    def _catalogue(self, request: Request) -> Catalogue:
        state_dir = self._state_dirs.get(request.path_params["rig"])
        if state_dir is None:
            raise HTTPException(
                404, "The recordings of this rig lie on another computer. Open the page there."
            )
        return Catalogue(state_dir / "recordings")

    async def _list(self, request: Request) -> Response:
        listed = await asyncio.to_thread(self._catalogue(request).list)
        return _answer({"recordings": [_listed(item) for item in listed]})

    async def _show(self, request: Request) -> Response:
        catalogue, name = self._catalogue(request), request.path_params["name"]
        curve = await asyncio.to_thread(catalogue.curve, name)
        labels = await asyncio.to_thread(catalogue.labels, name)
        return _answer({"name": name, "curve": asdict(curve), "labels": labels.as_json()})

    async def _curve(self, request: Request) -> Response:
        """Return a part of a recording in few points."""
        wanted: dict[str, Any] = {"points": POINTS}
        for name in ("start_ms", "end_ms", "points"):
            text = request.query_params.get(name)
            if text is not None and not _WHOLE.fullmatch(text):
                raise HTTPException(422, f"{name} must be a whole number.")
            if text is not None:
                wanted[name] = int(text)
        read = self._catalogue(request).curve
        curve = await asyncio.to_thread(read, request.path_params["name"], **wanted)
        return _answer(asdict(curve))

    async def _label(self, request: Request) -> Response:
        catalogue, name = self._catalogue(request), request.path_params["name"]
        given = await read_object(request)
        start_ms, end_ms = milliseconds(given, "start_ms"), milliseconds(given, "end_ms")
        label = optional_text(given, "label", MAX_LABEL_LENGTH)
        labels = await asyncio.to_thread(catalogue.label, name, start_ms, end_ms, label, AUTHOR)
        return _answer({"labels": labels.as_json()})

    async def _cut(self, request: Request) -> Response:
        catalogue, name = self._catalogue(request), request.path_params["name"]
        given = await read_object(request)
        start_ms, end_ms = milliseconds(given, "start_ms"), milliseconds(given, "end_ms")
        target = optional_text(given, "target", NAME_CHARACTERS)
        new = await asyncio.to_thread(catalogue.cut, name, start_ms, end_ms, target)
        return _answer({"name": new})

    async def _remove(self, request: Request) -> Response:
        await read_object(request)
        catalogue = self._catalogue(request)
        await asyncio.to_thread(catalogue.remove, request.path_params["name"])
        return _answer({})

    async def _export(self, request: Request) -> Response:
        """Return the labelled stretches as a zip of LABEL/SESSION/*.csv, for the trainer."""
        catalogue = self._catalogue(request)
        names = request.query_params.getlist("name") or None
        session = request.query_params.get("session") or None
        path = await asyncio.to_thread(_export_zip, catalogue, names, session)
        return FileResponse(
            path,
            media_type="application/zip",
            filename="recordings.zip",
            headers=NO_STORE,
            background=BackgroundTask(path.unlink, missing_ok=True),
        )

    async def _replay(self, request: Request) -> Response:
        """Play a recording back through the rig's models; return the times of what they said."""
        await read_object(request)
        rig, name = request.path_params["rig"], request.path_params["name"]
        path = await asyncio.to_thread(self._catalogue(request).path, name)
        if self._replaying.locked():
            raise HTTPException(
                409, "A recording is being played back now. Wait until it has ended."
            )
        async with self._replaying:
            lines = await _replay_lines(self._configs[rig], path)
        return _answer(_timeline(lines))


def _answer(data: dict[str, Any]) -> Response:
    return JSONResponse(data, headers=NO_STORE)


def _listed(item: ListedRecording) -> dict[str, Any]:
    return {
        "name": item.name,
        "bytes": item.bytes,
        "session": item.session,
        "is_segment": item.is_segment,
        "labels": item.labels.as_json(),
        "problem": item.problem,
    }


def _export_zip(catalogue: Catalogue, names: list[str] | None, session: str | None) -> Path:
    """Write an export into a zip beside the recordings' folder, and return its path."""
    exports = catalogue.folder.parent / "exports"
    exports.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=exports, prefix=".export-") as folder:
        exported = catalogue.export(Path(folder), names, session=session)
        with tempfile.NamedTemporaryFile(
            dir=exports, prefix=".export-", suffix=".zip", delete=False
        ) as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                for place in exported.files:
                    archive.write(Path(folder) / place, place)
            return Path(stream.name)


async def _replay_lines(config: Path, recording: Path) -> list[bytes]:
    """Return what `scentd replay --json` prints of a recording, a JSON object a line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "daemon.cli",
        "replay",
        str(recording),
        "--config",
        str(config),
        "--json",
        cwd=_ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(REPLAY_WITHIN_S):
            output, errors = await process.communicate()
    except TimeoutError:
        raise HTTPException(
            422,
            f"The recording could not be played back within {REPLAY_WITHIN_S:g} s. Cut a part of "
            "it, and play that back.",
        ) from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    if process.returncode != 0:
        raise HTTPException(422, errors.decode("utf-8", "replace").strip()[-500:])
    return output[:REPLAY_BYTES].splitlines()


def _timeline(lines: list[bytes]) -> dict[str, Any]:
    """Return the changes of state and name of each model, and the summary."""
    changes: list[dict[str, Any]] = []
    summaries: list[dict[str, Any]] = []
    latest: dict[str, tuple[Any, ...]] = {}
    for line in lines:
        value = json.loads(line)
        if value.get("type") == "summary":
            summaries.append({key: value[key] for key in ("model", "label", "probability")})
        elif value.get("topic") in ("substance", "mixture"):
            names = [part["label"] for part in value.get("components", ())]
            shown = value["label"] if value["topic"] == "substance" else " + ".join(names) or None
            change = value["state"], shown
            if latest.get(value["model"]) != change and len(changes) < TIMELINE_KEPT:
                latest[value["model"]] = change
                changes.append(
                    {
                        "frame_seq": value["frame_seq"],
                        "model": value["model"],
                        "state": value["state"],
                        "label": shown,
                        "probability": value.get("probability"),
                    }
                )
    return {"changes": changes, "summaries": summaries}
