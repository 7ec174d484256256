"""The firmware's sketch on a simulated ATmega2560 (simavr), with its parts scripted.

`avr/board.c` runs the machine code cycle by cycle: the UART, the I2C bus and the analog inputs are
those of the controller, the parts answer from a script, and the serial port is a pseudo-terminal.
What stays unknown: the ESP32's own peripherals and everything electrical.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pytest

from hardware.channels import channel_index
from hardware.recording import read_recording
from tests.hardware.test_firmware_sketch import FIRMWARE, prototypes_of
from tests.sandbox import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HERE = Path(__file__).parent
RECORDING = HERE.parent / "models" / "stored_predictions" / "substances.csv.gz"
"""Simulated readings of 1 Hz."""

CORE = Path("/usr/share/arduino/hardware/arduino/avr")
SIMAVR = Path("/usr/include/simavr/sim_avr.h")
PACKAGES = "make gcc gcc-avr avr-libc arduino-core-avr libsimavr-dev"

ROW_MS = 1000
FIRST_ROW_MS = 80
"""Rows change between two slots of 100 ms, so that it is clear which row a slot reads, and after
the line of the first one, which the end of the script must not cut."""

SUPPLY_VOLTS = 5.0
DIVIDER = 2.5
ADC_ERROR_MV = 2 * 2560 / 1024
"""A step of the analog input, whose result is rounded down, and simavr's own divisor of 1023."""
LEAST_MV, MOST_MV = 200, 1990
"""At the controller's pins: below, a part counts as absent; above, as at its supply voltage."""


def require_tools() -> None:
    """Skip unless the compilers and the simulator are there."""
    programs = all(map(shutil.which, ("make", "gcc", "avr-gcc")))
    if not (programs and CORE.is_dir() and SIMAVR.is_file()):
        pytest.skip(f"the firmware in the loop needs Debian's packages: apt install {PACKAGES}")


def mq_curves() -> list[tuple[float, float, float, float]]:
    """Return a, b, load (kOhm) and R0 (kOhm) of each MQ part, as the sketch has them."""
    sketch = (FIRMWARE / "scentboard.ino").read_text(encoding="utf-8")
    load = re.search(r"kMqLoadKohm = ([\d.]+)f", sketch)
    assert load is not None
    rows = re.findall(r"\{([\d.]+)f, (-[\d.]+)f, kMqLoadKohm, ([\d.]+)f\}", sketch)
    assert len(rows) == 3
    return [(float(a), float(b), float(load[1]), float(r0)) for a, b, r0 in rows]


def mq_ppm(millivolts: float, curve: tuple[float, float, float, float]) -> float:
    """Return the ppm that a part shows with `millivolts` at the controller's pin."""
    a, b, load, r0 = curve
    rs_kohm = SUPPLY_VOLTS * load / (DIVIDER * millivolts / 1000) - load
    return float(a * (rs_kohm / r0) ** b)


def mq_millivolts(ppm: float, curve: tuple[float, float, float, float]) -> int:
    """Return the millivolts at the pin for `ppm`, limited to what the sketch takes for a part."""
    a, b, load, r0 = curve
    if ppm <= 0:
        return LEAST_MV
    rs_kohm = r0 * (ppm / a) ** (1 / b)
    volts = SUPPLY_VOLTS * load / (rs_kohm + load) / DIVIDER
    return int(np.clip(round(1000 * volts), LEAST_MV, MOST_MV))


@dataclass(frozen=True)
class Script:
    """What the parts show: one row of a recording a second.

    Attributes
    ----------
    values: float32[n, 12] rows of the recording, in the order of the channel table.
    millivolts: int[n, 3] at the pins of MQ-135, MQ-9 and MQ-3.
    """

    values: NDArray[np.float32]
    millivolts: NDArray[np.int_]

    @classmethod
    def of_recording(cls, path: Path, rows: int) -> Self:
        """Take the first `rows` rows of a recording of 1 Hz."""
        values = np.asarray(read_recording(path).values[:rows], np.float32)
        curves = mq_curves()
        first = channel_index("Alcohol")
        millivolts = [
            [mq_millivolts(float(row[first + part]), curves[part]) for part in range(3)]
            for row in values
        ]
        return cls(values, np.array(millivolts))

    def text(self, events: Sequence[str] = ()) -> str:
        """Return the script for board.c; `events` are lines of it: faults, or timed ones."""
        faults = [event for event in events if not event[0].isdigit()]
        steps = [event for event in events if event[0].isdigit()]
        for number, (values, millivolts) in enumerate(
            zip(self.values, self.millivolts, strict=True)
        ):
            counts = " ".join(str(round(float(value))) for value in values[:4])
            pins = " ".join(map(str, millivolts))
            temperature, pressure, humidity, gas = (float(value) for value in values[7:11])
            parts = f"{temperature:.6g} {pressure * 100:.0f} {humidity:.6g} {gas * 1000:.0f}"
            steps.append(f"{self.row_ms(number)} row {counts} {pins} {parts}")
        steps.sort(key=lambda step: int(step.split()[0]))
        end = f"{FIRST_ROW_MS + ROW_MS * len(self.values)} end"
        return "\n".join([*faults, *steps, end, ""])

    @staticmethod
    def row_ms(number: int) -> int:
        """Return when a row begins; the first one is there from the start."""
        return FIRST_ROW_MS + ROW_MS * number if number else 0

    def row_at(self, at_ms: int) -> int:
        """Return the number of the row that the parts show at a time since the power came."""
        return int(np.clip((at_ms - FIRST_ROW_MS) // ROW_MS, 0, len(self.values) - 1))


@dataclass(frozen=True)
class Built:
    """The sketch for the controller, and the program that simulates the board around it."""

    sketch: Path
    program: Path


def build(folder: Path) -> Built:
    """Compile the sketch for the ATmega2560 and the simulated board; skip without the tools."""
    require_tools()
    sketch = (FIRMWARE / "scentboard.ino").read_text(encoding="utf-8")
    text = f'#include <Arduino.h>\n{prototypes_of(sketch)}#include "scentboard.ino"\n'
    (folder / "sketch.cpp").write_text(text, encoding="utf-8")
    make = ["make", "--silent", "-C", str(HERE / "avr"), f"OUT={folder}"]
    done = subprocess.run(make, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return Built(folder / "sketch.elf", folder / "board")


class AvrBoard:
    """The simulated board while its block runs.

    Parameters
    ----------
    built: the sketch and the simulator.
    script: what the parts show, and the faults (`Script.text`).
    link: becomes a link to the board's port.
    speed: simulated seconds per second at most, from the first reader of the port on; 0 is as fast
        as this machine can, and waits for what is read.

    Attributes
    ----------
    resets_ms: when the controller was reset, in simulated ms; complete after `wait`.
    """

    def __init__(self, built: Built, script: str, link: Path, speed: float) -> None:
        self.link = link
        self.resets_ms: list[int] = []
        self._command = [built.program, built.sketch, link, str(speed)]
        self._script = script
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self._script)
        self._process.stdin.close()
        wait_until(self.link.is_symlink, "the simulated board's port")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        """Wait for the end of the script."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("reset "):
                self.resets_ms.append(int(line.split()[1]))
        assert self._process.wait() == 0

    def read_all(self) -> bytes:
        """Return what the board sends until its script ends."""
        received = bytearray()
        # The link is there before the first byte.
        with self.link.open("rb", buffering=0) as port:
            try:
                while chunk := port.read(4096):
                    received += chunk
            except OSError:  # the board is gone
                pass
        self.wait()
        return bytes(received)
