"""Daemon: `scentd replay`: recognise the smells in recordings, with the predictions of a live run.

A replay takes its time from the recording: it runs as fast as the machine allows and always gives
the same predictions.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.rig_profile import PROFILE
from daemon.board.diagnosis import rejected_lines
from daemon.calibrate.actions import read_profile
from daemon.commands._options import CONFIG_DEFAULT
from daemon.commands._service import as_owner, log_warnings_only, print_notes
from daemon.config.loading import default_config_path, load_config
from daemon.config.settings import DecisionConfig
from daemon.enroll import TaughtSmells, rig_smells, taught_smells
from daemon.installed_models.loading import nose_settings, with_decision
from daemon.installed_models.onnx_runtime import require_runtime
from daemon.installed_models.store import ModelStore
from daemon.mqtt import payloads, topics
from daemon.mqtt.payloads import Envelope
from daemon.recording.picture import Picture, picture_page
from daemon.system.owner import act_as_owner
from hardware.counting import counted
from hardware.foreign.layout import foreign_layout
from hardware.foreign.options import add_format_options, chosen_format
from hardware.recording import (
    COMPRESSED_SUFFIX,
    RecordingError,
)
from hardware.recording_stream import OWN_LAYOUT, RecordingStream
from hardware.segment_names import LIVE_SUFFIX
from models.bundle import RIG_BUNDLES, load_bundle
from models.nose import NoseSettings
from models.recogniser import TAUGHT
from models.replay import ReplayResult, Rig, is_live, recognised, replay, replay_nose
from models.requirements import (
    CannotFeedError,
    feeding_problem,
    is_resampled,
    missing_channels,
)
from models.results import Event, Prediction

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from calibration.rig_profile import Profile
    from daemon.config.settings import Config
    from daemon.mqtt.payloads import Payload
    from models.bundle import Bundle
    from models.correction import Correction
    from models.nose import Nose
    from models.results import Step

STANDARD_INPUT = "-"
REPLAY_BOOT_ID = "0" * 16
"""Constant, so that a recording always gives the same payloads, except for the latency."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Recognise the smells in recordings: CSVs, or a capture of what the board sent. "
        "A recording is assumed to begin with warm sensors, and a published one to lie within "
        f"one exposure; one that the service wrote (*{LIVE_SUFFIX}) begins as the service did, "
        "if it is the first of its run."
    )
    parser.epilog = (
        "Examples: scentd replay coffee.csv --json | tail -n 1; one run of the service, whole: "
        f"scentd replay --joined r000012-*{LIVE_SUFFIX}*"
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a recording, also compressed (.gz); - is standard input",
    )
    parser.add_argument(
        "--joined",
        action="store_true",
        help="the files are segments of one recording, in order: replay them as one",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="bundle name or folder (default: substances-50, or mixtures-12 where it fits better)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="also write a picture of the recordings: channels, states and names over time",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="begin with the warm-up, as a live run does, for any file name",
    )
    add_format_options(parser, required=False)
    rig = parser.add_mutually_exclusive_group()
    rig.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="take the rig's models, settings, calibration and taught smells from this file "
        f"({CONFIG_DEFAULT}, unless --model or --state is given)",
    )
    rig.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="take calibration and taught smells from a rig's state folder",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay every file; return 1 if any cannot be replayed."""
    log_warnings_only()
    config = _rig_config(args)
    if args.state is not None:
        args.state = act_as_owner(args.state.resolve())
    require_runtime(args.state if config is None else config.state_dir, remember=False)
    failed = 0
    pictures: list[Picture] | None = None if args.html is None else []
    recordings = [args.files] if args.joined else [[file] for file in args.files]
    for files in recordings:
        try:
            _replay(files, args, config, pictures)
        except (RecordingError, CannotFeedError) as error:
            # The other files can still be replayed.
            if len(recordings) == 1:
                raise
            failed += 1
            print(f"scentd: {error}", file=sys.stderr)
    if pictures:
        args.html.write_text(picture_page(pictures), encoding="utf-8")
        print(f"picture: {args.html}", file=sys.stderr)
    return 1 if failed else 0


def _rig_config(args: argparse.Namespace) -> Config | None:
    """Return the configuration that was named, or the default one where nothing else was named."""
    path = args.config
    if path is None and args.model is None and args.state is None:
        path = default_config_path()
        if path is not None:
            print(f"scentd: with the configuration {path}", file=sys.stderr)
    return None if path is None else as_owner(load_config(path))


def _replay(
    files: Sequence[str],
    args: argparse.Namespace,
    config: Config | None,
    pictures: list[Picture] | None,
) -> None:
    file = files[0]
    form = chosen_format(args)
    layout = OWN_LAYOUT if form is None else foreign_layout(form)
    recording = RecordingStream([_existing_path(name) for name in files], layout)
    if form is not None:
        print_notes(file, recording.notes)
    state_dir = args.state if config is None else config.state_dir
    profile = _profile(state_dir, config)
    correction = None if profile is None else profile.rig_correction()
    try:
        bundles = [_choose_bundle(file, recording, args.model, config)]
        taught = _taught(bundles, state_dir, correction)
    except CannotFeedError:
        # What the rig was taught needs no model.
        bundles, taught = [], _taught([], state_dir, correction)
        if taught.recogniser is None:
            raise
    if form is None:
        print_notes(file, recording.notes)
    name = bundles[0].manifest.name if bundles else TAUGHT
    nose = replay_nose(
        bundles,
        recording,
        live=args.live or is_live(file, recording),
        settings=NoseSettings() if config is None else nose_settings(config),
        rate_hz=None if config is None else config.source.rate_hz,
        rig=Rig(
            correction,
            None if profile is None else profile.clean_air,
            {model: head for model, head in taught.heads.items() if not head.empty},
            taught.recogniser,
            taught.unmixing,
        ),
    )
    printer: _JsonPrinter | _TablePrinter
    if args.json:
        printer = _JsonPrinter(recording.first_ms)
    else:
        rate_hz = recording.nominal_rate_hz
        resampled = any(is_resampled(bundle.manifest, rate_hz) for bundle in bundles)
        interpolated = ", interpolated to its rate" if resampled else ""
        printer = _TablePrinter(f"{file}  ({name}{interpolated})")
    # Mixtures of taught smells have predictions of their own, beside those of single substances.
    task = bundles[0].manifest.task if bundles else topics.SUBSTANCE
    outcome = ReplayResult()
    picture = _new_picture(" ".join(files), len(recording), task, pictures)
    for result in _results(nose, recording, picture):
        if isinstance(result, Event):
            printer.print_event(result)
            continue
        if result.task == task:
            outcome.update(result)
        if result.task == task or args.json:
            printer.print_prediction(result)
    printer.print_summary(
        payloads.summary_payload(
            file=file,
            model=name,
            label=outcome.label,
            probability=outcome.probability,
            decided_s=outcome.decided_s,
            frames=len(recording),
            rejected=sum(rejected_lines(recording.counts).values()) + recording.torn,
        )
    )


def _new_picture(
    title: str, readings: int, task: str, pictures: list[Picture] | None
) -> Picture | None:
    """Return the picture of a recording, added to the others; None where none is wanted."""
    if pictures is None:
        return None
    pictures.append(Picture(title, readings, task))
    return pictures[-1]


def _results(
    nose: Nose, recording: RecordingStream, picture: Picture | None
) -> Iterator[Event | Prediction]:
    def draw(step: Step) -> None:
        if picture is not None:
            picture.add_step(step, nose.exposure.clean_air)
            for prediction in step.predictions:
                picture.add_prediction(prediction)

    return replay(nose, recording, draw)


def _existing_path(file: str) -> Path:
    """Return the path to read; an event may name a segment that was compressed later."""
    if file == STANDARD_INPUT:
        return Path("/dev/stdin")
    path = Path(file)
    packed = path.with_name(path.name + COMPRESSED_SUFFIX)
    return packed if not path.exists() and packed.exists() else path


def _profile(state_dir: Path | None, config: Config | None) -> Profile | None:
    """Return the rig's calibration profile, None without a rig or a profile that can be used."""
    if state_dir is None:
        return None
    board = None if config is None else config.board_id
    profile, trouble = read_profile(state_dir / PROFILE, board)
    if trouble is not None:
        print(f"scentd: {trouble} Replayed uncalibrated.", file=sys.stderr)
    return profile


