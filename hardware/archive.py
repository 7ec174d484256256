"""Ground floor: recordings as Parquet files, partitioned by rig and day.

`ARCHIVE/rig=RIG/day=YYYY-MM-DD/NAME.parquet` holds one recording, `NAME.csv`: a row for every
reading, exactly as `RecordingStream` decodes it, with its session and label, and what else a replay
needs in the file's metadata. Tables of others (pandas, DuckDB, Spark) read the whole archive.

May import the readers of recordings and numpy; pyarrow (the extra `archive`) is imported where a
file is written or read. `hardware/archived_recording.py` reads.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.channels import CHANNEL_NAMES, N_CHANNELS
from hardware.extras import require_extra
from hardware.files import write_atomically
from hardware.recording_stream import RecordingStream
from hardware.segment_names import recording_date

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from hardware.frames import SensorFrame
    from hardware.recording_labels import RecordingLabels

SUFFIX = ".parquet"
UNDATED = "undated"
"""The day of a recording whose name states none."""

FORMAT = 1
METADATA = b"scentd"
"""Key of the file's metadata that holds an `ArchiveEntry` as JSON."""

COMPRESSED = ".gz"
TIME, SEQUENCE, LOST, RESTARTED = "timestamp_ms", "frame_seq", "lost_before", "restarted"
QUALITY = "quality"
_ROWS = 50_000
"""Readings in a row group: some 3 MB in memory."""


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """What is known of an archived recording besides its readings.

    Attributes
    ----------
    name: of the recording's file, without `.gz`.
    session: the day in its name, or what its owner named.
    sha256: of its bytes, unpacked or not, as they lay on the disk.
    readings: how many there are.
    next_number: what a reading after the last one would be numbered.
    published: whether its layout is one of the published ones, which lie within one exposure.
    torn: whether its last line was incomplete, and left out.
    rejected: lines that may have been readings and could not be read.
    labels: its labelled stretches, as `RecordingLabels.as_json` states them.
    notes: what its columns were taken for, where they are not plain.
    format: of the archive.
    """

    name: str
    session: str
    sha256: str
    readings: int
    next_number: int
    published: bool
    torn: bool
    rejected: int
    labels: list[dict[str, Any]]
    notes: list[str]
    format: int = FORMAT


def require_pyarrow() -> None:
    """Raise `ExtraNotInstalledError` if pyarrow is not installed."""
    require_extra("An archive", "archive", ("pyarrow",))


def recording_name(path: Path) -> str:
    """Return the name of a recording's file without `.gz`, also of an archived one."""
    name = path.name.removesuffix(COMPRESSED)
    return f"{name.removesuffix(SUFFIX)}.csv" if name.endswith(SUFFIX) else name


def partition(root: Path, rig: str, day: str) -> Path:
    """Return the folder of a rig's day in an archive."""
    return root / f"rig={rig}" / f"day={day}"


def day_of(path: Path) -> str:
    """Return the UTC day in a recording's name, or `UNDATED`."""
    return recording_date(path) or UNDATED


def archive_recording(
    root: Path, source: Path, *, rig: str, session: str, labels: RecordingLabels
) -> tuple[Path, int | None]:
    """Write a recording into an archive, whole or not at all.

    Returns
    -------
    its file, and how many readings were written; None where the same recording with the same
    session and labels is there already.

    Raises
    ------
    RecordingError: it cannot be read.
    OSError: the disk refuses.
    """
    require_pyarrow()
    name = recording_name(source)
    path = partition(root, rig, day_of(source)) / f"{name.removesuffix('.csv')}{SUFFIX}"
    with source.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    before = read_entry(path) if path.is_file() else None
    if before is not None and (before.sha256, before.session, before.labels, before.format) == (
        sha256, session, labels.as_json(), FORMAT,
    ):  # fmt: skip
        return path, None
    recording = RecordingStream([source])
    entry = ArchiveEntry(
        name=name,
        session=session,
        sha256=sha256,
        readings=len(recording),
        next_number=recording.next_number,
        published=recording.published,
        torn=recording.torn,
        rejected=recording.counts.damaged + recording.torn,
        labels=labels.as_json(),
        notes=list(recording.notes),
    )
    write_atomically(path, _parquet(recording, entry, labels))
    return path, len(recording)


def read_entry(path: Path) -> ArchiveEntry | None:
    """Return what a file of an archive says of its recording; None where it is none, or damaged."""
    parquet = import_module("pyarrow.parquet")
    try:
        document = json.loads(parquet.read_metadata(path).metadata[METADATA])
        return ArchiveEntry(**document)
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are among them
        return None


def schema() -> pa.Schema:
    """Return the columns of an archived recording; `rig` and `day` are those of its folders."""
    pa = import_module("pyarrow")
    word = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("recording", word),
            ("session", word),
            ("label", word),
            (SEQUENCE, pa.int64()),
            (TIME, pa.int64()),
            *((channel, pa.float32()) for channel in CHANNEL_NAMES),
            (QUALITY, pa.binary(N_CHANNELS)),
            (LOST, pa.int64()),
            (RESTARTED, pa.bool_()),
        ]
    )


def _parquet(recording: RecordingStream, entry: ArchiveEntry, labels: RecordingLabels) -> bytes:
    """Return the recording as the bytes of a Parquet file."""
    pa, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    document = json.dumps(dataclasses.asdict(entry))
    columns = schema().with_metadata({METADATA: document})
    target = pa.BufferOutputStream()
    with parquet.ParquetWriter(
        target, columns, compression="zstd", write_page_checksum=True
    ) as writer:
        every = recording.frames()
        while frames := list(islice(every, _ROWS)):
            writer.write_table(_table(frames, columns, entry, labels))
    return bytes(target.getvalue())


def _table(
    frames: Sequence[SensorFrame],
    columns: pa.Schema,
    entry: ArchiveEntry,
    labels: RecordingLabels,
) -> pa.Table:
    pa = import_module("pyarrow")
    values = np.stack([frame.values for frame in frames])
    times = [frame.device_ms for frame in frames]
    named = [None if time is None else labels.at(time) for time in times]
    count = len(frames)
    arrays = {
        "recording": pa.array([entry.name.removesuffix(".csv")] * count),
        "session": pa.array([entry.session] * count),
        "label": pa.array(named, pa.string()),
        SEQUENCE: pa.array([frame.frame_seq for frame in frames], pa.int64()),
        TIME: pa.array(times, pa.int64()),
        # As they are, NaN and infinity included: never as a missing value.
        **{
            channel: pa.array(np.ascontiguousarray(values[:, place]))
            for place, channel in enumerate(CHANNEL_NAMES)
        },
        QUALITY: pa.array([frame.quality.tobytes() for frame in frames], pa.binary(N_CHANNELS)),
        LOST: pa.array([frame.lost_before for frame in frames], pa.int64()),
        RESTARTED: pa.array([frame.restarted for frame in frames]),
    }
    return pa.table([arrays[name].cast(columns.field(name).type) for name in arrays], columns)
