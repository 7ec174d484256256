"""Daemon: the rig's calibration in the running service: the profile in force, and its drift.

Joins the profile on disk, the nose and the history, and does what `request/calibrate` asks; lives
in the pipeline's thread. Knows no broker. A profile that cannot be used never stops the rig: it
goes on uncalibrated, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calibration.correction import log_signals
from calibration.drift import BaselineTracker, ControlChart
from daemon.board.capture import MAX_CAPTURE_S, capture_from_history
from daemon.calibrate.actions import (
    IN_CHILD,
    CalibrationActions,
    active_profile,
    settling_of,
    settling_summary,
)
from daemon.calibrate.captures import BASELINE, REFERENCE
from daemon.requests import RequestError, number_of, only, text_of
from daemon.system.background import describe_progress, in_process
from daemon.system.logs import get_logger
from hardware.frames import Quality
from models.exposure import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calibration.profile import Profile
    from daemon.board.capture import CaptureProgress
    from daemon.board.history import History
    from daemon.config.settings import Config
    from daemon.system.background import Data, Steps
    from models.bundle import Bundle
    from models.correction import Correction
    from models.nose import Nose
    from models.results import Step

CALIBRATE = "calibrate"
"""The request's name."""

RELOAD = "reload"

CAPTURE_S = {BASELINE: 120.0, REFERENCE: 150.0}
"""Seconds of a capture unless said otherwise."""

SHORTEST_S = 10.0

DRIFT_EVERY_S = 1.0
"""Clean air changes over hours: a sample a second is more than enough to follow it."""


