"""The outbox: in order, bounded, on disk before messages are taken, removed when acknowledged."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon.mqtt import outbox_disk as module
from daemon.mqtt.outbox import Entry, Limits, Message, Outbox, Priority
from daemon.mqtt.outbox_database import OutboxFile
from daemon.mqtt.outbox_repair import SET_ASIDE_KEPT
from daemon.mqtt.outbox_rows import DamagedError
from tests.sandbox import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOMY = Limits(messages=1000, size_bytes=1 << 20, age_s=86_400)


def message(
    text: str,
    *,
    topic: str = "substance",
    retain: bool = True,
    priority: Priority = Priority.CHANGE,
) -> Message:
    return Message(topic, text, 1, retain, priority)


def event(text: str) -> Message:
    return Message("event", text, 1, retain=False)


def taken(outbox: Outbox) -> list[str]:
    """Return the payloads of all messages, taken and requeued."""
    texts = [entry.message.payload for entry in iter(outbox.take, None)]
    outbox.requeue_in_flight()
    return texts


def flush(outbox: Outbox) -> None:
    assert outbox.flush(60.0)


@pytest.fixture(params=["disk", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Return the outbox's path: all guarantees except durability hold in memory as well."""
    return tmp_path / "outbox.sqlite" if request.param == "disk" else None


def test_entries_requeued_after_a_lost_connection_come_before_later_ones(path: Path | None) -> None:
    with Outbox(path) as outbox:
        for text in "abcd":
            outbox.put(message(text))
        flush(outbox)
        first, second = outbox.take(), outbox.take()
        assert first is not None
        assert second is not None
        outbox.acknowledge(second.id)
        outbox.requeue_in_flight()
        assert taken(outbox) == ["a", "c", "d"]
        assert outbox.depth == 3


def test_the_newest_retained_entry_of_each_topic_is_known(path: Path | None) -> None:
    with Outbox(path) as outbox:
        outbox.put(message("a"))
        outbox.put(message("b", topic="mixture"))
        outbox.put(message("c"))
        outbox.put(event("d"))
        assert outbox.newest_retained() == {"substance": 3, "mixture": 2}
        assert outbox.newest_id() == 4


def test_an_event_is_written_at_once_together_with_waiting_predictions(tmp_path: Path) -> None:
    ready: list[int] = []
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        outbox.set_ready_callback(lambda: ready.append(1))
        for number in range(200):
            outbox.put(message(str(number)))
        outbox.put(event("onset"))
        wait_until(lambda: outbox.report().size_bytes == 490 + 5, "the event on disk")
        assert ready
        # 201 messages, and far fewer commits: the first alone, the rest together.
        assert outbox.report().commits <= 20
        assert taken(outbox)[-1] == "onset"


def test_unacknowledged_messages_are_kept_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    with Outbox(path) as outbox:
        for text in ("a", "b", "c"):
            outbox.put(message(text))
        flush(outbox)
        entry = outbox.take()
        assert entry is not None
        outbox.acknowledge(entry.id)
    with Outbox(path) as outbox:
        assert outbox.depth == 2
        assert outbox.newest_id() == 3
        assert outbox.newest_retained() == {"substance": 3}
        outbox.put(message("d"))
        flush(outbox)
        assert taken(outbox) == ["b", "c", "d"]
    assert path.stat().st_mode & 0o077 == 0


PUT_FOREVER = """
import sys
from pathlib import Path
from daemon.mqtt.outbox import Message, Outbox
with Outbox(Path(sys.argv[1])) as outbox:
    number = 0
    while True:
        outbox.put(Message("event", str(number), 1, False))
        outbox.flush(60)
        print(number, flush=True)
        number += 1
"""


