"""Pages are told what happens; one that does not read loses readings, and is then cut."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.websockets import WebSocketState

from daemon.web import live
from daemon.web.live import PAGES_LIMIT, QUEUE_LIMIT, LivePages, Page
from daemon.web.refusals import Refusal, RefusalLog


class Socket:
    """A page's end: `reads` says whether it takes messages."""

    client_state = WebSocketState.CONNECTED

    def __init__(self, *, reads: bool = True) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: int | None = None
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self._reads = reads

    async def accept(self) -> None:
        pass

    async def receive_text(self) -> str:
        return await self.said.get()

    async def send_text(self, text: str) -> None:
        if not self._reads:
            await asyncio.sleep(3600)
        self.sent.append(json.loads(text))

    async def close(self, code: int) -> None:
        self.closed = code


def live_pages(watched: list[str] | None = None) -> LivePages:
    return LivePages(
        greeting=lambda: [{"kind": "hello"}],
        snapshot=lambda rig: {"rig": rig} if rig != "unknown" else None,
        watched=(watched if watched is not None else []).append,
        refusals=RefusalLog(),
    )


async def served(pages: LivePages, socket: Socket) -> asyncio.Task[None]:
    task = asyncio.ensure_future(pages.serve(socket))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return task


async def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("waited in vain")


def test_a_page_is_greeted_and_told_of_its_rig_alone() -> None:
    watched: list[str] = []

    async def run() -> list[dict[str, Any]]:
        pages, socket = live_pages(watched), Socket()
        task = await served(pages, socket)
        for text in ("nonsense", "[]", '{"watch": 3}', '{"watch": "kitchen"}'):
            socket.said.put_nowait(text)
        await until(lambda: pages.rigs == {"kitchen"})
        pages.publish("kitchen", {"kind": "substance"})
        pages.publish("attic", {"kind": "mixture"})
        pages.publish(None, {"kind": "rigs"})
        await until(lambda: len(socket.sent) >= 4)
        task.cancel()
        return socket.sent

    sent = asyncio.run(run())
    assert [message["kind"] for message in sent] == ["hello", "snapshot", "substance", "rigs"]
    assert watched == ["kitchen"]


def test_an_unknown_rig_is_not_shown() -> None:
    async def run() -> set[str]:
        pages, socket = live_pages(), Socket()
        task = await served(pages, socket)
        socket.said.put_nowait('{"watch": "unknown"}')
        await asyncio.sleep(0.01)
        task.cancel()
        return pages.rigs

    assert asyncio.run(run()) == set()


def test_a_page_that_never_reads_is_cut_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "SEND_WITHIN_S", 0.05)

    async def run() -> tuple[LivePages, Socket, Socket]:
        pages, slow, quick = live_pages(), Socket(reads=False), Socket()
        tasks = [await served(pages, slow), await served(pages, quick)]
        await until(lambda: pages.count == 1)
        await until(lambda: slow.closed is not None)
        pages.publish(None, {"kind": "after"})
        await until(lambda: quick.sent[-1]["kind"] == "after")
        tasks[1].cancel()
        return pages, slow, quick

    pages, slow, _ = asyncio.run(run())
    assert slow.closed == live.SLOW_CODE
    assert pages._refusals.counts[Refusal.SLOW] == 1


def test_a_full_queue_loses_readings_first_and_never_grows() -> None:
    async def run() -> None:
        page = Page(Socket())  # type: ignore[arg-type]
        for number in range(QUEUE_LIMIT):
            page.put(str(number), droppable=number % 2 == 0)
        assert not page.cut
        page.put("an event")
        assert not page.cut
        assert len(page._queue) == QUEUE_LIMIT // 2 + 1
        for _ in range(QUEUE_LIMIT):
            page.put("more")
        assert page.cut
        assert len(page._queue) <= QUEUE_LIMIT

    asyncio.run(run())


def test_too_many_pages_are_refused() -> None:
    async def run() -> tuple[int, int | None]:
        pages = live_pages()
        tasks = [await served(pages, Socket()) for _ in range(PAGES_LIMIT)]
        last = Socket()
        await pages.serve(last)  # type: ignore[arg-type]
        for task in tasks:
            task.cancel()
        return pages.count, last.closed

    assert asyncio.run(run()) == (PAGES_LIMIT, live.SLOW_CODE)
