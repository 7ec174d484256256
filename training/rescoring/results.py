"""training/: the predictions of one recording and one model as a Parquet file.

`OUTPUT/rig=RIG/day=DAY/RECORDING--MODEL-VERSION.parquet` has one row per prediction, with what
`scentd replay --json` prints of it. The file's metadata says what it was computed from, so that a
finished file is known as such and an outdated one is replaced.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from hardware.archive import METADATA, partition
from hardware.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

    from training.rescoring.sources import Source

SUMMARY = "_recordings.parquet"
"""One row for every recording and model; readers of whole folders pass over names with `_`."""
_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Model:
    """One bundle that scores.

    Attributes
    ----------
    folder: of the bundle, or the name of a shipped one.
    name, version, sha256: of its manifest, which covers all of its files.
    precision: in which it runs, the same in every worker.
    """

    folder: str
    name: str
    version: str
    sha256: str
    precision: str


@dataclass(frozen=True, slots=True)
class ScoredPart:
    """What is known of one recording scored by one model.

    Attributes
    ----------
    rig, day, recording, session, true_label: of the recording.
    model, model_version: that scored it.
    status: `scored`; `not_fed`, it lacks what the model needs; `failed`, it cannot be read.
    reason: why it was not scored, else None.
    readings, predictions: how many.
    label, probability, decided_s: what was recognised last, and since when, as `scentd replay` sums
        up; None where nothing was.
    identity: hash of everything that it was computed from.
    """

    rig: str
    day: str
    recording: str
    session: str
    true_label: str | None
    model: str
    model_version: str
    status: str
    reason: str | None = None
    readings: int = 0
    predictions: int = 0
    label: str | None = None
    probability: float | None = None
    decided_s: float | None = None
    identity: str = ""

    @classmethod
    def of(cls, source: Source, model: Model, status: str, **more: Any) -> Self:
        """Return the part of a recording and a model."""
        return cls(
            rig=source.rig,
            day=source.day,
            recording=source.name,
            session=more.pop("session", source.session),
            true_label=source.label,
            model=model.name,
            model_version=model.version,
            status=status,
            **more,
        )


def result_path(output: Path, source: Source, model: Model) -> Path:
    """Return the file of a recording's predictions by a model."""
    name = f"{source.name}--{model.name}-{model.version}.parquet"
    return partition(output, source.rig, source.day) / name


def read_part(path: Path) -> ScoredPart | None:
    """Return what a finished file says of itself; None where there is none, or a damaged one."""
    parquet = import_module("pyarrow.parquet")
    try:
        return ScoredPart(**json.loads(parquet.read_metadata(path).metadata[METADATA]))
    except (OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are among them
        return None


class PredictionTable:
    """Collects the predictions of one recording and one model, as compressed columns."""

    def __init__(self) -> None:
        self._pa = import_module("pyarrow")
        self._parquet = import_module("pyarrow.parquet")
        self._schema = _schema()
        self._target = self._pa.BufferOutputStream()
        self._writer = self._parquet.ParquetWriter(
            self._target, self._schema, compression="zstd", write_page_checksum=True
        )
        self._rows: list[dict[str, Any]] = []
        self.count = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add the row of a prediction."""
        self._rows.append(row)
        self.count += 1
        if len(self._rows) == _ROWS:
            self._flush()

    def write(self, path: Path, part: ScoredPart) -> None:
        """Write the file, whole or not at all.

        Raises
        ------
        OSError: the disk refuses.
        """
        self._flush()
        self._writer.add_key_value_metadata({METADATA: json.dumps(dataclasses.asdict(part))})
        self._writer.close()
        write_atomically(path, bytes(self._target.getvalue()))

    def _flush(self) -> None:
        self._writer.write_table(self._pa.Table.from_pylist(self._rows, self._schema))
        self._rows.clear()


def write_summary(output: Path, parts: Iterable[ScoredPart]) -> None:
    """Write the table of all recordings and models."""
    pa, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    fields = [
        *((name, pa.string()) for name in ("rig", "day", "recording", "session", "true_label")),
        *((name, pa.string()) for name in ("model", "model_version", "status", "reason")),
        ("readings", pa.int64()),
        ("predictions", pa.int64()),
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("decided_s", pa.float64()),
    ]
    rows = sorted(
        map(dataclasses.asdict, parts),
        key=lambda row: (row["rig"], row["day"], row["recording"], row["model"]),
    )
    target = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), target, compression="zstd")
    write_atomically(output / SUMMARY, bytes(target.getvalue()))


def _schema() -> pa.Schema:
    """Return the columns: of the recording and model, then those of `prediction_fields`."""
    pa = import_module("pyarrow")
    word, number = pa.dictionary(pa.int32(), pa.string()), pa.float64()

    def lists(**fields: Any) -> Any:
        return pa.list_(pa.struct(list(fields.items())))

    words = pa.list_(pa.string())
    share = {"label": pa.string(), "proportion": number, "presence": number}
    covered = pa.struct([("coverage", number), ("labels", words)])
    return pa.schema(
        [
            *((name, word) for name in ("recording", "session", "true_label")),
            *((name, word) for name in ("model", "model_version", "model_sha256", "task")),
            ("t_ms", pa.int64()),
            ("timestamp_ms", pa.int64()),
            ("seq", pa.int64()),
            ("frame_seq", pa.int64()),
            ("state", word),
            ("label", word),
            ("probability", number),
            ("top", lists(label=pa.string(), probability=number)),
            ("set", covered),
            ("short_list", covered),
            ("novelty", number),
            ("descriptors", lists(name=pa.string(), fit=number)),
            ("components", lists(**share, low=number, high=number)),
            ("groups", lists(labels=words, presence=number)),
            ("candidates", lists(**share)),
            ("unexplained", pa.bool_()),
            ("reason", word),
            ("window_s", number),
            ("calibration", word),
            ("foreign_board", pa.bool_()),
            ("resampled", pa.bool_()),
            ("taught", pa.bool_()),
            ("clean_air", pa.struct([("source", pa.string()), ("age_s", number)])),
            ("channels_missing", words),
        ]
    )
