"""Daemon: the rig's calibration in the running service: the active profile, and its drift.

Joins the profile on disk, the nose and the history, and holds the actions of `request/calibrate`;
runs in the pipeline's thread, and uses the disk in another one. Knows no broker. With a profile
that cannot be used the rig runs uncalibrated, and reports that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from calibration.drift import BaselineTracker, ControlChart
from daemon.board.capture import MAX_CAPTURE_S, capture_from_history
from daemon.calibrate.actions import CalibrationActions, active_profile, settling_summary
from daemon.calibrate.captures import BASELINE, REFERENCE
from daemon.request_fields import Action, Actions, number, paths_below, text
from daemon.system.background import Short, at_once, describe_progress, in_process
from daemon.system.logs import get_logger
from hardware.frames import Quality
from models.exposure import Phase
from models.signals import log_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from calibration.rig_profile import Profile
    from daemon.board.capture import CaptureProgress
    from daemon.board.history import History, ReadingSpan
    from daemon.calibrate.captures import Kind
    from daemon.config.settings import Config
    from daemon.request_fields import Field
    from daemon.system.background import Data, OnDisk, Steps
    from models.bundle import Bundle
    from models.correction import Correction
    from models.nose import Nose
    from models.results import Step

CALIBRATE = "calibrate"
"""Name of the request."""

CAPTURE_S: dict[Kind, float] = {BASELINE: 120.0, REFERENCE: 150.0}
"""Default seconds of a capture."""

MIN_CAPTURE_S = 10.0

DRIFT_EVERY_S = 1.0
"""Clean air changes over hours, so one sample a second suffices."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The profile on disk, or why it cannot be used.

    Attributes
    ----------
    number: counts the readings of the profile.
    use_smells: lets the nose use what was taught, in the profile's correction; None where the
        profile was the same before.
    """

    number: int
    profile: Profile | None
    trouble: str | None
    use_smells: Callable[[], None] | None


class LiveCalibration:
    """The calibration of a running service's rig.

    Parameters
    ----------
    learn: called with the correction of another profile, or None; it may use the disk. Returns what
        to call, in the pipeline's thread, when that profile is used.
    on_disk: calls what uses the disk.

    Attributes
    ----------
    handle: the actions of `request/calibrate`.
    profile: the active one, None without one.
    """

    def __init__(
        self,
        config: Config,
        bundles: Sequence[Bundle],
        nose: Nose,
        history: History,
        learn: Callable[[Correction | None], Callable[[], None]] = lambda _: lambda: None,
        on_disk: OnDisk = at_once,
    ) -> None:
        self._config = config
        self._actions = CalibrationActions(config, bundles)
        self._nose = nose
        self._history = history
        self._learn = learn
        self._on_disk = on_disk
        self._numbers = count(1)
        self._found: tuple[str | None, str | None] | None = None
        self._used = 0
        self._log = get_logger("calibration")
        self._trouble: str | None = None
        self._tracker: BaselineTracker | None = None
        self._chart: ControlChart | None = None
        self._sampled_ms: int | None = None
        self.profile: Profile | None = None
        seconds = partial(number, MIN_CAPTURE_S, MAX_CAPTURE_S)

        def capture(kind: Kind, **fields: Field) -> Action:
            return Action(
                partial(self._capture, kind),
                ("last_s", "seconds"),
                last_s=seconds(None),
                seconds=seconds(CAPTURE_S[kind]),
                **fields,
            )

        def change(function: Callable[..., Data], **fields: Field) -> Action:
            return Action(lambda **values: Short(self._do(partial(function, **values))), **fields)

        self.handle = Actions(
            "show",
            baseline=capture(BASELINE),
            reference=capture(REFERENCE, label=text()),
            fit=Action(self._fit),
            show=change(self._actions.show),
            score=Action(self._score, files=paths_below(config.state_dir), label=text(None)),
            forget=change(self._actions.forget, label=text(None)),
            undo=change(self._actions.undo),
            reload=change(dict),
        )

    @property
    def profile_id(self) -> str | None:
        """Id of the active profile, None without one."""
        return None if self.profile is None else self.profile.id

    def load(self) -> None:
        """Use the profile on disk, read here; without a usable one the rig runs uncalibrated."""
        self._found = None
        self._use(self._find())

    def renew(self) -> Steps:
        """Use the profile on disk, if it is another one by now."""
        return (yield from self._do(dict))  # there is nothing to do but to read it

    def _find(self) -> _Found:
        """Read the profile and, if it is another one, what was taught in its correction."""
        profile, trouble = active_profile(self._config)
        found = (None if profile is None else profile.id), trouble
        use_smells = None
        if found != self._found:
            use_smells = self._learn(None if profile is None else profile.rig_correction())
            self._found = found
        return _Found(next(self._numbers), profile, trouble, use_smells)

    def _use(self, found: _Found) -> None:
        """Let the nose use a profile, if it is another one and none that was read later is used."""
        if found.use_smells is None or found.number < self._used:
            return
        self._used = found.number
        before = self.profile_id
        self.profile, self._trouble = found.profile, found.trouble
        if self._trouble is not None:
            self._log.error(f"{self._trouble} The rig runs uncalibrated.")
        baseline = None if self.profile is None else self.profile.baseline
        if self.profile is not None:
            self._nose.set_correction(self.profile.rig_correction(), self.profile.clean_air)
        elif before is not None:
            self._nose.set_correction(None)
        self._tracker = None if baseline is None else BaselineTracker(baseline)
        self._chart = None if baseline is None else ControlChart(baseline)
        self._sampled_ms = None
        if self.profile_id != before:
            self._log.info("calibration", profile=self.profile_id)
        found.use_smells()

    def observe(self, step: Step) -> None:
        """Update the drift of clean air by an uncorrected reading."""
        if (
            self._tracker is None
            or self._chart is None
            or self._nose.exposure.phase is not Phase.AMBIENT
        ):
            self._sampled_ms = None
            return
        if self._sampled_ms is None:
            self._sampled_ms = step.t_ms
        passed_s = (step.t_ms - self._sampled_ms) / 1000.0
        if passed_s < DRIFT_EVERY_S:
            return
        self._sampled_ms = step.t_ms
        values = step.frame.values.copy()
        values[step.quality != Quality.OK] = float("nan")
        signal = log_signals(values[None])[0]
        self._tracker.update(signal, passed_s)
        reported = self._chart.reason is not None
        if self._chart.update(signal, passed_s) and self._chart.reason and not reported:
            self._log.warning("recalibrate", why=self._chart.reason)

    def report(self) -> Data:
        """Return the calibration's part of `health`."""
        reason = None if self._chart is None else self._chart.reason
        if self._trouble is not None:
            state, why = "unusable", self._trouble
        elif self.profile is None:
            state, why = "none", None
        elif reason is not None:
            state, why = "recalibrate", reason
        else:
            state, why = "ok", None
        drift = {} if self._tracker is None else self._tracker.drift
        return {
            "state": state,
            "profile": self.profile_id,
            "why": why,
            "drift": {name: round(value, 4) for name, value in drift.items()},
        }

    def _do(self, function: Callable[[], Data]) -> Steps:
        """Do an action on disk, then use the profile if that changed it, and add the report."""

        def do() -> tuple[Data, _Found]:
            return function(), self._find()

        answer, found = yield from self._on_disk(do, doing="calibrating")
        self._use(found)
        return {**answer, "in_force": self.report()}

    # In a child process: a fit takes seconds of a core, and a score loads every model again.

    def _fit(self) -> Steps:
        answer = yield from in_process("daemon.calibrate.actions:fit", self._config, doing="fit")
        return (yield from self._do(lambda: answer))

    def _score(self, files: Callable[[], Sequence[Path]], label: str | None) -> Steps:
        paths = yield from self._on_disk(files, doing="score")
        answer = yield from in_process(
            "daemon.calibrate.actions:score", self._config, paths, label, doing="score"
        )
        return (yield from self._do(lambda: answer))

    def _capture(
        self, kind: Kind, *, last_s: float | None, seconds: float, label: str | None = None
    ) -> Short | Steps:
        """Keep the last seconds, or the coming ones."""
        if label is not None:
            label = self._actions.check_label(label)
        if last_s is not None:
            return Short(self._keep(kind, label, self._history.last(last_s)))

        def steps() -> Steps:
            capture = capture_from_history(self._history, seconds)
            span = yield from describe_progress(capture, describe_capture)
            return (yield from self._keep(kind, label, span))

        return steps()

    def _keep(self, kind: Kind, label: str | None, span: ReadingSpan) -> Steps:
        return (yield from self._on_disk(self._actions.keep, kind, label, span, doing="keeping"))


def describe_capture(capture: CaptureProgress) -> Data:
    """Return the progress of a capture, and whether the sensors have settled."""
    return {
        "doing": "capturing",
        "seconds": round(capture.seconds, 1),
        "of_s": capture.wanted_s,
        **settling_summary(capture.span),
    }
