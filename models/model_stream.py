"""Models: one model's samples, features, window, evidence and decision.

May import hardware and models. Part of the nose. Must know no clock, exposure or fault:
`models.nose` determines when to predict and which windows are evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_CHANNELS
from models.mixture_decision import MixtureDecision
from models.preprocess import FeatureStream
from models.rate_conversion import RATE_RATIO, RateConverter
from models.substance_decision import EvidenceShare, SubstanceDecision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.taught_head import TaughtHead

BLOCK_SAMPLES = 512
"""Capacity of a block: 25 s at 20 Hz. No result depends on it."""


class Block:
    """Samples of the board that not every reader has read yet.

    Attributes
    ----------
    values: float32[BLOCK_SAMPLES, 12], corrected where the rig has a correction, NaN where
        unusable.
    measured: the same, uncorrected.
    lost: int64[BLOCK_SAMPLES], samples lost just before each.
    t_ms: int64[BLOCK_SAMPLES], the samples' times.
    count: samples in the block.
    """

    __slots__ = ("count", "lost", "measured", "t_ms", "values")

    def __init__(self) -> None:
        self.values: NDArray[np.float32] = np.empty((BLOCK_SAMPLES, N_CHANNELS), dtype=np.float32)
        self.measured: NDArray[np.float32] = np.empty_like(self.values)
        self.lost: NDArray[np.int64] = np.zeros(BLOCK_SAMPLES, dtype=np.int64)
        self.t_ms: NDArray[np.int64] = np.zeros(BLOCK_SAMPLES, dtype=np.int64)
        self.count = 0


class BlockReader:
    """One reader's position in the block, and its conversion to another rate.

    Parameters
    ----------
    board_hz: rate of the block.
    wanted_hz: rate of the reader.
    max_hold: lost samples, at the reader's rate, that it bridges.
    rate_ratio: rates over the wanted one that are taken for it.
    as_measured: read the uncorrected values.
    """

    __slots__ = ("_as_measured", "_position", "converter")

    def __init__(
        self,
        board_hz: float,
        wanted_hz: float,
        max_hold: int,
        rate_ratio: tuple[float, float] = RATE_RATIO,
        *,
        as_measured: bool = False,
    ) -> None:
        self._as_measured = as_measured
        self.converter = RateConverter(board_hz, wanted_hz, max_hold, rate_ratio)
        self._position = 0

    def read(self, block: Block) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the samples since the last call, at the reader's rate, and the lost ones."""
        start, self._position = self._position, block.count
        values = block.measured if self._as_measured else block.values
        new = slice(start, block.count)
        return self.converter.feed(values[new], block.lost[new], block.t_ms[new])

    def rewind(self) -> None:
        """Start again at the beginning of the block, which has been emptied."""
        self._position = 0


