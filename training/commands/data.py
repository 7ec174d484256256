"""training/: `scent-train data get|import`: fetch recordings, or convert those of others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.counting import counted
from hardware.errors import UsageError
from hardware.foreign.mapping import FILE_PATTERNS, shipped_formats
from hardware.foreign.options import add_format_options, chosen_format
from hardware.foreign.reading import UNKNOWN_SESSION, read_foreign, write_recordings
from training.data.download import DATASET, fetch

if TYPE_CHECKING:
    import argparse
    from argparse import ArgumentParser, _SubParsersAction
    from collections.abc import Sequence

    from hardware.foreign.reading import ForeignRecording


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        f"Fetch the published recordings ({DATASET} on the Hugging Face hub) and "
        "compare every file with the hub's checksum. The same command continues an interrupted "
        "download."
    )
    parser.epilog = "Example: scent-train data get --output data/smellnet --subset base"
    actions = parser.add_subparsers(
        title="actions", metavar="get|import", required=True, dest="action"
    )
    get = actions.add_parser(
        "get",
        help="fetch, resume and verify",
        description="Fetch the parts to train on; existing files are verified, not fetched.",
        epilog="Example: scent-train data get --output data/smellnet --subset base",
    )
    get.add_argument(
        "--output",
        type=Path,
        default=Path("data/smellnet"),
        metavar="DIR",
        help="becomes the data set's root (default: data/smellnet)",
    )
    get.add_argument(
        "--subset",
        choices=("base", "mixture", "all"),
        default="all",
        help="single substances, mixtures, or both (default)",
    )
    get.add_argument(
        "--with-test-splits",
        action="store_true",
        help="fetch the published test splits too. For the final judgement only: the scores of a "
        "model that was trained on them or chosen by them mean nothing",
    )
    get.add_argument(
        "--endpoint", metavar="URL", help="a mirror of the hub (default: HF_ENDPOINT, or the hub)"
    )
    get.set_defaults(run=run)
    add_import_parser(actions)


def add_import_parser(actions: _SubParsersAction[ArgumentParser]) -> None:
    """Add `data import`."""
    parser = actions.add_parser(
        "import",
        help="convert recordings of another project",
        description="Convert recordings of another project into OUTPUT/LABEL/SESSION/*.csv. Which "
        "column is taken for which channel is printed; nothing is guessed. Known formats: "
        f"{', '.join(shipped_formats())}. A mapping file of a few lines describes any other one "
        "(docs/recordings.md).",
        epilog="Example: scent-train data import rigs/fruits5 --format fruits5 --output data",
    )
    parser.add_argument("source", nargs="+", type=Path, metavar="FILE|DIR", help="what to convert")
    add_format_options(parser, required=True)
    parser.add_argument(
        "--session",
        metavar="NAME",
        help="session of the files whose names and times tell none (a day, a room)",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the recordings"
    )
    parser.set_defaults(run=run_import)


def run_import(args: argparse.Namespace) -> int:
    """Convert, and print what was taken for what."""
    form = chosen_format(args)
    if form is None:
        raise UsageError("Name the format of the files: --format NAME, or --map FILE.")
    missing = [str(source) for source in args.source if not source.exists()]
    if missing:
        raise UsageError(f"There is no file or folder {', '.join(missing)}.")
    patterns = FILE_PATTERNS[form.kind]
    files = [
        path
        for source in args.source
        for path in (_files_below(source, patterns) if source.is_dir() else [source])
    ]
    if not files:
        raise UsageError(
            f"There is no {' or '.join(patterns)} in {', '.join(map(str, args.source))}."
        )
    recordings = list(read_foreign(files, form, session=args.session))
    paths = write_recordings(recordings, args.output)
    _print_notes(recordings)
    for path, recording in zip(paths, recordings, strict=True):
        minutes = (recording.time_ms[-1] - recording.time_ms[0]) / 60_000
        print(f"{path}: {counted(len(recording.time_ms), 'reading')}, {minutes:.1f} min")
    labels = {recording.label for recording in recordings}
    sessions = {recording.session for recording in recordings}
    print(
        f"{counted(len(paths), 'recording')} of {counted(len(labels), 'label')} and "
        f"{counted(len(sessions), 'session')}",
        file=sys.stderr,
    )
    if UNKNOWN_SESSION in sessions:
        print(
            f"Neither names nor times of some files tell their session, which is called "
            f"{UNKNOWN_SESSION!r}. Name it with --session, or by a group (?P<session>...) in the "
            "mapping's name: models are judged by whole sessions.",
            file=sys.stderr,
        )
    return 0


def _files_below(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of a folder by their names, without hidden ones."""
    found = {path for pattern in patterns for path in folder.rglob(pattern)}
    hidden = {
        path
        for path in found
        if any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    return sorted(found - hidden)


def _print_notes(recordings: Sequence[ForeignRecording]) -> None:
    """Print what was taken for what: once for all files, or with the files that differ."""
    notes: dict[str, list[ForeignRecording]] = {}
    for recording in recordings:
        for note in recording.notes:
            notes.setdefault(note, []).append(recording)
    for note, where in notes.items():
        some = "" if len(where) == len(recordings) else f" ({_named(where)})"
        print(f"{note}{some}", file=sys.stderr)


def _named(recordings: Sequence[ForeignRecording]) -> str:
    first = recordings[0].paths[0].name
    return first if len(recordings) == 1 else f"{first} and {len(recordings) - 1} more"


def run(args: argparse.Namespace) -> int:
    """Fetch and verify."""
    got = fetch(
        args.output,
        subset=args.subset,
        with_test_splits=args.with_test_splits,
        endpoint=args.endpoint,
    )
    print(
        f"{got.folder}: {counted(got.files, 'file')}, {got.size / 1e6:.1f} MB, all verified; "
        f"{got.fetched} of them fetched now; commit {got.revision}"
    )
    if args.with_test_splits:
        print(
            "The test splits are for the final judgement: `fit` and `crossval` refuse them, "
            "`evaluate` scores them.",
            file=sys.stderr,
        )
    return 0
