"""Leaf: `scentd enroll`: teach a rig a new smell, and manage what it was taught.

Recordings are learnt from right here; the board is asked through the running service, or read
from its port where no service holds it. Whatever changes here, a running service hears of.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.profile import PROFILE
from calibration.smell_exchange import export_smells, import_smells
from calibration.smell_set import SmellError
from daemon.board.capture import capture_from_port
from daemon.calibrate.actions import read_profile
from daemon.commands.record import positive_seconds
from daemon.config.loading import load_config
from daemon.config.settings import LogConfig, default_state_dir
from daemon.enroll import ENROLL, TEACH_S, Enrolment, smell_stores
from daemon.installed_models.loading import load_models, nose_settings
from daemon.installed_models.store import ModelStore
from daemon.mqtt.service_client import send_request, service_is_online
from daemon.system.background import finish
from daemon.system.logs import configure_logs
from daemon.system.progress import Progress
from daemon.system.signals import Stop
from hardware.errors import UsageError
from hardware.recording import is_published, read_recording
from models.bundle import RIG_BUNDLES, load_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.smell_store import SmellStore
    from daemon.config.settings import Config
    from daemon.system.background import Data
    from hardware.command_line import Subparsers
    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction

EPILOG = """Examples:
  scentd enroll soap --config rig.yaml
  scentd enroll soap --config rig.yaml --last 120
  scentd enroll soap --recording soap-1.csv soap-2.csv --state ./state
  scentd enroll --promote soap --config rig.yaml
  scentd enroll --list --config rig.yaml
"""

ASK_S = 60.0
"""Longest silence of a service that learns: a slow board hears its past again in this time."""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "enroll",
        help="teach the rig a new smell",
        description=(
            "Teach the rig a new smell, or refine one by another exposure. A new smell is in "
            "shadow first: the answer says what it would have been called, what it is confused "
            "with and what it would have said over the past, and --promote lets the rig say it."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("label", nargs="?", metavar="LABEL", help="name of the smell to teach")
    where = parser.add_argument_group("where the smell is")
    where.add_argument(
        "--recording",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="recordings of it, one exposure each",
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
        help="recordings in which to try the smell (a service tries its last minutes)",
    )
    actions = parser.add_argument_group("what was taught").add_mutually_exclusive_group()
    actions.add_argument("--list", action="store_true", help="show what is taught")
    actions.add_argument(
        "--promote",
        nargs="?",
        const=True,
        metavar="LABEL",
        help="let the rig say a smell; beside LABEL --recording, at once",
    )
    actions.add_argument("--forget", metavar="LABEL", help="forget a taught smell")
    actions.add_argument(
        "--rename", nargs=2, metavar=("LABEL", "NAME"), help="rename a smell, shipped or taught"
    )
    actions.add_argument("--hide", metavar="LABEL", help="never say a shipped label")
    actions.add_argument("--unhide", metavar="LABEL", help="say a hidden label again")
    actions.add_argument("--rollback", action="store_true", help="undo the last change")
    actions.add_argument(
        "--export", type=Path, metavar="FILE", help="write all taught smells into one file"
    )
    actions.add_argument(
        "--import", dest="import_", type=Path, metavar="FILE", help="take another rig's smells"
    )
    parser.add_argument("--model", metavar="NAME", help="which model (default: the first that can)")
    rig = parser.add_mutually_exclusive_group()
    rig.add_argument("--config", type=Path, metavar="FILE", help="the rig's YAML file")
    rig.add_argument(
        "--state", type=Path, metavar="DIR", help="the rig's state folder, without a service"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do it, and print what came of it."""
    configure_logs(LogConfig(level="warning"))
    rig = _Rig(args)
    label = args.label
    if label is None and isinstance(args.promote, str) and (args.recording or args.last):
        label, args.promote = args.promote, True
    if label is not None:
        data = _teach(rig, label, args)
        print(json.dumps(data) if args.json else _lesson_text(data))
        return 0
    data = _manage(rig, args)
    print(json.dumps(data) if args.json else _list_text(data))
    return 0


