"""training/: labelled recordings with their groups and folds, and every oddity counted.

Reads folders of recordings with the daemon's decoder. Needs no torch: `scent-train evaluate` runs
on a machine without it. Timestamps, the order of files and environment channels are never
something to learn from.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import GROVE_INDICES, channel_index
from hardware.errors import ScentdError, UsageError
from hardware.frames import Quality
from hardware.recording import read_recordings
from models.rate_conversion import SLOWEST_SHARE, resample
from training.data.layouts import label_name
from training.data.notices import RecordingNotices, count_oddities
from training.data.recording_files import find_recordings, is_recording_name, visible_files
from training.data.recording_parts import part_of
from training.data.sessions import read_session_table, session_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_FOLDS = 5
"""The base data has five recordings of each substance: one of each per fold."""

OUT_OF_ORDER = 0.9
"""Mean difference of neighbouring rows, in standard deviations, from which on the rows of a
recording are not in the order of time."""
MIN_ROWS_TO_JUDGE = 50

_INDEX_NAME = "mixture_index.csv"
_COMPONENT = re.compile(r"([A-Za-z]+)_?(\d+(?:\.\d+)?)?(?=_|$)")
_MIXTURE_NAME = re.compile(r"[A-Za-z]+_?(\d+(\.\d+)?)?(_[A-Za-z]+_?\d+(\.\d+)?)*")
"""Substances with their percent, which a lone substance may omit."""

_INDEX_KEYS = frozenset({"file", "recording", "in_seen_split"})


class DataError(ScentdError):
    """The data is not laid out as expected; the message names the layouts that are read."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One labelled recording.

    Attributes
    ----------
    name: path below the data folder, with forward slashes.
    sha256: of the file's bytes; of all files' bytes where segments were joined.
    values: float32[n, 12] in the channel table's order, NaN where unusable.
    target: float32[labels], proportions summing to 1 (one-hot for a single substance).
    group: recordings with the same group must not be split across folds.
    rate_hz: nominal rate of the recording.
    in_order: whether its rows are in the order of time, by `is_in_order`.
    session: the rig, place and day that it belongs to (`training.data.sessions`); empty where that
        is not known.
    time_ms: float64[n], when each row was measured; None where the rows are evenly spaced.
    """

    name: str
    sha256: str
    values: NDArray[np.float32]
    target: NDArray[np.float32]
    group: str
    rate_hz: float
    in_order: bool = True
    session: str = ""
    time_ms: NDArray[np.float64] | None = None

    def at_rate(self, rate_hz: float) -> Sample:
        """Return the recording at another rate; the same object where its own is close enough.

        Raises
        ------
        DataError: it is too slow for that rate.
        """
        values = resample(self.values, self.time_ms, self.rate_hz, rate_hz)
        if values is None:
            raise DataError(
                f"Expected recordings of at least {SLOWEST_SHARE * rate_hz:.3g} Hz for a model at "
                f"{rate_hz:g} Hz; {self.name} has {self.rate_hz:.3g} Hz. Move it away, or set a "
                "lower preprocessing.rate_hz (`scent-train init` writes one that fits)."
            )
        if values is self.values:
            return self
        return dataclasses.replace(self, values=values, rate_hz=rate_hz, time_ms=None)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled recordings.

    Attributes
    ----------
    task: "substance" or "mixture".
    labels: the order of every sample's target.
    samples: the recordings, sorted by name.
    oddities: how often each oddity of the data was found, for the log and the model card.
    folder: where the recordings were read; tables about the substances lie in it or above it.
    notices: sentences about files that were not read and about what is doubtful.
    """

    task: str
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    oddities: dict[str, int] = field(default_factory=dict)
    folder: Path | None = None
    notices: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of every file's hash and name, sorted."""
        lines = sorted(f"{sample.sha256}  {sample.name}\n" for sample in self.samples)
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def targets(self) -> NDArray[np.float32]:
        """float32[recordings, labels]."""
        return np.stack([sample.target for sample in self.samples])

    def at_rate(self, rate_hz: float) -> Dataset:
        """Return the data set with every recording at a model's rate (`resampling.resample`)."""
        samples = tuple(sample.at_rate(rate_hz) for sample in self.samples)
        changed = sum(one is not two for one, two in zip(samples, self.samples, strict=True))
        oddities = self.oddities | ({"recordings_resampled": changed} if changed else {})
        return dataclasses.replace(self, samples=samples, oddities=oddities)

    def require_channels(self, names: Sequence[str]) -> None:
        """Refuse recordings without a single usable reading of a channel that a model requires.

        Raises
        ------
        DataError: the first channel with such recordings.
        """
        for name in names:
            column = channel_index(name)
            dead = [s.name for s in self.samples if not np.isfinite(s.values[:, column]).any()]
            if dead:
                raise DataError(
                    f"Expected readings of {name}, which the model requires, in every recording; "
                    f"{len(dead)} have none, {dead[0]} among them. Move them away, or leave {name} "
                    "out of preprocessing.channels and required_channels (`scent-train init` does)."
                )

    def drop_unordered(self) -> Dataset:
        """Return the data set without the recordings whose rows are out of time order."""
        return self.subset(np.array([sample.in_order for sample in self.samples]))

    def subset(self, keep: NDArray[np.bool_]) -> Dataset:
        """Return the data set of the samples where `keep` bool[recordings] is true."""
        samples = tuple(s for s, kept in zip(self.samples, keep, strict=True) if kept)
        return dataclasses.replace(self, samples=samples)

    def select_labels(self, chosen: NDArray[np.bool_]) -> Dataset:
        """Return the recordings of the chosen labels bool[labels], with only those labels."""
        kept = self.subset(chosen[self.targets.argmax(axis=1)])
        return dataclasses.replace(
            kept,
            labels=tuple(np.array(self.labels)[chosen].tolist()),
            samples=tuple(dataclasses.replace(s, target=s.target[chosen]) for s in kept.samples),
        )


