"""Daemon: `scentd calibrate`: measure a rig, fit its profile, show it and score it.

A running service does the work, because it holds the port and applies a new profile at once;
without one the same work is done here.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.transfer import METHODS
from daemon.board.capture import capture_from_port
from daemon.calibrate.actions import CalibrationActions
from daemon.calibrate.captures import BASELINE, REFERENCE
from daemon.calibrate.evaluation import score_table, sets_summary
from daemon.calibrate.live import CALIBRATE, CAPTURE_S, describe_capture
from daemon.commands._options import add_config_option, positive_seconds
from daemon.commands._service import do_by_service_or_here, load_rig, print_answer, refuse_last
from daemon.system.progress import Progress
from daemon.system.signals import StopEvent
from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.config.settings import Config
    from daemon.system.background import Data

EPILOG = """Examples, in the order of a calibration:
  scentd calibrate baseline --config rig.yaml           # in clean air, warmed up
  scentd calibrate reference almond --config rig.yaml   # almonds at the sensors; 4 odours or more
  scentd calibrate fit --config rig.yaml                # active at once
  scentd calibrate score --config rig.yaml recordings/*/*.csv
"""

TRAINING_RIG_MISMATCH = 5
"""`calibration.transfer.mismatch` of the training rig's own recordings: median 4.2, mean 5.6 of
every tenth that substances-50 was trained on."""

BOARD_DELAY_FACTOR = 3.0
"""A capture ends with an error when the board takes this many times as long as it should."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Convert this rig's readings to those of the rig that the models were trained on. "
        "Measure clean air and a few odours that the model knows, then fit: the profile is "
        "active at once and its id is in every prediction."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")

    def add(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        action = actions.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example: scentd calibrate {name} {example}",
        )
        add_config_option(action)
        action.add_argument("--json", action="store_true", help="print one JSON object")
        action.set_defaults(run=run, label=None)
        return action

    config = "--config rig.yaml"
    baseline = add("baseline", "measure clean air; refused if the air is not steady", config)
    reference = add(
        "reference", "measure an odour that the model knows", f"almond {config} --seconds 180"
    )
    reference.add_argument("label", metavar="LABEL", help="one of the model's labels")
    for action, default_s in ((baseline, CAPTURE_S[BASELINE]), (reference, CAPTURE_S[REFERENCE])):
        when = action.add_mutually_exclusive_group()
        when.add_argument(
            "--seconds",
            type=positive_seconds,
            metavar="N",
            help=f"how long to measure from now on (default: {default_s:g})",
        )
        when.add_argument(
            "--last", type=positive_seconds, metavar="N", help="the service's last N seconds"
        )
        when.add_argument(
            "--recording", type=Path, metavar="FILE", help="a recording instead of the board"
        )
    add("fit", "fit the profile to the captures; it is active at once", config)
    add("show", "show the captures and the active profile", f"{config} --json")
    score = add(
        "score",
        "recognise recordings without and with the profile",
        f"{config} recordings/*/*.csv",
    )
    score.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="recordings of one exposure each, labelled by their folder (default: the references)",
    )
    score.add_argument("--label", metavar="LABEL", help="label of all recordings")
    forget = add(
        "forget", "delete the references of an odour, or every capture", f"almond {config}"
    )
    forget.add_argument("label", nargs="?", metavar="LABEL", help="left out: every capture")
    add("undo", "return to the previous profile, or to none", config)


def run(args: argparse.Namespace) -> int:
    """Do the action and print the answer."""
    config = load_rig(args.config)
    actions = CalibrationActions(config)
    if args.action in {BASELINE, REFERENCE}:
        answer = _capture(config, actions, args)
    elif args.action == "score":
        # Here, also while a service runs: only files are read.
        if args.label is not None and not args.files:
            raise UsageError("--label is the label of recordings: name them, or leave it out.")
        answer = actions.score(args.files, args.label)
    else:
        fields = {} if args.label is None else {"label": args.label}
        action: Callable[..., Data] = getattr(actions, args.action)
        answer = do_by_service_or_here(
            config,
            CALIBRATE,
            {"action": args.action, **fields},
            lambda: action(**fields),
            lambda data: (0.5, f"{args.action}: {data.get('seconds', 0):.0f} s"),
        )
    print_answer(answer, _SUMMARIES[args.action], as_json=args.json)
    return 0


def _capture(config: Config, actions: CalibrationActions, args: argparse.Namespace) -> Data:
    """Measure clean air or a reference: from a recording, through the service or at the port."""
    label = args.label if args.label is None else actions.check_label(args.label)
    if args.recording is not None:
        return actions.keep_recording(args.action, label, args.recording)
    seconds = args.seconds or CAPTURE_S[args.action]

    def capture_at_port() -> Data:
        refuse_last(args.last, "measure")
        stop = StopEvent(after_s=BOARD_DELAY_FACTOR * seconds + 60.0)
        with Progress() as progress, stop.on_signals():
            span = capture_from_port(
                config.source,
                seconds,
                stop,
                lambda capture: progress.show(*_capture_progress(describe_capture(capture))),
            )
        return actions.keep(args.action, label, span)

    when = {"seconds": seconds} if args.last is None else {"last_s": args.last}
    named = {} if label is None else {"label": label}
    request = {"action": args.action, **named, **when}
    return do_by_service_or_here(config, CALIBRATE, request, capture_at_port, _capture_progress)


