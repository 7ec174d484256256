"""Flipped bits in all that a rig keeps: no start ends, nothing is invented, losses are said.

Every kind of file is read as a start of the service reads it. The default run draws a thousand
bits, the slow one a hundred thousand.
"""

from __future__ import annotations

import gzip
import itertools
import logging
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import structlog

from calibration.rig_profile import load_profile, save_profile
from calibration.smell_set import StoreDamagedError
from calibration.smell_store import EXPOSURES, INDEX, SmellStore
from daemon.calibrate.actions import read_profile
from daemon.calibrate.captures import BASELINE, Captures, CapturesError
from daemon.config.settings import Config, SourceConfig
from daemon.installed_models.store import ACTIVE, Choice, ModelStore
from daemon.mqtt.discovery import ANNOUNCEMENT_FILE, Discovery
from daemon.mqtt.outbox import Message, Outbox
from daemon.recording.segments import list_segments, repair_segments
from hardware.recording import RecordingError, RecordingWriter, read_recording
from hardware.segment_names import segment_name
from hardware.typed_yaml import to_plain
from models.manifest import MANIFEST, BundleError, read_manifest, write_bundle
from tests.calibration.smells import PETROL, record_smell, smell_readings, teachable_bundle
from tests.calibration.test_rig_profile import _profile
from tests.models.toys import toy_files, toy_manifest

Check = Callable[[], int]
"""Reads the damaged file as a start does; returns what is lost or refused, and that was said."""


@dataclass(frozen=True)
class Kept:
    """A file that a rig keeps, and the check of what is read of it."""

    path: Path
    check: Check
    folder: Path


def messages() -> list[Message]:
    return [Message("event", f'{{"seq": {number}}}', 1, retain=False) for number in range(12)]


def kept_outbox(folder: Path) -> Kept:
    path = folder / "outbox.sqlite"
    with Outbox(path) as outbox:
        for message in messages():
            outbox.put(message)
    put = {message.payload for message in messages()}

    def check() -> int:
        outbox = Outbox(path)
        texts = [entry.message.payload for entry in iter(outbox.take, None)]
        report = outbox.report()
        outbox.close()
        assert set(texts) <= put
        assert len(texts) == len(set(texts))
        assert report.dropped["damaged"] == len(put) - len(texts) <= 1
        return report.dropped["damaged"]

    return Kept(path, check, folder)


def kept_smells(folder: Path, file: str) -> Kept:
    folder.mkdir(parents=True)
    bundle = teachable_bundle(folder.parent / "models")
    store = SmellStore(folder, [bundle])
    store.enroll("petrol", record_smell(folder.parent, PETROL), source="test", promote=True)
    before = store.smells()
    (exposure,) = before.smell("petrol").exposures
    # Of the response and of the embeddings.
    caches = sorted((store.folder / EXPOSURES).glob("*.npz"))
    path = {
        "index": store.folder / INDEX,
        "readings": store.folder / EXPOSURES / f"{exposure.id}.csv",
        "embeddings": caches[-1],
        "response": caches[0],
    }[file]

    def check() -> int:
        try:
            assert store.smells() == before
        except StoreDamagedError:
            assert store.rollback() == before
            return 1
        if file == "readings":
            for cache in caches:
                cache.unlink(missing_ok=True)
        head, problems = store.head()
        shipped = bundle.manifest.labels
        assert set(head.labels(shipped)) - set(shipped) <= {"petrol"}
        assert head.empty == bool(problems)
        return len(problems)

    return Kept(path, check, folder)


def kept_profile(folder: Path) -> Kept:
    path = folder / "calibration.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    save_profile(_profile(), path)
    before = to_plain(load_profile(path))

    def check() -> int:
        profile, trouble = read_profile(path)
        assert (profile is not None and to_plain(profile) == before) != bool(trouble)
        return int(profile is None)

    return Kept(path, check, folder)


def kept_model(folder: Path, file: str) -> Kept:
    store = ModelStore(folder)
    place = store.root / "toy-substance"
    for version in ("1.0", "1.1"):
        write_bundle(place / version, toy_manifest(version=version), toy_files())
    store.restore("toy-substance", Choice("1.0", (None,)))
    before, path = store.choice("toy-substance"), place / file
    manifest = read_manifest(place / "1.0")

    def check() -> int:
        try:
            assert read_manifest(place / "1.0") == manifest
        except BundleError:
            return 1
        choice = store.choice("toy-substance")
        assert choice in (before, Choice())
        return int(choice != before)

    return Kept(path, check, folder)


