"""Every command in the documentation runs here, or is listed with the reason why it cannot."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon.commands.simulate import signal_of
from hardware.channels import N_CHANNELS
from hardware.protocol import LineDecoder
from hardware.recording import RecordingWriter
from hardware.simulator.other_rig import FIXED_RIG, write_rig
from hardware.simulator.signals import SyntheticSignal
from tests.project.page_blocks import BLOCKS, INLINE, OTHERS, SHELL, calls
from tests.project.page_sessions import NOT_RUN, SESSIONS, Place, why_not_run
from tests.project.test_command_lines import parser_of
from tests.sandbox import PATIENCE_S, free_port, wait_until

COMMANDS = [
    (block.page, command)
    for block in BLOCKS
    if block.language in SHELL
    for command in block.commands
]

SHOWN = [
    pytest.param(words, id=f"{page}: {' '.join(words)}")
    for page, command in COMMANDS
    for words in calls(command)
]

SIMULATIONS = [shown for shown in SHOWN if shown.values[0][:2] == ["scentd", "simulate"]]

OF_SESSIONS = {
    page: [command for where, command in COMMANDS if where == page]
    for page in dict.fromkeys(page for page, _ in COMMANDS)
}


def test_commands_are_found() -> None:
    assert len(SHOWN) > 50
    assert len(INLINE) > 40


def test_every_block_says_whether_it_holds_commands() -> None:
    unnamed = [block for block in BLOCKS if block.language not in SHELL | OTHERS]
    assert unnamed == [], "name its language: sh, console (with prompts), yaml, text"


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_runs_or_is_listed_with_the_reason(page: str, command: str) -> None:
    assert page in SESSIONS or why_not_run(page, command), (
        "add a session for the page, or the command with its reason, to page_sessions.py"
    )


def test_no_reason_is_left_over() -> None:
    assert set(NOT_RUN) <= {command for _, command in COMMANDS}
    assert set(SESSIONS) <= set(OF_SESSIONS)


@pytest.mark.parametrize("words", SHOWN)
def test_a_command_of_a_page_can_be_typed(words: list[str]) -> None:
    program, *arguments = words
    assert callable(parser_of(program).parse_args(arguments).run)


@pytest.mark.parametrize("command", INLINE)
def test_a_command_in_a_sentence_names_what_exists(command: str) -> None:
    """Sentences shorten commands, so that only sub-commands and options are looked up."""
    program, *words = shlex.split(command.replace("...", " "))
    parser = parser_of(program)
    for word in words:
        option = word.partition("=")[0].rstrip(",;")
        if option.startswith("--"):
            assert option in parser._option_string_actions or option == "--version", command
            continue
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                names = word.split("|")
                assert set(names) <= set(action.choices), command
                parser = action.choices[names[0]]


def examples_folder(folder: Path) -> None:
    """Write `almond.csv` and `other.yaml`, the pages' own examples."""
    with RecordingWriter(folder / "almond.csv") as writer:
        for row, values in enumerate(SyntheticSignal("almond:20")):
            writer.write(1000 * row, values)
    write_rig(FIXED_RIG, folder / "other.yaml")


@pytest.mark.parametrize("words", SIMULATIONS)
def test_a_simulation_of_a_page_can_be_played(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loops over `$smell` too."""
    monkeypatch.chdir(tmp_path)
    examples_folder(tmp_path)
    arguments = [word.replace("$smell", "cloves") for word in words[1:]]
    readings = iter(signal_of(parser_of("scentd").parse_args(arguments)))
    assert len(next(readings)) == N_CHANNELS


def in_a_shell(**variables: str) -> dict[str, str]:
    """Return the environment of the pages' reader, with the programs that run this test."""
    programs = Path(sys.executable).parent
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin",
        "OMP_NUM_THREADS": "1",
        **variables,
    }


ALONE = [
    command
    for _, command in COMMANDS
    if command.startswith("scentd simulate") and not command.endswith("&")
]


@pytest.mark.parametrize("command", ALONE)
def test_a_simulated_board_of_a_page_can_be_read(command: str, tmp_path: Path) -> None:
    """And Ctrl-C ends it with exit code 0, as the page on the simulator says."""
    examples_folder(tmp_path)
    link = tmp_path / "board"
    with subprocess.Popen(
        shlex.split(command), cwd=tmp_path, env=in_a_shell(), stderr=subprocess.PIPE
    ) as process:
        try:
            wait_until(link.is_symlink, "the board's link")
            decoder = LineDecoder()
            with link.open("rb", buffering=0) as port:
                while not decoder.counts.frames:
                    decoder.feed(port.read(256))
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert b"unplugged: " in said


def marks(page: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a page's session."""
    session = SESSIONS[page]
    found = [pytest.mark.timeout(1800)]
    found += [pytest.mark.slow] if session.slow else []
    return found + ([pytest.mark.data] if session.data else [])


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=marks(page), id=page) for page in SESSIONS]
)
def test_the_commands_of_a_page_run_in_their_order(
    page: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    session = SESSIONS[page]
    if session.data:
        request.getfixturevalue("smellnet")
    write_files_of(page, tmp_path)
    commands = [one for one in OF_SESSIONS[page] if why_not_run(page, one) is None]
    assert commands, "the page needs no session"
    changed = 0
    for pattern, replacement in session.change:
        after = [re.sub(pattern, replacement, one) for one in commands]
        changed += after != commands
        commands = after
    with ExitStack() as closing:
        place = Place(tmp_path, closing, free_port())
        session.prepare(place)
        done = subprocess.run(
            ["bash", "-e", "-c", "\n".join(commands)],
            cwd=tmp_path,
            env=in_a_shell(
                SCENTD_MQTT__PORT=str(place.broker_port), XDG_STATE_HOME=str(tmp_path / "home")
            ),
            capture_output=True,
            text=True,
            check=False,
        )
    said = f"{done.stdout}\n--- standard error:\n{done.stderr}"
    assert done.returncode == 0, said
    assert changed == len(session.change), "a command that is changed here has gone"
    assert "Traceback" not in said
    assert "went away" not in done.stderr, "a flawless board is reported as gone"
    for part in session.printed:
        assert part in said, said


def write_files_of(page: str, folder: Path) -> None:
    """Write the files that a page shows: its blocks of YAML that begin with `# NAME.yaml`."""
    for block in BLOCKS:
        name = re.match(r"# ([\w-]+\.yaml)\n", block.text)
        if block.page == page and name:
            (folder / name[1]).write_text(block.text, encoding="utf-8")
