"""training/: `scent-train init`: look at a folder and write a configuration that fits it."""

from __future__ import annotations

import shlex
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.counting import counted
from hardware.errors import UsageError
from training.commands._shared import add_option, load_recordings
from training.data.inspection import find_problems, inspect_recordings
from training.data.layouts import refuse_test_part
from training.data.sessions import SessionError, session_folds
from training.rig_config import RigConfig, bundle_name, choose_config, render_config

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from training.data.dataset import Dataset
    from training.data.inspection import RecordingFacts


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Look at a folder of recordings (channels, rates, labels, sessions, whether they begin in "
        "clean air), print what was found and what is wrong with it, and write a commented "
        "configuration that fits. The next commands are printed."
    )
    parser.epilog = "Example: scent-train init --data data/fruits5 --output fruits5.yaml"
    add_option(parser, "--data")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the configuration (default: NAME.yaml)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the folder holds, write the configuration, and print the next commands."""
    refuse_test_part(args.data)
    data = load_recordings("substance", args.data)
    name = bundle_name(args.output.stem if args.output else args.data.resolve().name)
    output: Path = args.output or Path(f"{name}.yaml")
    if output.exists():
        raise UsageError(
            f"{output} is there already and is not overwritten. Name another --output, or move it "
            "away."
        )
    facts = inspect_recordings(data)
    config = choose_config(name, facts)
    print("\n".join(describe(facts, config)))
    for problem in find_problems(data, facts):
        print(f"\n{problem}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render_config(config, facts, str(args.data)), encoding="utf-8")
    print(f"\nWritten: {output}", file=sys.stderr)
    print("\nNext:")
    for command in next_commands(data, output, args.data, name):
        print(f"  {command}")
    return 0


def describe(facts: Sequence[RecordingFacts], config: RigConfig) -> list[str]:
    """Return lines that say what the recordings are."""
    lengths = [one.seconds / 60.0 for one in facts]
    begin = [one.onset_s for one in facts if one.onset_s is not None]
    arrives = f", the smell after {min(begin):.0f} to {max(begin):.0f} s" if begin else ""
    return [
        f"recordings  {len(facts)}, {min(lengths):.1f} to {max(lengths):.1f} min long",
        f"labels      {', '.join(_labels(facts))}",
        f"sessions    {', '.join(_sessions(facts))}",
        f"rate        {config.rate_text}",
        f"channels    {', '.join(config.channels)}",
        *(f"left out    {channel}: {why}" for channel, why in config.left_out.items()),
        f"clean air   {len(begin)} of {len(facts)} recordings begin in it{arrives}",
    ]


def _labels(facts: Sequence[RecordingFacts]) -> Iterator[str]:
    """Yield every label with its numbers of recordings and of sessions."""
    sessions: dict[str, set[str]] = defaultdict(set)
    for one in facts:
        sessions[one.label].add(one.session)
    for label, count in sorted(Counter(one.label for one in facts).items()):
        named = len(sessions[label] - {""})
        yield f"{label} {count}" + (f" ({counted(named, 'session')})" if named else "")


def _sessions(facts: Sequence[RecordingFacts]) -> Iterator[str]:
    for session, count in sorted(Counter(one.session for one in facts).items()):
        yield f"{session or 'none named'}: {counted(count, 'recording')}"


def next_commands(data: Dataset, config: Path, folder: Path, name: str) -> list[str]:
    """Return the commands that follow, each of which works as it is printed."""
    options = ["--config", str(config), "--data", str(folder)]
    bundle = f"{name}-bundle"
    commands = [
        ["scent-train", "fit", *options],
        ["scent-train", "export", *options, "--output", bundle],
        [
            "scentd",
            "replay",
            "--model",
            bundle,
            str((data.folder or folder) / data.samples[0].name),
        ],
    ]
    if judged := _judge(data):
        commands.insert(0, ["scent-train", "crossval", *judged, *options])
    return [shlex.join(command) for command in commands]


def _judge(data: Dataset) -> list[str] | None:
    """Return the options of the cross-validation that these recordings allow; None: none."""
    try:
        session_folds(data)
    except SessionError:
        counts = Counter(int(sample.target.argmax()) for sample in data.samples)
        return ["--folds", "0,1"] if min(counts.values()) > 1 else None
    return ["--sessions"]
