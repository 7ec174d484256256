"""The firmware's machine code on a simulated controller: what it sends is what its parts show.

The parts show simulated readings (the stored recording of substances), a row a second.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hardware.channels import channel_index
from hardware.frames import Quality, SensorFrame
from hardware.protocol import LineDecoder
from tests.hardware.avr_board import (
    ADC_ERROR_MV,
    DIVIDER,
    RECORDING,
    AvrBoard,
    Built,
    Script,
    build,
    mq_curves,
    mq_ppm,
)

SECONDS = 9
ROUNDED = 2e-6
"""Relative; the controller's C library prints seven or eight digits."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("avr"))


@pytest.fixture(scope="module")
def script() -> Script:
    return Script.of_recording(RECORDING, SECONDS)


def run(built: Built, text: str, link: Path) -> tuple[list[SensorFrame], LineDecoder, AvrBoard]:
    decoder = LineDecoder()
    with AvrBoard(built, text, link, speed=0) as board:
        frames = decoder.feed(board.read_all())
    return frames, decoder, board


def check_values(frame: SensorFrame, script: Script, at_ms: int) -> None:
    """Compare a frame with the rows that the parts showed at `at_ms` since the power came."""
    row = script.row_at(at_ms)
    assert frame.values[:4].tolist() == script.values[row, :4].tolist()
    assert frame.mq_volts is not None
    for part, curve in enumerate(mq_curves()):
        millivolts = float(script.millivolts[row, part])
        assert 1000 * frame.mq_volts[part] / DIVIDER == pytest.approx(millivolts, abs=ADC_ERROR_MV)
        lowest, highest = (
            mq_ppm(millivolts + step, curve) for step in (-ADC_ERROR_MV, ADC_ERROR_MV)
        )
        assert round(lowest) <= frame.values[4 + part] <= round(highest)
    # The BME680 measures once a second and needs a while.
    recent = script.values[max(0, row - 2) : row + 1, 7:11]
    assert np.isclose(recent, frame.values[7:11], rtol=ROUNDED, atol=0).all(axis=1).any()
    altitude = 44330 * (1 - (frame.values[channel_index("Pressure")] / 1017) ** 0.1903)
    assert frame.values[channel_index("Altitude")] == pytest.approx(altitude, abs=0.05)


def test_torn_lines_and_a_reset_cost_only_the_lines_they_hit(
    built: Built, script: Script, tmp_path: Path
) -> None:
    faults = ["drop 15 30 15", "pause 20 40 300", "drop 25 90 60", "reset 50 50"]
    frames, decoder, board = run(built, script.text(faults), tmp_path / "port")
    counts = decoder.counts
    assert counts.damaged == counts.checksum + counts.malformed
    (reset_ms,) = board.resets_ms
    assert {frame.device_ms % 100 for frame in frames} == {0}
    assert len(frames) == pytest.approx(10 * SECONDS - 4, abs=2)
    first = next(i for i, frame in enumerate(frames) if frame.restarted)
    before, after = frames[:first], frames[first:]
    # Line 15 lost bytes in its middle; the end of 25 and the start of 26 are gone; 50 was cut.
    kept = [seq for seq in range(50) if seq not in (15, 25, 26)]
    assert [frame.frame_seq for frame in before] == kept
    assert counts.lost == 3
    assert counts.restarts == 1
    assert [frame.frame_seq for frame in after] == list(range(len(after)))
    assert np.unique([frame.values[:4] for frame in frames], axis=0).shape[0] > 5
    for frame in before[5:]:  # until then the BME680 has not measured
        check_values(frame, script, frame.device_ms)
    for frame in after[5:]:
        check_values(frame, script, reset_ms + frame.device_ms)


def test_parts_that_leave_the_bus_and_return_change_only_their_fields(
    built: Built, tmp_path: Path
) -> None:
    events = ["1020 grove 0", "2520 grove 1", "2020 bme 0"]
    frames, decoder, _ = run(
        built, Script.of_recording(RECORDING, 4).text(events), tmp_path / "port"
    )
    assert decoder.counts.damaged == decoder.counts.lost == 0

    def missing(at_ms: int) -> list[int]:
        frame = next(frame for frame in frames if frame.device_ms >= at_ms)
        return np.flatnonzero(frame.quality == Quality.MISSING).tolist()

    grove, bme = [0, 1, 2, 3], [7, 8, 9, 10, 11]
    assert missing(900) == []
    assert missing(1900) == grove
    assert missing(3900) == bme