def _taught(
    bundles: Sequence[Bundle], state_dir: Path | None, correction: Correction | None
) -> TaughtSmells:
    """Return what the rig was taught; nothing without a rig."""
    if state_dir is None:
        return TaughtSmells({}, None, None, ())
    smells = taught_smells(rig_smells(bundles, state_dir, correction))
    for problem in smells.problems:
        print(f"scentd: {problem}", file=sys.stderr)
    return smells


_load_bundle = cache(load_bundle)


def _choose_bundle(
    file: str, recording: RecordingStream, model: str | None, config: Config | None
) -> Bundle:
    """Return the model of `--model`, or else one of the recording's own rate, or of its channels.

    Of the models that need no interpolated samples, if there are any, the one that lacks the
    fewest channels.
    """
    decision = DecisionConfig()
    names: Sequence[str] = RIG_BUNDLES if config is None else config.models
    if model is not None:
        names = [model]
    if config is not None:
        decision, store = config.decision, ModelStore(config.state_dir)
        names = [str(store.folder(name)) for name in names]
    bundles = [with_decision(_load_bundle(name), decision) for name in names]
    present, rate_hz = recording.present, recording.nominal_rate_hz
    problems = [(bundle, feeding_problem(bundle.manifest, present, rate_hz)) for bundle in bundles]
    usable = [bundle for bundle, problem in problems if problem is None]
    if not usable:
        reasons = "; ".join(f"{bundle.manifest.name}: {problem}" for bundle, problem in problems)
        raise CannotFeedError(
            f"{file} cannot feed the model ({reasons}). It has {', '.join(present)} at "
            f"{rate_hz:.3g} Hz. Choose a model that needs no more than these: scentd models list."
        )
    return min(
        usable,
        key=lambda bundle: (
            is_resampled(bundle.manifest, rate_hz),
            len(missing_channels(bundle.manifest, present)),
        ),
    )


