"""Demo: starts broker, boards, services and views in order, and stops them in reverse.

The only module of the demo with a loop and a clock.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live

from daemon.demo.plain import plain_view
from daemon.demo.scenario import RIGS, choose_schedule, play
from daemon.demo.screen import ROWS, WIDTH, screen
from daemon.demo.state import RigState
from daemon.demo.taught_rig import teach_rigs
from daemon.sandbox.broker import LOOPBACK, Broker, EmbeddedBroker, Mosquitto
from daemon.sandbox.service_process import ServiceProcess
from daemon.sandbox.subscriber import Subscriber
from daemon.sandbox.web_process import WebProcess
from daemon.web.options import DEFAULT_PORT
from hardware.simulator.board import SimulatedBoard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import RenderableType

    from daemon.demo.scenario import DemoRig
    from daemon.demo.state import View
    from daemon.system.signals import StopEvent

WAITING_LIMIT = 20_000
"""Messages that may wait for the views: those of more than a minute."""

_UPDATE_EVERY_S = 0.2

STATE_DIR = "state"
"""Of a rig, below the folder of its configuration."""


def run_demo(
    stop: StopEvent,
    *,
    plain: bool,
    seed: int,
    seconds: float | None,
    pace: float,
    picture: Path | None,
    on_page: Callable[[str], None] = lambda _address: None,
) -> list[RigState]:
    """Play until `stop` is set or the time is over, and return what the rigs published.

    Parameters
    ----------
    plain: print lines instead of drawing a screen.
    seed: of the odours, their order and the boards' noise.
    seconds: real seconds after the start of all parts; None for no end.
    pace: factor of the boards' usual speed.
    picture: an SVG file for the screen with the most right names, or None.
    on_page: called with the address of the web page.

    Raises
    ------
    ScentdError: if a part cannot start, or ended by itself.
    """
    schedules = [choose_schedule(replace(rig, speed=rig.speed * pace), seed) for rig in RIGS]
    rigs = [RigState(schedule) for schedule in schedules]
    by_id = {rig.setup.rig_id: rig for rig in rigs}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scentd-demo-")))
        states = {folder / schedule.rig.rig_id / STATE_DIR: schedule.rig for schedule in schedules}
        teach_rigs(states, folder / "taught")
        broker = stack.enter_context(choose_broker(folder))
        subscriber = stack.enter_context(Subscriber(broker.port, limit=WAITING_LIMIT))
        services = []
        for schedule in schedules:
            setup = schedule.rig
            port = folder / f"tty-{setup.rig_id}"
            home = folder / setup.rig_id
            signal = play(setup, schedule.episodes, seed, loop=True)
            stack.enter_context(
                SimulatedBoard(
                    signal, link=port, speed=setup.speed, seed=seed, wait_for_listener=True
                )
            )
            service = ServiceProcess(home, _settings(setup, port, broker.port))
            services.append(stack.enter_context(service))
        web = stack.enter_context(_web_page(services))
        on_page(web.address)
        draw = partial(screen, address=f"{LOOPBACK}:{broker.port}", page=web.address)
        views = [plain_view(sys.stdout) if plain else stack.enter_context(_screen_view(draw))]
        if picture is not None:
            views.append(stack.enter_context(_picture(picture, draw)))
        started_s = time.monotonic()
        while not stop.wait(_UPDATE_EVERY_S):
            elapsed_s = time.monotonic() - started_s
            for message in subscriber.take():
                rig_id, topic = message.rig_topic
                by_id[rig_id].receive(topic, message.value)
            for view in views:
                view(rigs, elapsed_s)
            if seconds is not None and elapsed_s >= seconds:
                break
            # Ctrl-C also ends the services, which is then no error.
            if not stop.is_set():
                for service in services:
                    service.check()
    return rigs


def choose_broker(folder: Path) -> Broker:
    """Return amqtt, or Mosquitto where amqtt is not installed, as in the Debian package."""
    return EmbeddedBroker() if find_spec("amqtt") else Mosquitto(folder)


def _settings(setup: DemoRig, port: Path, broker_port: int) -> dict[str, Any]:
    return {
        "rig_id": setup.rig_id,
        "state_dir": STATE_DIR,
        "source": {"port": str(port)},
        "models": [setup.model],
        # The only version of amqtt; to find that out would take seconds.
        "mqtt": {"host": LOOPBACK, "port": broker_port, "protocol": "3.1.1", "sample": True},
        # For the curves of the page, and its recordings.
        "record": True,
    }


def _web_page(services: Sequence[ServiceProcess]) -> WebProcess:
    """Return the page of all rigs, on its usual port if that is free."""
    first, *others = [str(service.config) for service in services]
    options = [word for config in others for word in ("--also", config)]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, DEFAULT_PORT))
        except OSError:
            return WebProcess(Path(first), options)
    return WebProcess(Path(first), [*options, "--listen", str(DEFAULT_PORT)])


@contextlib.contextmanager
def _screen_view(draw: Callable[..., RenderableType]) -> Iterator[View]:
    """Draw on the terminal's alternate screen while the block runs."""
    with Live(console=Console(), screen=True, auto_refresh=False) as live:

        def update(rigs: Sequence[RigState], elapsed_s: float) -> None:
            width, height = live.console.size
            drawn = draw(rigs, width=width, height=height, elapsed_s=elapsed_s)
            live.update(drawn, refresh=True)

        yield update


@contextlib.contextmanager
def _picture(path: Path, draw: Callable[..., RenderableType]) -> Iterator[View]:
    """Write the screen with the most right names as an SVG when the block ends."""
    best: tuple[int, int, int] = (-1, -1, -1)
    drawn: RenderableType = ""

    def update(rigs: Sequence[RigState], elapsed_s: float) -> None:
        nonlocal best, drawn
        exposed = [(rig.names, rig.episode.odour) for rig in rigs if rig.episode.odour]
        right = sum(names == odour for names, odour in exposed)
        partly = sum(not set(names).isdisjoint(odour) for names, odour in exposed)
        priority = (right, partly, sum(len(rig.results) for rig in rigs))
        if priority >= best:
            best = priority
            drawn = draw(rigs, width=WIDTH, height=ROWS, elapsed_s=elapsed_s)

    try:
        yield update
    finally:
        console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
        console.print(drawn)
        svg = console.export_svg(title="scentd demo")
        # rich links to fonts on a server; the picture must not load any.
        svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
        path.write_text(svg, encoding="utf-8")
