"""training/: which files of a folder are recordings, and the label and the folder of each.

Reads no recording. A file beside the folders of labels is read where a file of labels lies beside
it, as `scentd recordings label`, the page and feedback write it: every labelled stretch is a
recording. Whatever looks like data and is not read is named, so that no
label is lost without a word; hidden files and those of operating systems are passed over.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.recording import COMPRESSED_SUFFIX
from hardware.recording_labels import LABELS_SUFFIX, RecordingLabels, read_labels
from hardware.segment_names import parse_segment_name, recording_date, segment_date

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from hardware.recording_labels import LabelledStretch

SESSION_TABLE = "sessions.csv"
"""A table of `recording,session` in the data folder, where sessions are not in the paths."""

_TABLES = frozenset({SESSION_TABLE, "mixture_index.csv", "gcms_elements.csv", "descriptors.csv"})
"""CSV files of a data folder that are no recordings."""
_OF_SYSTEMS = frozenset(
    {"__macosx", "__pycache__", "@eadir", "lost+found", "$recycle.bin", "thumbs.db", "desktop.ini"}
)
"""What operating systems and tools leave in folders, in lower case."""
_SUFFIXES = (".csv", f".csv{COMPRESSED_SUFFIX}")
_NAMED = 5
"""Files that a notice names at most."""


@dataclass(frozen=True, slots=True)
class RecordingFiles:
    """The files of one recording.

    Attributes
    ----------
    name: of the first file, as a path below the data folder with forward slashes.
    paths: one file, or consecutive segments of one run of the service.
    label_folder: the first folder below the data folder, as it is spelt.
    session: the folders between label and file joined by `/`; without any, the date in a
        segment's name; else empty.
    part_ms: times of the first and last row that belong to it; None for the whole file.
    """

    name: str
    paths: tuple[Path, ...]
    label_folder: str
    session: str
    part_ms: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FoundRecordings:
    """The recordings below a folder, sorted by name, and sentences about what was not read."""

    recordings: tuple[RecordingFiles, ...]
    notices: tuple[str, ...]


def is_recording_name(path: Path) -> bool:
    """Tell whether a file's name is that of a recording, compressed or not."""
    return path.name.lower().endswith(_SUFFIXES) and path.name not in _TABLES


