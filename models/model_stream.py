"""Models: one model's samples, features, window, evidence and decision.

May import hardware and models. Part of the nose. Must know no clock, exposure or fault:
`models.nose` determines when to predict and which windows are evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.block import BlockReader
from models.board_identity import BoardIdentity
from models.mixture_decision import MixtureDecision
from models.preprocess import FeatureStream
from models.substance_decision import EvidenceShare, SubstanceDecision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.block import Block
    from models.bundle import Bundle
    from models.taught_head import TaughtHead


class ModelStream:
    """One model from the block to its decision.

    Parameters
    ----------
    bundle: the model.
    board_hz: the board's rate.
    head: taught, hidden and renamed labels of a substance model.
    as_measured: use the readings as the board sent them: no calibration is in force.

    Attributes
    ----------
    disabled: why the board can never feed the model, or None.
    fault: why it cannot feed it now, or None.
    due_ms: when the next prediction is due.
    missing_samples: samples of the board that the shortest window certainly still needs.
    announces: whether the latest window left a label, or components, announced.
    identity: whether the board is one like that of the model's training; None where its readings
        are corrected for the model, and of a bundle that says nothing of its board.
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
        # A calibration that is in force leads to the training board.
        board = bundle.board if as_measured else None
        self.identity: BoardIdentity | None = None
        if board is not None:
            self.identity = BoardIdentity(board, self.spec.window, self._converter.rate_hz)
        self._resets = 0
        self.missing_samples = self._converter.readings_for(self._short_samples())
        self._evidence_start = 0
        self._used_steps = 0

    def set_head(self, head: TaughtHead | None) -> None:
        """Decide with another head from the next window on; the evidence is discarded."""
        manifest = self.bundle.manifest
        self._taught = head is not None and bool(head.taught)
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
    def foreign(self) -> bool:
        """Whether the board is known to be unlike that of the model's training."""
        return self.identity is not None and bool(self.identity.foreign)

    @property
    def knows_board(self) -> bool:
        """Whether the board is known to be like that of the model's training."""
        return self.identity is None or self.identity.foreign is False

    def has_no_name(self, *, taught: bool) -> bool:
        """Whether an odour can have no name, because the board is not the training's.

        What the rig was taught can still be recognised: by its own recogniser (`taught`), which
        decides by itself, or by the model's head, which is waited for until it favours a label of
        the model.
        """
        return self.foreign and not taught and (self.decision.nameless or not self._taught)

    @property
    def ready(self) -> bool:
        """Whether the window, as of the last `extend`, is long enough for a prediction."""
        return self._features.steps >= self.spec.min_steps

    def extend(self, block: Block) -> None:
        """Turn the block's new samples into features."""
        values, lost = self._reader.read(block)
        if len(values):
            self._features.extend(values, lost)
            if self.identity is not None:
                self.identity.extend(values)
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
        self.announces = False

    def start_evidence(self) -> None:
        """Count only rows from now on as evidence."""
        self._evidence_start = self._features.steps

    def predict(
        self,
        t_ms: int,
        *,
        accumulate: bool,
        warm: bool = True,
        clean_air: NDArray[np.float64] | None = None,
    ) -> float:
        """Run the network on the window and decide; return the seconds of readings behind it.

        Parameters
        ----------
        t_ms: time of the newest sample.
        accumulate: add the window to the evidence; else it counts alone and announces nothing.
        warm: the sensors are warm, so that their levels tell the board.
        clean_air: float64[8], log-conductances as the board measures them, None where not known.
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
        if self.identity is not None and warm:
            self.identity.judge(t_ms, clean_air)
        self.decision.foreign = not self.knows_board
        x, mask = self._features.window(steps)
        outputs = self.bundle.run(x[np.newaxis], mask[np.newaxis])
        self.decision.add(outputs, self._share(t_ms, steps))
        if not accumulate:
            self.decision.withdraw()
            self._evidence_ms = None
        self.announces = self.decision.announced is not None
        reach = min(self.spec.lags[-1], self._features.samples - steps)
        return (steps + reach) / self._converter.rate_hz

    def _short_samples(self) -> int:
        """Return the samples that the shortest window still needs."""
        return self.spec.first_step + self.spec.min_steps - self._features.samples

    def _share(self, t_ms: int, steps: int) -> EvidenceShare:
        """Return the window's part in the evidence, and note that it was used."""
        before_ms, self._evidence_ms = self._evidence_ms, t_ms
        used, self._used_steps = self._used_steps, self._features.steps
        filled = steps / self.spec.window
        if before_ms is None:
            return EvidenceShare(0.0, filled, filled)
        fresh = min(steps, self._features.steps - used)
        return EvidenceShare((t_ms - before_ms) / 1000.0, filled, fresh / self.spec.window)