def kept_announcement(folder: Path) -> Kept:
    source = SourceConfig(port="/dev/ttyX")
    config = Config(rig_id="rig", source=source, models=("toy",), state_dir=folder)
    discovery = Discovery(config, version="1")
    topic = "homeassistant/device/scentd_rig/config"
    discovery._announced.topic = topic
    discovery._announced.components = {"substance": "sensor", "old": "sensor"}
    discovery._save()
    before = discovery._announced

    def check() -> int:
        read = Discovery(config, version="1")._announced
        assert read in (before, type(before)())
        return int(read != before)

    return Kept(folder / ANNOUNCEMENT_FILE, check, folder)


def kept_captures(folder: Path) -> Kept:
    folder.mkdir(parents=True)
    captures = Captures(folder)
    captures.keep(lambda path: path.write_bytes(b"readings"), BASELINE, None, 60.0)
    before = captures.all()

    def check() -> int:
        try:
            assert captures.all() == before
        except CapturesError:
            return 1
        return 0

    return Kept(folder / "captures.yaml", check, folder)


ROWS = 40


def kept_recording(folder: Path, *, compressed: bool) -> Kept:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / segment_name(1, 1, "20260101T000000Z")
    values = smell_readings(PETROL, ROWS)
    with RecordingWriter(path) as writer:
        for number, row in enumerate(values):
            writer.write(number * 1000, row)
    if compressed:
        packed = path.with_name(f"{path.name}.gz")
        packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()
        path = packed
    before = read_recording(path)

    def check() -> int:
        repair_segments(folder)
        list_segments(folder)
        if not path.exists():
            return 1
        try:
            recording = read_recording(path)
        except RecordingError:
            return 1
        # A flipped line end joins two rows into one that is refused; a flipped letter of the
        # header costs a column. A flipped digit of a plain text is another number, which nothing
        # can tell; a compressed segment has a checksum.
        lost, counts = ROWS - len(recording), recording.counts
        assert 0 <= lost <= counts.damaged + counts.text + recording.torn + 1
        if lost == 0:
            changed = ~np.isclose(recording.values, before.values, equal_nan=True)
            changed &= ~np.isnan(recording.values)
            assert changed.sum() <= (0 if compressed else 1)
        return lost

    return Kept(path, check, folder)


@pytest.fixture
def kept(tmp_path: Path) -> list[Kept]:
    """Return one file of every kind, each in a state folder of its own."""
    place = (tmp_path / str(number) / "state" for number in itertools.count())
    return [
        kept_outbox(next(place)),
        *(
            kept_smells(next(place), file)
            for file in ("index", "readings", "embeddings", "response")
        ),
        kept_profile(next(place)),
        *(kept_model(next(place), file) for file in (f"1.0/{MANIFEST}", ACTIVE)),
        kept_announcement(next(place)),
        kept_captures(next(place)),
        *(kept_recording(next(place), compressed=packed) for packed in (False, True)),
    ]


def flip(kept: list[Kept], count: int) -> dict[str, int]:
    """Flip one bit after the other, each in whole files; return the losses by file."""
    # A hundred thousand refusals are not read by anybody.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    draw = random.Random(20)
    lost = {one.path.name: 0 for one in kept}
    whole = [(one, one.path.read_bytes()) for one in kept]
    for one in kept:
        shutil.copytree(one.folder, one.folder.with_name("whole"))
    for number in range(count):
        one, content = whole[number % len(whole)]
        bit = draw.randrange(8 * len(content))
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        one.path.write_bytes(damaged)
        try:
            lost[one.path.name] += one.check()
        except BaseException as error:
            raise AssertionError(f"bit {bit} of {one.path.name}: {error!r}") from error
        shutil.rmtree(one.folder)
        shutil.copytree(one.folder.with_name("whole"), one.folder)
    return lost


def test_no_flipped_bit_in_the_state_ends_a_start_or_invents_anything(kept: list[Kept]) -> None:
    lost = flip(kept, 1000)
    # The checks see the damage: most bits of these files matter.
    assert all(lost[name] > 10 for name in (INDEX, MANIFEST, ACTIVE, "calibration.yaml"))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_hundred_thousand_flipped_bits(kept: list[Kept]) -> None:
    flip(kept, 100_000)
