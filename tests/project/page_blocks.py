"""The code blocks of the pages, and the commands in them as they are typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from daemon.cli import SCENTD
from tests.project.source_tree import PAGES
from training.cli import SCENT_TRAIN

PROGRAMS = (SCENTD, SCENT_TRAIN)
NAMES = {program.program for program in PROGRAMS}

SHELL = frozenset({"sh", "console"})
"""Languages of blocks that hold commands: `console` with prompts and output, `sh` without."""

OTHERS = frozenset({"yaml", "text", "c", "python", "scent-vectors"})
"""Languages of blocks without commands."""

_BLOCK = re.compile(r"^ *```([\w-]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`((?:scentd|scent-train) [^`]+)`(?!`)")
_HEREDOC = re.compile(r"<<'?(\w+)'?")
_COMMENT = re.compile(r"(?:^|\s+)#.*$")


@dataclass(frozen=True, slots=True)
class Block:
    """One code block of a page."""

    page: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What is typed: one entry a command with its further lines, without a comment behind."""
        return [bare for one in self._typed() if (bare := _COMMENT.sub("", one))]

    def _typed(self) -> Iterator[str]:
        if self.language == "console":
            for lines in re.findall(r"^ *\$ (.*(?:\n *> .*)*)", self.text, re.MULTILINE):
                yield re.sub(r"\n *> ", "\n", lines)
            return
        lines = iter(self.text.splitlines())
        for first in lines:
            command = first.strip()
            document = _HEREDOC.search(command)
            while command.endswith("\\"):
                command = f"{command[:-1].rstrip()} {next(lines).strip()}"
            while document and not command.endswith(f"\n{document[1]}"):
                command += f"\n{next(lines)}"
            yield command


BLOCKS = [
    Block(page.name, language, text)
    for page in PAGES
    for language, text in _BLOCK.findall(page.read_text(encoding="utf-8"))
]

INLINE = sorted(
    {
        " ".join(code.split())
        for page in PAGES
        for code in _INLINE.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")))
    }
)
"""Commands of ours within sentences, often shortened."""


def calls(command: str) -> Iterator[list[str]]:
    """Yield the words of each call of one of our programs in a command."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if set(token) <= set("();<>|&"):
            if len(words) > 1 and words[0] in NAMES:
                yield words
            words = []
        else:
            words.append(token)