def test_all_that_was_written_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    last_reported = -1
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", PUT_FOREVER, str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(20):
            last_reported = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        last_reported += len(process.stdout.read().split())
        process.wait()
    with Outbox(path) as outbox:
        texts = taken(outbox)
        report = outbox.report()
    runs = [int(text) for text in texts]
    starts = [place for place, number in enumerate(runs) if number == 0]
    assert len(starts) == 3
    for begin, end in zip(starts, [*starts[1:], len(runs)], strict=True):
        assert runs[begin:end] == list(range(end - begin))
    # The last one may have been written without being reported.
    assert len(runs) - starts[-1] - 1 - last_reported in (0, 1)
    assert report.set_aside == 0


@dataclass
class History:
    """A file with its log, and the payloads that it held after every commit."""

    path: Path
    states: list[list[str]]

    @property
    def wal(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Return a copy of a file in use: sixty commits that add and remove, all still in the log."""
    live = OutboxFile(tmp_path / "live.sqlite")
    waiting: list[Entry] = []
    states: list[list[str]] = [[]]
    for number in range(1, 61):
        added = [Entry(number, number, message(f"{number} " + "x" * 900))]
        removed = [waiting.pop(0).id] if number % 3 == 0 else []
        waiting += added
        live.write(removed=removed, added=added, limits=ROOMY, after=0, now_s=number)
        states.append([entry.message.payload for entry in waiting])
    copy = tmp_path / "torn" / "outbox.sqlite"
    copy.parent.mkdir()
    shutil.copy(tmp_path / "live.sqlite", copy)
    shutil.copy(tmp_path / "live.sqlite-wal", f"{copy}-wal")
    live.close()
    return History(copy, states)


def reopened(path: Path) -> tuple[list[str], int]:
    """Open a file as after a power cut; return the payloads and how often it was set aside."""
    outbox = Outbox(path)
    texts = taken(outbox)
    replaced = outbox.report().set_aside
    outbox.close()
    return texts, replaced


WAL_HEADER, FRAME = 32, 24 + 4096


def test_a_log_cut_at_any_page_leaves_what_a_commit_had_made(
    history: History, tmp_path: Path
) -> None:
    wal = history.wal.read_bytes()
    frames = (len(wal) - WAL_HEADER) // FRAME
    assert frames >= 60
    cuts = {0, 1, 31, 32, len(wal) - 1, len(wal)}
    for frame in range(frames):
        start = WAL_HEADER + frame * FRAME
        cuts |= {start, start + 11, start + 24, start + 24 + 2048, start + FRAME - 1}
    found: list[int] = []
    for cut in sorted(cuts):
        path = tmp_path / f"cut-{cut}" / "outbox.sqlite"
        path.parent.mkdir()
        shutil.copy(history.path, path)
        path.with_name("outbox.sqlite-wal").write_bytes(wal[:cut])
        texts, replaced = reopened(path)
        assert replaced == 0
        assert texts in history.states
        found.append(history.states.index(texts))
        shutil.rmtree(path.parent)
    assert found == sorted(found)  # the longer the log, the more is there
    assert found[0] == 0
    assert found[-1] == 60


def test_a_log_torn_inside_any_page_keeps_the_messages_of_all_other_pages(
    history: History, tmp_path: Path
) -> None:
    wal = history.wal.read_bytes()
    put = {text for state in history.states for text in state}
    for frame in range((len(wal) - WAL_HEADER) // FRAME):
        torn = bytearray(wal)
        # A sector of 512 bytes that the card reported as written and did not write.
        start = WAL_HEADER + frame * FRAME + 24 + 512 * (frame % 8)
        torn[start : start + 512] = b"\xff" * 512
        path = tmp_path / f"torn-{frame}" / "outbox.sqlite"
        path.parent.mkdir()
        shutil.copy(history.path, path)
        path.with_name("outbox.sqlite-wal").write_bytes(bytes(torn))
        outbox = Outbox(path)
        texts = set(taken(outbox))
        report = outbox.report()
        outbox.close()
        assert texts <= put
        assert report.set_aside == 1
        assert report.dropped["damaged"] == len(set(history.states[-1]) - texts) <= 5
        shutil.rmtree(path.parent)


def test_a_file_damaged_anywhere_never_gives_anything_that_was_not_put(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    with Outbox(path) as outbox:
        for number in range(40):
            outbox.put(event(f"{number} " + "x" * 900))
    whole = path.read_bytes()
    texts, _ = reopened(path)
    set_aside = 0
    for start in range(0, len(whole), 1024):
        path.write_bytes(whole[:start] + b"\xa5" * 256 + whole[start + 256 :])
        with Outbox(path) as outbox:
            found = taken(outbox)
            assert set(found) <= set(texts)
            outbox.put(event("after"))
            flush(outbox)
            assert taken(outbox)[-1] == "after"
            report = outbox.report()
            assert report.store == "disk"
            set_aside += report.set_aside
        for left in tmp_path.iterdir():
            left.unlink()
    assert set_aside > 0


def test_damage_to_the_file_of_a_running_outbox_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    with Outbox(path) as outbox:
        for number in range(3000):
            outbox.put(event(f"{number} " + "x" * 900))
        flush(outbox)
        for file in (path, path.with_name("outbox.sqlite-wal")):
            with file.open("r+b") as below:
                below.seek(8192)
                below.write(b"\xa5" * max(0, file.stat().st_size - 8192))
        found = {entry.message.payload.partition(" ")[0] for entry in iter(outbox.take, None)}
        assert found <= {str(number) for number in range(3000)}
        outbox.put(event("after"))
        wait_until(
            lambda: "after" in [entry.message.payload for entry in iter(outbox.take, None)],
            "what was put after the damage",
        )
        report = outbox.report()
    assert report.store == "disk"
    assert report.set_aside == 1
    assert report.dropped["damaged"] > 0


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\0" * 50]
)
def test_a_foreign_file_is_set_aside_under_a_name_with_the_time(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(content)
    with Outbox(path) as outbox:
        outbox.put(event("a"))
        flush(outbox)
        report = outbox.report()
    assert (report.store, report.set_aside, report.why) == ("disk", 1, None)
    (aside,) = tmp_path.glob("outbox.sqlite.damaged-????????T??????Z")
    assert aside.read_bytes() == content
    assert reopened(path) == (["a"], 0)


def test_another_programs_database_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    with pytest.raises(DamagedError, match=r"the tables \['recipes'\]"):
        OutboxFile(path)
    assert reopened(path) == ([], 1)


def test_only_the_newest_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    for year in range(1970, 1980):
        (tmp_path / f"outbox.sqlite.damaged-{year}0101T000000Z").touch()
    path.write_bytes(b"x" * 5000)
    reopened(path)
    assert len(list(tmp_path.glob("*.damaged-*"))) == SET_ASIDE_KEPT


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a separate disk, so that it can be full or read-only."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "scentd-test", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system of its own is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry a disk after a fraction of a second."""
    monkeypatch.setattr(module, "RETRY_S", 0.05)


def test_messages_wait_in_memory_while_the_disk_is_full(tmp_path: Path, impatient: None) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        path = disk / "outbox.sqlite"
        with Outbox(path) as outbox:
            outbox.put(event("before"))
            flush(outbox)
            ballast = disk / "ballast"
            with ballast.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"x" * 4096)
                except OSError:
                    pass
            texts = [f"{number} " + "x" * 2000 for number in range(100)]
            for text in texts:
                outbox.put(event(text))
            flush(outbox)
            report = outbox.report()
            assert report.store == "memory"
            assert report.why is not None
            assert "full" in report.why
            assert (report.fallbacks, report.depth) == (1, 101)
            # Messages reach the broker although the disk is full.
            first = outbox.take()
            assert first is not None
            outbox.acknowledge(first.id)
            assert taken(outbox) == texts
            ballast.unlink()
            wait_until(lambda: outbox.report().store == "disk", "the disk's return")
            assert outbox.depth == 100
            outbox.put(event("after"))
        assert reopened(path) == ([*texts, "after"], 0)


