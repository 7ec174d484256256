"""A rig that smells lemon, for the integrations to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hardware.simulator.board import SimulatedBoard
from tests.sandbox import Mosquitto, Odours, ServiceProcess, Subscriber

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO2 = 0


@pytest.fixture
def rig(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path, toy_mixtures: Path
) -> Iterator[ServiceProcess]:
    """A service with a board, in a smell that it calls lemon from the second minute on."""
    link = tmp_path / "ttyBOARD"
    settings = (
        f"rig_id: rig\nsource: {{port: {link}}}\nmodels: [{toy_substances}, {toy_mixtures}]\n"
        f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\nstate_dir: state\nlive_stride_s: 1\n"
        "exposure: {warm_up_min_s: 5, warm_up_max_s: 20, quiet_s: 10}\n"
    )
    with ServiceProcess(tmp_path, settings) as service, Subscriber(broker.port) as heard:
        # The service must see the board's clean air, however long its start takes.
        heard.await_text("scent/rig/status", "online")
        with SimulatedBoard(Odours(((None, 60), (NO2, 6000))), link=link, speed=8):
            yield service