class _JsonPrinter:
    """Prints one object a line: the payloads that MQTT would carry, and their topic.

    `first_ms` is the time of the recording's first row.
    """

    def __init__(self, first_ms: int) -> None:
        self._first_ms = first_ms
        self._seq = 0

    def print_prediction(self, prediction: Prediction) -> None:
        payload = payloads.prediction_payload(prediction, self._envelope(prediction.t_ms))
        self._print({"topic": prediction.task, **payload})

    def print_event(self, event: Event) -> None:
        envelope = self._envelope(event.t_ms)
        # In the time of the file, to find the row there.
        event = replace(event, t_ms=event.t_ms + self._first_ms)
        self._print({"topic": topics.EVENT, **payloads.event_payload(event, None, envelope)})

    def print_summary(self, summary: Payload) -> None:
        self._print(summary)

    def _envelope(self, t_ms: int) -> Envelope:
        # A recording has no date: its time starts in 1970, so `clock_synced` is false.
        envelope = Envelope(t_ms, clock_synced=False, boot_id=REPLAY_BOOT_ID, seq=self._seq)
        self._seq += 1
        return envelope

    def _print(self, payload: Payload) -> None:
        print(json.dumps(payload, allow_nan=False, ensure_ascii=False))


class _TablePrinter:
    """Prints a line whenever the answer changes, and one at the end."""

    def __init__(self, heading: str) -> None:
        self._printed: tuple[str, str | None] | None = None
        print(heading)

    def print_prediction(self, prediction: Prediction) -> None:
        answer = (str(prediction.state), recognised(prediction)[0] or prediction.reason)
        if answer == self._printed:
            return
        self._printed = answer
        best = "  ".join(f"{name} {share:.2f}" for name, share in prediction.top[:3])
        print(f"  {prediction.t_ms / 1000:8.1f} s  {answer[0]:<12} {answer[1] or '-':<24} {best}")

    def print_event(self, event: Event) -> None:
        """Print nothing: the predictions show it."""

    def print_summary(self, summary: Payload) -> None:
        readings = counted(summary["frames"], "reading")
        if summary["rejected"]:
            readings += f", {counted(summary['rejected'], 'line')} rejected"
        if summary["label"] is None:
            print(f"  undecided after {readings}\n")
            return
        print(
            f"  => {summary['label']} (probability {summary['probability']:.2f}), settled after "
            f"{summary['decided_s']:.0f} s; {readings}\n"
        )
