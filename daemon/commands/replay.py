"""Leaf: `scentd replay`: recognise the smells in recordings, as a live run would have.

The clock is the recording's own: a replay is as fast as the machine allows, and
always gives the same answers.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.profile import PROFILE
from daemon.board.diagnosis import rejected_lines
from daemon.calibrate.actions import read_profile
from daemon.config.loading import load_config
from daemon.config.settings import DecisionConfig, LogConfig
from daemon.enroll import smell_stores, taught_heads
from daemon.installed_models.loading import nose_settings, with_decision
from daemon.installed_models.store import ModelStore
from daemon.mqtt import payloads, topics
from daemon.mqtt.payloads import Envelope
from daemon.recording.segments import LIVE_SUFFIX, place_of
from daemon.system.logs import configure_logs
from hardware.recording import (
    COMPRESSED_SUFFIX,
    Recording,
    RecordingError,
    is_published,
    present_channels,
    read_recordings,
)
from models.bundle import RIG_BUNDLES, load_bundle
from models.decision_spec import State
from models.nose import Nose, NoseSettings
from models.requirements import CannotFeedError, feeding_problem, missing_channels

if TYPE_CHECKING:
    import argparse

    from daemon.config.settings import Config
    from hardware.command_line import Subparsers
    from models.bundle import Bundle
    from models.correction import Correction
    from models.results import Event, Prediction
    from models.taught_head import TaughtHead

STANDARD_INPUT = "-"
REPLAY_BOOT_ID = "0" * 16
"""A replay is no boot: the same recording gives the same payloads, byte for byte but latency."""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "replay",
        help="recognise the smells in recordings",
        description=(
            "Recognise the smells in recordings: CSVs, or a capture of what the board sent. "
            "A recording is taken to begin with warm sensors, a published one to lie within one "
            f"exposure; one that the service kept (*{LIVE_SUFFIX}) begins as the service did, if "
            "it is the first of its run."
        ),
        epilog=(
            "Examples: scentd replay coffee.csv --json | tail -n 1; one run of the service, whole: "
            f"scentd replay --joined r000012-*{LIVE_SUFFIX}*"
        ),
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a recording, also packed (.gz); - is standard input",
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
        "--live",
        action="store_true",
        help="begin with the warm-up, as a live run does, whatever the file's name",
    )
    rig = parser.add_mutually_exclusive_group()
    rig.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="take the rig's models, settings, calibration and taught smells from there",
    )
    rig.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="take calibration and taught smells from a rig's state folder",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay every file; return 1 if any could not be."""
    configure_logs(LogConfig(level="warning"))  # to standard error: the answers are ours
    config = None if args.config is None else load_config(args.config)
    printer: _Printer = _JsonPrinter() if args.json else _TablePrinter()
    failed = 0
    recordings = [args.files] if args.joined else [[file] for file in args.files]
    for files in recordings:
        try:
            _replay(files, args, config, printer)
        except (RecordingError, CannotFeedError) as error:
            # The other files are still worth their answers.
            if len(recordings) == 1:
                raise
            failed += 1
            print(f"scentd: {error}", file=sys.stderr)
    return 1 if failed else 0


def _replay(
    files: list[str], args: argparse.Namespace, config: Config | None, printer: _Printer
) -> None:
    """Replay one recording, which may lie in several files."""
    file = files[0]
    recording = read_recordings([_found(name) for name in files])
    bundle = _chosen(file, recording, args.model, config)
    state_dir = args.state if config is None else config.state_dir
    correction = _correction(state_dir, config)
    live = args.live or _is_live(file, recording)
    nose = Nose(
        [bundle],
        NoseSettings() if config is None else nose_settings(config),
        rate_hz=_known_rate_hz(recording, config),
        skip_warm_up=not live,
        assume_exposed=not live and is_published(recording),
        correction=correction,
        heads=_heads(bundle, state_dir, correction),
    )
    period_ms = 1000.0 / recording.nominal_rate_hz
    tale = _Tale()
    first_ms = 0 if recording.timestamp_ms is None else int(recording.timestamp_ms[0])
    printer.begin(f"{file}  ({bundle.manifest.name})", first_ms)
    frames = 0
    for frames, frame in enumerate(recording.frames(), start=1):
        step = nose.process(frame, (frames - 1) * period_ms)
        for event in step.events:
            printer.event(event)
        for prediction in step.predictions:
            tale.hear(prediction)
            printer.prediction(prediction)
    for prediction in nose.finish():
        tale.hear(prediction)
        printer.prediction(prediction)
    printer.summary(
        payloads.summary_payload(
            file=file,
            model=bundle.manifest.name,
            label=tale.label,
            probability=tale.probability,
            decided_s=tale.decided_s,
            frames=frames,
            rejected=sum(rejected_lines(recording.counts).values()) + recording.torn,
        )
    )


