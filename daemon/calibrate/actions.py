"""Daemon: the actions of `scentd calibrate` and `request/calibrate` on a rig's state.

Joins the captures on disk, the fits of `calibration` and the models' scores. Knows no port, broker
or terminal: readings come as spans or recordings, every answer is plain data.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from calibration.baseline import fit_compensation, is_clean_air, measure_baseline
from calibration.correction import Compensation
from calibration.drift import Settling
from calibration.exposures import prepare_readings
from calibration.rig_profile import (
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
from daemon.calibrate.evaluation import SUBSTANCE, score_recordings, score_report
from daemon.installed_models.loading import load_models, nose_settings
from hardware.errors import ScentdError, UsageError
from hardware.files import read_regular, remove, write_atomically
from hardware.recording import read_recording
from models.signals import log_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from calibration.baseline import Baseline
    from calibration.exposures import Readings
    from daemon.board.history import ReadingSpan
    from daemon.calibrate.captures import Captured
    from daemon.config.settings import Config
    from daemon.system.background import Data
    from hardware.recording import Recording
    from models.bundle import Bundle

SAME_RATE = 0.05
"""Relative difference of measured rates; those of one board differ by less."""


TEACH_FIRST = (
    "On the one real board where it was tried, the model named nothing after calibration, and a "
    "rig that was taught the same references named all (docs/trust.md). Teach your smells first: "
    "scentd enroll."
)
"""What a fit is worth for the names of a model, as `scent-train boards calibrate` measured it."""


class NoReferenceError(ScentdError):
    """The model's bundle does not hold the responses of its training rig."""


class CalibrationActions:
    """The actions of `calibrate` on a rig's state; models are loaded when needed, if not given."""

    def __init__(self, config: Config, bundles: Sequence[Bundle] | None = None) -> None:
        self._config = config
        self._loaded = bundles
        self.captures = Captures(config.calibration_dir)

    @property
    def bundle(self) -> Bundle:
        """The model that calibration is for: the first of single substances."""
        if self._loaded is None:
            self._loaded = load_models(self._config)
        for bundle in self._loaded:
            if bundle.manifest.task == SUBSTANCE:
                return bundle
        raise UsageError(
            "Calibration is fitted to the training rig of a model of single substances, and this "
            f"rig runs {', '.join(self._config.models)}. Add one, for example substances-50."
        )

    def check_label(self, label: str) -> str:
        """Return `label`; raise `UsageError` if the model, and so its training rig, lacks it."""
        labels = self.bundle.manifest.labels
        if label in labels:
            return label
        raise UsageError(
            f"A reference must be an odour that {self.bundle.manifest.name} knows, and it does not "
            f"know {label!r}. Use one or more of: {', '.join(labels)}."
        )

    def keep(self, kind: Kind, label: str | None, span: ReadingSpan) -> Data:
        """Check captured readings, and keep them if they are clean air, or a reference."""
        return self._keep(kind, label, span.recording(), span.write)

    def keep_recording(self, kind: Kind, label: str | None, path: Path) -> Data:
        """Check a recording, and keep a copy of it if it can be used."""
        return self._keep(
            kind,
            label,
            read_recording(path),
            lambda copy: write_atomically(copy, path.read_bytes()),
        )

    def _keep(
        self,
        kind: Kind,
        label: str | None,
        recording: Recording,
        write: Callable[[Path], object],
    ) -> Data:
        readings = prepare_readings(recording)
        seconds = len(readings) / readings.rate_hz
        if kind == BASELINE:
            baseline = measure_baseline(readings.values, readings.rate_hz)
            kept = self.captures.keep(write, kind, None, seconds)
            return {**capture_summary(kept), "channels": _baseline_summary(baseline)}
        # Raises an error if the readings hold no response.
        ResponseExcerpt.from_readings(
            str(label), readings.values, readings.rate_hz, t_ms=readings.t_ms
        )
        self._refuse_clean_air(str(label), readings)
        return capture_summary(self.captures.keep(write, kind, label, seconds))

    def _refuse_clean_air(self, label: str, readings: Readings) -> None:
        """Refuse a reference without an odour, which would distort every later fit."""
        clean = self.captures.baselines()
        if not clean:
            return
        latest = self._readings(clean[-1])
        if is_clean_air(readings.values, measure_baseline(latest.values, latest.rate_hz)):
            raise CapturesError(
                f"Expected {label}, but every channel reads what it read in clean air on "
                f"{clean[-1].taken}. Hold the sample to the sensors, wait two minutes and capture "
                "again."
            )

    def fit(self) -> Data:
        """Fit a profile to the captures and activate it."""
        clean = [self._readings(item) for item in self.captures.baselines()]
        references = self.captures.references()
        if not clean and not references:
            raise CapturesError(
                "There is nothing to fit a profile to. Measure clean air (scentd calibrate "
                "baseline), then a few odours that the model knows (scentd calibrate reference "
                "LABEL); four different ones suffice."
            )
        baseline = None
        compensation = Compensation()
        if clean:
            rate_hz = clean[-1].rate_hz
            baseline = measure_baseline(clean[-1].values, rate_hz)
            same_rate = [
                item.values for item in clean if abs(item.rate_hz / rate_hz - 1) <= SAME_RATE
            ]
            compensation = fit_compensation(same_rate, rate_hz)
        transfer = None
        if references:
            exposures = [self._exposure(item, compensation) for item in references]
            transfer = fit_transfer(exposures, self._rig_reference(), compensation)
        profile = Profile.create(
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            board=self._config.board_id,
            baseline=baseline,
            model=None if transfer is None else self.bundle.manifest.name,
            transfer=transfer,
            references=tuple(
                Evidence(str(item.label), item.seconds, item.file) for item in references
            ),
        )
        self._activate(profile)
        return {
            "profile": profile_summary(profile),
            "advice": None if transfer is None else TEACH_FIRST,
        }

    def _readings(self, captured: Captured) -> Readings:
        """Return a capture's readings, NaN where a channel could not be used."""
        return prepare_readings(self.captures.recording(captured))

    def _exposure(self, captured: Captured, compensation: Compensation) -> ResponseExcerpt:
        readings = self._readings(captured)
        return ResponseExcerpt.from_readings(
            str(captured.label), readings.values, readings.rate_hz, compensation, readings.t_ms
        )

    def _rig_reference(self) -> RigReference:
        manifest = self.bundle.manifest
        reference = RigReference.from_arrays(manifest.labels, self.bundle.arrays)
        if reference is None:
            raise NoReferenceError(
                f"The bundle of {manifest.name} {manifest.version} does not hold the "
                "responses of its training rig, so no correction can be fitted. Install a newer "
                "version of the model."
            )
        return reference

    def _activate(self, profile: Profile) -> None:
        """Write the profile; keep a usable previous one for `undo`."""
        path = self._config.profile_path
        before, _ = active_profile(self._config)
        if before is not None:
            write_atomically(_previous_path(path), read_regular(path))
        save_profile(profile, path)

    def undo(self) -> Data:
        """Exchange the profile and the previous one; a second call restores both."""
        path = self._config.profile_path
        now, before = _read_bytes(path), _read_bytes(_previous_path(path))
        if now is None and before is None:
            raise CapturesError("There is no profile and no previous one. Fit one first.")
        for place, content in ((path, before), (_previous_path(path), now)):
            if content is None:
                remove(place)
            else:
                write_atomically(place, content)
        return self.show()

    def show(self) -> Data:
        """Return the captures, and the active profile or why it cannot be used."""
        profile, trouble = active_profile(self._config)
        return {
            "captures": [capture_summary(item) for item in self.captures.all()],
            "profile": None if profile is None else profile_summary(profile),
            "trouble": trouble,
        }

    def forget(self, label: str | None = None) -> Data:
        """Remove the captures of one reference odour, or all."""
        return {"forgotten": [capture_summary(item) for item in self.captures.forget(label)]}

    def score(self, files: Sequence[Path] = (), label: str | None = None) -> Data:
        """Score the profile on recordings, or without any on the captured references.

        Without `label`, the label of a recording is the name of its folder.
        """
        if files:
            recordings = [(label or path.parent.name, read_recording(path)) for path in files]
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
        scored = score_recordings(
            self.bundle,
            recordings,
            nose_settings(self._config),
            lambda: None if profile is None else profile.rig_correction(),
        )
        return {
            "model": self.bundle.manifest.name,
            "profile": None if profile is None else profile.id,
            "of": "recordings" if files else "references",
            **score_report(scored, self.bundle.manifest.decision),
        }


