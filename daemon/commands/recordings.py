"""Daemon: `scentd recordings`: list a rig's recordings, look at one, label, cut and export.

Only files of the recordings' folder are read and written; no board, no broker, no service.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.commands._options import CONFIG_DEFAULT, add_action
from daemon.commands._service import as_owner
from daemon.config.loading import default_config_path, load_config
from daemon.config.settings import RIG_ID_PATTERN, default_state_dir
from daemon.recording.catalogue import Catalogue
from daemon.system.owner import act_as_owner
from hardware.counting import counted
from hardware.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from daemon.config.settings import Config
    from daemon.recording.catalogue import ListedRecording
    from hardware.recording_labels import RecordingLabels

AUTHOR = "shell"
"""Author of the labels that `label` writes, unless another is named."""

BARS = "▁▂▃▄▅▆▇█"
SHOWN_POINTS = 60


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "List the recordings of a rig, look at one, label stretches of it, cut it, and export "
        "what is labelled as LABEL/SESSION/*.csv for the trainer, or whole recordings as Parquet."
    )
    parser.epilog = "Example: scentd recordings label coffee.csv 60 180 coffee"
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(
        name: str, summary: str, example: str, run: Callable[[argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        action = add_action(actions, "recordings", name, summary, example, run)
        where = action.add_mutually_exclusive_group()
        where.add_argument(
            "--config", type=Path, metavar="FILE", help=f"the rig's YAML file ({CONFIG_DEFAULT})"
        )
        where.add_argument(
            "--state", type=Path, metavar="DIR", help="the rig's state folder, in its place"
        )
        where.add_argument(
            "--folder", type=Path, metavar="DIR", help="any folder of recordings, in its place"
        )
        return action

    add("list", "list the recordings with their labels, the newest first", "--json", run_list)
    showing = add("show", "print a recording's extent, labels and curve", "coffee.csv", run_show)
    showing.add_argument(
        "--points", type=int, default=SHOWN_POINTS, metavar="N", help="points of a curve"
    )
    labelling = add(
        "label", "label a stretch of a recording", "coffee.csv 60 180 coffee", run_label
    )
    cutting = add("cut", "write a stretch into a recording of its own", "a.csv 60 180", run_cut)
    for action in (showing, labelling, cutting):
        action.add_argument("name", metavar="NAME", help="name of the file")
    for action in (labelling, cutting):
        action.add_argument(
            "start", type=float, metavar="START", help="seconds in the recording's own time"
        )
        action.add_argument(
            "end", type=float, metavar="END", help="seconds in the recording's own time"
        )
    labelling.add_argument("label", nargs="?", metavar="LABEL", help="name of the smell")
    labelling.add_argument("--none", action="store_true", help="remove the labels there")
    labelling.add_argument(
        "--author", default=AUTHOR, metavar="NAME", help="who says so (default: %(default)s)"
    )
    cutting.add_argument("--output", metavar="NAME", help="name of the new file in the same folder")
    exporting = add(
        "export", "write what is labelled as DIR/LABEL/SESSION/*.csv", "--output data", run_export
    )
    exporting.add_argument("names", nargs="*", metavar="NAME", help="files (default: all)")
    exporting.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write to; it is made if it does not exist",
    )
    exporting.add_argument(
        "--session",
        metavar="NAME",
        help="session of all of them (default: the day in a recording's name, else the name)",
    )
    exporting.add_argument(
        "--format",
        choices=("csv", "parquet"),
        default="csv",
        help="csv, or whole recordings, labelled or not, as Parquet files: "
        "DIR/rig=RIG/day=DAY/NAME.parquet (default: csv)",
    )
    exporting.add_argument(
        "--rig",
        metavar="NAME",
        help="with --format parquet: whose recordings they are (default: the rig of the "
        "configuration)",
    )


def run_list(args: argparse.Namespace) -> int:
    """Print the recordings."""
    listed = _catalogue(args).list()
    if args.json:
        print(json.dumps([_listed_data(item) for item in listed]))
        return 0
    print(f"{'NAME':<44} {'SIZE':>10}  SESSION      LABELS")
    for item in listed:
        labels = item.problem or _summary(item.labels) or "-"
        print(f"{item.name:<44} {item.bytes / 1000:>7.0f} kB  {item.session:<11}  {labels}")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print one recording."""
    catalogue = _catalogue(args)
    curve = catalogue.curve(args.name, args.points)
    labels = catalogue.labels(args.name)
    if args.json:
        print(json.dumps({"name": args.name, **asdict(curve), "labels": labels.as_json()}))
        return 0
    seconds = (curve.last_ms - curve.first_ms) / 1000.0
    print(
        f"{args.name}: {counted(curve.readings, 'reading')} from {curve.first_ms / 1000:.0f} to "
        f"{curve.last_ms / 1000:.0f} s ({seconds:.0f} s)"
    )
    for channel, values in curve.channels.items():
        numbers = [value for value in values if value is not None]
        low, high = min(numbers), max(numbers)
        print(f"  {channel:<15} {_bars(values, low, high)}  {low:.4g} to {high:.4g}")
    for item in labels.stretches:
        by = f" (by {item.author})" if item.author else ""
        print(f"  {item.start_ms / 1000:.0f} to {item.end_ms / 1000:.0f} s: {item.label}{by}")
    return 0


