"""The firmware's headers, compiled here and compared with the Python encoder and decoder."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hardware.encoding import encode_scent
from hardware.frames import Quality
from hardware.protocol import LineDecoder
from hardware.readings import range_quality
from tests.hardware.protocol_lines import GOOD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

FIRMWARE = Path(__file__).parents[2] / "hardware" / "firmware" / "scentboard"
HOST_PROGRAM = Path(__file__).with_name("firmware_host.cpp")


@pytest.fixture(scope="module")
def run_host(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], str]:
    """Compile the headers with warnings as errors; return a way to run them."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: install g++ to check the firmware's line encoder")
    program = tmp_path_factory.mktemp("firmware") / "host"
    strict = ["-std=c++11", "-Wall", "-Wextra", "-Wshadow", "-pedantic", "-Werror", "-O1"]
    subprocess.run(
        [compiler, *strict, f"-I{FIRMWARE}", str(HOST_PROGRAM), "-o", str(program)],
        check=True,
        timeout=60,
    )

    def run(what: str, text: str) -> str:
        done = subprocess.run(
            [program, what], input=text, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{what} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    return run


def hexadecimal(values: Iterable[float]) -> str:
    return " ".join(f"{bits:x}" for bits in np.array(list(values), np.float32).view(np.uint32))


def random_rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Return float32[n, 15]: any bits at all, plausible readings, NaN and both infinities."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 2**32, size=(count, 15), dtype=np.uint32).view(np.float32)
    plausible = rng.normal(300, 400, size=rows.shape).astype(np.float32)
    rounded = np.round(plausible, 2).astype(np.float32)
    kind = rng.integers(0, 8, size=rows.shape)
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 4294967295.0, 1e10, 9999999999.0]
    rows = np.where(kind >= 2, plausible, rows)
    rows = np.where(kind >= 4, rounded, rows)
    rows = np.where(kind == 6, np.round(plausible), rows)
    rows = np.where(kind == 7, rng.choice(special, size=rows.shape), rows)
    rows[np.isnan(rows)] = np.nan
    return rows.astype(np.float32)


def encode_on_board(
    run_host: Callable[[str, str], str],
    readings: Iterable[tuple[int, int, int, Sequence[float]]],
) -> list[str]:
    """Return the board's lines for (version, seq, device_ms, 15 numbers)."""
    text = "\n".join(
        f"{version} {seq} {device_ms} {hexadecimal(row)}"
        for version, seq, device_ms, row in readings
    )
    return run_host("encode", text).splitlines(keepends=True)


@pytest.mark.parametrize("version", [1, 2])
def test_the_board_writes_the_very_bytes_that_the_python_encoder_writes(
    run_host: Callable[[str, str], str], version: int
) -> None:
    rows = random_rows(400)
    rng = np.random.default_rng(1)
    counters = rng.integers(0, 2**32, size=(len(rows), 2)).tolist()
    lines = encode_on_board(
        run_host,
        [(version, seq, ms, row) for (seq, ms), row in zip(counters, rows.tolist(), strict=True)],
    )
    assert len(lines) == len(rows)
    for line, (seq, device_ms), row in zip(lines, counters, rows, strict=True):
        volts = row[12:].tolist() if version == 2 else None
        expected = encode_scent(seq, device_ms, row[:12], version=version, mq_volts=volts)
        assert line.encode() == expected


def test_the_decoder_reads_back_the_very_bits_that_the_board_sent(
    run_host: Callable[[str, str], str],
) -> None:
    rows = random_rows(300, seed=2)
    lines = encode_on_board(
        run_host, [(2, seq, seq * 100, row) for seq, row in enumerate(rows.tolist())]
    )
    decoder = LineDecoder()
    frames = decoder.feed("".join(lines).encode())
    assert len(frames) == len(rows)
    assert decoder.counts.damaged == decoder.counts.lost == 0
    for frame, row in zip(frames, rows, strict=True):
        assert frame.values.tobytes() == row[:12].tobytes()
        assert frame.mq_volts is not None
        assert np.array(frame.mq_volts, np.float32).tobytes() == row[12:].tobytes()
        assert np.array_equal(frame.quality, range_quality(row[:12]))