FileProgress = Callable[[Iterable[Path]], Iterable[Path]]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A recording to load.

    Attributes
    ----------
    name: path of its first file below the data folder.
    paths: its files, several where segments of the service are joined.
    group: recordings with the same group must not be split across folds.
    proportions: its shares by label.
    session: as its path says.
    part_ms: times of the first and last row that belong to it; None for all.
    """

    name: str
    paths: tuple[Path, ...]
    group: str
    proportions: dict[str, float]
    session: str = ""
    part_ms: tuple[int, int] | None = None


def load_substances(
    folder: Path, labels: Sequence[str] | None = None, progress: FileProgress = iter
) -> Dataset:
    """Load FOLDER/LABEL/*.csv and FOLDER/LABEL/SESSION/*.csv; every recording is its own group.

    Parameters
    ----------
    folder: one sub-folder per substance; its name is spelt as `label_name` spells it.
    labels: the label order to use; folders must be among them. None takes the folders' names.
    progress: wraps the list of files, to draw a progress bar.

    Raises
    ------
    DataError: no labelled recording there, or the same recording under two labels.
    UsageError: a folder's name is not among `labels`.
    """
    files = find_recordings(folder)
    if not files.recordings:
        raise DataError(
            f"Expected recordings as {folder}/LABEL/*.csv or {folder}/LABEL/SESSION/*.csv, found "
            "none. Name the folder that holds one sub-folder per substance. "
            + " ".join(files.notices)
        )
    found = sorted({label_name(one.label_folder) for one in files.recordings})
    order = tuple(labels or found)
    spelt = {label_name(label): label for label in order}
    _refuse_unknown(folder, "folders", set(found) - set(spelt), order)
    entries = [
        _Entry(
            one.name,
            one.paths,
            one.name,
            {spelt[label_name(one.label_folder)]: 1.0},
            one.session,
            one.part_ms,
        )
        for one in files.recordings
    ]
    data = _load("substance", folder, entries, order, progress)
    _refuse_two_labels(data)
    return dataclasses.replace(data, notices=(*files.notices, *data.notices))


def load_mixtures(
    folder: Path,
    index: Path | None = None,
    labels: Sequence[str] | None = None,
    progress: FileProgress = iter,
) -> Dataset:
    """Load mixture recordings, with their proportions from the index or from their names.

    Parameters
    ----------
    folder: holds the CSVs, in sub-folders if need be.
    index: a CSV with `file`, `recording` and one column of proportions per substance; None
        looks for `mixture_index.csv` in the folder and beside it, then falls back on names
        such as `Almond20_Orange80.ID.csv`.
    labels: the label order; None takes the index's columns, or the names found.
    progress: wraps the list of files, to draw a progress bar.
    """
    path = index or next(
        (p for p in (folder / _INDEX_NAME, folder.parent / _INDEX_NAME) if p.is_file()), None
    )
    entries, columns = _read_index(path, folder) if path else (_parse_names(folder), [])
    names = {label for entry in entries for label in entry.proportions}
    order = tuple(labels or columns or sorted(names))
    _refuse_unknown(folder, "components", names - set(order), order)
    by_file = {entry.paths[0]: entry for entry in entries}
    return _load("mixture", folder, [by_file[file] for file in sorted(by_file)], order, progress)


def _refuse_unknown(folder: Path, what: str, unknown: set[str], labels: Sequence[str]) -> None:
    if unknown:
        raise UsageError(
            f"{folder} has {what} that are no label of the model: {', '.join(sorted(unknown))}. "
            f"Its labels are: {', '.join(labels)}."
        )


def _load(
    task: str,
    folder: Path,
    entries: Sequence[_Entry],
    labels: tuple[str, ...],
    progress: FileProgress,
) -> Dataset:
    """Read the entries' files; `progress` gets the first of each entry, in the same order."""
    oddities: Counter[str] = Counter()
    notices = RecordingNotices()
    samples = []
    table = read_session_table(folder)
    files = progress([entry.paths[0] for entry in entries])
    # Several stretches of one recording follow each other: it is read once.
    read: tuple[Path, ...] = ()
    for _, entry in zip(files, entries, strict=True):
        if entry.paths != read:
            whole, read = read_recordings(entry.paths), entry.paths
            content = b"".join(path.read_bytes() for path in entry.paths)
        recording = whole if entry.part_ms is None else part_of(whole, *entry.part_ms)
        usable = np.where(recording.quality == Quality.OK, recording.values, np.float32(np.nan))
        in_order = is_in_order(usable)
        count_oddities(recording, oddities)
        notices.add(entry.name, recording)
        oddities["recordings_out_of_time_order"] += int(not in_order)
        target = [entry.proportions.get(label, 0.0) for label in labels]
        part = "" if entry.part_ms is None else f"{entry.part_ms}"
        digest = hashlib.sha256(content + part.encode()).hexdigest()
        times = recording.timestamp_ms
        samples.append(
            Sample(
                entry.name,
                digest,
                usable,
                np.array(target, dtype=np.float32),
                entry.group,
                recording.nominal_rate_hz,
                in_order,
                session_of(entry.name, digest, entry.session, table),
                None if times is None else times.astype(np.float64),
            )
        )
    counts = dict(sorted(oddities.items()))
    return Dataset(task, labels, tuple(samples), counts, folder, notices.sentences())


def _refuse_two_labels(data: Dataset) -> None:
    """Refuse a recording that lies under two labels: one of them is wrong."""
    first: dict[str, Sample] = {}
    for sample in data.samples:
        other = first.setdefault(sample.sha256, sample)
        if not np.array_equal(other.target, sample.target):
            raise DataError(
                f"Expected one label for every recording; {other.name} and {sample.name} are the "
                "same file, byte for byte. Remove it from the label where it does not belong."
            )


def substance_folds(data: Dataset) -> NDArray[np.int64]:
    """Fold of each sample: the k-th recording of every substance (by name) is in fold k mod 5."""
    seen: Counter[int] = Counter()
    folds = np.empty(len(data.samples), dtype=np.int64)
    for number, sample in enumerate(data.samples):
        label = int(sample.target.argmax())
        folds[number] = seen[label] % N_FOLDS
        seen[label] += 1
    return folds


def component_sets(data: Dataset) -> list[tuple[str, ...]]:
    """Return, for each sample, the names of the substances present in it."""
    return [
        tuple(data.labels[column] for column in np.flatnonzero(sample.target))
        for sample in data.samples
    ]


def folds_of(data: Dataset) -> NDArray[np.int64]:
    """Fold of each recording; -1 for those that train in every fold and test in none."""
    return substance_folds(data) if data.task == "substance" else component_set_folds(data)


def component_set_folds(data: Dataset, seed: int = 0) -> NDArray[np.int64]:
    """Fold of each sample by its component set; -1 for single substances, which always train.

    A set of components is in one fold with all its proportions: to train on a neighbouring
    composition of a held-out one would leak the answer. Sets are assigned, largest first, to the
    fold with the fewest recordings in time order; `seed` breaks ties.
    """
    sets = component_sets(data)
    sizes: Counter[tuple[str, ...]] = Counter()
    for present, sample in zip(sets, data.samples, strict=True):
        if len(present) > 1:
            sizes[present] += sample.in_order
    rng = np.random.default_rng(seed)
    order = sorted(sizes, key=lambda present: (-sizes[present], rng.random()))
    load = [0] * N_FOLDS
    fold_of: dict[tuple[str, ...], int] = {}
    for present in order:
        fold_of[present] = int(np.argmin(load))
        load[fold_of[present]] += sizes[present]
    return np.array([fold_of.get(present, -1) for present in sets], dtype=np.int64)


def _read_index(path: Path, folder: Path) -> tuple[list[_Entry], list[str]]:
    """Return the entries of files in the folder, and the columns of substances."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or "file" not in rows[0]:
        raise DataError(
            f"Expected an index with a `file` column and one column of proportions per "
            f"substance; {path} has {list(rows[0]) if rows else 'no rows'}."
        )
    columns = [key for key in rows[0] if key not in _INDEX_KEYS]
    entries = [
        _Entry(
            row["file"],
            (folder / row["file"],),
            row.get("recording") or row["file"],
            {key: float(row[key]) for key in columns if float(row[key]) > 0},
        )
        for row in rows
        if (folder / row["file"]).is_file()  # an index may cover more splits than the folder holds
    ]
    if not entries:
        raise DataError(f"None of the files that {path} names is in {folder}.")
    return entries, columns


def _parse_names(folder: Path) -> list[_Entry]:
    """Read proportions from names such as `Almond20_Orange80.ID_3.csv` or `apple.ID.csv`."""
    entries = []
    for file in filter(is_recording_name, visible_files(folder)):
        stem = file.name.split(".", 1)[0]
        if not _MIXTURE_NAME.fullmatch(stem):
            raise DataError(
                f"Expected a mixture's name such as Almond20_Orange80.ID.csv, got {file.name}. "
                "Name an index with --index."
            )
        parts = {name.lower(): float(share or 100) for name, share in _COMPONENT.findall(stem)}
        total = sum(parts.values())
        proportions = {name: share / total for name, share in parts.items()}
        name = file.relative_to(folder).as_posix()
        group = re.sub(r"(_\d+)?\.csv(\.gz)?$", "", name)
        entries.append(_Entry(name, (file,), group, proportions))
    if not entries:
        raise DataError(f"Expected mixture recordings as {folder}/*.csv, found none.")
    return entries


def is_in_order(values: NDArray[np.float32]) -> bool:
    """Tell whether consecutive readings float32[n, 12] resemble each other more than random pairs.

    Measures the mean absolute difference of neighbours over the standard deviation, averaged over
    the Grove channels that move: 2/sqrt(pi) = 1.128 for rows in random order (Gaussian readings),
    below 0.9 for every recording that a plot shows as smooth. The published mixtures with tenths
    lie at 1.0 to 1.2: their rows were permuted, and differences over time in them mean nothing.
    """
    there = [column for column in GROVE_INDICES if np.isfinite(values[:, column]).any()]
    readings = values[:, there].astype(np.float64)
    readings = readings[np.isfinite(readings).all(axis=1)]
    if len(readings) < MIN_ROWS_TO_JUDGE or not there:
        return True
    spread = readings.std(axis=0)
    jumps = np.abs(np.diff(readings, axis=0)).mean(axis=0)
    moving = spread > 0
    return not moving.any() or float((jumps[moving] / spread[moving]).mean()) < OUT_OF_ORDER