def test_messages_wait_in_memory_while_the_disk_is_read_only(
    tmp_path: Path, impatient: None
) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        path = disk / "outbox.sqlite"
        with Outbox(path) as outbox:
            for text in ("a", "b"):
                outbox.put(event(text))

        def remount(mode: str) -> None:
            subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)

        remount("ro")
        with Outbox(path) as outbox:
            assert outbox.report().store == "memory"
            for text in ("c", "d"):
                outbox.put(event(text))
            flush(outbox)
            in_flight = outbox.take()
            assert in_flight is not None
            assert in_flight.message.payload == "c"
            remount("rw")
            wait_until(lambda: outbox.report().store == "disk", "the disk's return")
            # Entries that could not be read at the start are taken now; those in flight not twice.
            assert [entry.message.payload for entry in iter(outbox.take, None)] == ["a", "b", "d"]
            outbox.requeue_in_flight()
            assert taken(outbox) == ["a", "b", "c", "d"]
            assert outbox.depth == 4
        assert reopened(path) == (["a", "b", "c", "d"], 0)


def test_a_second_daemon_does_not_send_the_messages_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    with Outbox(path) as first:
        first.put(event("a"))
        flush(first)
        with Outbox(path) as second:
            report = second.report()
            assert report.store == "memory"
            assert report.why is not None
            assert "locked" in report.why
            assert second.take() is None
        assert taken(first) == ["a"]


