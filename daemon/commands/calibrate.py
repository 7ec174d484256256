"""Leaf: `scentd calibrate`: measure a rig, fit its profile, show it and score it.

Everything goes through the running service where there is one, which holds the port and takes
a new profile at once; without one the same work is done here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.transfer import METHODS
from daemon.board.capture import capture_from_port
from daemon.calibrate.actions import CalibrationActions
from daemon.calibrate.captures import BASELINE, REFERENCE
from daemon.calibrate.evaluation import sets_summary, table
from daemon.calibrate.live import CALIBRATE, CAPTURE_S, describe_capture
from daemon.commands.record import positive_seconds
from daemon.config.loading import load_config
from daemon.config.settings import LogConfig
from daemon.mqtt.service_client import send_request, service_is_online
from daemon.system.logs import configure_logs
from daemon.system.progress import Progress
from daemon.system.signals import Stop
from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.config.settings import Config
    from hardware.command_line import Subparsers

EPILOG = """Examples, in the order of a calibration:
  scentd calibrate baseline --config rig.yaml           # in clean air, warmed up
  scentd calibrate reference almond --config rig.yaml   # hold almonds to it; four odours or more
  scentd calibrate fit --config rig.yaml                # in force at once
  scentd calibrate score --config rig.yaml recordings/*/*.csv
"""

EXAMPLES = {
    "baseline": "scentd calibrate baseline --config rig.yaml",
    "reference": "scentd calibrate reference almond --config rig.yaml --seconds 180",
    "fit": "scentd calibrate fit --config rig.yaml",
    "show": "scentd calibrate show --config rig.yaml --json",
    "score": "scentd calibrate score --config rig.yaml recordings/*/*.csv",
    "forget": "scentd calibrate forget almond --config rig.yaml",
    "undo": "scentd calibrate undo --config rig.yaml",
}

WORK_S = 120.0
"""Longest silence of a service that works: it tells its progress every second."""

USUAL_MISMATCH = 5
"""`calibration.transfer.mismatch` of the training rig's own recordings: median 4.2, mean 5.6 of
every tenth that substances-50 was trained on."""

BOARD_PATIENCE = 3.0
"""A board may take this many times as long as it should before a capture is given up."""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "calibrate",
        help="measure this rig and fit its profile",
        description=(
            "Make this rig's readings those of the rig that the models were trained on. Measure "
            "clean air and a few odours that the model knows, then fit: the profile is in force "
            "at once and its id stands in every prediction."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name, help=summary, description=summary, epilog=f"Example: {EXAMPLES[name]}"
        )

    baseline = add("baseline", "measure clean air; refused while it moves")
    reference = add("reference", "measure an odour that the model knows")
    reference.add_argument("label", metavar="LABEL", help="one of the model's labels")
    for action, default_s in (
        (baseline, CAPTURE_S[BASELINE]),
        (reference, CAPTURE_S[REFERENCE]),
    ):
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
    fit = add("fit", "fit the profile to what was measured; in force at once")
    show = add("show", "show what was measured and the profile in force")
    score = add("score", "recognise recordings without and with the profile")
    score.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="recordings of one exposure each, labelled by their folder (default: the references)",
    )
    score.add_argument("--label", metavar="LABEL", help="what all of them are of")
    forget = add("forget", "throw away the references of an odour, or every capture")
    forget.add_argument("label", nargs="?", metavar="LABEL", help="left out: every capture")
    undo = add("undo", "go back to the profile before, or to none")
    for action in (baseline, reference, fit, show, score, forget, undo):
        action.add_argument(
            "--config", type=Path, required=True, metavar="FILE", help="the rig's YAML file"
        )
        action.add_argument("--json", action="store_true", help="print one JSON object")
        action.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do the action, print what came of it."""
    configure_logs(LogConfig(level="warning"))
    config = load_config(args.config)
    if args.action in {BASELINE, REFERENCE}:
        answer = _capture(config, args)
    elif args.action == "score":
        answer = _score(config, args)
    else:
        label = getattr(args, "label", None)
        answer = _act(config, args.action, {} if label is None else {"label": label})
    if args.json:
        print(json.dumps(answer, allow_nan=False))
    else:
        print("\n".join(_TOLD[args.action](answer)))
    return 0


def _act(config: Config, action: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Let the service do it, or do it here where none runs."""
    if not service_is_online(config):
        actions = CalibrationActions(config)
        function: Callable[..., dict[str, Any]] = {
            "fit": actions.fit,
            "show": actions.show,
            "forget": actions.forget,
            "undo": actions.undo,
        }[action]
        return function(**payload)
    with Progress() as bar:
        return send_request(
            config,
            CALIBRATE,
            {"action": action, **payload},
            timeout_s=WORK_S,
            on_progress=lambda told: bar.show(0.5, f"{action}: {told.get('seconds', 0):.0f} s"),
        )


