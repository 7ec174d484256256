"""training/: a configuration that fits the recordings of a rig, as commented YAML.

Writes text from what `training.data.inspection` found; reads no recording.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import CHANNELS, Part
from models.decimator import decimation_factor
from models.rate_conversion import RATE_RATIO, SLOWEST_SHARE
from training.data.dataset import DataError
from training.data.inspection import GAS_CHANNELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.data.inspection import RecordingFacts

USUAL_HZ = 1.0
"""The rate of the recipe: faster boards are averaged down to it, slower ones interpolated."""
LAGS_S, WINDOW_S, FIRST_S, LEAST_ROWS = (5.0, 10.0, 25.0, 50.0), 100.0, 25.0, 20
"""Of the recipe of `substances-50`, for recordings that lie within one exposure."""
ONSET_FIRST_S, ONSET_LEAST_ROWS = 10.0, 10
"""Of the recipe of `fruits-5`, for recordings that begin in clean air: a name is to come soon."""
SHORTEST_S = 40.0
"""Shorter recordings leave no window beside a lag."""
LEAST_WINDOW = 20
STEPS = (200, 200, 300)
"""Of the two teachers and the exported network, for up to `FEW_LABELS` labels. Where recordings
begin in clean air there are no teachers."""
FEW_LABELS, MOST_TIMES = 10, 4

_GROVE = tuple(c.name for c in CHANNELS if c.part is Part.GROVE)
_HEATER = tuple(c.name for c in CHANNELS if c.part is Part.BME_GAS)


@dataclass(frozen=True, slots=True)
class RigConfig:
    """Settings that follow from a rig's recordings.

    Attributes
    ----------
    name: of the model.
    channels, left_out: gas channels that are used, and those that are not, with the reason.
    board_hz, rate_hz: median rate of the recordings, and the model's.
    lags, first_step, window: in samples of the model.
    steps: of the two teachers and of the network.
    from_onset: every recording begins in clean air, so that a window holds the levels too (lag 0)
        and begins with the onset.
    """

    name: str
    channels: tuple[str, ...]
    left_out: dict[str, str]
    board_hz: float
    rate_hz: float
    lags: tuple[int, ...]
    first_step: int
    window: int
    steps: tuple[int, int, int]
    from_onset: bool = False

    @property
    def rate_text(self) -> str:
        """How the board's rate becomes the model's, in words."""
        board = f"{self.board_hz:.3g} Hz"
        if self.board_hz < 1:
            board += f" (one reading in {1 / self.board_hz:.1f} s)"
        if self.board_hz < RATE_RATIO[0] * self.rate_hz:
            return f"{board}, interpolated to {self.rate_hz:g} Hz"
        if decimation_factor(self.board_hz, self.rate_hz) > 1:
            return f"{board}, averaged down to {self.rate_hz:g} Hz"
        return board


def bundle_name(text: str) -> str:
    """Return a name that a bundle may have: a-z, 0-9 and . _ -, at most 64 letters."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64]
    return name or "my-smells"


