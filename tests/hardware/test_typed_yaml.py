"""Typed YAML: dataclasses from text, every problem with its line, and back to plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import yaml

from hardware.typed_yaml import Example, Rule, TypedYamlError, YamlMapping, between, build, to_plain


@dataclass(frozen=True)
class Part:
    """One of several."""

    gain: Annotated[float, between(0, 10, "a gain lies between {} and {}")] = 1.0
    name: str | None = None


@dataclass(frozen=True)
class Thing:
    """Has a field of every kind."""

    seed: int
    kind: Literal["a", "b", 3] = "a"
    live: bool = False
    path: Path | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    names: Annotated[tuple[str, ...], Rule("name each once", uniqueItems=True), Example("[x]")] = ()
    parts: Mapping[str, Part] = field(default_factory=dict)
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.limit == self.seed:
            raise ValueError("limit and seed must differ")


def read(text: str) -> Thing:
    return YamlMapping(text).build(Thing)


def problems_of(text: str) -> list[str]:
    with pytest.raises(TypedYamlError) as raised:
        read(text)
    return [str(problem) for problem in raised.value.problems]


def test_values_become_what_their_types_say() -> None:
    thing = read(
        "seed: '7'\nkind: 3\nlive: 'yes'\npath: a/b\npair: [1, 2e3]\nnames: [x, y]\n"
        "parts: {left: {gain: 1e-3}, right: {}}\nlimit: null\n"
    )
    assert thing == Thing(
        7, 3, True, Path("a/b"), (1.0, 2000.0), ("x", "y"), {"left": Part(1e-3), "right": Part()}
    )
    assert type(thing.seed) is int


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed: 1.5", "line 1: seed must be a whole number, and 1.5 came."),
        ("seed: true", "line 1: seed must be a whole number, and True came."),
        ("kind: a", "line 1: seed is missing. Add it."),
        ("seed: 1\nkind: 4", "line 2: kind must be 'a', 'b' or 3, and 4 came."),
        ("seed: 1\nlive: 2", "line 2: live must be true or false, and 2 came."),
        ("seed: 1\npair: [1]", "line 2: pair must be a list of 2 items, and [1] came."),
        ("seed: 1\npair: [1, .inf]", "line 2: pair[1] must be a finite number, and inf came."),
        ("seed: 1\nnames: x", "line 2: names must be a list, for example [x], and 'x' came."),
        ("seed: 1\nnames: [x, x]", "line 2: names: name each once (['x', 'x'] came)."),
        ("seed: 1\nparts: {3: {}}", "line 2: parts.3 must be text (put it in quotes if it looks"),
        ("seed: 1\nparts: {a: {gain: 11}}", "line 2: parts.a.gain: a gain lies between 0 and 10"),
        ("seed: 1\nparts: {a: {gian: 1}}", "is not a key; did you mean parts.a.gain?"),
        ("seed: 1\ngain: 1", "line 2: gain is not a key here; it belongs to parts.NAME.gain."),
        ("seed: 1\nzzz: 1", "line 2: zzz is not a key. The keys are: seed, kind, live, path"),
        ("seed: 1\nlimit: 1", "line 1: limit and seed must differ."),
        ("seed: 1\nseed: 2", "line 2: seed stands on line 1 already; keep one of the two."),
        ("seed: [", "line 2: this is not YAML"),
        ("[1]", "the file must be a section of `name: value` lines, and [1] came."),
    ],
)
def test_a_problem_is_explained_with_its_line(text: str, problem: str) -> None:
    assert problem in problems_of(text)[0]


def test_every_problem_is_listed_in_the_order_of_lines() -> None:
    found = problems_of("parts: {a: {gain: x}}\nkind: c\nseed: 1\nseed: 2\n")
    assert [problem.split(":")[0] for problem in found] == ["line 1", "line 2", "line 4"]


def test_a_key_of_an_anchor_may_be_given_again() -> None:
    thing = read("seed: 1\nparts:\n  a: &a {gain: 2, name: n}\n  b: {<<: *a, gain: 3}\n")
    assert thing.parts["b"] == Part(3.0, "n")


def test_a_value_that_may_be_secret_is_not_repeated() -> None:
    with pytest.raises(TypedYamlError) as raised:
        build(Thing, {"seed": 1, "parts": {"password": "hunter2"}})
    assert "hunter2" not in str(raised.value)


def test_plain_values_are_read_back() -> None:
    thing = Thing(int(np.int64(1)), parts={"a": Part(np.float64(2.0), "n")})
    text = yaml.safe_dump(to_plain(Thing(1, parts={"a": Part(0.5, "n")})))
    assert read(text) == Thing(1, parts={"a": Part(0.5, "n")})
    assert type(to_plain(thing)["parts"]["a"]["gain"]) is float
