"""Every command line of scentd and scent-train in the documentation can be typed."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from daemon.commands.simulate import signal_of
from hardware.channels import N_CHANNELS
from hardware.recording import RecordingWriter
from hardware.simulator.other_rig import FIXED_RIG, write_rig
from hardware.simulator.signals import SyntheticSignal
from tests.project.source_tree import PAGES
from tests.project.test_command_lines import PROGRAMS, parser_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = {program.program for program in PROGRAMS}

SHELL = {"", "sh", "console"}

_BLOCK = re.compile(r"^ *```([\w-]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def lines_typed(block: str) -> Iterator[str]:
    """Yield what is typed in a code block: without prompts and, where there are any, output."""
    joined = block.replace("\\\n", " ")
    prompted = re.findall(r"^ *[$>] (.*)$", joined, re.MULTILINE)
    yield from prompted or (line.strip() for line in joined.splitlines())


def commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each of our commands in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if set(token) <= set("();<>|&"):
            if len(words) > 1 and words[0] in NAMES:
                yield words
            words = []
        else:
            words.append(token)


SHOWN = [
    pytest.param(words, id=f"{page.name}: {' '.join(words)}")
    for page in PAGES
    for language, block in _BLOCK.findall(page.read_text(encoding="utf-8"))
    if language in SHELL
    for line in lines_typed(block)
    if any(name in line for name in NAMES)
    for words in commands(line)
]


def test_commands_are_found() -> None:
    assert len(SHOWN) > 50


SIMULATIONS = [shown for shown in SHOWN if shown.values[0][:2] == ["scentd", "simulate"]]


@pytest.mark.parametrize("words", SIMULATIONS)
def test_a_simulation_of_a_page_can_be_played(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`almond.csv`, `other.yaml` and the loops over `$smell` are the pages' own examples."""
    monkeypatch.chdir(tmp_path)
    with RecordingWriter(tmp_path / "almond.csv") as writer:
        for row, values in enumerate(SyntheticSignal("almond:20")):
            writer.write(1000 * row, values)
    write_rig(FIXED_RIG, tmp_path / "other.yaml")
    arguments = [word.replace("$smell", "cloves") for word in words[1:]]
    readings = iter(signal_of(parser_of("scentd").parse_args(arguments)))
    assert len(next(readings)) == N_CHANNELS


@pytest.mark.parametrize("words", SHOWN)
def test_a_command_of_a_page_can_be_typed(words: list[str]) -> None:
    program, *arguments = words
    assert callable(parser_of(program).parse_args(arguments).run)
