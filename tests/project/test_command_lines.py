"""Both programs have a `--help` for every command, and its examples can be typed."""

from __future__ import annotations

import argparse
import pkgutil
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module

import pytest

from daemon.cli import SCENTD
from hardware.command_line import CommandLine
from training.cli import SCENT_TRAIN

PROGRAMS = (SCENTD, SCENT_TRAIN)


@cache
def parser_of(program_name: str) -> argparse.ArgumentParser:
    """Return a parser with every command of a program; `main` imports only the one called."""
    (program,) = (program for program in PROGRAMS if program.program == program_name)
    parser = argparse.ArgumentParser(prog=program.program)
    subparsers = parser.add_subparsers()
    for command in program.commands:
        module = import_module(f"{program.package}.{command.replace('-', '_')}")
        module.add_options(subparsers.add_parser(command))
    return parser


def commands_below(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Yield every sub-command, however deep, with its words and its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield (*words, name), below
                yield from commands_below(below, (*words, name))


ALL = [
    pytest.param(program, words, parser, id=f"{program.program} {' '.join(words)}")
    for program in PROGRAMS
    for words, parser in commands_below(parser_of(program.program))
]


def examples(program: CommandLine, parser: argparse.ArgumentParser) -> list[str]:
    """Return the example command lines of a `--help`."""
    text = (parser.epilog or "").replace("\\\n", " ")
    shown = re.compile(
        rf"^\s*(?:Examples?:)?\s*({program.program} .+)$", re.MULTILINE | re.IGNORECASE
    )
    return shown.findall(text) if "xample" in text else []


def printed(program: CommandLine, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a program prints before it exits, as with `--help`."""
    with pytest.raises(SystemExit) as ended:
        program.main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.program)
def test_the_listed_commands_are_the_existing_ones(program: CommandLine) -> None:
    package = import_module(program.package)
    there = {module.name for module in pkgutil.iter_modules(package.__path__)}
    listed = {name.replace("-", "_") for name in program.commands}
    assert {name for name in there if not name.startswith("_")} == listed
    assert len(listed) >= 6


@pytest.mark.parametrize(("program", "words", "parser"), ALL)
def test_the_example_of_help_can_be_typed(
    program: CommandLine,
    words: tuple[str, ...],
    parser: argparse.ArgumentParser,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert f"{program.program} {' '.join(words)}" in printed(
        program, *words, "--help", capsys=capsys
    )
    found = examples(program, parser)
    assert found, "its --help shows no example"
    for example in found:
        name, *arguments = shlex.split(example.split(" | ")[0], comments=True)
        assert name == program.program
        parsed = parser_of(program.program).parse_args(arguments)
        assert callable(parsed.run)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.program)
def test_a_program_lists_its_commands(
    program: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(program, "--help", capsys=capsys)
    assert all(command in text for command in program.commands)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.program)
def test_a_program_prints_its_version(
    program: CommandLine, capsys: pytest.CaptureFixture[str]
) -> None:
    name, version = printed(program, "--version", capsys=capsys).split()
    assert name == program.program
    assert version[0].isdigit()
