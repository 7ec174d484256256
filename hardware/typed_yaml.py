"""Ground floor: frozen dataclasses from YAML, with every problem at once, and back to plain values.

The one reader of configurations, manifests, profiles, lists of taught smells and training
configurations. May import hardware.errors, hardware.safe_yaml and the standard library: numpy must
not enter, because processes without it read the configuration. Opens no file and knows no
dataclass by name.

A field may be int, float, str, bool, Path, Literal, Any, tuple, Mapping, another dataclass, or a
union of these. `Annotated` adds rules and an example:

    port: Annotated[int, between(1, 65535, "a TCP port lies between {} and {}")]

Text is taken for a number or a truth value where one is wanted: environment variables are text,
and so is `1e-3` to YAML. Whatever only several fields together can break is checked in the
dataclass's `__post_init__`, which raises ValueError or a ScentdError.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from hardware.errors import ScentdError
from hardware.safe_yaml import Location, abbreviate, parse_yaml, read_yaml

_T = TypeVar("_T")

_SECRET = re.compile("pass|key")
"""A value whose name holds one of these is never repeated in a message."""

_TRUTH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}

_KEYWORDS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
    "pattern": lambda value, pattern: (
        not isinstance(value, str) or re.fullmatch(pattern, value) is not None
    ),
    "minItems": lambda value, least: len(value) >= least,
    "uniqueItems": lambda value, _: len(set(value)) == len(value),
}


class Rule:
    """A rule for one value, in keywords of JSON Schema; None is exempt.

    Parameters
    ----------
    mend: shown when the rule is broken.
    keywords: for example minItems=1; a pattern must match the whole text.
    """

    def __init__(self, mend: str, **keywords: Any) -> None:
        self.mend = mend
        self.keywords = keywords

    def allows(self, value: Any) -> bool:
        """Tell whether a value of the right type keeps the rule."""
        return all(_KEYWORDS[name](value, bound) for name, bound in self.keywords.items())


def between(low: float, high: float, mend: str) -> Rule:
    """Return the rule for a number from `low` to `high`, which fill the `{}` of its mend."""
    return Rule(mend.format(low, high), minimum=low, maximum=high)


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A sensible value, as YAML; shown when the value is missing or of the wrong type."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, with its mend."""

    location: Location
    text: str
    """A sentence that begins with the value's name."""
    where: str = ""
    """ "line 3" or the name of an environment variable; empty where neither is known."""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


class TypedYamlError(ScentdError):
    """Values are not what a dataclass needs; `problems` lists everything that is wrong."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__(" ".join(map(str, self.problems)))


@dataclasses.dataclass(frozen=True, slots=True)
class Words:
    """How the messages about one kind of file are worded."""

    noun: str = "key"
    """What a key of the file is called."""
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Keys that people try, with the reason why they are not accepted."""


