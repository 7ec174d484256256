"""Models: one model listening to the board: its samples, features, window and decision.

May import hardware and models. Part of the nose, and as it reads no clock and knows
neither exposure nor fault: `models.nose` says when to look and what counts as evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.channels import N_CHANNELS
from models.decimator import Decimator
from models.mixture_decision import MixtureDecision
from models.preprocess import FeatureStream
from models.substance_decision import EvidenceShare, ModelOutput, SubstanceDecision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.channel_watch import ChannelWatch
    from models.taught_head import TaughtHead

BLOCK_SAMPLES = 512
"""Samples collected at most: 25 s at 20 Hz. No result depends on it."""


class Block:
    """Samples that not everyone has consumed yet.

    Attributes
    ----------
    values: float32[BLOCK_SAMPLES, 12], corrected where the rig has a correction, NaN where
        unusable.
    measured: the same as the board sent it.
    lost: int64[BLOCK_SAMPLES], samples lost just before each.
    count: how many are there.
    """

    __slots__ = ("count", "lost", "measured", "values")

    def __init__(self) -> None:
        self.values: NDArray[np.float32] = np.empty((BLOCK_SAMPLES, N_CHANNELS), dtype=np.float32)
        self.measured: NDArray[np.float32] = np.empty_like(self.values)
        self.lost: NDArray[np.int64] = np.zeros(BLOCK_SAMPLES, dtype=np.int64)
        self.count = 0


class BlockReader:
    """One consumer's place in the block, and its decimator.

    Parameters
    ----------
    board_hz: rate of the block.
    wanted_hz: rate of the consumer.
    max_hold: lost samples, at the consumer's rate, that it bridges.
    as_measured: take the readings as the board sent them, uncorrected.
    """

    __slots__ = ("_as_measured", "_decimator", "_taken", "factor", "rate_hz")

    def __init__(
        self, board_hz: float, wanted_hz: float, max_hold: int, *, as_measured: bool = False
    ) -> None:
        self._as_measured = as_measured
        self.factor = max(1, round(board_hz / wanted_hz))
        self.rate_hz = board_hz / self.factor
        self._decimator = Decimator(self.factor, (max_hold + 1) * self.factor)
        self._taken = 0

    def drain(self, block: Block) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return what has come since the last call, at the consumer's rate."""
        start, end = self._taken, block.count
        self._taken = end
        values = block.measured if self._as_measured else block.values
        return self._decimator.feed(values[start:end], block.lost[start:end])

    def rewind(self) -> None:
        """Begin at the block's start again."""
        self._taken = 0