def run_label(args: argparse.Namespace) -> int:
    """Label a stretch, or remove its labels."""
    if (args.label is None) is not args.none:
        raise UsageError("Give LABEL, or --none to remove the labels of the stretch.")
    labels = _catalogue(args).label(
        args.name, _ms(args.start), _ms(args.end), args.label, args.author
    )
    if args.json:
        print(json.dumps({"name": args.name, "labels": labels.as_json()}))
    else:
        print(f"{args.name}: {_summary(labels) or 'nothing is labelled'}")
    return 0


def run_cut(args: argparse.Namespace) -> int:
    """Write a stretch into a new recording."""
    new = _catalogue(args).cut(args.name, _ms(args.start), _ms(args.end), args.output)
    print(json.dumps({"name": new}) if args.json else new)
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write what is labelled, as the trainer reads it, or whole recordings into an archive."""
    if args.format == "parquet":
        return _export_archive(args)
    if args.rig is not None:
        raise UsageError("--rig names the rig of an archive; add --format parquet, or omit it.")
    exported = _catalogue(args).export(args.output, args.names or None, session=args.session)
    if args.json:
        print(json.dumps(asdict(exported)))
        return 0
    for place, readings in exported.files.items():
        print(f"{args.output / place}: {counted(readings, 'reading')}")
    if exported.unlabelled:
        print(f"Left out, because nothing is labelled there: {', '.join(exported.unlabelled)}")
    print(f"Next: scent-train init --data {args.output}")
    return 0


def _export_archive(args: argparse.Namespace) -> int:
    """Write whole recordings into an archive of Parquet files."""
    # numpy takes a while to load, and the other actions need none of it.
    from daemon.recording.archiving import archive_recordings  # noqa: PLC0415
    from hardware.archive import require_pyarrow  # noqa: PLC0415

    require_pyarrow()
    config = _config(args)
    catalogue = _catalogue_of(args, config)
    rig = args.rig or (None if config is None else config.rig_id)
    if rig is None:
        raise UsageError("Name the rig whose recordings these are: --rig NAME.")
    if not re.fullmatch(RIG_ID_PATTERN, rig):
        raise UsageError(
            f"A rig's name has 1 to 32 of the characters a-z, 0-9, _ and -, got {rig[:80]!r}."
        )
    archived = archive_recordings(
        catalogue, args.output.resolve(), args.names or None, rig=rig, session=args.session
    )
    if args.json:
        print(json.dumps(asdict(archived)))
    else:
        for place, readings in archived.files.items():
            print(f"{args.output / place}: {counted(readings, 'reading')}")
        if archived.unchanged:
            print(f"Unchanged since an earlier export: {counted(archived.unchanged, 'recording')}")
    for name, problem in archived.problems.items():
        print(f"scentd: {name}: {problem}", file=sys.stderr)
    return 1 if archived.problems else 0


def _config(args: argparse.Namespace) -> Config | None:
    """Return the configuration that the options name, or the default one."""
    if args.state is not None or args.folder is not None:
        return None
    path = args.config or default_config_path()
    return None if path is None else as_owner(load_config(path))


def _catalogue(args: argparse.Namespace) -> Catalogue:
    """Return the recordings of the folder that the options name."""
    return _catalogue_of(args, _config(args))


def _catalogue_of(args: argparse.Namespace, config: Config | None) -> Catalogue:
    """Return the recordings of the folder that the options name, or of the configured rig."""
    if args.folder is not None:
        return Catalogue(args.folder.absolute())
    if config is not None:
        return Catalogue(config.recordings_dir)
    state_dir = act_as_owner((args.state or default_state_dir()).resolve())
    return Catalogue(state_dir / "recordings")


def _ms(seconds: float) -> int:
    if not 0 <= seconds < 1e12:  # noqa: PLR2004 - also not NaN
        raise UsageError(
            f"Expected seconds from 0 on, in the time of the recording, got {seconds:g}."
        )
    return round(seconds * 1000.0)


def _listed_data(item: ListedRecording) -> dict[str, object]:
    return {**asdict(item), "labels": item.labels.as_json()}


def _summary(labels: RecordingLabels) -> str:
    """Return the labels with their seconds."""
    return ", ".join(
        f"{item.label} {item.start_ms / 1000:.0f}-{item.end_ms / 1000:.0f} s"
        for item in labels.stretches
    )


def _bars(values: tuple[float | None, ...], low: float, high: float) -> str:
    """Return a curve as one line of characters."""
    span = high - low or 1.0
    places = (
        None if value is None else round((value - low) / span * (len(BARS) - 1)) for value in values
    )
    return "".join(" " if place is None else BARS[place] for place in places)
