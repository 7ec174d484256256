"""The wheel, built and installed into a virtual environment outside the checkout.

It holds only the dependencies that the wheel's metadata declares, linked from the environment that
runs the tests. That is quick and needs no network, and a dependency that is used but not declared
is missing, as it would be for a user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project.source_tree import NOT_OURS, ROOT

_INSTALL = ("install", "--quiet", "--no-index", "--no-deps")


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel from a copy, so that no file of an earlier build is included."""
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(*NOT_OURS, ".*_cache", "*.egg-info", ".cache")
    )
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("scentd-*.whl")
    return wheel


class Environment:
    """A virtual environment that holds one wheel and its declared dependencies.

    Parameters
    ----------
    folder: where it is created.
    wheel: the wheel to install.
    extras: extras of the wheel whose dependencies are included.

    Attributes
    ----------
    bin, packages: its folders of programs and of installed packages.
    """

    def __init__(self, folder: Path, wheel: Path, extras: Iterable[str] = ()) -> None:
        venv.create(folder, symlinks=True, with_pip=False)
        self.bin = folder / "bin"
        (self.packages,) = folder.glob("lib/python3*/site-packages")
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "--python",
                str(self.bin / "python"),
                *_INSTALL,
                str(wheel),
            ],
            check=True,
            capture_output=True,
        )
        self._linked: set[tuple[str, str]] = set()
        (own,) = self.packages.glob("scentd-*.dist-info")
        self._own = Distribution.at(own)
        self._link_requirements(self._own, set(extras))

    def command(self, *words: str) -> list[str]:
        """Return the command line of one of its programs."""
        return [str(self.bin / words[0]), *words[1:]]

    def variables(self) -> dict[str, str]:
        """Return this process's variables without those that change how Python finds modules."""
        return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def _link_requirements(self, of: Distribution, extras: set[str]) -> None:
        for line in of.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in {"", *extras}):
                self._link(requirement)

    def _link(self, requirement: Requirement) -> None:
        wanted = {(canonicalize_name(requirement.name), e) for e in {"", *requirement.extras}}
        if wanted <= self._linked:
            return
        self._linked |= wanted
        if canonicalize_name(requirement.name) == "scentd":  # an extra that includes another one
            self._link_requirements(self._own, set(requirement.extras))
            return
        try:
            needed = distribution(requirement.name)
        except PackageNotFoundError as error:
            raise AssertionError(f"{requirement} is declared but not installed here") from error
        for top in {file.parts[0] for file in needed.files or ()} - {"..", "__pycache__"}:
            target = self.packages / top
            if not target.exists():
                target.symlink_to(Path(str(needed.locate_file(top))))
        self._link_requirements(needed, set(requirement.extras))