def _found(file: str) -> Path:
    """Return the path to read; an event names a segment as it was before it was packed."""
    if file == STANDARD_INPUT:
        return Path("/dev/stdin")
    path = Path(file)
    packed = path.with_name(path.name + COMPRESSED_SUFFIX)
    return packed if not path.exists() and packed.exists() else path


def _correction(state_dir: Path | None, config: Config | None) -> Correction | None:
    """Return what the rig's calibration makes of its readings, of a rig that is known."""
    if state_dir is None:
        return None
    board = None if config is None else config.board_id
    profile, trouble = read_profile(state_dir / PROFILE, board)
    if trouble is not None:
        print(f"scentd: {trouble} Replayed uncalibrated.", file=sys.stderr)
    return None if profile is None else profile.rig_correction()


def _heads(
    bundle: Bundle, state_dir: Path | None, correction: Correction | None
) -> dict[str, TaughtHead]:
    """Return what the rig was taught beside the model, of a rig that is known."""
    if state_dir is None:
        return {}
    heads, problems = taught_heads(smell_stores([bundle], state_dir, correction))
    for problem in problems:
        print(f"scentd: {problem}", file=sys.stderr)
    return {model: head for model, head in heads.items() if not head.empty}


def _is_live(file: str, recording: Recording) -> bool:
    """Whether the recording begins as the service does: of its segments, only a run's first."""
    if place_of(Path(file)) is None:
        return file.endswith(LIVE_SUFFIX)
    # The service's time begins with its first reading; recording may have begun later.
    return recording.timestamp_ms is not None and int(recording.timestamp_ms[0]) == 0


def _known_rate_hz(recording: Recording, config: Config | None) -> float | None:
    if config is not None and config.source.rate_hz is not None:
        return config.source.rate_hz
    return None if recording.timestamp_ms is not None else recording.nominal_rate_hz


@cache
def _loaded(name: str) -> Bundle:
    return load_bundle(name)


def _chosen(file: str, recording: Recording, model: str | None, config: Config | None) -> Bundle:
    """Return the model to run: the one asked for, else the one that the recording feeds best."""
    if model is not None:
        names: tuple[str, ...] = (model,)
    else:
        names = RIG_BUNDLES if config is None else config.models
    decision = DecisionConfig() if config is None else config.decision
    if config is not None:
        names = tuple(str(ModelStore(config.state_dir).folder(name)) for name in names)
    bundles = [with_decision(_loaded(name), decision) for name in names]
    present = present_channels(recording)
    problems = [
        feeding_problem(bundle.manifest, present, recording.nominal_rate_hz) for bundle in bundles
    ]
    fed = [bundle for bundle, problem in zip(bundles, problems, strict=True) if problem is None]
    if not fed:
        told = "; ".join(
            f"{bundle.manifest.name}: {problem}"
            for bundle, problem in zip(bundles, problems, strict=True)
        )
        raise CannotFeedError(
            f"{file} cannot feed the model ({told}). It has {', '.join(present)} at "
            f"{recording.nominal_rate_hz:.3g} Hz. Choose a model that can do with these: "
            "scentd models list."
        )
    return min(fed, key=lambda bundle: len(missing_channels(bundle.manifest, present)))


