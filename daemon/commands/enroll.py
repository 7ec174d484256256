"""Daemon: `scentd enroll`: teach a rig a new smell, and manage what it was taught.

This command learns recordings itself. The running service captures the board; without a service
this command does, at its port. A running service is notified of every change made here.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.smell_learning import LEAST_EXPOSURE_S
from calibration.smell_set import NEGATIVES
from daemon.board.capture import capture_from_port
from daemon.commands._library import RigLibrary, list_lines, show_progress
from daemon.commands._options import add_config_option, positive_seconds
from daemon.commands._service import (
    do_by_service_or_here,
    log_warnings_only,
    print_answer,
    print_notes,
    refuse_last,
)
from daemon.enroll import ENROLL, TEACH_S
from daemon.service.answers import from_one_exposure
from daemon.system.background import finish
from daemon.system.progress import Progress
from daemon.system.signals import StopEvent
from hardware.counting import counted
from hardware.errors import UsageError
from hardware.recording import read_recording
from hardware.segment_names import segment_date

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.system.background import Data
    from hardware.recording import Recording

EPILOG = """Examples:
  scentd enroll soap --config rig.yaml
  scentd enroll soap --config rig.yaml --last 120
  scentd enroll soap --recording soap-1.csv soap-2.csv --state ./state
  scentd enroll --promote soap --config rig.yaml
  scentd enroll --list --config rig.yaml
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Teach the rig a new smell, or refine one by another exposure. A new smell is in "
        "shadow first: the answer shows what it was called before, what it is confused with "
        "and what the rig would have announced over earlier readings, and --promote lets the "
        "rig announce it."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "label",
        nargs="?",
        metavar="LABEL",
        help=f"name of the smell to teach; {NEGATIVES!r} for what must have no taught name",
    )
    where = parser.add_argument_group("source of the smell")
    where.add_argument(
        "--recording",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="recordings of the smell, one exposure each",
    )
    where.add_argument(
        "--last", type=positive_seconds, metavar="S", help="the last S seconds of the service"
    )
    where.add_argument(
        "--seconds",
        type=positive_seconds,
        metavar="S",
        help=f"seconds from now on (default: {TEACH_S:g})",
    )
    where.add_argument(
        "--past",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="recordings to test the smell on (a service takes its last minutes)",
    )
    actions = parser.add_argument_group("taught smells").add_mutually_exclusive_group()
    actions.add_argument("--list", action="store_true", help="show what is taught")
    actions.add_argument(
        "--promote",
        nargs="?",
        const=True,
        metavar="LABEL",
        help="let the rig announce a smell; with LABEL --recording, at once",
    )
    actions.add_argument("--forget", metavar="LABEL", help="forget a taught smell")
    actions.add_argument(
        "--rename", nargs=2, metavar=("LABEL", "NAME"), help="rename a smell, shipped or taught"
    )
    actions.add_argument("--hide", metavar="LABEL", help="never announce a shipped label")
    actions.add_argument("--unhide", metavar="LABEL", help="announce a hidden label again")
    actions.add_argument("--rollback", action="store_true", help="undo the last change")
    actions.add_argument(
        "--export", type=Path, metavar="FILE", help="the same as scentd smells export FILE"
    )
    actions.add_argument(
        "--import",
        dest="import_",
        type=Path,
        metavar="FILE",
        help="the same as scentd smells import FILE",
    )
    where.add_argument(
        "--session",
        metavar="NAME",
        help="the day and place of the recordings (default: SESSION of LABEL/SESSION/FILE, the day "
        "of a recording of the service, or each file its own)",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="a model that learns the smells (default: those of the rig)"
    )
    rig = parser.add_mutually_exclusive_group()
    add_config_option(rig)
    rig.add_argument(
        "--state", type=Path, metavar="DIR", help="the rig's state folder, without a service"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Teach or change, and print the answer."""
    log_warnings_only()
    rig = RigLibrary(args)
    label = args.label
    if label is None and isinstance(args.promote, str) and (args.recording or args.last):
        label, args.promote = args.promote, True
    if label is None:
        print_answer(_manage_smells(rig, args), list_lines, as_json=args.json)
    else:
        print_answer(_teach(rig, label, args), _taught_lines, as_json=args.json)
    return 0


def _learn(
    rig: RigLibrary,
    label: str,
    recording: Recording,
    source: str,
    args: argparse.Namespace,
    session: str = "",
) -> Data:
    """Teach one exposure here."""
    steps = rig.enrolment.teach(
        label,
        recording,
        source=source,
        session=session,
        promote=args.promote is True,
        past=[
            (path.name, earlier, earlier.published)
            for path in args.past or ()
            for earlier in [read_recording(path)]
        ],
    )
    with Progress() as progress:
        return finish(steps, lambda data: progress.show(*show_progress(data)))


def _teach(rig: RigLibrary, label: str, args: argparse.Namespace) -> Data:
    """Teach from recordings, through the service, or at the port."""
    _refuse_contradictions(args)
    if args.recording is not None:
        return _teach_recordings(rig, label, args)
    if rig.config is None:
        raise UsageError(
            "Name the source of the smell: --recording FILE to learn from recordings, or --config "
            "FILE for the rig whose board is exposed to it."
        )
    source, seconds = rig.config.source, args.seconds or TEACH_S

    def capture_at_port() -> Data:
        refuse_last(args.last, "capture")
        with Progress() as progress:
            span = capture_from_port(
                source,
                seconds,
                StopEvent(),
                lambda capture: progress.show(capture.seconds / seconds, "smelling"),
            )
        return _learn(rig, label, span.recording(), "live", args)

    when = {"seconds": seconds} if args.last is None else {"last_s": args.last}
    request = {"label": label, "promote": args.promote is True, **when}
    return do_by_service_or_here(rig.config, ENROLL, request, capture_at_port, show_progress)


def _refuse_contradictions(args: argparse.Namespace) -> None:
    actions = (args.list, args.forget, args.rename, args.hide, args.unhide, args.rollback)
    if any(actions) or args.export or args.import_ or isinstance(args.promote, str):
        raise UsageError(
            "Give LABEL to teach a smell, or one of --list, --promote LABEL, --forget ... to "
            "change what was taught, not both."
        )
    given_s = args.seconds if args.last is None else args.last
    if given_s is not None and given_s < LEAST_EXPOSURE_S:
        raise UsageError(
            f"A smell is learnt from {LEAST_EXPOSURE_S:g} s or more, and {TEACH_S:g} s are better, "
            f"but {'--seconds' if args.last is None else '--last'} is {given_s:g}. Let the sample "
            "stand longer before the sensors."
        )
    if sum(value is not None for value in (args.recording, args.last, args.seconds)) > 1:
        raise UsageError(
            "Give one of --recording (files), --last (seconds that have passed) and --seconds "
            "(seconds to come)."
        )


def _teach_recordings(rig: RigLibrary, label: str, args: argparse.Namespace) -> Data:
    """Teach one exposure of every recording; return the answer about the last one."""
    recordings = [(path, read_recording(path)) for path in args.recording]
    for path, recording in recordings:
        print_notes(path, recording.notes)
    *others, (last_path, last) = recordings

    def session(path: Path) -> str:
        return args.session or session_of(path, label)

    with Progress() as progress:
        for path, recording in others:
            rig.store.enroll(
                label,
                recording,
                source=path.name,
                session=session(path),
                promote=args.promote is True,
            )
            progress.show(0.0, f"learnt from {path.name}")
    answer = _learn(rig, label, last, last_path.name, args, session(last_path))
    rig.notify_service()
    return answer


def session_of(path: Path, label: str) -> str:
    """Return the session of a recording, by its place or name.

    SESSION of LABEL/SESSION/FILE; the day of a recording that the service wrote; otherwise the
    file's own name, as of a session by itself.
    """
    parent = path.resolve().parent
    if parent.parent.name.casefold() == label.strip().casefold():
        return parent.name
    return segment_date(path) or path.name.split(".")[0]


def _manage_smells(rig: RigLibrary, args: argparse.Namespace) -> Data:
    if args.recording or args.last or args.seconds:
        raise UsageError("Name the smell to teach: scentd enroll LABEL --recording FILE.")
    if args.export is not None:
        made = rig.export_file(args.export)
        print(f"{counted(made['exported'], 'smell')} written to {args.export}", file=sys.stderr)
        return rig.request(action="list")
    if args.import_ is not None:
        return rig.import_file(args.import_)
    if args.rename is not None:
        label, name = args.rename
        return rig.request(action="rename", label=label, name=name)
    if args.promote is True:
        raise UsageError("Name the smell to promote: scentd enroll --promote LABEL.")
    for action in ("promote", "forget", "hide", "unhide"):
        if (label := getattr(args, action)) is not None:
            return rig.request(action=action, label=label)
    for action in ("rollback", "list"):
        if getattr(args, action):
            return rig.request(action=action)
    raise UsageError(
        "Name a smell to teach, or what to do with the taught smells: scentd enroll --help shows "
        "both."
    )


def _taught_lines(data: Data) -> Iterator[str]:
    negative = data["negative"]
    yield (
        f"{data['label']}: learnt {data['seconds']:.0f} s{_learnt_from(data)}; "
        f"{counted(data['exposures'], 'exposure')} from {counted(data['sessions'], 'session')} in "
        f"all, in effect after {data['effect_ms']:.0f} ms."
    )
    yield from _preview_lines(data["rehearsal"], negative=negative)
    for comparison in data["past"]:
        yield (
            f"  in {comparison['recording']}: {_durations(comparison['without_s'])} without it, "
            f"{_durations(comparison['with_s'])} with it"
        )
    if data["channels_missing"]:
        yield f"  learnt without {', '.join(data['channels_missing'])}"
    if data["advice"] is not None and not negative:
        yield _advice_line(data["advice"])
    if data["shadow"]:
        use = "use" if negative else "announce"
        yield f"It is in shadow. To {use} it: scentd enroll --promote {shlex.quote(data['label'])}"
    elif negative:
        yield "The rig gives no taught name to what is nearer to it than to its smells."
    else:
        yield "The rig announces it from now on."


def _advice_line(advice: Data) -> str:
    line = f"  most helpful next: {advice['label']} on another day (taught on "
    line += f"{counted(advice['sessions'], 'day')})"
    if not advice["gain"]:
        return line
    return (
        f"{line}; on a real rig, the likeliest smell was then right in {advice['gain']:.0%} more "
        "of the exposures of a new day"
    )


def _learnt_from(data: Data) -> str:
    if data["clean_air"] is None:
        return (
            f" without known clean air before it, so that {data['model']} alone has learnt it; "
            "begin the next exposure in clean air, to know it on other days"
        )
    return f", {data['response_s']:.0f} s of them above clean air"


def _preview_lines(rehearsal: Data, *, negative: bool) -> Iterator[str]:
    yield f"  without it, this was called            {_shares(rehearsal['before'])}"
    by = rehearsal["held_out_by"]
    if negative:
        if rehearsal["taken_from"]:
            yield f"  exposures that lose their right name   {_shares(rehearsal['taken_from'])}"
        return
    if rehearsal["held_out"] is None:
        yield f"  {from_one_exposure(rehearsal['rigs_from_one'])}"
    else:
        yield f"  taught from the other {by}s, {rehearsal['held_out']:.0%} of a {by} is recognised"
    if rehearsal["confused_with"]:
        yield f"  the rest is taken for                  {_shares(rehearsal['confused_with'])}"
    if rehearsal["taken_from"]:
        yield f"  it takes away from                     {_shares(rehearsal['taken_from'])}"


def _shares(shares: Sequence[Data]) -> str:
    return ", ".join(f"{item['label']} {item['share']:.0%}" for item in shares) or "nothing"


def _durations(seconds: dict[str, float]) -> str:
    return ", ".join(f"{label} {value:.0f} s" for label, value in seconds.items()) or "nothing"
