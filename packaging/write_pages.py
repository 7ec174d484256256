"""Writes the manual pages of both programs and their completions, below the folder that is named.

The build of a package calls it: `python packaging/write_pages.py DIR`. Pages and completions come
from the parsers that the programs use. Needs argparse-manpage (packaging/requirements-build.txt).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import shtab
from argparse_manpage.manpage import Manpage

from daemon.cli import SCENTD
from hardware.version import installed_version
from training.cli import SCENT_TRAIN

if TYPE_CHECKING:
    from hardware.command_line import CommandLine

COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/{}",
    "zsh": "usr/share/zsh/vendor-completions/_{}",
    "fish": "usr/share/fish/vendor_completions.d/{}.fish",
}
"""Where Debian's shells look for the completions of a program, below the root."""


def manual_page(program: CommandLine) -> str:
    """Return the manual page of a program, in the language of groff."""
    page = Manpage(program.full_parser())
    page.source = f"scentd {installed_version()}"
    page.manual = "scentd"
    page.description = program.description[0].lower() + program.description[1:].rstrip(".")
    return str(page)


def write_pages(folder: Path) -> None:
    """Write everything below `folder`, as the root of a system."""
    for program in (SCENTD, SCENT_TRAIN):
        files = {f"usr/share/man/man1/{program.program}.1": manual_page(program)}
        for shell, place in COMPLETIONS.items():
            script = shtab.complete(program.full_parser(), shell=shell)
            files[place.format(program.program)] = script
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
