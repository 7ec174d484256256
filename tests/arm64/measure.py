"""Install the package in a 64-bit Arm root, use it, compare it with x86, and print a table.

`run` makes the root. The processors are those of the Raspberry Pi 4 and 5, emulated by qemu: what
they compute is what they would compute, how long it takes is not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from tests.daemon.commands.test_stored_predictions import (
    RECORDINGS,
    STORED,
    numbers_and_rest,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BUNDLES = ("substances-50", "mixtures-12")
"""What the package holds; the other stored predictions are of models that are installed later."""

ALLOWED = 0.005
"""Largest difference of a probability or proportion from x86. Processors round differently, and a
rounding that crosses a step of the int8 scale changes the fourth or third digit. The manifests
allow 0.1 between the int8 and the float32 file of a model."""

PROCESSORS = {"cortex-a72": "Raspberry Pi 4", "cortex-a76": "Raspberry Pi 5"}
CPU_INFO = Path(__file__).parent

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class FailedError(Exception):
    """Something in the root is not as it must be."""


@dataclass
class Run:
    """A command that has run in the root.

    Attributes
    ----------
    wall_s, cpu_s: how long it took, and the processor time of it and its children.
    memory_mb: largest resident memory of one of its processes, qemu's own included.
    first_s: when the line that was waited for came, None if none did.
    """

    output: str
    errors: str
    wall_s: float
    cpu_s: float
    memory_mb: float
    first_s: float | None = None


@dataclass
class Root:
    """A root of another Debian, whose programs run by qemu."""

    folder: Path
    processor: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def use_processor(self, name: str) -> None:
        """Emulate a processor; its /proc/cpuinfo is what ONNX Runtime reads."""
        info = self.folder / "proc" / "cpuinfo"
        if self.processor:
            subprocess.run(["umount", info], check=True)
        subprocess.run(["mount", "--bind", CPU_INFO / f"{name}.cpuinfo", info], check=True)
        self.processor = name
        self.environment = {**ENVIRONMENT, "QEMU_CPU": name}

    def show_processors(self) -> None:
        """Mount /sys, which the root does not have before."""
        subprocess.run(["mount", "--bind", "-o", "ro", "/sys", self.folder / "sys"], check=True)

    def run(self, *command: str, until: Callable[[str], object] = lambda _: False) -> Run:
        """Run a command to its end; note when the first line comes that `until` accepts.

        Raises
        ------
        FailedError: if it fails; with the end of what it wrote.
        """
        started_s = time.monotonic()
        first_s = None
        lines = []
        with TemporaryFile("w+", errors="replace") as errors:
            process = subprocess.Popen(
                ["chroot", self.folder, "env", "-i", *_assignments(self.environment), *command],
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                text=True,
            )
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if first_s is None and until(line):
                    first_s = time.monotonic() - started_s
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            errors.seek(0)
            done = Run(
                output="".join(lines),
                errors=errors.read(),
                wall_s=time.monotonic() - started_s,
                cpu_s=used.ru_utime + used.ru_stime,
                memory_mb=used.ru_maxrss / 1024,
                first_s=first_s,
            )
        if process.returncode != 0:
            end = "\n".join((done.output + done.errors).splitlines()[-30:])
            raise FailedError(f"{' '.join(command)} ended with {process.returncode}:\n{end}")
        return done


def _assignments(environment: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


@dataclass(frozen=True)
class Comparison:
    """The predictions of one model on one processor against those of x86.

    Attributes
    ----------
    difference: largest difference of a probability or proportion.
    novelty: largest relative difference of the novelty, which has no upper bound.
    latency_ms: median time of a prediction, emulated.
    """

    model: str
    processor: str
    predictions: int
    difference: float
    novelty: float
    latency_ms: float


def compare(root: Root, name: str) -> Comparison:
    """Replay the stored recording; raise if a state or label differs, or a fraction by too much."""
    recording = STORED / RECORDINGS[name]
    shutil.copy(recording, root.folder / recording.name)
    done = root.run("scentd", "replay", f"/{recording.name}", "--model", name, "--json")
    payloads = [json.loads(line) for line in done.output.splitlines()]
    expected = stored(name)
    where = f"{name} on {root.processor}"
    if len(payloads) != len(expected):
        raise FailedError(f"{where} gave {len(payloads)} lines, x86 gave {len(expected)}")
    largest = novelty = 0.0
    for payload, reference in zip(payloads, expected, strict=True):
        pair = payload.get("novelty"), reference.pop("novelty", None)
        if pair[1] is not None:
            novelty = max(novelty, abs(pair[0] / pair[1] - 1))
        found, rest = numbers_and_rest({key: payload[key] for key in reference})
        numbers, same = numbers_and_rest(reference)
        differences = [abs(a - b) for a, b in zip(found, numbers, strict=True)]
        if rest != same or max(differences, default=0.0) > ALLOWED:
            raise FailedError(f"{where}: {payload}\nx86: {reference}")
        largest = max([largest, *differences])
    latencies = [line["latency_ms"] for line in payloads if line.get("latency_ms") is not None]
    return Comparison(name, root.processor, len(payloads), largest, novelty, median(latencies))


def rows(root: Root, package: Path, seconds: int) -> Sequence[tuple[str, str]]:
    """Do everything; return what was measured, and the figure."""
    root.use_processor("cortex-a72")
    shutil.copy(package, root.folder / "scentd.deb")
    root.run("apt-get", "update", "-q")
    installed = root.run("apt-get", "install", "-y", "-q", "/scentd.deb")
    hidden = root.run("scentd", "models", "verify")
    root.show_processors()
    demo = root.run(
        "scentd", "demo", "--plain", "--seconds", str(seconds), "--seed", "1", until=says_a_name
    )
    complaints = re.findall("(?m)^.*cpuinfo.*$", hidden.errors + demo.errors)
    if complaints:
        raise FailedError(f"ONNX Runtime complains: {complaints[0]}")
    comparisons = []
    for processor in PROCESSORS:
        root.use_processor(processor)
        comparisons += [compare(root, name) for name in BUNDLES]
    return [*sizes(root, package), *used(installed, demo), *compared(comparisons)]


def says_a_name(line: str) -> bool:
    """Whether a line of the demo announces a prediction."""
    return " says " in line


def sizes(root: Root, package: Path) -> list[tuple[str, str]]:
    """Return the sizes of the package and of what it installs."""
    folder = root.folder / "opt" / "scentd"
    bytes_installed = sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if not path.is_symlink() and path.is_file()
    )
    account = subprocess.run(
        ["dpkg-deb", "-f", package, "Installed-Size"], capture_output=True, text=True, check=True
    )
    return [
        ("package", f"{package.stat().st_size / 1e6:.1f} MB"),
        (
            "installed beyond Debian's Python",
            f"{int(account.stdout) / 1000:.0f} MB; {bytes_installed / 1e6:.0f} MB with the "
            "compiled Python files",
        ),
    ]


def used(installed: Run, demo: Run) -> list[tuple[str, str]]:
    """Return how long it took to a first prediction, and the memory."""
    if demo.first_s is None:
        raise FailedError(f"the demo announced nothing:\n{demo.output}\n{demo.errors}")
    return [
        (
            "commands from the fresh root to the first prediction",
            "2: `apt install ./scentd_*.deb`, `scentd demo`",
        ),
        (
            "`apt install`, emulated",
            f"{installed.wall_s:.0f} s ({installed.cpu_s:.0f} s of a core)",
        ),
        ("`scentd demo` to its first announcement, emulated", f"{demo.first_s:.0f} s"),
        ("last lines of the demo", "; ".join(demo.output.strip().splitlines()[-2:])),
        ("largest process of the demo, with qemu's own memory", f"{demo.memory_mb:.0f} MB"),
    ]


def compared(comparisons: list[Comparison]) -> list[tuple[str, str]]:
    """Return a row for each model and processor."""
    return [
        (
            f"`{one.model}` as on a {PROCESSORS[one.processor]} ({one.processor}): "
            f"{one.predictions} predictions, against x86",
            f"states and labels equal; largest difference of a probability "
            f"{one.difference:.4f} (allowed {ALLOWED:g}), of the novelty {one.novelty:.2%}; "
            f"{one.latency_ms:.0f} ms a prediction, emulated",
        )
        for one in comparisons
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    args = parser.parse_args()
    try:
        table = rows(Root(args.root), args.package, args.seconds)
    except FailedError as error:
        sys.stderr.write(f"tests/arm64/measure.py: {error}\n")
        return 1
    lines = ["| 64-bit Arm, emulated | |", "|---|---|"]
    lines += [f"| {what} | {figure} |" for what, figure in table]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