def fit(config: Config) -> Data:
    """Fit a rig's profile, in a child process."""
    return CalibrationActions(config).fit()


def score(config: Config, files: Sequence[Path], label: str | None) -> Data:
    """Score a rig's profile, in a child process."""
    return CalibrationActions(config).score(files, label)


def active_profile(config: Config) -> tuple[Profile | None, str | None]:
    """Return the rig's profile, or None and why it cannot be used (None if it has none)."""
    return read_profile(config.profile_path, config.board_id)


def read_profile(path: Path, board: str | None = None) -> tuple[Profile | None, str | None]:
    """Return a profile, or None and why it cannot be used (None if there is no file)."""
    try:
        return load_profile(path, board), None
    except ProfileMissingError:
        return None, None
    except ProfileError as error:
        return None, str(error)


def _previous_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _read_bytes(path: Path) -> bytes | None:
    try:
        return read_regular(path)
    except FileNotFoundError:
        return None


def profile_summary(profile: Profile) -> Data:
    """Return a profile as plain data."""
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
        "channels": _correction_summary(profile),
    }


def _correction_summary(profile: Profile) -> Data:
    channels = {} if profile.correction is None else profile.correction.channels
    return {
        name: {
            "shift": round(channel.target - channel.middle, 4),
            "gain": round(channel.gain, 4),
            "response_s": round(channel.response_s, 3),
        }
        for name, channel in channels.items()
    }


def settling_summary(span: ReadingSpan) -> Data:
    """Return whether all channels are steady at the end, and which are not, by a value a second."""
    settling = Settling()
    factor = max(1, round(span.rate_hz))
    signals = log_signals(span.values[::factor])
    steps_s = np.diff(span.t_ms[::factor], prepend=span.t_ms[:1]) / 1000.0
    for signal, step_s in zip(signals, steps_s.tolist(), strict=True):
        settling.update(signal, step_s)
    return {"settled": settling.settled, "unsettled": list(settling.unsettled)}


def capture_summary(captured: Captured) -> Data:
    """Return a capture as plain data."""
    return {name: value for name, value in asdict(captured).items() if name != "file"}


def _baseline_summary(baseline: Baseline) -> Data:
    return {
        name: {
            "log_conductance": round(channel.log_conductance, 4),
            "noise": round(channel.noise, 4),
            "drift_per_min": round(channel.drift_per_min, 4),
            "r0_kohm": None if channel.r0_kohm is None else round(channel.r0_kohm, 3),
        }
        for name, channel in baseline.channels.items()
    }
