"""Calibration: one rig's calibration as a file that people can read.

May import `hardware`, `models`, this room, numpy and yaml; no network, no port and no clock (the
date is handed in). The YAML holds all that the correction needs, in numbers, and what it was made
from. Version, board and content are checked on loading: a profile of another board would
quietly spoil every prediction.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from calibration.baseline import Baseline, ChannelBaseline
from calibration.correction import GAS_NAMES, N_GAS, Compensation, CorrectionSpec, RigCorrection
from hardware.errors import ScentdError
from hardware.files import write_atomically
from hardware.safe_yaml import read_yaml, shown

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.transfer import Transfer

FORMAT_VERSION = 1
PROFILE = "calibration.yaml"
"""Name of the active profile in a rig's state folder."""

_DIGITS = 6


class ProfileError(ScentdError):
    """A calibration profile cannot be used."""


class ProfileMissingError(ProfileError):
    """There is no profile there."""


class ProfileDamagedError(ProfileError):
    """The file is no profile, or is not what was written."""


class ProfileVersionError(ProfileError):
    """The profile was written by another version."""


class WrongBoardError(ProfileError):
    """The profile is another board's."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reference that a correction was fitted on.

    Attributes
    ----------
    label: of the odour.
    seconds: of the exposure.
    recording: file name of the capture, below the calibration folder.
    """

    label: str
    seconds: float
    recording: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """One rig's calibration.

    Attributes
    ----------
    id: published with every prediction: the date and the hash of all below.
    date: UTC, ISO 8601.
    board: identity of the board, as the daemon knows it.
    model: of whose training rig the correction speaks; None without a correction.
    baseline: in clean air, None where never captured.
    method: how the correction was fitted, one of `transfer.METHODS`; None without one.
    spec: the correction; None for a rig that is only measured.
    references: what it was fitted on.
    figures: errors by method, scores before and after; whatever was measured, by name.
    """

    id: str
    date: str
    board: str
    model: str | None = None
    baseline: Baseline | None = None
    method: str | None = None
    spec: CorrectionSpec | None = None
    references: tuple[Evidence, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def made(
        cls,
        *,
        date: str,
        board: str,
        baseline: Baseline | None = None,
        model: str | None = None,
        transfer: Transfer | None = None,
        references: tuple[Evidence, ...] = (),
        figures: Mapping[str, float] | None = None,
    ) -> Profile:
        """Make a profile and its id.

        Parameters
        ----------
        date: now, UTC, ISO 8601.
        board: identity of the board.
        baseline: in clean air.
        model, transfer, references: the correction, and what it was fitted on.
        figures: measured scores, beside the errors that `transfer` brings.
        """
        errors = {} if transfer is None else transfer.errors
        draft = cls(
            id="",
            date=date,
            board=board,
            model=model,
            baseline=baseline,
            method=None if transfer is None else transfer.method,
            spec=None if transfer is None else transfer.spec,
            references=references,
            figures={
                **{f"error_{name}": error for name, error in errors.items()},
                **(figures or {}),
            },
        )
        # Rounded as its file is, so that it corrects to the bit as it will after a restart.
        body = _plain(draft)
        return _from_plain({"id": _id_of(body), **body})

    def correction(self) -> RigCorrection | None:
        """Return what corrects this rig's frames; None where there is nothing to correct."""
        if self.spec is None or self.method == "none":
            return None
        return RigCorrection(self.id, self.spec, self.model)


def save_profile(profile: Profile, path: Path) -> None:
    """Write a profile, whole or not at all.

    Raises
    ------
    ProfileError: the disk refuses.
    """
    text = yaml.safe_dump(
        {"id": profile.id, **_plain(profile)}, sort_keys=False, default_flow_style=None, width=100
    )
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise ProfileError(
            f"The calibration profile cannot be written to {path} ({error.strerror}). Check that "
            "its folder may be written to and that the disk is not full."
        ) from error


def load_profile(path: Path, board: str | None = None) -> Profile:
    """Read a profile and check all of it.

    Parameters
    ----------
    path: of the file.
    board: identity of the board at hand; None does not ask.

    Raises
    ------
    ProfileMissingError, ProfileDamagedError, ProfileVersionError, WrongBoardError.
    """
    try:
        plain = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProfileMissingError(
            f"There is no calibration profile {path}. Make one with `scentd calibrate`."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error
    if not isinstance(plain, Mapping) or "version" not in plain:
        raise _damaged(path, "it has no `version`")
    if plain["version"] != FORMAT_VERSION:
        raise ProfileVersionError(
            f"{path} is a calibration profile of version {shown(plain['version'])}; this scentd "
            f"reads version {FORMAT_VERSION}. Fit it again with `scentd calibrate fit`: the "
            "captures that it was made from are kept."
        )
    body = {key: value for key, value in plain.items() if key != "id"}
    try:
        if plain.get("id") != _id_of(body):
            raise _damaged(path, "its content does not belong to its id; was it edited by hand?")
        profile = _from_plain(plain)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if board is not None and profile.board != board:
        raise WrongBoardError(
            f"{path} was calibrated for board {profile.board!r}, but this board is {board!r}. "
            "Calibrate this one (`scentd calibrate baseline`, then `reference` and `fit`), or put "
            "the other board's profile away."
        )
    return profile


def _damaged(path: Path, why: str) -> ProfileDamagedError:
    return ProfileDamagedError(
        f"Expected a calibration profile in {path}, but it is damaged ({why}). Fit it again with "
        "`scentd calibrate fit`, or go back to the one before: `scentd calibrate undo`."
    )


def _id_of(body: Mapping[str, Any]) -> str:
    """Return the date and eight digits of the hash of a profile's plain content."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f"{str(body.get('date'))[:10]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _plain(profile: Profile) -> dict[str, Any]:
    """Return all but the id as what YAML can hold, rounded as it is kept."""
    return {
        "version": FORMAT_VERSION,
        "date": profile.date,
        "board": profile.board,
        "model": profile.model,
        "baseline": None if profile.baseline is None else _plain_baseline(profile.baseline),
        "method": profile.method,
        "correction": None if profile.spec is None else _plain_spec(profile.spec),
        "references": [dataclasses.asdict(item) for item in profile.references],
        "figures": {name: _rounded(value) for name, value in sorted(profile.figures.items())},
    }


def _plain_baseline(baseline: Baseline) -> dict[str, Any]:
    return {
        "seconds": _rounded(baseline.seconds),
        "environment": {name: _rounded(value) for name, value in baseline.environment.items()},
        "channels": {
            name: {
                key: _rounded(value)
                for key, value in dataclasses.asdict(channel).items()
                if value is not None
            }
            for name, channel in baseline.channels.items()
        },
    }


def _plain_spec(spec: CorrectionSpec) -> dict[str, Any]:
    """Return one mapping a channel; the matrix, where it is more than gains, row by row."""
    columns = {
        "middle": spec.middle,
        "target": spec.target,
        "gain": np.diagonal(spec.matrix),
        "response_s": spec.response_s,
        "wander": spec.wander,
        "humidity": spec.compensation.humidity,
        "temperature": spec.compensation.temperature,
    }
    plain: dict[str, Any] = {
        "channels": {
            name: {key: _rounded(float(column[k])) for key, column in columns.items()}
            for k, name in enumerate(GAS_NAMES)
        }
    }
    if not spec.is_affine:
        plain["matrix"] = [[_rounded(float(number)) for number in row] for row in spec.matrix]
    return plain


def _rounded(value: float) -> float:
    """Return `value` at six significant digits, far finer than any channel is measured."""
    if not math.isfinite(value):
        raise ProfileError(
            f"A calibration profile holds finite numbers only, got {value}. Capture again the "
            "channel that could not be read."
        )
    return float(f"{value:.{_DIGITS}g}")


def _from_plain(plain: Mapping[str, Any]) -> Profile:
    baseline, correction = plain["baseline"], plain["correction"]
    return Profile(
        id=str(plain["id"]),
        date=str(plain["date"]),
        board=str(plain["board"]),
        model=plain["model"],
        baseline=None if baseline is None else _baseline_from(baseline),
        method=plain["method"],
        spec=None if correction is None else _spec_from(correction),
        references=tuple(Evidence(**item) for item in plain["references"]),
        figures={str(name): float(value) for name, value in plain["figures"].items()},
    )


def _baseline_from(plain: Mapping[str, Any]) -> Baseline:
    channels = {name: ChannelBaseline(**figures) for name, figures in plain["channels"].items()}
    unknown = set(channels) - set(GAS_NAMES)
    if unknown:
        raise ValueError(f"no gas channel is called {', '.join(sorted(unknown))}")
    return Baseline(channels, dict(plain["environment"]), float(plain["seconds"]))


def _spec_from(plain: Mapping[str, Any]) -> CorrectionSpec:
    def column(key: str) -> NDArray[np.float64]:
        return np.array([float(plain["channels"][name][key]) for name in GAS_NAMES])

    matrix = np.array(plain["matrix"], float) if "matrix" in plain else np.diag(column("gain"))
    if matrix.shape != (N_GAS, N_GAS):
        raise ValueError(f"the matrix is {list(matrix.shape)}, not {N_GAS} by {N_GAS}")
    return CorrectionSpec(
        column("middle"),
        column("target"),
        matrix,
        column("response_s"),
        column("wander"),
        Compensation(column("humidity"), column("temperature")),
    )
