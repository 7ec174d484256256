"""Coverage-guided fuzzing with atheris, for any length of time; see docs/reliability.md.

    python tests/guided_fuzz.py decoder -max_total_time=3600 -max_len=4096 corpus/

What follows the target goes to libFuzzer. The targets take bytes as they come from outside and
must understand them or refuse them with a `ScentdError`; any other exception is a finding, and its
input is left in a file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["hardware", "models", "calibration", "daemon"]):
    from calibration.rig_profile import load_profile
    from calibration.smell_set import SmellSet
    from daemon.config.loading import load_config
    from daemon.requests import parsed
    from hardware.errors import ScentdError
    from hardware.protocol import LineDecoder
    from hardware.recording import read_recording
    from models.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable

SCRATCH = Path(tempfile.mkdtemp(prefix="scentd-fuzz-")) / "input"


def decoder(data: bytes) -> None:
    """Feed a decoder whole and in two pieces: the same frames and counts, and no exception."""
    whole, pieces = LineDecoder(), LineDecoder()
    cut = len(data) // 2
    frames = [*whole.feed(data), *whole.finish()]
    again = [*pieces.feed(data[:cut]), *pieces.feed(data[cut:]), *pieces.finish()]
    if len(frames) != len(again) or whole.counts != pieces.counts:
        raise AssertionError(f"cut at {cut}: {whole.counts} became {pieces.counts}")


def request(data: bytes) -> None:
    """Parse a request; what is wrong with it is stored in the result."""
    parsed("status", data)


def from_file(read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """Return a target that reads its bytes from a file."""

    def target(data: bytes) -> None:
        SCRATCH.write_bytes(data)
        refusing(lambda: read(SCRATCH))

    return target


def refusing(read: Callable[[], object]) -> None:
    """Call `read`, which may raise a `ScentdError` and nothing else."""
    try:
        read()
    except ScentdError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decoder": decoder,
    "request": request,
    "configuration": from_file(lambda path: load_config(path, {})),
    "manifest": lambda data: refusing(lambda: Manifest.from_yaml(data)),
    "profile": from_file(load_profile),
    "smells": lambda data: refusing(lambda: SmellSet.from_yaml(data, "fuzz")),
    "recording": from_file(lambda path: list(read_recording(path).frames())),
}


def main() -> None:
    """Fuzz the target that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(TARGETS)} [libFuzzer's options] [corpus]")
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
