"""Daemon: what `calibrate` does to a rig's state, whoever asks: a command, a request, a child.

Joins the captures on disk, `calibration`'s fits and the models' scores. Knows no port, broker
or terminal: readings come in as stretches or recordings, every answer is plain data.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.baseline import fit_compensation, is_clean_air, measure_baseline
from calibration.correction import Compensation, log_signals
from calibration.drift import Settling
from calibration.enrolment import prepare_readings
from calibration.profile import (
    Evidence,
    Profile,
    ProfileError,
    ProfileMissingError,
    load_profile,
    save_profile,
)
from calibration.rig_reference import ResponseExcerpt, RigReference
from calibration.transfer import fit_transfer
from daemon.calibrate.captures import BASELINE, Captures, CapturesError, Kind
from daemon.calibrate.evaluation import SUBSTANCE, report, score
from daemon.installed_models.loading import load_models, nose_settings
from daemon.installed_models.store import ModelStore
from daemon.requests import only, text_of
from hardware.errors import ScentdError, UsageError
from hardware.files import write_whole
from hardware.recording import read_recording

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calibration.baseline import Baseline
    from calibration.enrolment import Readings
    from daemon.board.history import ReadingSpan
    from daemon.calibrate.captures import Captured
    from daemon.config.settings import Config
    from hardware.recording import Recording
    from models.bundle import Bundle

IN_CHILD = frozenset({"fit", "score"})
"""Actions that take a core for seconds, or load models: the service has a child do them."""

SAME_RATE = 0.05
"""Captures of one board differ by less in their measured rates."""


class NoReferenceError(ScentdError):
    """No model of this rig says what the rig that it was trained on measured."""


class CalibrationActions:
    """The actions of `calibrate` on one rig's state.

    Parameters
    ----------
    config : Config
        The rig's.
    bundles : sequence of Bundle, optional
        Its models where they are loaded already; loaded when first needed otherwise.
    """

    def __init__(self, config: Config, bundles: Sequence[Bundle] | None = None) -> None:
        self._config = config
        self._loaded = bundles
        self.captures = Captures(config.calibration_dir)
        self.actions: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "fit": self._fit,
            "show": self._show,
            "score": self._score,
            "forget": self._forget,
            "undo": self._undo,
        }

    @property
    def bundle(self) -> Bundle:
        """The model that calibration is for: the first of single substances.

        Raises
        ------
        UsageError
            If the rig has none.
        """
        if self._loaded is None:
            self._loaded = load_models(
                self._config.models, self._config.decision, ModelStore(self._config.state_dir)
            )
        for bundle in self._loaded:
            if bundle.manifest.task == SUBSTANCE:
                return bundle
        raise UsageError(
            "Calibration is fitted to what a model of single substances was trained on, and this "
            f"rig runs {', '.join(self._config.models)}. Add one, for example substances-50."
        )

    def do(self, action: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Do an action and return what came of it.

        Raises
        ------
        ScentdError
            If it cannot be done.
        """
        return self.actions[action](payload)

    def known_label(self, label: str) -> str:
        """Return `label` if the model knows it: only then is known what it should look like.

        Raises
        ------
        UsageError
            With the closest names there are.
        """
        labels = self.bundle.manifest.labels
        if label in labels:
            return label
        raise UsageError(
            f"A reference must be an odour that {self.bundle.manifest.name} knows, and it knows "
            f"no {label!r}. Take one or more of: {', '.join(labels)}."
        )

    def keep(self, kind: Kind, label: str | None, stretch: ReadingSpan) -> dict[str, Any]:
        """Check readings that were just captured, and keep them if they are of use.

        Raises
        ------
        ScentdError
            If they are no clean air, or no reference: which channel, and why.
        """
        path = self.captures.folder / ".capture.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        stretch.write(path)
        try:
            return self._keep(kind, label, read_recording(path), path.rename)
        finally:
            path.unlink(missing_ok=True)

    def keep_recording(self, kind: Kind, label: str | None, path: Path) -> dict[str, Any]:
        """Do the same with a recording, which stays where it is."""
        return self._keep(
            kind, label, read_recording(path), lambda to: to.write_bytes(path.read_bytes())
        )

    def _keep(
        self,
        kind: Kind,
        label: str | None,
        recording: Recording,
        write: Callable[[Path], object],
    ) -> dict[str, Any]:
        readings = prepare_readings(recording)
        seconds = len(readings) / readings.rate_hz
        if kind == BASELINE:
            baseline = measure_baseline(readings.values, readings.rate_hz)
            kept = self.captures.keep(lambda to: _done(write(to)), kind, None, seconds)
            return {**described(kept), "channels": _channels(baseline)}
        ResponseExcerpt.from_readings(str(label), readings.values, readings.rate_hz)
        self._refuse_clean_air(str(label), readings)
        kept = self.captures.keep(lambda to: _done(write(to)), kind, label, seconds)
        return described(kept)

    def _refuse_clean_air(self, label: str, readings: Readings) -> None:
        """Refuse a reference without an odour: it would tilt every later fit."""
        clean = self.captures.baselines()
        if not clean:
            return
        known = self._heard(clean[-1])
        if is_clean_air(readings.values, measure_baseline(known.values, known.rate_hz)):
            raise CapturesError(
                f"Expected {label}, but every channel reads what it read in clean air on "
                f"{clean[-1].taken}. Hold the sample to the sensors, wait two minutes and capture "
                "again."
            )

    def _fit(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Fit a profile to the captures there are and make it the active one."""
        only(dict(payload), ())
        clean = [self._heard(item) for item in self.captures.baselines()]
        references = self.captures.references()
        if not clean and not references:
            raise CapturesError(
                "There is nothing to fit a profile to. Measure clean air (scentd calibrate "
                "baseline), then a few odours that the model knows (scentd calibrate reference "
                "LABEL); four different ones do well."
            )
        baseline = None
        compensation = Compensation()
        if clean:
            baseline = measure_baseline(clean[-1].values, clean[-1].rate_hz)
            alike = [item for item in clean if _same_rate(item.rate_hz, clean[-1].rate_hz)]
            compensation = fit_compensation([item.values for item in alike], clean[-1].rate_hz)
        transfer = None
        if references:
            exposures = [self._exposure(item, compensation) for item in references]
            transfer = fit_transfer(exposures, self._rig_reference(), compensation)
        profile = Profile.made(
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            board=self._config.board,
            baseline=baseline,
            model=None if transfer is None else self.bundle.manifest.name,
            transfer=transfer,
            references=tuple(
                Evidence(str(item.label), item.seconds, item.file) for item in references
            ),
        )
        self._put_in_force(profile)
        return {"profile": profile_summary(profile)}

    def _heard(self, captured: Captured) -> Readings:
        """Return a capture's readings, NaN where a channel could not be used."""
        return prepare_readings(self.captures.recording(captured))

    def _exposure(self, captured: Captured, compensation: Compensation) -> ResponseExcerpt:
        readings = self._heard(captured)
        return ResponseExcerpt.from_readings(
            str(captured.label), readings.values, readings.rate_hz, compensation
        )

    def _rig_reference(self) -> RigReference:
        manifest = self.bundle.manifest
        reference = RigReference.from_arrays(manifest.labels, self.bundle.arrays)
        if reference is None:
            raise NoReferenceError(
                f"The bundle of {manifest.name} {manifest.version} does not say what its training "
                "rig measured, so no correction can be fitted to it. Install a newer version of "
                "the model."
            )
        return reference

    def _put_in_force(self, profile: Profile) -> None:
        """Write the profile; the one before, if it was of any use, can be gone back to."""
        path = self._config.profile_path
        before, _ = active_profile(self._config)
        if before is not None:
            write_whole(_previous(path), path.read_bytes())
        save_profile(profile, path)

    def _undo(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Change places with the profile before; done twice, nothing has changed."""
        only(dict(payload), ())
        path = self._config.profile_path
        now, before = _content(path), _content(_previous(path))
        if now is None and before is None:
            raise CapturesError("There is no profile, and none to go back to. Fit one first.")
        for place, content in ((path, before), (_previous(path), now)):
            if content is None:
                place.unlink(missing_ok=True)
            else:
                write_whole(place, content)
        return self._show({})

    def _show(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Tell what was captured, and the active profile or what is wrong with it."""
        only(dict(payload), ())
        profile, trouble = active_profile(self._config)
        return {
            "captures": [described(item) for item in self.captures.all()],
            "profile": None if profile is None else profile_summary(profile),
            "trouble": trouble,
        }

    def _forget(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        only(dict(payload), ("label",))
        label = text_of(dict(payload), "label") if "label" in payload else None
        return {"forgotten": [described(item) for item in self.captures.forget(label)]}

    def _score(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Score the profile on the captured references, or on recordings named by their path."""
        only(dict(payload), ("files", "label"))
        named = [Path(name) for name in payload.get("files", ())]
        label = payload.get("label")
        if named:
            recordings = [(label or path.parent.name, read_recording(path)) for path in named]
        else:
            recordings = [
                (str(item.label), self.captures.recording(item))
                for item in self.captures.references()
            ]
        if not recordings:
            raise CapturesError(
                "There is nothing to score on: no recording was named and no reference is "
                "captured. Name recordings (FOLDER/LABEL/*.csv), or capture a reference."
            )
        profile, trouble = active_profile(self._config)
        if trouble is not None:
            raise ScentdError(trouble)
        scored = score(
            self.bundle,
            recordings,
            nose_settings(self._config),
            lambda: None if profile is None else profile.rig_correction(),
        )
        return {
            "model": self.bundle.manifest.name,
            "profile": None if profile is None else profile.id,
            "of": "recordings" if named else "references",
            **report(scored, self.bundle.manifest.decision),
        }


def run_action(config: Config, action: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Do one action in a process of its own."""
    return CalibrationActions(config).do(action, payload)


def _done(_result: object) -> None:
    """Take what a write returns, which nobody needs."""


def active_profile(config: Config) -> tuple[Profile | None, str | None]:
    """Return the rig's profile, or None and, where there is one that cannot be used, why."""
    return profile_at(config.profile_path, config.board)


def profile_at(path: Path, board: str | None = None) -> tuple[Profile | None, str | None]:
    """Return a profile, or None and, where there is one that cannot be used, why."""
    try:
        return load_profile(path, board), None
    except ProfileMissingError:
        return None, None
    except ProfileError as error:
        return None, str(error)


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _content(path: Path) -> bytes | None:
    """Return what a file holds, None where there is none."""
    return path.read_bytes() if path.exists() else None


def _same_rate(one_hz: float, other_hz: float) -> bool:
    return abs(one_hz / other_hz - 1.0) <= SAME_RATE


def profile_summary(profile: Profile) -> dict[str, Any]:
    """Return what people want to know of a profile, as plain data."""
    return {
        "id": profile.id,
        "date": profile.date,
        "board": profile.board,
        "model": profile.model,
        "method": profile.method,
        "references": [item.label for item in profile.references],
        "baseline_s": None if profile.baseline is None else round(profile.baseline.seconds, 1),
        "environment": {} if profile.baseline is None else dict(profile.baseline.environment),
        "figures": {name: round(value, 4) for name, value in profile.figures.items()},
        "channels": _corrections(profile),
    }


def _corrections(profile: Profile) -> dict[str, dict[str, float]]:
    """Return, per channel, what the correction does to it."""
    channels = {} if profile.correction is None else profile.correction.channels
    return {
        name: {
            "shift": round(channel.target - channel.middle, 4),
            "gain": round(channel.gain, 4),
            "response_s": round(channel.response_s, 3),
        }
        for name, channel in channels.items()
    }


def settling_of(stretch: ReadingSpan) -> Settling:
    """Return how settled a stretch ends, judged once a second."""
    settling = Settling()
    factor = max(1, round(stretch.rate_hz))
    signals = log_signals(stretch.values[::factor])
    steps_s = np.diff(stretch.t_ms[::factor], prepend=stretch.t_ms[:1]) / 1000.0
    for signal, step_s in zip(signals.tolist(), steps_s.tolist(), strict=True):
        settling.update(signal, step_s)
    return settling


def settling_summary(settling: Settling) -> dict[str, Any]:
    """Return it as plain data: settled or not, and which channels still move."""
    return {"settled": settling.settled, "unsettled": list(settling.unsettled)}


def described(captured: Captured) -> dict[str, Any]:
    """Return a capture as plain data."""
    return {
        "kind": captured.kind,
        "label": captured.label,
        "taken": captured.taken,
        "seconds": captured.seconds,
    }


def _channels(baseline: Baseline) -> dict[str, Any]:
    return {
        name: {
            "log_conductance": round(channel.log_conductance, 4),
            "noise": round(channel.noise, 4),
            "drift_per_min": round(channel.drift_per_min, 4),
            "r0_kohm": None if channel.r0_kohm is None else round(channel.r0_kohm, 3),
        }
        for name, channel in baseline.channels.items()
    }