@dataclass
class _Tale:
    """What a recording's predictions add up to: the last label, and since when it stood."""

    label: str | None = None
    probability: float | None = None
    decided_s: float | None = None

    def hear(self, prediction: Prediction) -> None:
        """Take the next prediction."""
        if prediction.state is not State.RECOGNISED:
            return
        label, probability = _verdict(prediction)
        if label != self.label:
            self.decided_s = prediction.t_ms / 1000.0
        self.label, self.probability = label, probability


def _verdict(prediction: Prediction) -> tuple[str | None, float | None]:
    """Return the label, or a mixture's components and the weakest belief among them."""
    if prediction.task == topics.SUBSTANCE:
        return prediction.label, prediction.probability
    parts = prediction.components
    # By name: which of two equal parts is the larger one may change with every window.
    return "+".join(sorted(part.label for part in parts)), min(part.presence for part in parts)


class _Printer:
    """What both ways of printing share."""

    def begin(self, heading: str, first_ms: int) -> None:
        """Start a recording whose first row is of `first_ms`."""

    def prediction(self, prediction: Prediction) -> None:
        """Show a prediction."""

    def event(self, event: Event) -> None:
        """Show an event."""

    def summary(self, summary: dict[str, Any]) -> None:
        """End a file."""


@dataclass
class _JsonPrinter(_Printer):
    """One object a line: the payloads that MQTT would carry, and their topic."""

    seq: int = field(default=0)
    first_ms: int = field(default=0)

    def _envelope(self, t_ms: int) -> Envelope:
        # The recording's time starts in 1970: it does not know its date, and says so.
        envelope = Envelope(t_ms, clock_synced=False, boot_id=REPLAY_BOOT_ID, seq=self.seq)
        self.seq += 1
        return envelope

    def begin(self, _heading: str, first_ms: int) -> None:
        """Count publications anew, as a boot does."""
        self.seq = 0
        self.first_ms = first_ms

    def prediction(self, prediction: Prediction) -> None:
        """Print the payload."""
        envelope = self._envelope(prediction.t_ms)
        payload = payloads.prediction_payload(prediction, envelope)
        self._line({"topic": payloads.prediction_topic(prediction), **payload})

    def event(self, event: Event) -> None:
        """Print the payload."""
        envelope = self._envelope(event.t_ms)
        # In the file's own time, so that the row can be found there.
        event = replace(event, t_ms=event.t_ms + self.first_ms)
        payload = payloads.event_payload(event, None, envelope)
        self._line({"topic": topics.EVENT, **payload})

    def summary(self, summary: dict[str, Any]) -> None:
        """Print the summary as it is."""
        self._line(summary)

    def _line(self, payload: dict[str, Any]) -> None:
        print(json.dumps(payload, allow_nan=False, ensure_ascii=False))


@dataclass
class _TablePrinter(_Printer):
    """A line whenever the answer changes, and one at the end."""

    said: tuple[str, str | None] | None = None

    def begin(self, heading: str, _first_ms: int) -> None:
        """Print the file's heading."""
        self.said = None
        print(heading)

    def prediction(self, prediction: Prediction) -> None:
        """Print a line if this is news."""
        recognised = prediction.state is State.RECOGNISED
        label = _verdict(prediction)[0] if recognised else None
        news = (str(prediction.state), label or prediction.reason)
        if news == self.said:
            return
        self.said = news
        best = "  ".join(f"{name} {share:.2f}" for name, share in prediction.top[:3])
        print(f"  {prediction.t_ms / 1000:8.1f} s  {news[0]:<12} {news[1] or '-':<24} {best}")

    def summary(self, summary: dict[str, Any]) -> None:
        """Print the answer."""
        rejected = f", {summary['rejected']} lines rejected" if summary["rejected"] else ""
        if summary["label"] is None:
            print(f"  undecided after {summary['frames']} readings{rejected}\n")
            return
        print(
            f"  => {summary['label']} (probability {summary['probability']:.2f}), settled after "
            f"{summary['decided_s']:.0f} s; {summary['frames']} readings{rejected}\n"
        )