class LiveCalibration:
    """What the service knows of its rig's calibration.

    Parameters
    ----------
    config : Config
        The rig's.
    bundles : sequence of Bundle
        The models that run.
    nose : Nose
        Takes the profile's correction.
    history : History
        The last minutes of readings, for captures.
    changed : callable
        Called when another profile, or none, is in force.
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
        self._workbench = CalibrationActions(config, bundles)
        self._nose = nose
        self._history = history
        self._changed = changed
        self._log = get_logger("calibration")
        self._trouble: str | None = None
        self._tracker: BaselineTracker | None = None
        self._chart: ControlChart | None = None
        self._sampled_ms: int | None = None
        self.profile: Profile | None = None

    @property
    def profile_id(self) -> str | None:
        """Of the profile in force, None without one."""
        return None if self.profile is None else self.profile.id

    def correction(self) -> Correction | None:
        """Return a correction of one's own, apart from the running nose's; None without one."""
        return None if self.profile is None else self.profile.rig_correction()

    def load(self) -> None:
        """Put the profile on disk in force; without a usable one the rig runs uncalibrated."""
        before = self.profile_id
        self.profile, self._trouble = active_profile(self._config)
        if self._trouble is not None:
            self._log.error(f"{self._trouble} The rig runs uncalibrated.")
        correction = self.correction()
        if correction is not None or before is not None:
            self._nose.set_correction(correction)
        baseline = None if self.profile is None else self.profile.baseline
        self._tracker = None if baseline is None else BaselineTracker(baseline)
        self._chart = None if baseline is None else ControlChart(baseline)
        self._sampled_ms = None
        if self.profile_id != before:
            self._log.info("calibration", profile=self.profile_id)
        self._changed()

    def observe(self, step: Step) -> None:
        """Follow clean air with the readings as they came, uncorrected."""
        if self._tracker is None or self._chart is None or self._nose.phase is not Phase.AMBIENT:
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
        signal = log_signals(values[None])[0].tolist()
        self._tracker.update(signal, passed_s)
        said = self._chart.verdict.recalibrate
        if self._chart.update(signal, passed_s) and self._chart.verdict.recalibrate > said:
            self._log.warning("recalibrate", why=self._chart.verdict.reason)

    def report(self) -> Data:
        """Return what `health` says of the calibration."""
        verdict = None if self._chart is None else self._chart.verdict
        if self._trouble is not None:
            state, why = "unusable", self._trouble
        elif self.profile is None:
            state, why = "none", None
        elif verdict is not None and verdict.recalibrate:
            state, why = "recalibrate", verdict.reason
        else:
            state, why = "ok", None
        drift = {} if self._tracker is None else self._tracker.drift
        return {
            "state": state,
            "profile": self.profile_id,
            "why": why,
            "drift": {name: round(value, 4) for name, value in drift.items()},
        }

    def handle(self, payload: Data) -> Data | Steps:
        """Do what `request/calibrate` asks.

        Raises
        ------
        ScentdError
            If it cannot be done.
        """
        action = text_of(payload, "action", "show")
        rest = {name: value for name, value in payload.items() if name != "action"}
        if action in {BASELINE, REFERENCE}:
            return self._capture(action, rest)
        if action == RELOAD:
            only(rest, ())
            return self._reloaded({})
        if action in IN_CHILD:
            return self._apart(action, rest)
        if action in self._workbench.actions:
            return self._reloaded(self._workbench.do(action, rest))
        raise RequestError(f"action must be one of {', '.join(self.actions)}, and {action!r} came.")

    def _reloaded(self, answer: Data) -> Data:
        """Put into force what an action may have changed on disk."""
        profile, trouble = active_profile(self._config)
        if (profile and profile.id, trouble) != (self.profile_id, self._trouble):
            self.load()
        return {**answer, "in_force": self.report()}

    @property
    def actions(self) -> tuple[str, ...]:
        """What may be asked, sorted."""
        return tuple(sorted({*self._workbench.actions, BASELINE, REFERENCE, RELOAD}))

    def _apart(self, action: str, payload: Data) -> Steps:
        payload = {**payload, "files": self._own_files(payload)} if "files" in payload else payload
        answer = yield from in_process(
            "daemon.calibrate.actions:run_action", self._config, action, payload, doing=action
        )
        return self._reloaded(answer)

    def _own_files(self, payload: Data) -> list[str]:
        """Return the files of a request, below the state folder: a broker may read no others."""
        files = payload["files"]
        root = self._config.state_dir.resolve()
        if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
            raise RequestError("files must be a list of paths below the rig's state_dir.")
        paths = [(root / name).resolve() for name in files]
        for name, path in zip(files, paths, strict=True):
            if not path.is_relative_to(root):
                raise RequestError(
                    f"files must lie below the rig's state_dir, and {name} does not. Copy it "
                    "there, or score it on the rig: scentd calibrate score FILE."
                )
        return [str(path) for path in paths]

    def _capture(self, kind: Any, payload: Data) -> Steps:
        """Take the coming seconds, or the last ones, and keep them."""
        label = None
        if kind == REFERENCE:
            label = self._workbench.known_label(text_of(payload, "label"))
            payload = {name: value for name, value in payload.items() if name != "label"}
        only(payload, ("seconds", "last_s"))
        if len(payload) > 1:
            raise RequestError("Give last_s (what has been) or seconds (what comes), not both.")
        limits = {"low": SHORTEST_S, "high": MAX_CAPTURE_S}
        seconds = number_of(payload, "seconds", CAPTURE_S[kind], **limits)
        if "last_s" in payload:
            last = self._history.last(number_of(payload, "last_s", **limits))
            return self._workbench.keep(kind, label, last)  # type: ignore[return-value]

        def steps() -> Steps:
            capture = capture_from_history(self._history, seconds)
            captured = yield from describe_progress(capture, progress)
            return self._workbench.keep(kind, label, captured)

        return steps()


def progress(taken: CaptureProgress) -> dict[str, Any]:
    """Return how far a capture is, and whether the sensors have settled."""
    return {
        "doing": "capturing",
        "seconds": round(taken.seconds, 1),
        "of_s": taken.wanted_s,
        **settling_summary(settling_of(taken.span)),
    }