def _capture_progress(data: Data) -> tuple[float, str]:
    state = "settled" if data.get("settled") else "not settled"
    unsettled = data.get("unsettled") or []
    names = f": {', '.join(unsettled)}" if unsettled else ""
    done_s, of_s = data.get("seconds", 0.0), data.get("of_s", 1.0)
    return done_s / of_s, f"{done_s:.0f} of {of_s:.0f} s, {state}{names}"


def _capture_summary(answer: Data) -> list[str]:
    what = "clean air" if answer["label"] is None else answer["label"]
    lines = [f"Kept {answer['seconds']:.0f} s of {what}."]
    channels = answer.get("channels")
    if not channels:
        return lines
    lines.append(f"{'channel':<16}{'ln conductance':>15}{'noise':>9}{'drift/min':>11}{'R0':>12}")
    for name, one in channels.items():
        r0 = "" if one["r0_kohm"] is None else f"{one['r0_kohm']:.3g} kOhm"
        lines.append(
            f"{name:<16}{one['log_conductance']:>15.3f}{one['noise']:>9.4f}"
            f"{one['drift_per_min']:>+11.4f}{r0:>12}".rstrip()
        )
    return lines


def _profile_summary(profile: Data) -> list[str]:
    lines = [f"profile {profile['id']}, of board {profile['board']}, made {profile['date']}"]
    if profile["baseline_s"] is not None:
        air = ", ".join(f"{name} {value:g}" for name, value in profile["environment"].items())
        lines.append(f"  clean air   {profile['baseline_s']:.0f} s ({air})")
    if profile["method"] is None:
        lines.append("  no correction: no reference odour was measured")
        return lines
    figures = profile["figures"]
    errors = ", ".join(
        f"{name} {figures[f'error_{name}']:.2f}" for name in METHODS if f"error_{name}" in figures
    )
    lines += [
        f"  references  {', '.join(profile['references'])}",
        f"  correction  {profile['method']}, towards the training rig of {profile['model']}",
        f"  mismatch of references left out (training rig: {TRAINING_RIG_MISMATCH})  "
        f"{errors or 'unknown with one'}",
        f"  {'channel':<16}{'shift':>9}{'gain':>8}{'response':>10}",
    ]
    lines += [
        f"  {name:<16}{one['shift']:>+9.3f}{one['gain']:>8.3f}{one['response_s']:>8.2f} s"
        for name, one in profile["channels"].items()
    ]
    return lines


def _fit_summary(answer: Data) -> list[str]:
    lines = _profile_summary(answer["profile"])
    in_force = answer.get("in_force")
    if in_force is not None:
        lines.append(f"The running service applies it: {in_force['state']}.")
    else:
        lines.append("The service will apply it when it starts.")
    return lines + ([answer["advice"]] if answer.get("advice") else [])


def _show_summary(answer: Data) -> list[str]:
    lines = [
        f"{item['taken']}  {item['seconds']:5.0f} s  {item['label'] or 'clean air'}"
        for item in answer["captures"]
    ] or ["There are no captures yet."]
    if answer["trouble"] is not None:
        lines.append(f"The profile cannot be used. {answer['trouble']}")
    elif answer["profile"] is None:
        lines.append("There is no profile: the rig runs uncalibrated.")
    else:
        lines += _profile_summary(answer["profile"])
    in_force = answer.get("in_force")
    if in_force is not None:
        why = "" if in_force["why"] is None else f": {in_force['why']}"
        lines.append(f"The running service reports: {in_force['state']}{why}.")
        drift = [f"{name} {value:+.3f}" for name, value in in_force["drift"].items()]
        if drift:
            lines.append(f"  drift of clean air, ln conductance: {', '.join(drift)}")
    return lines


def _score_summary(answer: Data) -> list[str]:
    profile = answer["profile"] or "no profile"
    lines = [f"{answer['model']}, before and after {profile}"]
    lines += score_table(answer) + sets_summary(answer["sets"])
    if answer["of"] == "references":
        lines.append(
            "The profile was fitted to these references. A score on other recordings says more: "
            "scentd calibrate score FOLDER/LABEL/*.csv."
        )
    return lines


def _forget_summary(answer: Data) -> list[str]:
    removed = [
        f"{item['seconds']:.0f} s of {item['label'] or 'clean air'}" for item in answer["forgotten"]
    ]
    return [f"Forgotten: {', '.join(removed) or 'nothing'}. The profile stays until the next fit."]


_SUMMARIES: dict[str, Callable[[Data], list[str]]] = {
    "baseline": _capture_summary,
    "reference": _capture_summary,
    "fit": _fit_summary,
    "show": _show_summary,
    "undo": _show_summary,
    "score": _score_summary,
    "forget": _forget_summary,
}
