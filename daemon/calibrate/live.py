"""Daemon: the rig's calibration in the running service: the active profile, and its drift.

Joins the profile on disk, the nose and the history, and holds the actions of `request/calibrate`;
runs in the pipeline's thread. Knows no broker. With a profile that cannot be used the rig runs
uncalibrated, and reports that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from calibration.drift import BaselineTracker, ControlChart
from daemon.board.capture import MAX_CAPTURE_S, capture_from_history
from daemon.calibrate.actions import CalibrationActions, active_profile, settling_summary
from daemon.calibrate.captures import BASELINE, REFERENCE
from daemon.request_fields import Action, Actions, number, paths_below, text
from daemon.system.background import describe_progress, in_process
from daemon.system.logs import get_logger
from hardware.frames import Quality
from models.exposure import Phase
from models.signals import log_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from calibration.rig_profile import Profile
    from daemon.board.capture import CaptureProgress
    from daemon.board.history import History
    from daemon.calibrate.captures import Kind
    from daemon.config.settings import Config
    from daemon.request_fields import Field
    from daemon.system.background import Data, Steps
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


class LiveCalibration:
    """The calibration of a running service's rig.

    `changed` is called when another profile, or none, has become the active one.

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
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._actions = CalibrationActions(config, bundles)
        self._nose = nose
        self._history = history
        self._changed = changed
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
            return Action(lambda **values: self._apply(function(**values)), **fields)

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

    def correction(self) -> Correction | None:
        """Return a new instance of the correction, None without one."""
        return None if self.profile is None else self.profile.rig_correction()

    def load(self) -> None:
        """Apply the profile on disk; without a usable one the rig runs uncalibrated."""
        before = self.profile_id
        self.profile, self._trouble = active_profile(self._config)
        if self._trouble is not None:
            self._log.error(f"{self._trouble} The rig runs uncalibrated.")
        baseline = None if self.profile is None else self.profile.baseline
        if self.profile is not None:
            self._nose.set_correction(self.correction(), self.profile.clean_air)
        elif before is not None:
            self._nose.set_correction(None)
        self._tracker = None if baseline is None else BaselineTracker(baseline)
        self._chart = None if baseline is None else ControlChart(baseline)
        self._sampled_ms = None
        if self.profile_id != before:
            self._log.info("calibration", profile=self.profile_id)
        self._changed()

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

    def _apply(self, answer: Data) -> Data:
        """Load the profile if an action changed it, and add the report to the answer."""
        profile, trouble = active_profile(self._config)
        if (profile and profile.id, trouble) != (self.profile_id, self._trouble):
            self.load()
        return {**answer, "in_force": self.report()}

    # In a child process: a fit takes seconds of a core, and a score loads every model again.

    def _fit(self) -> Steps:
        answer = yield from in_process("daemon.calibrate.actions:fit", self._config, doing="fit")
        return self._apply(answer)

    def _score(self, files: Sequence[Path], label: str | None) -> Steps:
        answer = yield from in_process(
            "daemon.calibrate.actions:score", self._config, files, label, doing="score"
        )
        return self._apply(answer)

    def _capture(
        self, kind: Kind, *, last_s: float | None, seconds: float, label: str | None = None
    ) -> Data | Steps:
        """Keep the last seconds, or the coming ones."""
        if label is not None:
            label = self._actions.check_label(label)
        if last_s is not None:
            return self._actions.keep(kind, label, self._history.last(last_s))

        def steps() -> Steps:
            capture = capture_from_history(self._history, seconds)
            span = yield from describe_progress(capture, describe_capture)
            return self._actions.keep(kind, label, span)

        return steps()


def describe_capture(capture: CaptureProgress) -> Data:
    """Return the progress of a capture, and whether the sensors have settled."""
    return {
        "doing": "capturing",
        "seconds": round(capture.seconds, 1),
        "of_s": capture.wanted_s,
        **settling_summary(capture.span),
    }
