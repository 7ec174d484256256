"""A damaged outbox: the start survives it, nothing is invented, and every loss is counted."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.mqtt import outbox_repair
from daemon.mqtt.outbox import Message, Outbox, Priority
from daemon.mqtt.outbox_damage import damage_recognised
from daemon.mqtt.outbox_rows import DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECTOR = 512


def message(number: int, padding: int) -> Message:
    text = f'{{"seq": {number}, "text": "{"x" * padding}"}}'
    if number % 2:
        return Message("event", text, 1, retain=False)
    return Message("substance", text, 1, retain=True, priority=Priority.CHANGE)


@dataclass
class Stored:
    """Files of an outbox, the payloads that wait in it, and those delivered from it before."""

    files: dict[str, bytes]
    waiting: set[str]
    delivered: set[str]

    def size(self, name: str) -> int:
        return len(self.files[name])


def stored(folder: Path, count: int, padding: Callable[[int], int], *, killed: bool) -> Stored:
    """Write an outbox that was closed, or killed before its log was written into the file."""
    messages = [message(number, padding(number)) for number in range(count)]
    with Outbox(folder / "outbox.sqlite") as outbox:
        for one in messages:
            outbox.put(one)
            if killed:
                assert outbox.flush(60.0)
        assert outbox.flush(60.0)
        delivered = []
        for _ in range(3):
            entry = outbox.take()
            assert entry is not None
            outbox.acknowledge(entry.id)
            delivered.append(entry.message.payload)
        if killed:
            messages.append(message(count, padding(count)))
            outbox.put(messages[-1])
            assert outbox.flush(60.0)
            files = read_files(folder)
    waiting = {one.payload for one in messages} - set(delivered)
    return Stored(files if killed else read_files(folder), waiting, set(delivered))


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_survival(what: Stored, name: str, damaged: bytes, folder: Path) -> int:
    """Open the files with one of them damaged; return how many messages were lost."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for other, content in what.files.items():
        (folder / other).write_bytes(damaged if other == name else content)
    outbox = Outbox(folder / "outbox.sqlite")
    texts = [entry.message.payload for entry in iter(outbox.take, None)]
    outbox.requeue_in_flight()
    outbox.put(message(-1, 0))
    with outbox:
        assert outbox.flush(60.0)
    report = outbox.report()
    assert report.store == "disk"
    assert len(texts) == len(set(texts))
    assert set(texts) <= what.waiting | what.delivered
    missing = what.waiting - set(texts)
    assert report.dropped == {**dict.fromkeys(report.dropped, 0), "damaged": len(missing)}
    assert report.set_aside <= 1
    return len(missing)


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def few(_: int) -> int:
    return 40


def sizes(number: int) -> int:
    """Return paddings of which some need pages of their own."""
    return 9000 if number % 50 == 0 else 900


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_no_flipped_bit_ends_a_start_or_loses_a_message_uncounted(
    tmp_path: Path, *, killed: bool
) -> None:
    what = stored(tmp_path / "outbox", 12, few, killed=killed)
    draw = random.Random(20)
    for name in what.files:
        for _ in range(200):
            damaged = flipped(what.files[name], draw.randrange(8 * what.size(name)))
            assert check_survival(what, name, damaged, tmp_path / "copy") <= 1


@pytest.mark.slow
def test_no_bit_of_a_small_file_ends_a_start_or_loses_a_message_uncounted(tmp_path: Path) -> None:
    what = stored(tmp_path / "outbox", 12, few, killed=False)
    content = what.files["outbox.sqlite"]
    for bit in range(8 * len(content)):
        damaged = flipped(content, bit)
        assert check_survival(what, "outbox.sqlite", damaged, tmp_path / "copy") <= 1


