"""Calibration: which board smells were learnt on, and whether another rig's smells fit this board.

May import hardware, models and calibration. Opens no file and knows no command.

A taught smell is a response above clean air, and how a board responds is its own. Clean air tells
boards apart: from day to day one board's moves by .2 to .35 in log-conductance, the four real
boards that are known differ by .9 and more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
import yaml

from calibration.exposures import EnrolmentError
from calibration.smell_learning import OTHER_BOARD
from calibration.smell_set import StoreDamagedError, signals_by_name
from hardware.channels import CHANNEL_NAMES
from hardware.checksum_line import CHECKSUM, checksum_is_right, with_checksum
from hardware.recording import RecordingError
from hardware.typed_yaml import YamlMapping, to_plain
from models.signals import GAS_NAMES, GROVE_SIGNALS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.rig_profile import Profile
    from calibration.smell_set import Exposure
    from calibration.smell_store import SmellStore

FORMAT = 1

MOST_CHARACTERS = 64
"""The longest name that is taken from a file of another rig."""

GROVE = tuple(GAS_NAMES[place] for place in GROVE_SIGNALS)
"""The channels over which a taught smell is a direction."""

MOST_DESCRIBED = 32
"""Exposures of a library that describe its board; more say the same."""

USABLE_SHARE = 0.5
"""A board has a channel that is usable in more than this share of its readings."""


@dataclass(frozen=True, slots=True)
class RigIdentity:
    """What a rig knows of itself without its library.

    Attributes
    ----------
    rig: its id.
    board: identity of its board, as the daemon knows it; empty where nothing names it.
    profile: its calibration, or None.
    """

    rig: str = ""
    board: str = ""
    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class BoardDescription:
    """A board, as a file of smells describes the one that they were learnt on.

    Attributes
    ----------
    rig: id of its rig.
    board: identity of the board, as its daemon knows it.
    calibration: id of the rig's calibration; where the readings are corrected, they are by it.
    rate_hz: of its readings; 0 where not known.
    channels: that it has, of the channel table; empty where not known.
    clean_air: log-conductance by gas channel, as measured, without a correction; empty where not
        known.
    scentd, date: version and time (UTC) that made the description.
    """

    rig: str = ""
    board: str = ""
    calibration: str = ""
    rate_hz: float = 0.0
    channels: tuple[str, ...] = ()
    clean_air: Mapping[str, float] = field(default_factory=dict)
    scentd: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        # It may come from anybody.
        for name in ("rig", "board", "calibration", "scentd", "date"):
            text = getattr(self, name)
            if len(text) > MOST_CHARACTERS or not text.isprintable():
                raise ValueError(f"{name} must be a name of at most {MOST_CHARACTERS} characters")
        unknown = (set(self.channels) - set(CHANNEL_NAMES)) | (set(self.clean_air) - set(GAS_NAMES))
        if unknown:
            raise ValueError(f"no channel is called {', '.join(sorted(unknown))}")
        if not all(map(math.isfinite, (*self.clean_air.values(), self.rate_hz))):
            raise ValueError("clean air and rate are finite numbers")

    @classmethod
    def from_yaml(cls, data: bytes, source: str) -> Self:
        """Read a description.

        Raises
        ------
        TypedYamlError, StoreDamagedError: it is none, or of another format.
        """
        document = YamlMapping(data)
        if not checksum_is_right(data):
            raise StoreDamagedError(f"the text of {source} does not belong to its checksum")
        document.values.pop(CHECKSUM, None)
        if document.values.pop("format", None) != FORMAT:
            raise StoreDamagedError(f"{source} is not of format {FORMAT}")
        return document.build(cls)

    def to_yaml(self) -> bytes:
        """Return its bytes."""
        content = {"format": FORMAT, **to_plain(self)}
        text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        return with_checksum(text.encode())


def describe_board(store: SmellStore, identity: RigIdentity) -> BoardDescription:
    """Return the board of a rig: what its own exposures show, else what its calibration does."""
    own = [
        exposure
        for smell in store.smells().smells
        for exposure in smell.exposures
        if not exposure.other_board and not exposure.as_trained
    ][-MOST_DESCRIBED:]
    profile = identity.profile
    airs = []
    for exposure in own:
        with contextlib.suppress(RecordingError, EnrolmentError):
            air = store.learner.measured_air(exposure)
            airs += [] if air is None else [air]
    if not airs and profile is not None and profile.baseline is not None:
        airs = [profile.baseline.signal]
    channels, rate_hz = _seen_channels(store, own)
    if not channels and profile is not None and profile.baseline is not None:
        channels = (*profile.baseline.channels, *profile.baseline.environment)
    return BoardDescription(
        rig=identity.rig,
        board=identity.board,
        calibration="" if profile is None else profile.id,
        rate_hz=rate_hz,
        channels=channels,
        clean_air=signals_by_name(_median(airs)),
    )


def _seen_channels(store: SmellStore, exposures: list[Exposure]) -> tuple[tuple[str, ...], float]:
    """Return the channels that most readings of some exposure have, and the median rate."""
    seen: Counter[str] = Counter()
    rates = []
    for exposure in exposures:
        try:
            recording = store.recording(exposure)
        except RecordingError:
            continue
        share = np.isfinite(recording.values).mean(axis=0)
        usable = zip(CHANNEL_NAMES, share, strict=True)
        seen.update(name for name, part in usable if part > USABLE_SHARE)
        rates.append(recording.nominal_rate_hz)
    rate_hz = round(float(np.median(rates)), 3) if rates else 0.0
    return tuple(name for name in CHANNEL_NAMES if seen[name]), rate_hz


def _median(airs: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    if not airs:
        return np.full(len(GAS_NAMES), np.nan)
    whole = np.array(airs)
    known = np.isfinite(whole).any(axis=0)
    median = np.full(whole.shape[1], np.nan)
    median[known] = np.nanmedian(whole[:, known], axis=0)
    return median


@dataclass(frozen=True, slots=True)
class BoardComparison:
    """Whether smells of one board fit another one.

    Attributes
    ----------
    same: whether the two are taken for one board.
    why: a sentence that says so.
    missing: channels that the smells need and this board lacks.
    """

    same: bool
    why: str
    missing: tuple[str, ...] = ()


def compare_boards(theirs: BoardDescription, ours: BoardDescription) -> BoardComparison:
    """Say whether smells that were learnt on one board fit another one."""
    missing = tuple(name for name in GROVE if ours.channels and name not in ours.channels)
    comparison = _compare_air(theirs, ours) or _compare_names(theirs, ours)
    needed = tuple(name for name in missing if name in theirs.channels)
    return dataclasses.replace(comparison, missing=needed)


def _compare_air(theirs: BoardDescription, ours: BoardDescription) -> BoardComparison | None:
    """Compare clean air over the Grove channels; None where it is not known of both."""
    both = [name for name in GROVE if name in theirs.clean_air and name in ours.clean_air]
    if not both:
        return None
    differences = {name: theirs.clean_air[name] - ours.clean_air[name] for name in both}
    distance = math.sqrt(sum(one**2 for one in differences.values()) / len(both))
    usual = "one board's moves by 0.2 to 0.35 from day to day"
    if distance > OTHER_BOARD:
        largest = max(both, key=lambda name: abs(differences[name]))
        return BoardComparison(
            same=False,
            why=f"their clean air is another board's: it differs by {distance:.1f} in "
            f"log-conductance ({largest} by {abs(differences[largest]):.1f}), and {usual}",
        )
    why = (
        f"their clean air differs from this board's by {distance:.2f} in log-conductance ({usual})"
    )
    if theirs.board and ours.board and theirs.board != ours.board:
        why += f", although it was called {theirs.board!r} and is {ours.board!r} here"
    return BoardComparison(same=True, why=why)


def _compare_names(theirs: BoardDescription, ours: BoardDescription) -> BoardComparison:
    if theirs.board and theirs.board == ours.board:
        why = f"both are called {ours.board!r}, and there is no clean air to compare"
        return BoardComparison(same=True, why=why)
    if not theirs.scentd:
        knows = "an earlier version wrote the file, without its board and clean air"
    elif ours.clean_air:
        knows = "the file holds no clean air"
    else:
        knows = "this rig has no clean air to compare, as it was neither taught nor calibrated"
    named = "does not name its board"
    if theirs.board:
        named = f"is of {theirs.board!r}, and this is {ours.board or 'not named'!r}"
    return BoardComparison(
        same=False, why=f"nothing shows that they are of this board: {knows}; the file {named}"
    )
