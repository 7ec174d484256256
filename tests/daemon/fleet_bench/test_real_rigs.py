"""Real services of a small fleet lose nothing by a kill of the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daemon.fleet_bench import real_rigs
from daemon.fleet_bench.table import holds
from tests.sandbox import needs_mosquitto

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_services_are_measured_and_lose_nothing(
    toy_substances: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_mosquitto()
    monkeypatch.setattr(real_rigs, "FIRST_READINGS_S", 20.0)
    figures = real_rigs.measure_services(
        2, str(toy_substances), outage_s=3.0, load_s=12.0, progress=lambda _what: None
    )
    assert figures.made > 2
    assert holds(None, figures)
    assert 0 < figures.proportional_mb <= figures.resident_mb
    assert 0 < figures.ready_s <= figures.slowest_ready_s
