"""Daemon: reads what a request holds: a JSON object, its fields, or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from hardware.safe_json import read_json

if TYPE_CHECKING:
    from starlette.requests import Request

NO_STORE = {"cache-control": "no-store"}
"""Header of answers that hold the state of a moment."""

_HIGHEST_MS = 1 << 53


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises
    ------
    HTTPException: the body is something else. A form of another site can send no JSON.
    """
    _check_type(request, "application/json")
    try:
        value = read_json(await request.body() or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise HTTPException(400, "A request is a JSON object, and something else came.")
    return value


async def read_file(request: Request) -> bytes:
    """Return the file in a request's body.

    Raises
    ------
    HTTPException: there is none.
    """
    _check_type(request, "application/octet-stream")
    content = await request.body()
    if not content:
        raise HTTPException(400, "The file is empty.")
    return content


def milliseconds(values: dict[str, Any], name: str) -> int:
    """Return the field of a time in milliseconds.

    Raises
    ------
    HTTPException: it is missing or no whole number.
    """
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _HIGHEST_MS:
        raise HTTPException(422, f"{name} must be a time in whole milliseconds from 0 on.")
    return value


def optional_text(values: dict[str, Any], name: str, most: int) -> str | None:
    """Return the field of a text, None where it is missing or null.

    Raises
    ------
    HTTPException: it is no text, or too long.
    """
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise HTTPException(422, f"{name} must be a text of 1 to {most} characters.")
    return value.strip()


def _check_type(request: Request, wanted: str) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip() != wanted:
        raise HTTPException(415, f"This request needs the header content-type: {wanted}.")
