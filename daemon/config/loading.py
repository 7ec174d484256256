"""Daemon: reading a configuration: YAML and environment in, a frozen `Config` or every problem out.

This file may import pydantic and yaml; no other file of the daemon imports
pydantic. It opens nothing but the configuration itself.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from daemon.config.credentials import delivered
from daemon.config.settings import Config, SourceConfig
from hardware.errors import ScentdError, UsageError
from hardware.safe_yaml import read_yaml, read_yaml_with_nodes, shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Location = tuple[str | int, ...]

ENVIRONMENT_PREFIX = "SCENTD_"
NOT_SETTINGS = frozenset({"SCENTD_DATA"})
"""Variables with our prefix that mean something else: SCENTD_DATA leads the tests to recordings."""

ANY_NAME = "NAME"
"""In a setting's path: whatever its owner calls it."""

LONGEST_SHOWN = 60
"""Characters of a wrong value that an error repeats."""

EXAMPLE = """\
rig_id: kitchen
source: {port: /dev/ttyUSB0}
models: [substances-50, mixtures-12]
mqtt: {host: localhost, port: 1883}"""


class ConfigError(ScentdError):
    """The configuration cannot be used; the message lists every problem with its line and mend."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `where` it stands, and a sentence with the mend."""

    where: str
    text: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read, overlay with the environment, and validate a configuration as a whole.

    Parameters
    ----------
    path : Path
        The YAML file. Relative paths inside it start at its folder.
    environ : Mapping, optional
        Variables such as SCENTD_MQTT__HOST override single settings; the process's own by default.

    Raises
    ------
    ConfigError
        With every problem at once: a line or a variable's name, and what to do.
    """
    text = _read_text(path)
    data, lines, problems = _parse(path, text)
    origins: dict[Location, str] = {}
    problems += _overlay(data, os.environ if environ is None else environ, origins)
    config, invalid = _validate(data, lines, origins)
    problems += invalid
    if config is None or problems:
        raise ConfigError(_report(path, sorted(problems, key=lambda problem: problem.line)))
    return _anchored(config, path.resolve().parent, os.environ if environ is None else environ)


def source_from_options(**options: Any) -> SourceConfig:
    """Return the source that a command line names, by the same rules as in a file.

    Raises
    ------
    UsageError
        With every problem at once.
    """
    try:
        return TypeAdapter(SourceConfig).validate_python(options)
    except ValidationError as error:
        raise UsageError(" ".join(_mend(details) for details in error.errors())) from None


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration file {path}. Write one; the smallest is:\n\n{EXAMPLE}"
        ) from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder; --config wants the YAML file inside it, "
            f"for example {path}/scentd.yaml."
        ) from None
    except PermissionError:
        raise ConfigError(
            f"The configuration file {path} may not be read by this user. "
            f"Give it to the group that scentd runs as: sudo chgrp scentd {path}."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"The configuration file {path} is not UTF-8 text (byte {error.start}). "
            "Save it as UTF-8."
        ) from None
    if not text.strip():
        raise ConfigError(f"The configuration file {path} is empty. The smallest is:\n\n{EXAMPLE}")
    return text


def _parse(path: Path, text: str) -> tuple[dict[str, Any], dict[Location, int], list[Problem]]:
    """Return the data, the line of every value, and the keys that were written twice."""
    try:
        node, data = read_yaml_with_nodes(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        told = getattr(error, "problem", None) or "it is not YAML"
        raise ConfigError(
            _report(
                path,
                [
                    Problem(
                        f"line {line}",
                        f"this is not YAML ({told}). Indent with spaces, write a space after "
                        "each colon, and close every bracket and quote.",
                    )
                ],
            )
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path} must hold settings as `name: value` lines, and holds a "
            f"{type(data).__name__}. The smallest is:\n\n{EXAMPLE}"
        )
    lines: dict[Location, int] = {}
    problems: list[Problem] = []
    _note_lines(node, (), lines, problems)
    return data, lines, problems


def _note_lines(
    node: yaml.Node | None, location: Location, lines: dict[Location, int], problems: list[Problem]
) -> None:
    """Walk the parsed tree; YAML itself silently keeps the last of two equal keys."""
    if node is not None:
        lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*location, str(key.value))
            line = key.start_mark.line + 1
            if inner in lines:
                problems.append(
                    Problem(
                        f"line {line}",
                        f"{_dotted(inner)} stands on line {lines[inner]} already; "
                        "keep one of the two.",
                        line,
                    )
                )
                continue
            lines[inner] = line
            _note_lines(value, inner, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, (*location, index), lines, problems)


def _overlay(
    data: dict[str, Any], environ: Mapping[str, str], origins: dict[Location, str]
) -> list[Problem]:
    """Write SCENTD_A__B=value over data["a"]["b"]; remember which variable said what."""
    problems = []
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NOT_SETTINGS:
            continue
        path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        try:
            value = _environment_value(environ[name])
        except yaml.YAMLError:
            problems.append(
                Problem(
                    name, "this is not a YAML list. Write it as ['substances-50', 'mixtures-12']."
                )
            )
            continue
        section = data
        for depth, key in enumerate(path[:-1], start=1):
            origins[path[:depth]] = name
            inner = section.get(key)
            if not isinstance(inner, dict):
                inner = {}
                section[key] = inner
            section = inner
        section[path[-1]] = value
        origins[path] = name
    return problems


def _environment_value(text: str) -> Any:
    # Scalars stay text, which pydantic turns into the field's type: a username
    # of digits must not become a number.
    return read_yaml(text) if text.lstrip().startswith(("[", "{")) else text


def _validate(
    data: dict[str, Any], lines: dict[Location, int], origins: dict[Location, str]
) -> tuple[Config | None, list[Problem]]:
    try:
        return TypeAdapter(Config).validate_python(data), []
    except ValidationError as error:
        return None, [_problem(details, lines, origins) for details in error.errors()]


def _problem(
    details: ErrorDetails,
    lines: dict[Location, int],
    origins: dict[Location, str],
) -> Problem:
    """Say where one pydantic error stands, and what to do about it."""
    location = details["loc"]
    while location not in origins and location not in lines and location:
        location = location[:-1]
    line = lines.get(location, 1)
    where = origins.get(location) or f"line {line}"
    return Problem(where, _mend(details), line)


def _mend(details: ErrorDetails) -> str:
    location = details["loc"]
    name = _dotted(location)
    kind = details["type"]
    if kind == "missing":
        return f"{name} is missing. {_MISSING.get(name, 'Add it.')}"
    if kind == "unexpected_keyword_argument":
        return _unknown_key(location)
    if kind == "value_error":
        reason = str(details["ctx"]["error"])
        came = details["input"]
        shown = "" if isinstance(came, dict) else f" ({_shown(name, came)} came)"
        return f"{name}: {reason}{shown}." if name else f"{reason}{shown}."
    wanted = _WANTED.get(kind) or details["msg"].removeprefix("Input should be ")
    return f"{name} must be {wanted}, and {_shown(name, details['input'])} came."


_MISSING = {
    "rig_id": "Add a short name for this rig, for example rig_id: kitchen.",
    "source": "Say where the board is, for example source: {port: /dev/ttyUSB0}.",
    "models": "Name the models to run, for example models: [substances-50, mixtures-12].",
}

_WANTED = {
    "string_type": "text (put it in quotes if it looks like a number)",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "path_type": "the path of a file",
    "tuple_type": "a list, for example [substances-50, mixtures-12]",
    "dict_type": "a section of `name: value` lines",
    "dataclass_type": "a section of `name: value` lines",
}


def _shown(name: str, value: Any) -> str:
    """Describe what came; a value that may be a secret is never repeated."""
    if "pass" in name or "key" in name:
        return "something else"
    if value is None:
        return "nothing"
    text = shown(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _unknown_key(location: Location) -> str:
    name = _dotted(location)
    key = str(location[-1])
    if key in {"password", "passwd"}:
        return (
            f"{name}: secrets do not stand in the configuration. Put the password alone in a "
            "file that only scentd may read, and name it with mqtt.password_file."
        )
    known = _known_keys(location[:-1])
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f"{name} is not a setting; did you mean {_dotted((*location[:-1], close[0]))}?"
    elsewhere = [path for path in _all_settings(Config) if path[-1] == key]
    if elsewhere:
        return f"{name} is not a setting here; it belongs to {_dotted(elsewhere[0])}."
    place = f"{_dotted(location[:-1])} knows" if len(location) > 1 else "The settings are"
    return f"{name} is not a setting. {place}: {', '.join(known)}."


def _known_keys(section: Location) -> list[str]:
    settings = _all_settings(Config)
    depth = len(section)
    return [
        str(path[depth])
        for path in settings
        if len(path) == depth + 1
        and all(known in (name, ANY_NAME) for known, name in zip(path, section, strict=False))
    ]


def _all_settings(kind: type, prefix: Location = ()) -> list[Location]:
    """List every setting's path, sections before what is inside them."""
    found: list[Location] = []
    hints = get_type_hints(kind)
    for item in fields(kind):
        path = (*prefix, item.name)
        found.append(path)
        for inner in _alternatives(hints[item.name]):
            if is_dataclass(inner) and isinstance(inner, type):
                found += _all_settings(inner, path)
            elif get_origin(inner) is Mapping:
                found += _all_settings(get_args(inner)[1], (*path, ANY_NAME))
    return found


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in {Union, type(int | None)} else (hint,)


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _report(path: Path, problems: list[Problem]) -> str:
    count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    listed = "\n".join(f"  {problem}" for problem in problems)
    return f"{path} cannot be used: {count}, and nothing was opened.\n{listed}"


def _anchored(config: Config, folder: Path, environ: Mapping[str, str]) -> Config:
    """Let relative paths start at the configuration's folder, wherever scentd was started."""

    def secret(path: Path | None) -> Path | None:
        return None if path is None else delivered(folder / path.expanduser(), folder, environ)

    tls = config.mqtt.tls
    if tls is not None:
        tls = replace(tls, ca=secret(tls.ca), cert=secret(tls.cert), key=secret(tls.key))
    port = config.source.port
    return replace(
        config,
        source=replace(config.source, port=None if port is None else str(folder / port)),
        models=tuple(
            str(folder / Path(name).expanduser()) if "/" in name else name for name in config.models
        ),
        mqtt=replace(config.mqtt, tls=tls, password_file=secret(config.mqtt.password_file)),
        state_dir=folder / config.state_dir.expanduser(),
    )
