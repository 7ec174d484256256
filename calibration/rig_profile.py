"""Calibration: one rig's calibration as a file that people can read.

May import `hardware`, `models`, this room, numpy and yaml; no network, no port and no clock (the
date is a parameter). The YAML holds all numbers of the correction, and what it was made from.
Version, board and content are checked on loading: a profile of another board would quietly spoil
every prediction.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from calibration.baseline import Baseline  # noqa: TC001 - read by get_type_hints
from calibration.correction import (
    USUAL_HUMIDITY,
    USUAL_TEMPERATURE,
    Compensation,
    CorrectionSpec,
    RigCorrection,
)
from hardware.channels import N_GAS
from hardware.errors import ScentdError
from hardware.files import read_regular, write_atomically
from hardware.safe_yaml import abbreviate
from hardware.typed_yaml import TypedYamlError, YamlMapping, build, to_plain
from models.signals import GAS_NAMES

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


@dataclass(frozen=True, slots=True)
class ChannelCorrection:
    """One channel's constants of a `CorrectionSpec`; `gain` is on the matrix's diagonal."""

    middle: float
    target: float
    gain: float
    response_s: float
    wander: float
    humidity: float
    temperature: float


@dataclass(frozen=True, slots=True)
class CorrectionTable:
    """A `CorrectionSpec` as the file holds it.

    Attributes
    ----------
    channels: one per gas channel.
    matrix: row by row, where it is more than gains.
    """

    channels: Mapping[str, ChannelCorrection]
    matrix: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if set(self.channels) != set(GAS_NAMES):
            raise ValueError(f"its channels must be {', '.join(GAS_NAMES)}")
        if self.matrix is not None and [len(row) for row in self.matrix] != [N_GAS] * N_GAS:
            raise ValueError(f"its matrix must be {N_GAS} by {N_GAS}")

    @classmethod
    def from_spec(cls, spec: CorrectionSpec) -> CorrectionTable:
        """Return the table of a correction."""
        columns = (
            spec.middle,
            spec.target,
            np.diagonal(spec.matrix),
            spec.response_s,
            spec.wander,
            spec.compensation.humidity,
            spec.compensation.temperature,
        )
        rows = np.stack(columns, axis=1).tolist()
        channels = {
            name: ChannelCorrection(*row) for name, row in zip(GAS_NAMES, rows, strict=True)
        }
        matrix = None if spec.is_affine else tuple(map(tuple, spec.matrix.tolist()))
        return cls(channels, matrix)

    def spec(self) -> CorrectionSpec:
        """Return the correction of the table."""
        rows = [dataclasses.astuple(self.channels[name]) for name in GAS_NAMES]
        middle, target, gain, response_s, wander, humidity, temperature = np.array(rows).T
        matrix = np.diag(gain) if self.matrix is None else np.array(self.matrix)
        return CorrectionSpec(
            middle, target, matrix, response_s, wander, Compensation(humidity, temperature)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """One rig's calibration.

    Attributes
    ----------
    id: published with every prediction: the date and the hash of all below.
    version: of the file format.
    date: UTC, ISO 8601.
    board: identity of the board, as the daemon knows it.
    model: the correction leads to this model's training rig; None without a correction.
    baseline: in clean air, None where never captured.
    method: how the correction was fitted, one of `transfer.METHODS`; None without one.
    correction: its constants; None for a rig that is only measured.
    references: what it was fitted on.
    figures: errors by method, scores before and after; whatever was measured, by name.
    """

    id: str
    version: int
    date: str
    board: str
    model: str | None
    baseline: Baseline | None
    method: str | None
    correction: CorrectionTable | None
    references: tuple[Evidence, ...]
    figures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = set(self.baseline.channels if self.baseline else ()) - set(GAS_NAMES)
        if unknown:
            raise ValueError(f"no gas channel is called {', '.join(sorted(unknown))}")

    @classmethod
    def create(
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
        """Make a profile and its id; the errors of `transfer` are added to `figures`."""
        errors = {} if transfer is None else transfer.errors
        measured = {f"error_{name}": error for name, error in errors.items()} | dict(figures or {})
        draft = cls(
            id="",
            version=FORMAT_VERSION,
            date=date,
            board=board,
            model=model,
            baseline=baseline,
            method=None if transfer is None else transfer.method,
            correction=None if transfer is None else CorrectionTable.from_spec(transfer.spec),
            references=references,
            figures=dict(sorted(measured.items())),
        )
        # Rounded as its file is, so that it corrects to the bit as it will after a restart.
        rounded = build(cls, _plain(draft))
        return dataclasses.replace(rounded, id=_id_of(_plain(rounded)))

    def rig_correction(self) -> RigCorrection | None:
        """Return what corrects this rig's frames; None where there is nothing to correct."""
        if self.correction is None or self.method == "none":
            return None
        return RigCorrection(self.id, self.correction.spec(), self.model)

    @property
    def clean_air(self) -> NDArray[np.float64] | None:
        """float64[8], log-conductances of the corrected readings in clean air, None if unknown.

        NaN for a channel that the rig lacks.
        """
        if self.baseline is None:
            return None
        correction = self.rig_correction()
        if correction is None:
            return self.baseline.signal
        air = self.baseline.environment
        return correction.spec.corrected_level(
            self.baseline.signal,
            air.get("Humidity", USUAL_HUMIDITY),
            air.get("Temperature", USUAL_TEMPERATURE),
        )


def save_profile(profile: Profile, path: Path) -> None:
    """Write a profile, whole or not at all.

    Raises
    ------
    ProfileError: the disk refuses.
    """
    text = yaml.safe_dump(_plain(profile), sort_keys=False, default_flow_style=None, width=100)
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
        document = YamlMapping(read_regular(path))
        version = document.values.get("version")
        if version == FORMAT_VERSION and document.values.get("id") != _id_of(document.values):
            raise _damaged(path, "its content does not belong to its id; was it edited by hand?")
        if version in (None, FORMAT_VERSION):
            profile = document.build(Profile)
    except FileNotFoundError as error:
        raise ProfileMissingError(
            f"There is no calibration profile {path}. Make one with `scentd calibrate`."
        ) from error
    except (OSError, TypedYamlError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if version != FORMAT_VERSION:
        raise ProfileVersionError(
            f"{path} is a calibration profile of version {abbreviate(version)}; this scentd reads "
            f"version {FORMAT_VERSION}. Fit it again with `scentd calibrate fit`: the captures "
            "that it was made from are kept."
        )
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


def _id_of(values: Mapping[str, Any]) -> str:
    """Return the date and eight digits of the hash of a profile's content, its id left out."""
    body = {key: value for key, value in values.items() if key != "id"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f"{str(body.get('date'))[:10]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _plain(profile: Profile) -> dict[str, Any]:
    """Return a profile as what YAML can hold."""
    return {name: _rounded(value) for name, value in to_plain(profile).items()}


def _rounded(value: Any) -> Any:
    """Return `value` with six significant digits, far finer than any channel is measured.

    None inside a section is left out.
    """
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        raise ProfileError(
            f"A calibration profile holds finite numbers only, got {value}. Capture again the "
            "channel that could not be read."
        )
    return float(f"{value:.{_DIGITS}g}")