def _capture(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Measure clean air or a reference: from a recording, through the service or at the port."""
    label = getattr(args, "label", None)
    bench = CalibrationActions(config)
    if label is not None:
        label = bench.check_label(label)
    if args.recording is not None:
        return bench.keep_recording(args.action, label, args.recording)
    seconds = args.seconds or CAPTURE_S[args.action]
    with Progress() as bar:
        if service_is_online(config):
            when = {"seconds": seconds} if args.last is None else {"last_s": args.last}
            named = {} if label is None else {"label": label}
            return send_request(
                config,
                CALIBRATE,
                {"action": args.action, **named, **when},
                timeout_s=WORK_S,
                on_progress=lambda told: _show(bar, told),
            )
        if args.last is not None:
            raise UsageError(
                "Only a running service remembers the last seconds, and none answers. Start it "
                "(scentd run --config FILE), or leave --last out to measure now."
            )
        stop = Stop(after_s=BOARD_PATIENCE * seconds + 60.0)
        with stop.on_signals():
            stretch = capture_from_port(
                config.source, seconds, stop, lambda taken: _show(bar, describe_capture(taken))
            )
    return bench.keep(args.action, label, stretch)


def _show(bar: Progress, told: dict[str, Any]) -> None:
    """Show how far a capture is, and whether the sensors rest."""
    state = "settled" if told.get("settled") else "not settled"
    moving = told.get("unsettled") or []
    still = f": {', '.join(moving)}" if moving else ""
    done_s, of_s = told.get("seconds", 0.0), told.get("of_s", 1.0)
    bar.show(done_s / of_s, f"{done_s:.0f} of {of_s:.0f} s, {state}{still}")


def _score(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Score recordings here, whoever holds the port: only files are read."""
    if args.label is not None and not args.files:
        raise UsageError("--label says what recordings are of: name them, or leave it out.")
    return CalibrationActions(config).score(args.files, args.label)


def _capture_summary(answer: dict[str, Any]) -> list[str]:
    """Return what a capture came to."""
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


def _profile_summary(profile: dict[str, Any]) -> list[str]:
    lines = [f"profile {profile['id']}, of board {profile['board']}, made {profile['date']}"]
    if profile["baseline_s"] is not None:
        air = ", ".join(f"{name} {value:g}" for name, value in profile["environment"].items())
        lines.append(f"  clean air   {profile['baseline_s']:.0f} s ({air})")
    if profile["method"] is None:
        lines.append("  no correction: no reference odour was measured")
        return lines
    figures = profile["figures"]
    told = ", ".join(
        f"{name} {figures[f'error_{name}']:.2f}" for name in METHODS if f"error_{name}" in figures
    )
    told = told or "unknown with one"
    lines += [
        f"  references  {', '.join(profile['references'])}",
        f"  correction  {profile['method']}, towards the training rig of {profile['model']}",
        f"  mismatch of references left out (some {USUAL_MISMATCH}: as on the training rig)  "
        f"{told}",
        f"  {'channel':<16}{'shift':>9}{'gain':>8}{'response':>10}",
    ]
    lines += [
        f"  {name:<16}{one['shift']:>+9.3f}{one['gain']:>8.3f}{one['response_s']:>8.2f} s"
        for name, one in profile["channels"].items()
    ]
    return lines


def _fit_summary(answer: dict[str, Any]) -> list[str]:
    lines = _profile_summary(answer["profile"])
    in_force = answer.get("in_force")
    if in_force is not None:
        lines.append(f"The running service applies it: {in_force['state']}.")
    else:
        lines.append("The service will apply it when it starts.")
    return lines


def _show_summary(answer: dict[str, Any]) -> list[str]:
    lines = [
        f"{item['taken']}  {item['seconds']:5.0f} s  {item['label'] or 'clean air'}"
        for item in answer["captures"]
    ] or ["Nothing was measured yet."]
    if answer["trouble"] is not None:
        lines.append(f"The profile cannot be used. {answer['trouble']}")
    elif answer["profile"] is None:
        lines.append("There is no profile: the rig runs uncalibrated.")
    else:
        lines += _profile_summary(answer["profile"])
    in_force = answer.get("in_force")
    if in_force is not None:
        why = "" if in_force["why"] is None else f": {in_force['why']}"
        lines.append(f"The running service says: {in_force['state']}{why}.")
        drift = [f"{name} {value:+.3f}" for name, value in in_force["drift"].items()]
        if drift:
            lines.append(f"  drift of clean air, ln conductance: {', '.join(drift)}")
    return lines


def _score_summary(answer: dict[str, Any]) -> list[str]:
    profile = answer["profile"] or "no profile"
    lines = [f"{answer['model']}, before and after {profile}"]
    lines += table(answer["files"], answer) + sets_summary(answer["sets"])
    if answer["of"] == "references":
        lines.append(
            "These are the references that the profile was fitted to: recordings that it never "
            "met tell more (scentd calibrate score FOLDER/LABEL/*.csv)."
        )
    return lines


def _forget_summary(answer: dict[str, Any]) -> list[str]:
    gone = [
        f"{item['seconds']:.0f} s of {item['label'] or 'clean air'}" for item in answer["forgotten"]
    ]
    return [f"Forgotten: {', '.join(gone) or 'nothing'}. The profile stays until the next fit."]


_TOLD: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "baseline": _capture_summary,
    "reference": _capture_summary,
    "fit": _fit_summary,
    "show": _show_summary,
    "undo": _show_summary,
    "score": _score_summary,
    "forget": _forget_summary,
}