def file_with(
    messages: list[Message], limits: Limits, *, after: int = 0
) -> tuple[list[str], Counter[str]]:
    """Return the payloads left of messages put one a second, and the losses."""
    file = OutboxFile(None)
    lost: Counter[str] = Counter()
    for number, one in enumerate(messages, start=1):
        entry = Entry(number, number, one)
        lost += file.write(removed=(), added=[entry], limits=limits, after=after, now_s=number)
    left = [entry.message.payload for entry in file.entries()]
    file.close()
    return left, lost


def test_a_full_outbox_thins_out_old_repeats_first() -> None:
    repeats = [message(str(number), priority=Priority.REPEAT) for number in range(8)]
    left, lost = file_with([event("e"), *repeats], Limits(8, 1 << 20, 3600))
    assert left == ["e", "0", "2", "4", "5", "6", "7"]
    assert lost == {"thinned": 2}


def test_each_topic_is_thinned_out_separately() -> None:
    both = [
        message(f"{topic}{number}", topic=topic, priority=Priority.REPEAT)
        for number in range(4)
        for topic in ("mixture", "substance")
    ]
    left, _ = file_with([*both, event("e")], Limits(8, 1 << 20, 3600))
    assert left == ["mixture0", "substance0", *(one.payload for one in both[4:]), "e"]


def test_events_are_dropped_last() -> None:
    many = [event("e0"), message("p0"), event("e1"), message("p1"), event("e2"), event("e3")]
    left, lost = file_with(many, Limits(3, 1 << 20, 3600))
    assert left == ["e1", "e2", "e3"]
    assert lost == {"predictions": 2, "events": 1}


def test_the_size_of_payloads_is_bounded() -> None:
    left, lost = file_with([event("x" * 40) for _ in range(10)], Limits(1000, 100, 3600))
    assert left == ["x" * 40] * 2
    assert lost == {"events": 8}


def test_messages_of_any_kind_expire() -> None:
    left, lost = file_with([event(str(number)) for number in range(1, 21)], Limits(1000, 9999, 5))
    assert left == [str(number) for number in range(15, 21)]
    assert lost == {"expired": 14}


def test_entries_in_flight_are_not_dropped() -> None:
    left, lost = file_with([event(text) for text in "abcdef"], Limits(3, 1 << 20, 3600), after=2)
    assert left == ["a", "b", "f"]
    assert lost == {"events": 3}