class YamlMapping:
    """A YAML document that must be a mapping.

    Attributes
    ----------
    values: the plain values; the caller may change them before `build`.

    Raises
    ------
    TypedYamlError: it is not YAML, or not a mapping.
    """

    def __init__(self, text: str | bytes, words: Words = Words()) -> None:
        try:
            self.values, self._lines, repeated = parse_yaml(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {1 if mark is None else mark.line + 1}"
            reason = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
            mend = "Indent with spaces, write a space after each colon, and close every bracket"
            problem = Problem((), f"this is not YAML ({reason}). {mend} and quote.", where)
            raise TypedYamlError([problem]) from error
        if not isinstance(self.values, dict):
            raise TypedYamlError([_wrong_type((), _MAPPING, self.values)])
        self._words = words
        self._variables: dict[Location, str] = {}
        self._problems = []
        for location, line in repeated:
            before = f"{dotted_name(location)} stands on line {self._lines[location]} already"
            text = f"{before}; keep one of the two."
            self._problems.append(Problem(location, text, f"line {line}", line))

    def override(self, location: Location, text: str, variable: str) -> None:
        """Put the text of an environment variable in the place of a value.

        Text that begins with a bracket is YAML; everything else stays text, so that a user name
        of digits does not become a number.
        """
        try:
            value = read_yaml(text) if text.lstrip().startswith(("[", "{")) else text
        except yaml.YAMLError:
            mend = "this is not a YAML list. Write it as ['substances-50', 'mixtures-12']."
            self._problems.append(Problem(location, mend, variable))
            return
        section: Any = self.values
        for depth, key in enumerate(location[:-1], start=1):
            self._variables[location[:depth]] = variable
            if not isinstance(section.get(key), dict):
                section[key] = {}
            section = section[key]
        section[location[-1]] = value
        self._variables[location] = variable

    def build(self, kind: type[_T]) -> _T:
        """Return the values as a dataclass.

        Raises
        ------
        TypedYamlError: with every problem at once, each with its line or variable.
        """
        made = None
        problems = list(self._problems)
        try:
            made = build(kind, self.values, self._words)
        except TypedYamlError as error:
            problems += [self._placed(problem) for problem in error.problems]
        if made is None or problems:
            raise TypedYamlError(problems)
        return made

    def _placed(self, problem: Problem) -> Problem:
        """Return a problem with the place of its value, or of the nearest section around it."""
        location = problem.location
        while location and location not in self._variables and location not in self._lines:
            location = location[:-1]
        line = self._lines.get(location, 1)
        where = self._variables.get(location) or f"line {line}"
        return dataclasses.replace(problem, where=where, line=line)


def build(kind: type[_T], values: Any, words: Words = Words()) -> _T:
    """Return plain values as a dataclass.

    Raises
    ------
    TypedYamlError: with every problem at once.
    """
    conversion = _Conversion(kind, words)
    made: _T | None = conversion.convert(kind, values, ())
    if made is None or conversion.problems:
        raise TypedYamlError(conversion.problems)
    return made


class _Conversion:
    """One conversion: returns None for what it cannot convert, and notes why in `problems`."""

    def __init__(self, root: type, words: Words) -> None:
        self._root = root
        self._words = words
        self.problems: list[Problem] = []

    def convert(self, hint: Any, value: Any, location: Location) -> Any:
        """Return `value` as its type hint says, after its rules."""
        before = len(self.problems)
        bare, notes = unannotated(hint)
        try:
            made = self._unruled(bare, value, location)
        except ValueError:
            self.problems.append(_wrong_type(location, _wanted(bare) + _example(notes), value))
            return None
        if made is None or len(self.problems) > before:
            return made
        broken = [note.mend for note in notes if isinstance(note, Rule) and not note.allows(made)]
        given = f"({_repeated(location, value)} came)"
        self.problems += [
            Problem(location, f"{dotted_name(location)}: {mend} {given}.") for mend in broken
        ]
        if not broken and isinstance(made, float) and not math.isfinite(made):
            self.problems.append(_wrong_type(location, "a finite number", value))
        return made

    def _unruled(self, hint: Any, value: Any, location: Location) -> Any:
        """Return `value` as a type without annotations; ValueError where it is of another."""
        origin, inner = get_origin(hint), get_args(hint)
        if origin in (Union, UnionType):
            return self._either(inner, value, location)
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            return self._dataclass(hint, value, location)  # type: ignore[arg-type]
        if hint is Any or (origin is Literal and value in inner):
            return value
        if origin is tuple and isinstance(value, list):
            kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
            pairs = enumerate(zip(kinds, value, strict=True))
            return tuple(self.convert(kind, part, (*location, k)) for k, (kind, part) in pairs)
        if origin is Mapping and isinstance(value, dict):
            parts = [(key, part, (*location, str(key))) for key, part in value.items()]
            return {
                self.convert(inner[0], key, place): self.convert(inner[1], part, place)
                for key, part, place in parts
            }
        return _scalar(hint, value)

    def _either(self, members: tuple[Any, ...], value: Any, location: Location) -> Any:
        """Return the value as the member of a union of its type, or else as the first member."""
        return value if type(value) in members else self.convert(members[0], value, location)

    def _dataclass(self, kind: type, values: dict[Any, Any], location: Location) -> Any:
        before = len(self.problems)
        known = fields_of(kind)
        self.problems += [
            self._unknown_key((*location, key), known) for key in values if key not in known
        ]
        made: dict[str, Any] = {}
        for name, (hint, item) in known.items():
            inner = (*location, name)
            if name in values:
                made[name] = self.convert(hint, values[name], inner)
            elif is_required(item):
                mend = f"Add it{_example(unannotated(hint)[1], name)}."
                self.problems.append(Problem(inner, f"{dotted_name(inner)} is missing. {mend}"))
        if len(self.problems) == before:
            try:
                return kind(**made)
            except (ValueError, ScentdError) as error:
                text = ": ".join([*filter(None, [dotted_name(location)]), str(error).rstrip(".")])
                self.problems.append(Problem(location, f"{text}."))
        return None

    def _unknown_key(self, location: Location, known: Mapping[str, Any]) -> Problem:
        """Say what was probably meant by a key that is not there."""
        *section, key = location
        name, noun = dotted_name(location), self._words.noun
        close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        elsewhere = next((path for path in locations_in(self._root) if path[-1] == key), None)
        if reason := self._words.refused.get(str(key)):
            text = f"{name}: {reason}"
        elif elsewhere is not None:
            text = f"{name} is not a {noun} here; it belongs to {dotted_name(elsewhere)}."
        elif close:
            text = f"{name} is not a {noun}; did you mean {dotted_name((*section, *close))}?"
        else:
            owner = f"{dotted_name(section)} knows" if section else f"The {noun}s are"
            text = f"{name} is not a {noun}. {owner}: {', '.join(known)}."
        return Problem(location, text)


@cache
def fields_of(kind: type) -> dict[str, tuple[Any, dataclasses.Field[Any]]]:
    """Return the type hint, annotations included, and the field of each name of a dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    return {item.name: (hints[item.name], item) for item in dataclasses.fields(kind)}


def is_required(item: dataclasses.Field[Any]) -> bool:
    """Tell whether a field has no default."""
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


ANY_NAME = "NAME"
"""Part of a location: whatever the owner of a mapping calls it."""


def locations_in(hint: Any, prefix: Location = ()) -> list[Location]:
    """Return the locations of all values of a type, sections before what is inside them."""
    bare, _ = unannotated(hint)
    if dataclasses.is_dataclass(bare):
        inner = [(part, (*prefix, name)) for name, (part, _) in fields_of(bare).items()]  # type: ignore[arg-type]
        return [found for part, place in inner for found in (place, *locations_in(part, place))]
    members = get_args(bare)
    if get_origin(bare) is Mapping:
        members, prefix = members[1:], (*prefix, ANY_NAME)
    return [found for member in members for found in locations_in(member, prefix)]


def unannotated(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type hint without its annotations, and the annotations."""
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _example(notes: tuple[Any, ...], name: str | None = None) -> str:
    """Return `, for example ...` where one of the annotations is an example."""
    prefix = f"{name}: " if name else ""
    return "".join(f", for example {prefix}{x.text}" for x in notes if isinstance(x, Example))


def _wrong_type(location: Location, wanted: str, value: Any) -> Problem:
    name = dotted_name(location) or "the file"
    return Problem(location, f"{name} must be {wanted}, and {_repeated(location, value)} came.")


def _repeated(location: Location, value: Any) -> str:
    """Describe a wrong value; one that may be a secret is not repeated."""
    if value is None:
        return "nothing"
    return "something else" if _SECRET.search(dotted_name(location)) else abbreviate(value)


def _wanted(hint: Any) -> str:
    """Describe what a type hint without annotations accepts."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        *most, last = map(repr, inner)
        return f"{', '.join(most)} or {last}" if most else last
    if origin is tuple:
        return "a list" if inner[-1] is ... else f"a list of {len(inner)} items"
    return _WANTED.get(hint, _MAPPING)


_MAPPING = "a section of `name: value` lines"
_WANTED = {
    str: "text (put it in quotes if it looks like a number)",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "the path of a file",
}


def _scalar(hint: Any, value: Any) -> Any:
    """Return a plain value as int, float, bool, str or Path; ValueError where it is none."""
    text = isinstance(value, str)
    if hint is bool and (text or value in (0, 1)):
        if (key := str(value).lower()) in _TRUTH:
            return _TRUTH[key]
    elif hint in (int, float) and (text or type(value) in (int, float)):
        number = float(value)
        if hint is float:
            return number
        if number.is_integer():
            return value if type(value) is int else int(number)
    elif hint in (str, Path) and text:
        return hint(value)
    raise ValueError


def dotted_name(location: Sequence[str | int]) -> str:
    """Return a location as people write it: `teachers[0].seed`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def to_plain(value: Any) -> Any:
    """Return dataclasses and numpy's scalars as what any YAML reader reads."""
    if dataclasses.is_dataclass(value):
        return {
            item.name: to_plain(getattr(value, item.name)) for item in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {key: to_plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(part) for part in value]
    if isinstance(value, str):  # a library's version may be a subclass of its own
        return str(value)
    return value.item() if hasattr(value, "item") else value  # numpy's scalars