def test_no_line_is_longer_than_the_board_provides_for(
    run_host: Callable[[str, str], str],
) -> None:
    longest_number = -1061754234732544.0  # "-1.06175423e+15"
    [line] = encode_on_board(run_host, [(2, 2**32 - 1, 2**32 - 1, [longest_number] * 15)])
    provided = re.search(r"kMaxLineBytes = (\d+)", (FIRMWARE / "scent_line.h").read_text())
    assert provided is not None
    assert len(line) == 276 < int(provided[1])


def test_unknown_versions_are_not_encoded(
    run_host: Callable[[str, str], str],
) -> None:
    assert encode_on_board(run_host, [(0, 1, 1, [0.0] * 15), (3, 1, 1, [0.0] * 15)]) == []


# Computations of the sketch

MQ_135 = (77.255, -3.18, 10.0, 14.29)


def ppm(run_host: Callable[[str, str], str], volts: float) -> float:
    return float(run_host("mq_ppm", hexadecimal([volts, 5.0, *MQ_135])))


def test_mq_ppm_follow_the_power_law_of_their_part(run_host: Callable[[str, str], str]) -> None:
    a, b, load_kohm, r0_kohm = MQ_135
    for volts in (0.6, 1.0, 1.7, 2.5, 4.0):
        rs_kohm = 5.0 * load_kohm / volts - load_kohm
        expected = a * (rs_kohm / r0_kohm) ** b
        assert ppm(run_host, volts) == pytest.approx(expected, abs=0.51)
        assert ppm(run_host, volts).is_integer()


@pytest.mark.parametrize(
    ("volts", "expected"), [(0.0, 0.0), (5.0, math.inf), (5.2, math.inf), (math.nan, math.nan)]
)
def test_an_mq_part_at_its_rails_or_absent_is_reported(
    run_host: Callable[[str, str], str], volts: float, expected: float
) -> None:
    sent = ppm(run_host, volts)
    assert sent == expected or (math.isnan(sent) and math.isnan(expected))
    quality = range_quality(np.array([*GOOD[:4], sent, *GOOD[5:]], np.float32))[4]
    wanted = {0.0: Quality.OK, 5.0: Quality.SATURATED, 5.2: Quality.SATURATED}
    assert quality == wanted.get(volts, Quality.MISSING)


def test_altitude_is_that_of_the_published_recordings(
    run_host: Callable[[str, str], str],
) -> None:
    """They contain pressure and altitude, with 1017 hPa at sea level."""
    pressures_hpa = [1022.84, 1007.78, 688.6]
    sent = [float(text) for text in run_host("altitude", hexadecimal(pressures_hpa)).split()]
    assert sent == pytest.approx([-48.33, 76.76, 3170.54], abs=0.1)


def slots(run_host: Callable[[str, str], str], start: int, period: int, times: list[int]) -> str:
    return run_host("schedule", f"{start} {period} " + " ".join(map(str, times)))


def test_a_late_slot_delays_no_other(run_host: Callable[[str, str], str]) -> None:
    times = [99, 100, 101, 230, 299, 300, 405]
    assert slots(run_host, 100, 100, times).split("\n")[:-1] == [
        "wait",
        "0 100",
        "wait",
        "1 200",
        "wait",
        "2 300",
        "3 400",
    ]


def test_a_missed_slot_skips_its_number(run_host: Callable[[str, str], str]) -> None:
    assert slots(run_host, 0, 100, [0, 350, 399, 400]).split("\n")[:-1] == [
        "0 0",
        "3 300",
        "wait",
        "4 400",
    ]


def test_the_schedule_continues_across_the_wrap_of_the_clock(
    run_host: Callable[[str, str], str],
) -> None:
    start = 2**32 - 150
    times = [start, (start + 100) % 2**32, (start + 199) % 2**32, (start + 200) % 2**32]
    assert slots(run_host, start, 100, times).split("\n")[:-1] == [
        f"0 {start}",
        f"1 {start + 100}",
        "wait",
        "2 50",
    ]


def test_a_row_that_repeats_often_is_hung(
    run_host: Callable[[str, str], str],
) -> None:
    text = run_host("repeats", hexadecimal([1, 2, 2, 3, 3, 3, 3, 3, 3, 4]))
    assert text.split() == ["0", "0", "0", "0", "0", "1", "0", "0", "1", "0"]