class _Rig:
    """The rig that is meant: its configuration or state folder, its service, its stores."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.config: Config | None = None if args.config is None else load_config(args.config)
        self.model: str | None = args.model
        self._state: Path = args.state or default_state_dir()
        self._teaching: Enrolment | None = None
        self._serves: bool | None = None

    @property
    def serves(self) -> bool:
        """Whether a service of the rig runs; asked once."""
        if self._serves is None:
            self._serves = self.config is not None and service_is_online(self.config)
        return self._serves

    @property
    def teaching(self) -> Enrolment:
        """What a service would do, done here."""
        if self._teaching is None:
            state = self._state if self.config is None else self.config.state_dir
            settings = None if self.config is None else nose_settings(self.config)
            stores = smell_stores(self._bundles(), state, self._correction(state))
            self._teaching = Enrolment(stores, settings=settings)
        return self._teaching

    def _correction(self, state: Path) -> Correction | None:
        """Return that of the rig's profile.

        Raises
        ------
        SmellError: there is one that cannot be used: smells taught without it would be of a rig
            that is none.
        """
        board = None if self.config is None else self.config.board_id
        profile, trouble = read_profile(state / PROFILE, board)
        if trouble is not None:
            raise SmellError(trouble)
        return None if profile is None else profile.rig_correction()

    def _bundles(self) -> list[Bundle]:
        if self.config is not None:
            return load_models(
                self.config.models, self.config.decision, ModelStore(self.config.state_dir)
            )
        names = RIG_BUNDLES if self.model is None else (self.model,)
        bundles = [load_bundle(name) for name in names]
        if self.model is not None:
            self.model = bundles[0].manifest.name
        return bundles

    @property
    def store(self) -> SmellStore:
        """The store of the model that is meant."""
        return self.teaching.store(self.model)

    def ask(self, payload: Data, progress: Progress | None = None) -> Data:
        """Let the service do it, or do it here where none runs."""
        show = None if progress is None else lambda data: _show(progress, data)
        if self.config is None or not self.serves:
            answer = self.teaching.handle({**payload, "model": self.store.model})
            return answer if isinstance(answer, dict) else finish(answer, show)
        if self.model is not None:
            payload = {**payload, "model": self.model}
        return send_request(self.config, ENROLL, payload, timeout_s=ASK_S, on_progress=show)

    def tell(self) -> None:
        """Let a running service know that the store was changed here."""
        if self.serves:
            self.ask({"action": "reload"})


def _teach(rig: _Rig, label: str, args: argparse.Namespace) -> Data:
    """Teach from recordings, through the service, or from the port."""
    _refuse_both(args)
    promote = args.promote is True
    with Progress() as progress:
        if args.recording is not None:
            data = _from_recordings(rig, label, args, progress)
            rig.tell()
            return data
        if rig.config is None:
            raise UsageError(
                "Say where the smell is: --recording FILE to learn from recordings, or --config "
                "FILE for the rig whose board smells it."
            )
        if rig.serves:
            when = (
                {"seconds": args.seconds or TEACH_S} if args.last is None else {"last_s": args.last}
            )
            return rig.ask({"label": label, "promote": promote, **when}, progress)
        if args.last is not None:
            raise UsageError(
                "Only a running service remembers the last seconds, and none answers. Start it "
                "(scentd run --config FILE), or leave --last out to smell now."
            )
        return _from_board(rig, rig.config, label, args, progress)


def _refuse_both(args: argparse.Namespace) -> None:
    """Refuse what contradicts itself on the command line."""
    actions = (args.list, args.forget, args.rename, args.hide, args.unhide, args.rollback)
    if any(actions) or args.export or args.import_ or isinstance(args.promote, str):
        raise UsageError(
            "Give LABEL to teach a smell, or one of --list, --promote LABEL, --forget ... to "
            "change what was taught, not both."
        )
    if sum(value is not None for value in (args.recording, args.last, args.seconds)) > 1:
        raise UsageError(
            "Give one of --recording (files), --last (what has been) and --seconds (what comes)."
        )


def _from_board(
    rig: _Rig, config: Config, label: str, args: argparse.Namespace, progress: Progress
) -> Data:
    """Smell at the port itself, which no service holds."""
    seconds = args.seconds or TEACH_S
    stretch = capture_from_port(
        config.source,
        seconds,
        Stop(),
        lambda taken: progress.show(taken.seconds / seconds, "smelling"),
    )
    steps = rig.teaching.teach(
        rig.store,
        label,
        stretch.recording(),
        source="live",
        promote=args.promote is True,
        past=[_past(path) for path in args.past or ()],
    )
    return finish(steps, lambda data: _show(progress, data))


def _from_recordings(rig: _Rig, label: str, args: argparse.Namespace, progress: Progress) -> Data:
    """Let every recording be one exposure; the last one's answer speaks for all."""
    promote = args.promote is True
    recordings = [(path, read_recording(path)) for path in args.recording]
    for path, recording in recordings[:-1]:
        rig.store.enroll(label, recording, source=path.name, promote=promote)
        progress.show(0.0, f"learnt from {path.name}")
    path, recording = recordings[-1]
    steps = rig.teaching.teach(
        rig.store,
        label,
        recording,
        source=path.name,
        promote=promote,
        past=[_past(each) for each in args.past or ()],
    )
    return finish(steps, lambda data: _show(progress, data))