def sectors(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield a file with each of its sectors overwritten, in turn by zeros, ones and noise."""
    for number, start in enumerate(range(0, len(content), SECTOR)):
        junk = (bytes(SECTOR), b"\xff" * SECTOR, random.Random(number).randbytes(SECTOR))[
            number % 3
        ]
        yield number, content[:start] + junk + content[start + SECTOR :]


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_no_damaged_sector_loses_a_message_uncounted(tmp_path: Path, *, killed: bool) -> None:
    what = stored(tmp_path / "outbox", 60, sizes, killed=killed)
    for name in what.files:
        for number, damaged in sectors(what.files[name]):
            if number % 7 == 0:
                check_survival(what, name, damaged, tmp_path / "copy")


@pytest.mark.slow
def test_no_damaged_sector_of_a_large_file_loses_a_message_uncounted(tmp_path: Path) -> None:
    what = stored(tmp_path / "outbox", 2000, sizes, killed=False)
    for _, damaged in sectors(what.files["outbox.sqlite"]):
        check_survival(what, "outbox.sqlite", damaged, tmp_path / "copy")


def test_a_letter_of_a_topic_that_is_no_text_any_more_costs_that_message_alone(
    tmp_path: Path,
) -> None:
    what = stored(tmp_path / "outbox", 12, few, killed=False)
    content = what.files["outbox.sqlite"]
    letter = content.index(b"event{") + 2
    damaged = flipped(content, 8 * letter + 7)
    assert check_survival(what, "outbox.sqlite", damaged, tmp_path / "copy") == 1


@pytest.mark.parametrize("name", ["outbox.sqlite", "outbox.sqlite-wal", "outbox.sqlite-journal"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "loop"])
def test_a_thing_that_is_no_file_is_set_aside(tmp_path: Path, name: str, kind: str) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(b"not mine")
    path = tmp_path / "state" / name
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
        (path / "inside").touch()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else target)
    with Outbox(tmp_path / "state" / "outbox.sqlite") as outbox:
        outbox.put(message(1, 0))
        assert outbox.flush(60.0)
        report = outbox.report()
    assert (report.store, report.set_aside) == ("disk", 1)
    assert target.read_bytes() == b"not mine"
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


def test_a_replacement_that_was_killed_is_finished_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = stored(tmp_path, 12, few, killed=True)
    for name, content in what.files.items():
        (tmp_path / name).write_bytes(content)
    log = tmp_path / "outbox.sqlite-wal"
    log.write_bytes(flipped(what.files[log.name], 8 * 40_000))
    with monkeypatch.context() as patched:
        patched.setattr(outbox_repair, "finish_replacement", lambda _: None)
        outbox_repair.replace_damaged(tmp_path / "outbox.sqlite")
    # Killed between two renames: the log is put away, and the damaged file is not.
    log.rename(tmp_path / "outbox.sqlite.damaged-20260101T000000Z-wal")
    outbox = Outbox(tmp_path / "outbox.sqlite")
    assert {entry.message.payload for entry in iter(outbox.take, None)} == what.waiting
    outbox.close()
    assert not list(tmp_path.glob("*.sav*"))


def test_errors_of_the_disk_may_pass_and_all_others_are_damage(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite", isolation_level=None) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("CREATE TABLE one (x)")
        with (
            sqlite3.connect(tmp_path / "other.sqlite", timeout=0) as second,
            pytest.raises(sqlite3.OperationalError, match="locked"),
            damage_recognised(),
        ):
            second.execute("SELECT * FROM one")
    for error in (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), TypeError(), OverflowError()):
        with pytest.raises(DamagedError), damage_recognised():
            raise error
    with pytest.raises(DamagedError, match="no such table"), damage_recognised():
        holder.execute("SELECT * FROM messages")


@pytest.mark.parametrize("deleted", ["outbox.sqlite", "outbox.sqlite-wal", "."])
def test_a_file_deleted_while_it_is_in_use_is_written_again(tmp_path: Path, deleted: str) -> None:
    folder = tmp_path / "state"
    messages = [message(number, 40) for number in range(30)]
    with Outbox(folder / "outbox.sqlite") as outbox:
        for one in messages[:20]:
            outbox.put(one)
        assert outbox.flush(60.0)
        entry = outbox.take()
        assert entry is not None
        target = folder / deleted
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        for one in messages[20:]:
            outbox.put(one)
        assert outbox.flush(60.0)
        outbox.acknowledge(entry.id)
        again = Outbox(shutil.copytree(folder, tmp_path / "killed") / "outbox.sqlite")
        left = [one.message.payload for one in iter(outbox.take, None)]
        report = outbox.report()
    assert [one.message.payload for one in iter(again.take, None)] == [
        one.payload for one in messages
    ]
    again.close()
    assert left == [one.payload for one in messages[1:]]
    assert (report.store, report.set_aside, sum(report.dropped.values())) == ("disk", 0, 0)


def test_a_deleted_file_that_cannot_be_written_again_is_kept_open(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    messages = [message(number, 40) for number in range(30)]
    with Outbox(folder / "outbox.sqlite") as outbox:
        for one in messages[:20]:
            outbox.put(one)
        assert outbox.flush(60.0)
        shutil.rmtree(folder)
        folder.write_text("a file where the folder was")
        for one in messages[20:]:
            outbox.put(one)
        assert outbox.flush(60.0)
        assert outbox.report().store == "memory"
        assert [one.message.payload for one in iter(outbox.take, None)] == [
            one.payload for one in messages
        ]
        outbox.requeue_in_flight()
        folder.unlink()
    with Outbox(folder / "outbox.sqlite") as outbox:
        assert [one.message.payload for one in iter(outbox.take, None)] == [
            one.payload for one in messages
        ]