def visible_files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield all files below a folder, sorted, without those hidden or of operating systems.

    Links to folders are followed, but never to one of those `above`.
    """
    above |= {folder.resolve()}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "~$")) or path.name.lower() in _OF_SYSTEMS:
            continue
        if path.is_dir():
            if path.resolve() not in above:
                yield from visible_files(path, above)
        else:
            yield path


def find_recordings(folder: Path) -> FoundRecordings:
    """Find the recordings `LABEL/*.csv` and `LABEL/SESSION/*.csv` below a folder, `.gz` or not.

    Folders deeper than a session belong to the session's name.
    """
    found: list[Path] = []
    others: list[Path] = []
    loose: list[Path] = []
    for path in visible_files(folder):
        if path.name.endswith(LABELS_SUFFIX):
            continue
        if path.parent == folder:
            loose += [path] if is_recording_name(path) else []
        else:
            (found if is_recording_name(path) else others).append(path)
    kept, copies = without_compressed_copies(found)
    loose, loose_copies = without_compressed_copies(loose)
    stretches, unlabelled = _labelled_stretches(loose)
    notices = [
        *_notice(
            folder,
            unlabelled,
            "lie beside the folders of labels, and nothing is labelled in them (`scentd recordings "
            "label`)",
        ),
        *_partly_labelled(folder, stretches),
        *_notice(folder, others, "are no recordings (*.csv, *.csv.gz)"),
        *_notice(folder, [*copies, *loose_copies], "are compressed copies of files beside them"),
        *_empty_labels(folder, kept),
    ]
    recordings = sorted(
        (*(_recording(folder, paths) for paths in join_segments(kept)), *stretches),
        key=lambda one: one.name,
    )
    return FoundRecordings(tuple(recordings), tuple(notices))


def _recording(folder: Path, paths: tuple[Path, ...]) -> RecordingFiles:
    below = paths[0].relative_to(folder)
    label, *folders = below.parts[:-1]
    session = "/".join(folders) or segment_date(paths[0]) or ""
    return RecordingFiles(below.as_posix(), paths, label, session)


def _labelled_stretches(
    loose: Sequence[Path],
) -> tuple[list[RecordingFiles], list[Path]]:
    """Return a recording for every labelled stretch, and the files without any.

    A stretch that goes on in the next segment of a run is one recording; what was there before it
    and is not labelled as another smell shows the clean air.
    """
    found: list[RecordingFiles] = []
    unlabelled: list[Path] = []
    for paths in join_segments(loose):
        stretches: list[LabelledStretch] = []
        for path in paths:
            own = read_labels(path.absolute()).stretches
            unlabelled += [] if own else [path]
            stretches += own
        labels = RecordingLabels.of(stretches)
        for stretch in labels.stretches:
            part_ms = labels.lead_start_ms(stretch), stretch.end_ms
            name = f"{paths[0].name}#{stretch.start_ms}-{stretch.end_ms}"
            session = recording_date(paths[0]) or paths[0].name.split(".", maxsplit=1)[0]
            found.append(RecordingFiles(name, paths, stretch.label, session, part_ms))
    return found, unlabelled


def _partly_labelled(folder: Path, stretches: Sequence[RecordingFiles]) -> list[str]:
    """Say that what is not labelled in labelled files is left out."""
    paths = list(dict.fromkeys(path for one in stretches for path in one.paths))
    if not paths:
        return []
    names = [path.relative_to(folder).as_posix() for path in paths[:_NAMED]]
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return [
        f"Of {', '.join(names)}{more} the {len(stretches)} labelled stretches are read, each with "
        "the minute before it; the rest is left out."
    ]


def without_compressed_copies(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files, and the `.gz` of which the same file lies there uncompressed."""
    plain = {path for path in files if path.suffix != COMPRESSED_SUFFIX}
    copies = [path for path in files if path not in plain and path.with_suffix("") in plain]
    return [path for path in files if path not in set(copies)], copies


def _run_of(path: Path) -> tuple[object, int, int] | None:
    place = parse_segment_name(path)
    return None if place is None else (path.parent, *place)


def join_segments(
    files: Iterable[Path],
    run_of: Callable[[Path], tuple[object, int, int] | None] = _run_of,
) -> Iterator[tuple[Path, ...]]:
    """Yield the files of every recording: consecutive segments of one run are one recording.

    `run_of` returns whose run it is, the run and the number of a segment; None for other files.
    """
    runs: dict[tuple[object, int], list[tuple[int, Path]]] = defaultdict(list)
    for path in files:
        place = run_of(path)
        if place is None:
            yield (path,)
        else:
            runs[place[:2]].append((place[2], path))
    for segments in runs.values():
        joined: list[Path] = []
        previous = None
        for number, path in sorted(segments):
            if joined and number != (previous or 0) + 1:
                yield tuple(joined)
                joined = []
            joined.append(path)
            previous = number
        yield tuple(joined)


def _notice(folder: Path, paths: Sequence[Path], why: str) -> list[str]:
    if not paths:
        return []
    names = [path.relative_to(folder).as_posix() for path in paths[:_NAMED]]
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return [f"Not read, for they {why}: {', '.join(names)}{more}."]


def _empty_labels(folder: Path, kept: Sequence[Path]) -> list[str]:
    """Name the visible folders of labels that hold no recording."""
    with_recordings = {path.relative_to(folder).parts[0] for path in kept}
    empty = [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_dir()
        and not path.name.startswith(".")
        and path.name.lower() not in _OF_SYSTEMS
        and path.name not in with_recordings
    ]
    if not empty:
        return []
    return [f"No label, for no recording lies in it: {', '.join(empty)}."]
