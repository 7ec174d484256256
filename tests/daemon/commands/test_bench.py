"""The measurements of `scentd bench` that depend on other programs, made small."""

from __future__ import annotations

import pytest

from daemon.commands import bench
from tests.sandbox import needs_mosquitto


def test_the_way_from_a_reading_to_a_subscriber_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_mosquitto()
    monkeypatch.setattr(bench, "READING_S", 0.05)
    times = bench.measure_publish(predictions=4)
    assert len(times["whole"]) == len(times["beyond"]) >= 3
    for whole_ms, beyond_ms in zip(times["whole"], times["beyond"], strict=True):
        assert 0 < beyond_ms < whole_ms


def test_without_mosquitto_the_way_to_a_subscriber_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "mosquitto_program", lambda: None)
    assert bench.measure_publish() == {}
    assert "Mosquitto is not installed" in capsys.readouterr().err