class ModelStream:
    """One model from the block to its decision.

    Parameters
    ----------
    bundle: the model.
    board_hz: the board's rate.
    head: taught, hidden and renamed labels of a substance model.
    as_measured: use the readings as the board sent them, uncorrected.

    Attributes
    ----------
    disabled: why the board can never feed the model, or None.
    fault: why it cannot feed it now, or None.
    due_ms: when the next prediction is due.
    missing_samples: samples of the board that the shortest window certainly still needs.
    announces: whether the latest window left a label, or components, announced.
    """

    def __init__(
        self,
        bundle: Bundle,
        board_hz: float,
        head: TaughtHead | None = None,
        *,
        as_measured: bool = False,
    ) -> None:
        self.bundle = bundle
        self.spec = bundle.manifest.preprocessing
        self.set_head(head)
        self.disabled: str | None = None
        self.fault: str | None = None
        self.due_ms = 0
        self._reader = BlockReader(
            board_hz,
            self.spec.rate_hz,
            self.spec.max_hold,
            bundle.manifest.rate_ratio,
            as_measured=as_measured,
        )
        self._converter = self._reader.converter
        self._features = FeatureStream(self.spec)
        self._resets = 0
        self.missing_samples = self._converter.readings_for(self._short_samples())
        self._evidence_start = 0
        self._used_steps = 0

    def set_head(self, head: TaughtHead | None) -> None:
        """Decide with another head from the next window on; the evidence is discarded."""
        manifest = self.bundle.manifest
        self.decision = (
            SubstanceDecision(
                manifest.labels,
                manifest.decision,
                self.bundle.space,
                head,
                manifest.descriptors,
            )
            if manifest.task == "substance"
            else MixtureDecision(manifest.labels, manifest.decision)
        )
        self.discard_evidence()

    @property
    def ready(self) -> bool:
        """Whether the window, as of the last `extend`, is long enough for a prediction."""
        return self._features.steps >= self.spec.min_steps

    def extend(self, block: Block) -> None:
        """Turn the block's new samples into features."""
        values, lost = self._reader.read(block)
        if len(values):
            self._features.extend(values, lost)
        if self._features.resets != self._resets:
            self._resets = self._features.resets
            self._evidence_start = self._used_steps = 0
        self.missing_samples = self._converter.readings_for(self._short_samples())

    def rewind(self) -> None:
        """Start again at the beginning of the block, which has been emptied."""
        self._reader.rewind()

    def discard_evidence(self) -> None:
        """Discard the evidence: another odour begins, or the air is clean."""
        self.decision.clear()
        self._evidence_ms: int | None = None
        self._reported_label: str | None = None
        self._reported_unrecognised = False
        self._reported_list: frozenset[str] = frozenset()
        self._seen_list: frozenset[str] = frozenset()
        self.announces = False

    def start_evidence(self) -> None:
        """Count only rows from now on as evidence."""
        self._evidence_start = self._features.steps

    def predict(self, t_ms: int, *, accumulate: bool) -> float:
        """Run the network on the window and decide; return the seconds of readings behind it.

        Parameters
        ----------
        t_ms: time of the newest sample.
        accumulate: add the window to the evidence; else it counts alone and announces nothing.
        """
        steps = min(self._features.steps, self.spec.window)
        since_start = self._features.steps - self._evidence_start
        if since_start >= self.spec.min_steps:
            steps = min(steps, since_start)
        else:
            # Rows from before an onset may show in `top`, but are no evidence.
            accumulate = False
        if not accumulate or self._evidence_ms is None:
            self.discard_evidence()
        x, mask = self._features.window(steps)
        outputs = self.bundle.run(x[np.newaxis], mask[np.newaxis])
        self.decision.add(outputs, self._share(t_ms, steps))
        if not accumulate:
            self.decision.withdraw()
            self._evidence_ms = None
        self.announces = self.decision.announced is not None
        reach = min(self.spec.lags[-1], self._features.samples - steps)
        return (steps + reach) / self._converter.rate_hz

    def newly_announced(self) -> str | None:
        """Return what is announced if it was not at the last call."""
        before, self._reported_label = self._reported_label, self.decision.announced
        return self._reported_label if self._reported_label != before else None

    def newly_unrecognised(self) -> bool:
        """Whether the odour counts as none of the labels and did not at the last call."""
        before, self._reported_unrecognised = (
            self._reported_unrecognised,
            self.decision.unrecognised,
        )
        return self._reported_unrecognised and not before

    def _short_samples(self) -> int:
        """Return the samples that the shortest window still needs."""
        return self.spec.first_step + self.spec.min_steps - self._features.samples

    def newly_listed(self, short_list: tuple[str, ...]) -> bool:
        """Whether the list has other labels than the last one reported, twice in a row."""
        labels = frozenset(short_list)
        steady, self._seen_list = labels == self._seen_list, labels
        if not labels or not steady or labels == self._reported_list:
            return False
        self._reported_list = labels
        return True

    def _share(self, t_ms: int, steps: int) -> EvidenceShare:
        """Return the window's part in the evidence, and note that it was used."""
        before_ms, self._evidence_ms = self._evidence_ms, t_ms
        used, self._used_steps = self._used_steps, self._features.steps
        filled = steps / self.spec.window
        if before_ms is None:
            return EvidenceShare(0.0, filled, filled)
        fresh = min(steps, self._features.steps - used)
        return EvidenceShare((t_ms - before_ms) / 1000.0, filled, fresh / self.spec.window)