def test_commits_and_written_bytes_are_counted(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        before = outbox.report()
        for number in range(300):
            outbox.put(event(json.dumps({"seq": number, "text": "x" * 900})))
            if number % 10 == 0:
                flush(outbox)
        flush(outbox)
        report = outbox.report()
    assert report.commits - before.commits >= 30
    # At least every payload once into the log; at most some pages for every message.
    assert 300 * 900 < report.written_bytes - before.written_bytes < 300 * 10 * 4096


TIGHT = Limits(messages=8, size_bytes=60, age_s=86_400)


class OutboxAgainstAList(RuleBasedStateMachine):
    """Any sequence of operations, lost connections and crashes leaves what a list would hold.

    `waiting` is the list, in order; `taken` is what is in flight of it; `gone` is what was
    acknowledged since the latest write, and may or may not come back after a crash.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="scentd-outbox-"))
        self.starts = 0
        self.path = self.folder / "0" / "outbox.sqlite"
        self.outbox = Outbox(self.path, TIGHT).start()
        self.waiting: dict[int, Message] = {}
        self.taken: list[int] = []
        self.gone: dict[int, Message] = {}
        self.cursor = self.newest = 0
        self.lost: Counter[str] = Counter()

    @rule(
        topic=st.sampled_from(["substance", "mixture"]),
        priority=st.sampled_from(list(Priority)),
        size=st.integers(2, 12),
    )
    def put(self, topic: str, priority: Priority, size: int) -> None:
        self.newest += 1
        one = Message(
            topic, str(self.newest).ljust(size, "x"), 1, priority < Priority.KEPT, priority
        )
        self.outbox.put(one)
        flush(self.outbox)
        self.waiting[self.newest] = one
        self.gone.clear()
        self.make_room()

    def make_room(self) -> None:
        while self.excess() > 0 and (thinned := self.every_second_repeat()):
            self.drop("thinned", thinned)
        for priority, kind in ((Priority.CHANGE, "predictions"), (Priority.KEPT, "events")):
            while self.excess() > 0 and (older := self.not_in_flight(priority)):
                self.drop(kind, older[: self.excess()])

    def excess(self) -> int:
        size = sum(len(one.payload) for one in self.waiting.values())
        return max(len(self.waiting) - TIGHT.messages, int(size > TIGHT.size_bytes))

    def not_in_flight(self, most: Priority) -> list[int]:
        return [
            number
            for number, one in self.waiting.items()
            if number > self.cursor and one.priority <= most
        ]

    def every_second_repeat(self) -> list[int]:
        repeats = self.not_in_flight(Priority.REPEAT)
        half = repeats[: max(2, len(repeats) // 2)]
        topics = {self.waiting[number].topic for number in half}
        return [
            number
            for topic in topics
            for number in [one for one in half if self.waiting[one].topic == topic][1::2]
        ]

    def drop(self, kind: str, numbers: list[int]) -> None:
        for number in numbers:
            del self.waiting[number]
        self.lost[kind] += len(numbers)

    @rule()
    def take(self) -> None:
        entry = self.outbox.take()
        following = [number for number in self.waiting if number > self.cursor]
        if not following:
            assert entry is None
            return
        assert entry is not None
        assert (entry.id, entry.message) == (following[0], self.waiting[following[0]])
        self.cursor = entry.id
        self.taken.append(entry.id)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.taken))
        self.outbox.acknowledge(number)
        self.taken.remove(number)
        self.gone[number] = self.waiting.pop(number)

    @rule()
    def lose_the_connection(self) -> None:
        self.outbox.requeue_in_flight()
        if self.taken:
            self.cursor = min(self.taken) - 1
        self.taken.clear()

    @rule()
    def restart(self) -> None:
        self.outbox.close()
        self.begin(self.path)
        self.gone.clear()
        self.after_a_start()

    @rule()
    def crash(self) -> None:
        self.starts += 1
        path = self.folder / str(self.starts) / "outbox.sqlite"
        shutil.copytree(self.path.parent, path.parent)
        self.outbox.close()
        self.begin(path)
        self.after_a_start()

    def begin(self, path: Path) -> None:
        self.path = path
        self.outbox = Outbox(path, TIGHT).start()

    def after_a_start(self) -> None:
        self.taken.clear()
        self.lost.clear()
        found = {entry.id: entry.message for entry in iter(self.outbox.take, None)}
        self.outbox.requeue_in_flight()
        possible = dict(sorted({**self.waiting, **self.gone}.items()))
        assert list(found) == [number for number in possible if number in found]
        assert self.waiting.items() <= found.items() <= possible.items()
        self.waiting, self.gone = found, {}
        # Ids continue after the highest left: one that was acknowledged may be used again.
        self.newest = max(found, default=0)
        self.cursor = min(found, default=1) - 1

    @invariant()
    def counts_agree(self) -> None:
        assert self.outbox.depth == len(self.waiting)
        assert Counter(self.outbox.report().dropped) == self.lost

    def teardown(self) -> None:
        self.outbox.close()
        shutil.rmtree(self.folder)


TestOutboxAgainstAList = OutboxAgainstAList.TestCase
TestOutboxAgainstAList.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True
)


def test_messages_put_together_are_written_with_one_commit(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db") as outbox:
        before = outbox.report().commits
        with outbox.one_commit():
            outbox.put(message("first", topic="event", priority=Priority.KEPT))
            outbox.put(message("second", topic="substance"))
            outbox.put(message("third", topic="mixture"))
            assert outbox.take() is None
        wait_until(lambda: outbox.report().commits > before, "a commit")
        assert outbox.report().commits == before + 1
        assert [entry.message.payload for entry in iter(outbox.take, None)] == [
            "first",
            "second",
            "third",
        ]


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let every transaction on disk wait for the event that is returned."""
    answers = threading.Event()
    answers.set()
    write = OutboxFile.write

    def slow(self: OutboxFile, **arguments: Any) -> Any:
        if self._wal is not None:
            answers.wait()
        return write(self, **arguments)

    monkeypatch.setattr(OutboxFile, "write", slow)
    monkeypatch.setattr(module, "HANGS_AFTER_S", 0.2)
    yield answers
    answers.set()


def await_entry(outbox: Outbox) -> Entry:
    found: list[Entry] = []
    wait_until(lambda: found.extend(filter(None, [outbox.take()])) or found, "a message")
    return found[0]


def test_messages_are_delivered_from_memory_while_the_disk_hangs(
    tmp_path: Path, hanging: threading.Event, impatient: None
) -> None:
    path = tmp_path / "outbox.sqlite"
    with Outbox(path) as outbox:
        outbox.put(event("before"))
        sent = [await_entry(outbox)]
        hanging.clear()
        for number in range(5):
            outbox.put(event(str(number)))
        sent += [await_entry(outbox) for _ in range(5)]
        assert [entry.message.payload for entry in sent] == ["before", *"01234"]
        assert outbox.report().store == "memory"
        assert "has not answered" in str(outbox.report().why)
        for entry in sent[:4]:
            outbox.acknowledge(entry.id)
        hanging.set()
        outbox.put(event("after"))
        wait_until(lambda: outbox.report().store == "disk", "the disk")
        assert await_entry(outbox).message.payload == "after"
        assert outbox.depth == 3
    # What the commit wrote that hung is neither lost nor there twice.
    assert reopened(path)[0] == ["3", "4", "after"]


def test_the_end_waits_for_no_disk(tmp_path: Path, hanging: threading.Event) -> None:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        hanging.clear()
        outbox.put(event("lost"))
        outbox.files.deadline_s = 0.0
    hanging.set()
