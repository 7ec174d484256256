"""Demo: the whole thing: broker, services, boards and view, started in order and ended in reverse.

The only module of the demo with a loop and a clock. Every part is a context manager, so
whatever ends the demo (Ctrl-C, a closed window, a deadline, a failure) leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console
from rich.live import Live

from daemon.demo.plain import PlainView
from daemon.demo.scenario import RIGS, choose_programme
from daemon.demo.screen import ROWS, WIDTH, screen
from daemon.demo.state import RigState
from daemon.sandbox.broker import LOOPBACK, EmbeddedBroker
from daemon.sandbox.service_process import ServiceProcess
from daemon.sandbox.subscriber import Subscriber
from hardware.simulator.board import SimulatedBoard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from rich.console import RenderableType

    from daemon.demo.scenario import DemoRig, DemoSchedule
    from daemon.system.signals import Stop

WAITING_LIMIT = 20_000
"""Messages that wait for the view at most: more than a minute's."""

_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo was asked to be.

    Attributes
    ----------
    plain: print lines instead of drawing a screen.
    seed: of the cast, its order and the boards' noise.
    seconds: real seconds that it lasts once all is started, or None for as long as one likes.
    pace: 1 is the usual one; at 2 the boards run twice as fast.
    picture: an SVG to draw of the screen at its best moment, or None.
    """

    plain: bool
    seed: int
    seconds: float | None = None
    pace: float = 1.0
    picture: Path | None = None


class _View(Protocol):
    """What shows the stories."""

    def look(self, stories: Sequence[RigState], elapsed_s: float) -> None:
        """Show how things are now."""


def perform(demo: Demo, stop: Stop) -> list[RigState]:
    """Play until `stop` is set or the time is over, and return what was heard.

    Raises
    ------
    ScentdError
        A part cannot start, or ended by itself.
    """
    programmes = [
        choose_programme(replace(rig, speed=rig.speed * demo.pace), demo.seed) for rig in RIGS
    ]
    stories = {programme.rig.rig_id: RigState(programme) for programme in programmes}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scentd-demo-")))
        broker = stack.enter_context(EmbeddedBroker())
        ear = stack.enter_context(Subscriber(broker.port, limit=WAITING_LIMIT))
        for programme in programmes:
            stack.enter_context(_board(programme, demo.seed, folder))
        services = [
            stack.enter_context(
                ServiceProcess(
                    folder / f"service-{programme.rig.rig_id}",
                    _settings(programme.rig, folder, broker.port),
                )
            )
            for programme in programmes
        ]
        views = [stack.enter_context(view) for view in _views(demo, f"{LOOPBACK}:{broker.port}")]
        started_s = time.monotonic()
        while not stop.wait(_LOOK_EVERY_S):
            elapsed_s = time.monotonic() - started_s
            for heard in ear.take():
                rig_id, topic = heard.rig_topic
                stories[rig_id].hear(topic, heard.value)
            for view in views:
                view.look(list(stories.values()), elapsed_s)
            if demo.seconds is not None and elapsed_s >= demo.seconds:
                break
            # Ctrl-C reaches every process of the terminal, the services too: then all is well.
            if not stop.is_set():
                for service in services:
                    service.check()
    return list(stories.values())


def _board(programme: DemoSchedule, seed: int, folder: Path) -> SimulatedBoard:
    """Return the rig's board; it begins when the service opens its port."""
    rig = programme.rig
    return SimulatedBoard(
        programme.signal(seed),
        link=folder / rig.rig_id,
        speed=rig.speed,
        seed=seed,
        wait_for_listener=True,
    )


def _settings(rig: DemoRig, folder: Path, broker_port: int) -> dict[str, object]:
    return {
        "rig_id": rig.rig_id,
        "source": {"port": str(folder / rig.rig_id)},
        "models": [rig.model],
        # The embedded broker speaks no other version, and guessing costs seconds.
        "mqtt": {"host": LOOPBACK, "port": broker_port, "protocol": "3.1.1", "sample": True},
    }


def _views(demo: Demo, place: str) -> Iterator[AbstractContextManager[_View]]:
    if demo.picture is not None:
        yield _Picture(demo.picture, place)
    yield contextlib.nullcontext(PlainView(sys.stdout)) if demo.plain else _Screen(place)


class _Screen:
    """Draws on the terminal's second screen; the first is as it was when the block ends."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._live = Live(console=Console(), screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def look(self, stories: Sequence[RigState], elapsed_s: float) -> None:
        """Draw how things are now."""
        width, height = self._live.console.size
        drawn = screen(stories, width=width, height=height, place=self._place, elapsed_s=elapsed_s)
        self._live.update(drawn, refresh=True)


class _Picture:
    """Remembers the screen as it was when most was to be seen, and writes it as an SVG."""

    def __init__(self, path: Path, place: str) -> None:
        self._path = path
        self._place = place
        self._best = (-1, -1, -1)
        self._drawn: RenderableType = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
        console.print(self._drawn)
        # The fonts that rich names lie on a server; a picture should load nothing.
        svg = console.export_svg(title="scentd demo")
        svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
        self._path.write_text(svg, encoding="utf-8")

    def look(self, stories: Sequence[RigState], elapsed_s: float) -> None:
        """Keep this moment if more of what is said now is right, or as much with more to tell."""
        smelled = [story for story in stories if story.act.odour]
        right = sum(story.said == story.act.odour for story in smelled)
        partly = sum(not set(story.said).isdisjoint(story.act.odour) for story in smelled)
        priority = (right, partly, sum(len(story.verdicts) for story in stories))
        if priority >= self._best:
            self._best = priority
            self._drawn = screen(
                stories, width=WIDTH, height=ROWS, place=self._place, elapsed_s=elapsed_s
            )