def _past(path: Path) -> tuple[str, Recording, bool]:
    recording = read_recording(path)
    return path.name, recording, is_published(recording)


def _manage(rig: _Rig, args: argparse.Namespace) -> Data:
    """Show or change what was taught."""
    if args.recording or args.last or args.seconds:
        raise UsageError("Name the smell to teach: scentd enroll LABEL --recording FILE.")
    if args.export is not None:
        smells = export_smells(rig.store, args.export)
        print(f"{len(smells.smells)} smells written to {args.export}", file=sys.stderr)
        return rig.ask({"action": "list"})
    if args.import_ is not None:
        import_smells(rig.store, args.import_)
        rig.tell()
        return rig.ask({"action": "list"})
    if args.rename is not None:
        label, name = args.rename
        return rig.ask({"action": "rename", "label": label, "name": name})
    if args.promote is True:
        raise UsageError("Name the smell to promote: scentd enroll --promote LABEL.")
    for action in ("promote", "forget", "hide", "unhide"):
        label = getattr(args, action)
        if label is not None:
            return rig.ask({"action": action, "label": label})
    if args.rollback:
        return rig.ask({"action": "rollback"})
    if args.list:
        return rig.ask({"action": "list"})
    raise UsageError(
        "Name a smell to teach, or what to do with those taught: scentd enroll --help shows both."
    )


def _show(progress: Progress, told: Data) -> None:
    progress.show(float(told.get("share", 0.0)), str(told.get("doing", "")))


def _lesson_text(data: Data) -> str:
    """Return what a lesson came to, for people."""
    told = data["rehearsal"]
    exposures = "1 exposure" if data["exposures"] == 1 else f"{data['exposures']} exposures"
    lines = [
        f"{data['label']}: learnt {data['seconds']:.0f} s ({data['windows']} windows) for "
        f"{data['model']}, {exposures} in all, in effect after {data['effect_ms']:.0f} ms.",
        f"  without it, these windows were called  {_list_of(told['before'])}",
    ]
    if told["held_out_by"] == "exposure":
        lines.append(
            f"  taught from the other exposures, {told['held_out']:.0%} of an exposure's windows "
            "are recognised"
        )
    else:
        lines.append(
            f"  taught from one half, {told['held_out']:.0%} of the other half's windows are "
            "recognised; another exposure would tell more"
        )
    if told["confused_with"]:
        lines.append(f"  the others are taken for             {_list_of(told['confused_with'])}")
    if told["taken_from"]:
        lines.append(f"  it takes windows from                {_list_of(told['taken_from'])}")
    lines += [
        f"  in {past['recording']}: {_stood(past['without_s'])} without it, "
        f"{_stood(past['with_s'])} with it"
        for past in data["past"]
    ]
    if data["channels_missing"]:
        lines.append(f"  learnt without {', '.join(data['channels_missing'])}")
    lines.append(
        f"It is in shadow: say it from now on with scentd enroll --promote {data['label']}"
        if data["shadow"]
        else "The rig says it from now on."
    )
    return "\n".join(lines)


def _list_of(shares: Sequence[Data]) -> str:
    return ", ".join(f"{item['label']} {item['share']:.0%}" for item in shares) or "nothing"


def _stood(seconds: dict[str, float]) -> str:
    return ", ".join(f"{label} {value:.0f} s" for label, value in seconds.items()) or "nothing"


def _list_text(data: Data) -> str:
    """Return what is taught, for people."""
    lines = [f"{data['model']}, version {data['version']} ({data['change']})"]
    for smell in data["smells"]:
        state = "in shadow" if smell["shadow"] else "said"
        lines.append(
            f"  {smell['label']:<24} {state:<10} {smell['exposures']} exposures, "
            f"{smell['seconds']:.0f} s, last {smell['taught']}"
        )
    if not data["smells"]:
        lines.append("  nothing was taught yet")
    lines += [f"  {label:<24} hidden" for label in data["hidden"]]
    lines += [f"  {label:<24} is called {name}" for label, name in data["renamed"].items()]
    if "effect_ms" in data:
        lines.append(f"in effect after {data['effect_ms']:.0f} ms")
    return "\n".join(lines)
