"""Twenty open pages cost the service nothing, and a prediction is soon on the screen.

`make test-slow ARGS="-k twenty_pages"` prints the figures of docs/performance.md. No time is
asserted, because this machine may be busy: only that every page is given every prediction.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from websockets.sync.client import connect

from daemon.demo.scenario import RIGS, play
from daemon.sandbox.service_process import ServiceProcess
from daemon.sandbox.web_process import WebProcess
from hardware.simulator.board import SimulatedBoard
from tests.daemon.web.browser import browser
from tests.sandbox import Mosquitto, Subscriber, wait_until

PAGES = 20
MEASURED_S = 30.0
SPEED = 10.0
"""A prediction every half second, and ten readings a second."""

ON_SCREEN = """
window.shown = [];
const place = document.querySelector('#view');
new MutationObserver(() => {
  const newest = [...window.scentd.rig.predictions.values()].at(-1)?.payload;
  if (newest && newest.seq !== window.lastSeq) {
    window.lastSeq = newest.seq;
    window.shown.push([newest.seq, Date.now()]);
  }
}).observe(place, {childList: true, subtree: true, characterData: true});
"""


class ReadingPage:
    """A page that reads all that it is given."""

    def __init__(self, web: WebProcess) -> None:
        self.predictions: set[int] = set()
        self.readings = 0
        self._socket = connect(web.address.replace("http", "ws") + "api/live", max_size=None)
        self._socket.send(json.dumps({"watch": "kitchen"}))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for text in self._socket:
            message = json.loads(text)
            if message["kind"] in ("substance", "mixture"):
                self.predictions.add(message["payload"]["seq"])
            self.readings += len(message.get("rows", ()))

    def close(self) -> None:
        self._socket.close()


def measured(service: ServiceProcess, heard: Subscriber) -> dict[str, Any]:
    """Return the service's share of a core and its latencies over a while."""
    heard.received.clear()
    began_s, used_s = time.monotonic(), service.processor_s()
    time.sleep(MEASURED_S)
    share = (service.processor_s() - used_s) / (time.monotonic() - began_s)
    heard.catch_up()
    messages = list(heard.received)
    predictions = [
        json.loads(message.text)
        for message in messages
        if message.topic.endswith(("/substance", "/mixture"))
    ]
    latencies = sorted(item["latency_ms"] for item in predictions)
    return {
        "share of a core": round(share, 3),
        "latency ms, median": round(median(latencies), 1),
        "latency ms, worst": round(latencies[-1], 1),
        "predictions": {item["seq"] for item in predictions},
    }


def arrivals_ms(heard: Subscriber) -> dict[int, float]:
    """Return when each prediction reached a subscriber, in milliseconds since 1970."""
    epoch_s = time.time() - time.monotonic()
    return {
        json.loads(message.text)["seq"]: 1000.0 * (epoch_s + message.at_s)
        for message in list(heard.received)
        if message.topic.endswith(("/substance", "/mixture"))
    }


@pytest.mark.slow
def test_twenty_pages_are_given_every_prediction(
    broker: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "board"
    settings = {
        "rig_id": "kitchen",
        "source": {"port": str(link)},
        "models": ["substances-50"],
        "mqtt": {"host": "127.0.0.1", "port": broker.port},
    }
    signal = play(RIGS[0], "air:120,peach:120", 5, loop=True)
    with ExitStack() as stack:
        stack.enter_context(
            SimulatedBoard(signal, link=link, speed=SPEED, seed=5, wait_for_listener=True)
        )
        service = stack.enter_context(ServiceProcess(tmp_path / "rig", settings))
        web = stack.enter_context(WebProcess(service.config))
        heard = stack.enter_context(Subscriber(broker.port, topic="scent/kitchen/#"))
        wait_until(lambda: heard.texts("scent/kitchen/substance"), "a prediction")
        without = measured(service, heard)
        pages = [ReadingPage(web) for _ in range(PAGES)]
        wait_until(lambda: all(page.readings for page in pages), "readings on every page")
        with_pages = measured(service, heard)
        wait_until(
            lambda: all(with_pages["predictions"] <= page.predictions for page in pages),
            "every prediction on every page",
        )
        web_mb = int(Path(f"/proc/{web.pid}/statm").read_text().split()[1]) * 4096 / 1e6
        with browser(web.address, tmp_path / "profile") as window:
            window.open()
            window.await_element(".words")
            ready_ms = window.run("return performance.getEntriesByType('mark')[0]?.startTime")
            window.run(ON_SCREEN)
            heard.received.clear()
            window.wait(lambda: len(window.run("return window.shown")) > 20, "predictions")
            shown = dict(window.run("return window.shown"))
            came_ms = arrivals_ms(heard)
            shown_ms = sorted(shown[seq] - came_ms[seq] for seq in shown.keys() & came_ms.keys())
        for page in pages:
            page.close()
    for figures in (without, with_pages):
        figures["predictions"] = len(figures["predictions"])
    lines = (
        f"no page: {without}",
        f"{PAGES} pages: {with_pages}",
        f"scentd web with {PAGES} pages: {web_mb:.1f} MB",
        f"page usable after {ready_ms:.0f} ms",
        f"on screen after {median(shown_ms):.0f} ms (median), {shown_ms[-1]:.0f} ms (worst)",
    )
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