class ModelStream:
    """A model's share of the stream, from the block to its decision.

    Parameters
    ----------
    bundle: the model.
    board_hz: the board's rate.
    head: what the rig's owner taught a substance model, hid and renamed.
    as_measured: listen to the readings as the board sent them, uncorrected.

    Attributes
    ----------
    disabled: why the board can never feed the model, or None.
    fault: why it cannot feed it now, or None.
    due_ms: when it speaks next.
    announces: whether it announces a label, or components, as of the last look.
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
        self._board_hz = board_hz
        self._tap = BlockReader(
            board_hz, self.spec.rate_hz, self.spec.max_hold, as_measured=as_measured
        )
        self._stream = FeatureStream(self.spec)
        self._resets = 0
        self._awaited = (self.spec.first_step + self.spec.min_steps) * self._tap.factor
        self._cut_at = 0
        self._seen_steps = 0

    def set_head(self, head: TaughtHead | None) -> None:
        """Decide with another head from the next look on; the evidence so far is forgotten."""
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
        self._evidence_ms: int | None = None
        self._said: str | None = None
        self._strange = False
        self.announces = False

    def awaits(self, samples: int) -> bool:
        """Count `samples` of the board; return whether the window is surely still too short."""
        self._awaited -= samples
        return self._awaited > 0

    @property
    def ready(self) -> bool:
        """Whether the window, as of the last `drain`, is long enough to be looked at."""
        return self._stream.steps >= self.spec.min_steps

    def drain(self, block: Block) -> None:
        """Turn the samples that have come into features."""
        values, lost = self._tap.drain(block)
        if len(values):
            self._stream.extend(values, lost)
        if self._stream.resets != self._resets:
            self._resets = self._stream.resets
            self._cut_at = self._seen_steps = 0
        short = self.spec.first_step + self.spec.min_steps - self._stream.samples
        # The group being filled may be complete but for one sample.
        self._awaited = (short - 1) * self._tap.factor + 1 if short > 0 else 0

    def rewind(self) -> None:
        """Begin at the block's start again."""
        self._tap.rewind()

    def forget(self) -> None:
        """Drop the evidence: another odour begins, or the air is clean."""
        self.decision.clear()
        self._evidence_ms = None
        self._said = None
        self._strange = False
        self.announces = False

    def cut(self) -> None:
        """Let only rows from now on be evidence."""
        self._cut_at = self._stream.steps

    def look(self, t_ms: int, *, accumulate: bool) -> float:
        """Run the network on the window; return the seconds of readings behind it.

        Parameters
        ----------
        t_ms: time of the newest sample.
        accumulate: the window joins the evidence; else it stands alone and announces nothing.
        """
        steps = min(self._stream.steps, self.spec.window)
        since_cut = self._stream.steps - self._cut_at
        if since_cut >= self.spec.min_steps:
            steps = min(steps, since_cut)
        else:
            # Rows from before an onset may show in `top`, but are no evidence for it.
            accumulate = False
        if not accumulate or self._evidence_ms is None:
            self.forget()
        x, mask = self._stream.window(steps)
        outputs = self.bundle.run(x[np.newaxis], mask[np.newaxis])
        share = self._share(t_ms, steps)
        if isinstance(self.decision, SubstanceDecision):
            described = outputs.descriptors.reshape(-1)
            heard = ModelOutput(outputs.logits[0], outputs.embedding[0], described)
            self.decision.add(heard, share)
        else:
            self.decision.add(outputs.proportions[0], outputs.presence[0], share)
        if not accumulate:
            self.decision.withdraw()
            self._evidence_ms = None
        self.announces = self.decision.announced is not None
        reach = min(self.spec.lags[-1], self._stream.samples - steps)
        return (steps + reach) / self._tap.rate_hz

    def news(self) -> str | None:
        """Return what is announced, when it was not announced the last time asked."""
        before, self._said = self._said, self.decision.announced
        return self._said if self._said != before else None

    def turned_unrecognised(self) -> bool:
        """Whether the odour counts as none of the labels and did not the last time asked."""
        before, self._strange = self._strange, self.decision.unrecognised
        return self._strange and not before

    def rate_problem(self) -> str | None:
        """Return why the board's rate cannot feed the model, or None."""
        low, high = self.bundle.manifest.rate_ratio
        wanted_hz = self.spec.rate_hz
        if low <= self._tap.rate_hz / wanted_hz <= high:
            return None
        return (
            f"the board sends {self._board_hz:.3g} readings a second, the model needs "
            f"{low * wanted_hz:.3g} to {high * wanted_hz:.3g} or a multiple of that"
        )

    def absence_problem(self, watch: ChannelWatch) -> str | None:
        """Return which channels the board would have to have, or None."""
        return self._channel_problem(watch.absent(self.spec.channels), "the board has no")

    def fault_problem(self, watch: ChannelWatch) -> str | None:
        """Return which channels the model would have to be able to use, or None."""
        return self._channel_problem(watch.unusable(self.spec.channels), "cannot use")

    def _channel_problem(self, missing: tuple[str, ...], verb: str) -> str | None:
        needs = self.bundle.manifest.requirements
        required = [name for name in missing if name in needs.required_channels]
        if required:
            return f"{verb} {', '.join(required)}, which the model cannot do without"
        left = len(self.spec.channels) - len(missing)
        if left >= needs.min_channels:
            return None
        return (
            f"{verb} {', '.join(missing)}, and with {left} of {len(self.spec.channels)} channels "
            f"the model has fewer than the {needs.min_channels} it needs"
        )

    def _share(self, t_ms: int, steps: int) -> EvidenceShare:
        """Return the window's part in the evidence, and note that it was looked at."""
        before_ms, self._evidence_ms = self._evidence_ms, t_ms
        seen, self._seen_steps = self._seen_steps, self._stream.steps
        if before_ms is None:
            return EvidenceShare(0.0, steps / self.spec.window, steps / self.spec.window)
        fresh = min(steps, self._stream.steps - seen)
        return EvidenceShare(
            (t_ms - before_ms) / 1000.0, steps / self.spec.window, fresh / self.spec.window
        )