def choose_config(name: str, facts: Sequence[RecordingFacts]) -> RigConfig:
    """Choose settings for a rig's recordings.

    Raises
    ------
    DataError: a recording is too short, or there is no channel that is alive in all.
    """
    short = min(facts, key=lambda one: one.seconds)
    if short.seconds < SHORTEST_S:
        raise DataError(
            f"Expected recordings of at least {SHORTEST_S:.0f} s; {short.name} lasts "
            f"{short.seconds:.0f} s. Move it away, or record it again."
        )
    channels, left_out = _choose_channels(facts)
    board_hz = float(np.median([one.rate_hz for one in facts]))
    slowest_hz = min(one.rate_hz for one in facts)
    rate_hz = USUAL_HZ
    if slowest_hz < SLOWEST_SHARE * USUAL_HZ:
        rate_hz = float(f"{slowest_hz:.2g}")
    samples = int(short.seconds * rate_hz)
    lags, window = _fit_lengths(samples, rate_hz)
    if not lags:
        raise DataError(
            f"Expected recordings of at least {2 * LEAST_WINDOW} readings; {short.name} has "
            f"{samples}. Record longer, or let the board send readings more often."
        )
    times = int(np.clip(-(-len({one.label for one in facts}) // FEW_LABELS), 1, MOST_TIMES))
    first, second, last = (times * steps for steps in STEPS)
    from_onset = all(one.onset_s is not None for one in facts)
    first_s = ONSET_FIRST_S if from_onset else FIRST_S
    return RigConfig(
        name,
        channels,
        left_out,
        board_hz,
        rate_hz,
        (0, *lags) if from_onset else lags,
        max(1, min(round(first_s * rate_hz), lags[-1])),
        window,
        (first, second, last),
        from_onset,
    )


def _choose_channels(facts: Sequence[RecordingFacts]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Choose the Grove channels and the heater plate where alive; MQ parts only without Grove."""
    everywhere = frozenset.intersection(*(one.alive for one in facts))
    somewhere = frozenset.union(*(one.alive for one in facts))
    wanted = _GROVE + _HEATER if everywhere & set(_GROVE) else GAS_CHANNELS
    channels = tuple(name for name in wanted if name in everywhere)
    left_out = {}
    for name in GAS_CHANNELS:
        if name in channels:
            continue
        if name not in somewhere:
            left_out[name] = "no readings"
        elif name not in everywhere:
            left_out[name] = "dead in some recordings"
        else:
            left_out[name] = "an MQ part helps within a session and hurts outside it"
    if not channels:
        raise DataError(
            "Expected a gas channel with readings that move in every recording; found none. Look "
            "at the wiring, and leave out recordings with dead channels."
        )
    return channels, left_out


def _fit_lengths(samples: int, rate_hz: float) -> tuple[tuple[int, ...], int]:
    """Return lags and window that fit into the shortest recording; no lags where none fits."""
    window = max(LEAST_WINDOW, round(WINDOW_S * rate_hz))
    lags = tuple(sorted({max(1, round(lag_s * rate_hz)) for lag_s in LAGS_S}))
    if samples < lags[-1] + window:
        window = min(window, max(LEAST_WINDOW, samples // 2))
        lags = tuple(lag for lag in lags if lag + window <= samples)
    return lags, window


def render_config(config: RigConfig, facts: Sequence[RecordingFacts], source: str) -> str:
    """Return the configuration as YAML, with a comment for everything that was chosen."""
    labels = sorted({one.label for one in facts})
    sessions = {one.session for one in facts} - {""}
    out = "; ".join(f"{name}: {why}" for name, why in config.left_out.items())
    lags = ", ".join(map(str, config.lags))
    least_rows = ONSET_LEAST_ROWS if config.from_onset else LEAST_ROWS
    grove = [name for name in _GROVE if name in config.channels] or list(config.channels)
    return f"""\
# Written by `scent-train init` for {source}:
# {len(facts)} recordings, {len(labels)} labels, {len(sessions)} sessions.
# Every field is explained in training/config.py.
name: {config.name}
version: 0.1.0
task: substance
seed: 1
description: >-
  {_description(labels)}, learned on one rig from {len(facts)} recordings of
  {len(sessions) or "unnamed"} sessions.
preprocessing:
  # Gas channels with readings that move in every recording. No temperature, pressure or humidity:
  # they tell the day, never the smell.
  # Left out: {out or "none"}.
  channels: [{", ".join(config.channels)}]
  # The board: {config.rate_text}.
  rate_hz: {config.rate_hz:g}
  linearise: log
  # {_lags_comment(config)}
  # They and the window fit the shortest recording, of {min(one.seconds for one in facts):.0f} s.
  lags: [{lags}]
  first_step: {config.first_step}
  window: {config.window}
  stride: {max(1, config.window // 2)}
  min_steps: {min(least_rows, config.window)}
  max_hold: 3
  clip: 30.0
{_recipe(config)}
required_channels: [{", ".join(grove)}]
min_channels: {len(grove)}
"""


def _lags_comment(config: RigConfig) -> str:
    if not config.from_onset:
        return "Differences over so many samples: without clean air, levels tell the day."
    return "Levels (0), which tell smells apart on a plateau, and differences over so many samples."


def _recipe(config: RigConfig) -> str:
    """Return network, augmentation and training as YAML.

    What did best on whole held-out days: of `fruits-5` where recordings begin in clean air, else of
    `substances-50` (docs/models.md).
    """
    first, second, last = config.steps
    if config.from_onset:
        return f"""\
network: {{stem: statistics, bins: 16, d_model: 64, layers: 2, heads: 4, ffn: 2, dropout: 0.1}}
augment:
  gain_common: 0.2
  gain_channel: 0.05
  # Levels differ from day to day.
  level_channel: 0.15
  channel_dropout: 0.1
  # As if the smell came faster or slower.
  warp: 0.3
  partial: 0.0
  # Every recording begins in clean air: names come soon with short windows from the onset on.
  from_onset: 0.5
optimiser: {{steps: {last}, batch: 64, learning_rate: 0.002, warmup: 40, weight_decay: 0.05,
            label_smoothing: 0.1, ema: 0.99}}"""
    fickle = [name for name in _HEATER if name in config.channels]
    return f"""\
network: {{stem: statistics, bins: 16, d_model: 128, layers: 3, heads: 8, ffn: 4, dropout: 0.1}}
# Windows are also trained as other days and boards would send them (session, gains, lost channels).
augment: &student
  gain_common: 0.05
  gain_channel: 0.1
  session: 0.5
  channel_dropout: 0.1
  fickle: [{", ".join(fickle)}]
  warp: 0.0
  partial: 0.2
  from_start: 0.2
  mix: 1.0
  mix_alpha: 0.5
  mix_parts: 2
  mix_where: encoding
# The first learns this rig as it is, the second other rigs; the network learns from both.
teachers:
  - {{seed: 11, steps: {first},
     augment: {{<<: *student, gain_common: 0.0, gain_channel: 0.0, session: 0.0}}}}
  - {{seed: 12, steps: {second}, augment: {{<<: *student, session: 1.0}}}}
optimiser: {{steps: {last}, batch: 128, learning_rate: 0.002, warmup: 50, weight_decay: 0.05,
            label_smoothing: 0.05, ema: 0.99}}"""


def _description(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:6])
    return shown if len(labels) <= 6 else f"{shown} and {len(labels) - 6} more"  # noqa: PLR2004
