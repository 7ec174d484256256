"""The page's server knows every rig of a large fleet, with a broker's own limits."""

from __future__ import annotations

import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from selenium.common.exceptions import StaleElementReferenceException

from daemon.sandbox.web_process import WebProcess
from tests.daemon.fleet.many_rigs import RIGS, publish_rigs
from tests.daemon.web.browser import browser
from tests.sandbox import Mosquitto, Subscriber, settings, wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_state_of_more_rigs_than_a_broker_queues_is_known(
    broker: Mosquitto, tmp_path: Path, protocol: str
) -> None:
    pytest.importorskip("uvicorn", reason="pip install 'scentd[web]'")
    config = tmp_path / "rig.yaml"
    config.write_text(
        settings("none", [tmp_path], broker.port, mqtt=f", protocol: '{protocol}'"),
        encoding="utf-8",
    )
    with Subscriber(broker.port, topic="none") as publisher:
        publish_rigs(publisher)
        with WebProcess(config) as web:

            def known() -> dict[str, int]:
                with urllib.request.urlopen(f"{web.address}metrics", timeout=60) as answer:  # noqa: S310
                    lines = answer.read().decode().splitlines()
                starts = ("scentd_up{", "scentd_readings_total{", 'scentd_state{model="m"')
                return {
                    start: sum(line.startswith(start) and line.endswith(" 1.0") for line in lines)
                    for start in starts
                }

            # Two predictions of every rig: one of a substance, one of a mixture.
            wait_until(lambda: list(known().values()) == [RIGS, RIGS, 2 * RIGS], "all rigs")


@pytest.mark.slow
def test_a_rig_of_a_large_fleet_is_found_by_a_part_of_its_name(
    broker: Mosquitto, tmp_path: Path
) -> None:
    config = tmp_path / "rig.yaml"
    config.write_text(settings("none", [tmp_path], broker.port), encoding="utf-8")
    with Subscriber(broker.port, topic="none") as publisher:
        publish_rigs(publisher)
        with WebProcess(config) as web, browser(web.address, tmp_path / "profile") as window:
            window.open("rig")
            window.await_text(f"{RIGS} of {RIGS + 1} are online.")

            def found() -> bool:
                # The view is drawn anew when the state of the rig that is shown has come.
                with suppress(StaleElementReferenceException):
                    window.type_into("Part of a name", "rig-24")
                names = window.text("li")
                return "rig-249" in names and "rig-239" not in names

            window.wait(found, "the rigs with this part of a name, and no others")
