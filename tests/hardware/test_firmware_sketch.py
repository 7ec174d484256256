"""The sketch, run on the host: parts that are absent, return, hang and hold the bus.

The files under `arduino/` replace the ESP32 core and the parts. They cannot show what is
electrical: levels, timing on the wire, heaters.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hardware.channels import CHANNEL_NAMES, channel_index
from hardware.frames import Quality, SensorFrame
from hardware.protocol import LineDecoder

HERE = Path(__file__).parent
FIRMWARE = HERE.parents[1] / "hardware" / "firmware" / "scentboard"
ALL_PLUGGED = ["0 mq135_mv 400", "0 mq9_mv 600", "0 mq3_mv 1500"]
BME_CHANNELS = ("Temperature", "Pressure", "Humidity", "Gas_Resistance", "Altitude")


def prototypes_of(sketch: str) -> str:
    """Return what the Arduino IDE inserts before a sketch's first function."""
    functions = re.findall(
        r"^((?:bool|void) \w+\((?:\w+ \w+)?\)|float \w+\(\w+ \w+\)) \{", sketch, re.MULTILINE
    )
    return "#include <stdint.h>\n" + "".join(f"{function};\n" for function in functions)


@dataclass(frozen=True)
class Board:
    """A sketch built for one rate."""

    program: Path
    period_ms: int

    def run(self, events: list[str], seconds: float) -> tuple[list[SensorFrame], int]:
        """Return the frames of a run through `events`, and how often its BME680 was reset."""
        script = "\n".join([*ALL_PLUGGED, *events, f"{seconds} end 0"])
        done = subprocess.run(
            [self.program], input=script.encode(), capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"the bench ended with {done.returncode}"
        decoder = LineDecoder()
        frames = decoder.feed(done.stdout)
        assert decoder.counts.damaged == decoder.counts.text == 0
        return frames, int(done.stderr)


@pytest.fixture(scope="module", params=[1000, 100], ids=["1 Hz", "10 Hz"])
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Board:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: install g++ to run the firmware's sketch on the host")
    folder = tmp_path_factory.mktemp("sketch")
    sketch = (FIRMWARE / "scentboard.ino").read_text(encoding="utf-8")
    (folder / "sketch_prototypes.h").write_text(prototypes_of(sketch))
    period = re.compile(r"kPeriodMs = \d+;")
    assert period.search(sketch)
    (folder / "scentboard.ino").write_text(period.sub(f"kPeriodMs = {request.param};", sketch, 1))
    strict = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-O1"]
    includes = [f"-I{folder}", f"-I{HERE / 'arduino'}", f"-I{FIRMWARE}"]
    subprocess.run(
        [compiler, *strict, *includes, str(HERE / "firmware_bench.cpp"), "-o", folder / "board"],
        check=True,
        timeout=60,
    )
    return Board(folder / "board", request.param)


def missing(frame: SensorFrame) -> set[str]:
    absent = frame.quality == Quality.MISSING
    return {name for name, is_absent in zip(CHANNEL_NAMES, absent, strict=True) if is_absent}


def between(frames: list[SensorFrame], from_s: float, to_s: float) -> list[SensorFrame]:
    return [
        frame
        for frame in frames
        if frame.device_ms is not None and from_s * 1000 <= frame.device_ms < to_s * 1000
    ]


def test_every_part_is_read_on_an_exact_schedule(board: Board) -> None:
    frames, _ = board.run([], 60)
    steps = np.diff([frame.device_ms for frame in frames])
    assert set(steps) == {board.period_ms}
    assert [frame.frame_seq for frame in frames] == list(range(len(frames)))
    assert len(frames) == pytest.approx(60_000 / board.period_ms, abs=2)
    last = frames[-1]
    assert not last.quality.any()
    assert last.values[:4].tolist() == [216, 305, 494, 830]
    assert last.mq_volts == pytest.approx((1.0, 1.5, 3.75))
    rs_kohm = 5.0 * 9.615 / 1.0 - 9.615
    assert last.values[4] == round(77.255 * (rs_kohm / 14.29) ** -3.18)
    assert last.values[channel_index("Gas_Resistance")] == pytest.approx(69.7, abs=0.02)
    assert last.values[channel_index("Altitude")] == pytest.approx(-48.33, abs=0.01)


def test_an_absent_grove_board_empties_only_its_own_fields(
    board: Board,
) -> None:
    frames, bme_resets = board.run(["0 grove 0", "40 grove 1"], 60)
    for frame in between(frames, 10, 40):
        assert missing(frame) == set(CHANNEL_NAMES[:4])
    assert missing(frames[-1]) == set()
    assert bme_resets == 1


def test_an_absent_bme680_is_searched_for_until_it_is_connected(board: Board) -> None:
    frames, _ = board.run(["0 bme 0", "30 bme 1"], 60)
    for frame in between(frames, 5, 30):
        assert missing(frame) == set(BME_CHANNELS)
    assert missing(frames[-1]) == set()


def test_a_bme680_that_is_pulled_out_empties_its_fields(board: Board) -> None:
    frames, _ = board.run(["20 bme 0"], 40)
    assert missing(between(frames, 15, 20)[0]) == set()
    assert missing(frames[-1]) == set(BME_CHANNELS)


@pytest.mark.parametrize("gas_status", [0x00, 0x10, 0x20])
def test_gas_resistance_counts_only_when_valid_and_the_heater_stable(
    board: Board, gas_status: int
) -> None:
    frames, _ = board.run([f"0 gas_status {gas_status}"], 20)
    assert missing(frames[-1]) == {"Gas_Resistance"}


def test_a_bme680_that_repeats_its_row_is_reset(board: Board) -> None:
    frames, bme_resets = board.run(["10 bme_moves 0"], 90)
    assert bme_resets == 2
    assert missing(frames[-1]) == set()


def test_a_bus_that_a_part_holds_low_is_released_by_clocks(board: Board) -> None:
    frames, _ = board.run(["20 hold_sda 0"], 60)
    assert any(set(CHANNEL_NAMES[:4]) <= missing(frame) for frame in between(frames, 20, 24))
    assert missing(frames[-1]) == set()


def test_mq_parts_unplugged_or_at_their_supply_are_reported(board: Board) -> None:
    frames, _ = board.run(["0 mq135_mv 0", "0 mq3_mv 2000"], 20)
    last = frames[-1]
    assert last.quality[channel_index("Alcohol")] == Quality.MISSING
    assert last.quality[channel_index("Benzene")] == Quality.SATURATED
    assert last.mq_volts is not None
    assert math.isnan(last.mq_volts[0])


def test_a_saturated_count_is_sent_and_an_impossible_one_is_not(board: Board) -> None:
    frames, _ = board.run(["0 co 1023", "20 co 70000"], 40)
    assert between(frames, 10, 20)[0].quality[3] == Quality.SATURATED
    assert frames[-1].quality[3] == Quality.MISSING


def test_a_stall_skips_numbers_and_delays_no_later_reading(board: Board) -> None:
    frames, _ = board.run(["20 stall_ms 3450"], 40)
    lost = [frame.lost_before for frame in frames]
    assert sum(lost) == max(lost) > 0
    start_ms = frames[0].device_ms
    assert all((frame.device_ms - start_ms) % board.period_ms == 0 for frame in frames)
