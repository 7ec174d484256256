"""Daemon: the fields of a request, checked before its function is called.

Pure: knows JSON values and the rig's state folder, but no broker and no thread.
"""

from __future__ import annotations

import json
import stat
import unicodedata
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from daemon.system.background import Data, Short, Steps

REQUIRED: Any = object()
"""Default of a field that a request must have."""

COPY_IT = " Copy the file there, or let the scentd command on the rig do it."


class RequestError(ScentdError):
    """A request cannot be understood or cannot be carried out."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request.

    Attributes
    ----------
    kind: of value, for error messages: "text".
    parse: returns the function's argument, None for a value of another kind.
    default: the function's argument if the request lacks the field.
    advice: what to do about a wrong value.
    """

    kind: str
    parse: Callable[[Any], Any]
    default: Any = REQUIRED
    advice: str = ""

    def value(self, name: str, payload: Data) -> Any:
        """Return the field's value, or raise `RequestError` for a missing or wrong one."""
        if name not in payload and self.default is not REQUIRED:
            return self.default
        value = self.parse(payload.get(name))
        if value is None:
            sent = json.dumps(payload[name]) if name in payload else "nothing"
            raise RequestError(f"{name} must be {self.kind}, and {sent} came.{self.advice}")
        return value


def text(default: str | None = REQUIRED, *, most: int | None = None) -> Field:
    """Return a field of text that is not blank, and has at most `most` characters."""

    def parse(value: Any) -> str | None:
        if not isinstance(value, str) or (most is not None and len(value) > most):
            return None
        return _writable(value).strip() or None

    return Field("text" if most is None else f"text of 1 to {most} characters", parse, default)


def choice(*values: str, default: str | None = REQUIRED) -> Field:
    """Return a field that is one of some words."""
    return Field(
        f"one of {', '.join(values)}",
        lambda value: value if isinstance(value, str) and value in values else None,
        default,
    )


def whole_numbers(low: int, high: int, most: int, default: Any = REQUIRED) -> Field:
    """Return a field of one whole number between two limits, or of a list of up to `most`."""

    def parse(value: Any) -> tuple[int, ...] | None:
        listed = value if isinstance(value, list) else [value]
        usable = all(type(item) is int and low <= item <= high for item in listed)
        return tuple(listed) if usable and 1 <= len(listed) <= most else None

    kind = f"a whole number from {low} to {high}, or a list of 1 to {most} of them"
    return Field(kind, parse, default)


def _is_writable(value: str) -> bool:
    """Tell whether a text can be written to a file and be part of a path."""
    # Cc: control characters, NUL among them; Cs: halves of surrogate pairs.
    return all(unicodedata.category(letter) not in {"Cc", "Cs"} for letter in value)


def _writable(value: str) -> str:
    if not _is_writable(value):
        raise RequestError(
            f"{json.dumps(value)} holds control characters or half of a surrogate pair, which no "
            "name and no path can have."
        )
    return value


def names(default: Mapping[str, str] = REQUIRED) -> Field:
    """Return a field of an object whose keys are labels, and whose values are their new names."""

    def parse(value: Any) -> dict[str, str] | None:
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            return None
        return {_writable(old): _writable(new) for old, new in value.items()}

    kind = 'an object that gives each label its new name, as {"tea": "black tea"}'
    return Field(kind, parse, default)


def flag(*, default: bool) -> Field:
    """Return a field that is true or false."""
    return Field("true or false", lambda v: v if isinstance(v, bool) else None, default)


def number(low: float, high: float, default: float | None = REQUIRED) -> Field:
    """Return a field of a number between two limits, both included."""

    def parse(value: Any) -> float | None:
        usable = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if usable and low <= value <= high else None

    return Field(f"a number from {low:g} to {high:g}", parse, default)


class _DiskField(Field):
    """A field whose value needs the disk: the function's argument is a function that returns it.

    That function may be called in another thread; it raises what `Field.value` does.
    """

    def value(self, name: str, payload: Data) -> Callable[[], Any]:
        return partial(Field.value, self, name, payload)


def path_below(folder: Path) -> Field:
    """Return a field of a path below the rig's state folder; requests may read no others.

    The function's argument is a function that follows the links and returns the path.
    """
    kind = "a path below the rig's state_dir"
    return _DiskField(kind, lambda value: _below(folder.resolve(), value), advice=COPY_IT)


def paths_below(folder: Path) -> Field:
    """Return a field of a list of such paths, empty by default, as `path_below`."""

    def parse(values: Any) -> tuple[Path | None, ...] | None:
        if not isinstance(values, list):
            return None
        paths = tuple(_below(folder.resolve(), value) for value in values)
        return None if None in paths else paths

    return _DiskField("a list of paths below the rig's state_dir", parse, (), COPY_IT)


def _below(root: Path, value: Any) -> Path | None:
    """Return a path below `root` with all links followed; None for other places and values.

    Raises
    ------
    RequestError: the path leads nowhere, or to a thing that is neither file nor folder.
    """
    if not isinstance(value, str) or not _is_writable(value):
        return None
    sent = json.dumps(value)
    try:
        path = (root / value).resolve()
        if not path.is_relative_to(root):
            return None
        kind = stat.S_IFMT(path.stat().st_mode) if path.exists() else stat.S_IFREG
    except RuntimeError:
        raise RequestError(f"{sent} is, or leads through, a link to itself.") from None
    except OSError as error:
        raise RequestError(f"{sent} cannot be followed ({error.strerror}).") from None
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise RequestError(f"{sent} is neither a file nor a folder.")
    return path


class Action:
    """One action of a request.

    Parameters
    ----------
    function: called with the values of the fields by their names.
    exclusive: fields of which a request may have only one.
    fields: all fields that a request may have.
    """

    def __init__(
        self,
        function: Callable[..., Data | Steps | Short],
        exclusive: tuple[str, ...] = (),
        /,
        **fields: Field,
    ) -> None:
        self._function = function
        self._exclusive = exclusive
        self.fields = fields

    def __call__(self, payload: Data) -> Data | Steps | Short:
        """Check the fields of a request, then call the function.

        Raises
        ------
        RequestError: if a field is unknown (most often misspelt), missing or wrong.
        """
        unknown = sorted(payload.keys() - self.fields.keys())
        if unknown:
            raise RequestError(
                f"This request has no field {', '.join(unknown)}. Its fields are: "
                f"{', '.join(sorted(self.fields)) or 'none'}."
            )
        if len(payload.keys() & set(self._exclusive)) > 1:
            raise RequestError(f"Give {' or '.join(self._exclusive)}, not both.")
        return self._function(
            **{name: field.value(name, payload) for name, field in self.fields.items()}
        )


class Actions:
    """The actions of one command; a request names one in its field `action`, or gets `default`."""

    def __init__(self, default: str, /, **actions: Action) -> None:
        self._name = text(default)
        self.actions = actions

    def __call__(self, payload: Data) -> Data | Steps | Short:
        """Run the action that a request names."""
        name = self._name.value("action", payload)
        if name not in self.actions:
            raise RequestError(
                f"action must be one of {', '.join(self.actions)}, and {json.dumps(name)} came."
            )
        return self.actions[name]({key: payload[key] for key in payload if key != "action"})
