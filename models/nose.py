"""Models: the nose. It turns readings into predictions and events.

May import hardware and models. Must never open a port or publish, nor read a clock except for
`latency_ms`: the same object runs live, in replay and in evaluation, and its predictions depend on
the readings and their `t_ms` alone.

Samples are collected in one block that all models share. A model turns its part of the block
into features only when a prediction is due, so a sample costs little more than its copy; no
prediction waits for a block to fill.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from hardware.counting import counted
from hardware.errors import UsageError
from models.block import BLOCK_SAMPLES, Block, BlockReader
from models.conditioning import ConditionedReading, Conditioner
from models.decision_spec import State
from models.exposure import Change, Phase
from models.exposure_settings import ExposureSettings
from models.exposure_stream import MAX_HOLD, RATE_HZ, ExposureStream
from models.model_stream import ModelStream
from models.recogniser import TAUGHT
from models.reporter import Reporter
from models.requirements import channel_problem, feeding_problem
from models.results import EventType, Step
from models.rig_stream import TaughtStream, taught_streams
from models.substance_decision import state_of
from models.timing import lost_samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from hardware.frames import SensorFrame
    from models.bundle import Bundle
    from models.correction import Correction
    from models.recogniser import Recogniser
    from models.results import Prediction
    from models.taught_head import TaughtHead
    from models.unmixing import Unmixing


@dataclass(frozen=True, slots=True)
class NoseSettings:
    """Settings of the rig's owner.

    Attributes
    ----------
    live_stride_s: seconds of stream time between two inferences of a model.
    exposure: when an odour begins and ends.
    """

    live_stride_s: float = 5.0
    exposure: ExposureSettings = field(default_factory=ExposureSettings)


class Nose:
    """Joins time, channel health, exposure, models and decisions of one board.

    Call `process` for every reading, in order. A model that the board's rate or channels cannot
    feed gives one prediction with the state `disabled`.

    Parameters
    ----------
    bundles: the models.
    settings: of the rig's owner.
    rate_hz: the board's rate where it is given; otherwise it is measured from eight time steps,
        while the readings wait.
    skip_warm_up: the sensors are warm (a recording of a warm board).
    assume_exposed: the recording lies within one exposure, whole (the published layouts).
    correction: of this rig's readings, or None.
    heads: by model, the labels that the owner taught, hid and renamed.
    recogniser: of the smells that the rig was taught, or None.
    unmixing: of their mixtures, or None.
    calibrated_air: float64[8], log-conductances of the rig's calibration in clean air, or None.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        settings: NoseSettings | None = None,
        *,
        rate_hz: float | None = None,
        skip_warm_up: bool = False,
        assume_exposed: bool = False,
        correction: Correction | None = None,
        heads: Mapping[str, TaughtHead] | None = None,
        recogniser: Recogniser | None = None,
        unmixing: Unmixing | None = None,
        calibrated_air: NDArray[np.float64] | None = None,
    ) -> None:
        self._bundles = tuple(bundles)
        self._heads: dict[str, TaughtHead | None] = {}
        self._settings = settings or NoseSettings()
        self._conditioner = Conditioner(rate_hz, correction, self._settings.exposure.forget_after_s)
        self._watch = self._conditioner.watch
        self._exposure = ExposureStream(
            self._settings.exposure,
            skip_warm_up=skip_warm_up,
            assume_exposed=assume_exposed,
            calibrated_air=calibrated_air,
        )
        self._taught: list[TaughtStream] = []
        self._streams: list[ModelStream] = []
        self._streams_outdated = True
        self._block = Block()
        self._exposure_reader: BlockReader | None = None
        self._exposure_due = 0
        self._report = Reporter(self._conditioner, self._exposure)
        self._waiting: list[ConditionedReading] = []
        self._announcing = False
        self._checked_channels: frozenset[str] = frozenset()
        for model, head in (heads or {}).items():
            self.set_head(model, head)
        self.set_taught(recogniser, unmixing)

    @property
    def rate_hz(self) -> float | None:
        """The board's rate, None until known."""
        return self._conditioner.meter.rate_hz

    @property
    def exposure(self) -> ExposureStream:
        """The air before the board: the phase of the exposure, and clean air."""
        return self._exposure

    @property
    def foreign_boards(self) -> dict[str, bool | None]:
        """By model, whether the board is unlike that of its training; None while not known."""
        return {
            stream.bundle.manifest.name: None
            if stream.identity is None
            else stream.identity.foreign
            for stream in self._streams
        }

    def set_head(self, model: str, head: TaughtHead | None) -> None:
        """Let a model decide with another head from its next prediction on, which is due at once.

        Raises
        ------
        UsageError: there is no such model here, or it cannot compare its embeddings.
        HeadError: the head does not fit the model's labels.
        """
        bundles = {bundle.manifest.name: bundle for bundle in self._bundles}
        if model not in bundles:
            raise UsageError(
                f"This rig runs {', '.join(bundles) or 'no model'}, and none called {model!r}. "
                "Name one of these, or add the model to the configuration."
            )
        if head is not None:
            if bundles[model].space is None:
                raise UsageError(
                    f"The bundle of {model} has no class means, so nothing can be taught, hidden "
                    "or renamed beside it. Install a newer version of it, or export it anew."
                )
            head.labels(bundles[model].manifest.labels)
        self._heads[model] = head
        for stream in self._streams:
            if stream.bundle.manifest.name == model:
                stream.set_head(head)
                stream.due_ms = self._report.t_ms
        self._note_announcing()

    def set_taught(self, recogniser: Recogniser | None, unmixing: Unmixing | None = None) -> None:
        """Recognise and unmix what the rig was taught by these from the next row on."""
        self._taught = taught_streams(recogniser, unmixing)
        for stream in self._streams:
            stream.due_ms = self._report.t_ms

    def set_correction(
        self, correction: Correction | None, calibrated_air: NDArray[np.float64] | None = None
    ) -> None:
        """Correct readings in another way, and know other clean air, from the next one on.

        Features, evidence and the exposure start anew, since the same air now gives other
        numbers; the sensors stay warm.
        """
        if correction is not None:
            correction.reset()
        self._conditioner.correction = correction
        self._waiting.clear()
        self._exposure.restart(calibrated_air)
        self._streams_outdated = True

    def take_over(self, other: Self) -> None:
        """Replace another nose between two readings of its board.

        Takes over its clock, its channel health and, where the settings are equal, its exposure
        detector. The models of this nose know the board from the readings it processed before.
        """
        self._conditioner.take_over(other._conditioner)
        if self._settings.exposure == other._settings.exposure:
            self._exposure = self._report.exposure = other._exposure

    def process(
        self, frame: SensorFrame, arrival_ms: float = 0.0, *, t_ms: int | None = None
    ) -> Step:
        """Process the next reading; return its time and quality, and the predictions and events.

        Parameters
        ----------
        frame: the reading.
        arrival_ms: a steady clock at its arrival; used only for a board without its own clock.
        t_ms: the reading's time where it is already known, as in a history; always increasing.
        """
        self._report.begin()
        reading = self._conditioner.process(frame, arrival_ms, t_ms)
        predictions = self._predictions(reading)
        return Step(frame, reading.t_ms, reading.quality, predictions, self._report.events)

    def finish(self) -> list[Prediction]:
        """End the stream; one too short to measure its rate gives disabled predictions."""
        if not self._waiting:
            return []
        reason = (
            f"the board's rate cannot be measured from {counted(len(self._waiting), 'reading')}"
        )
        report = self._report
        report.t_ms, report.frame_seq = self._waiting[-1][:2]
        return [
            report.prediction(bundle, State.DISABLED, reason=reason) for bundle in self._bundles
        ]

    def _predictions(self, reading: ConditionedReading) -> list[Prediction]:
        """Return the predictions that a reading leads to."""
        period_ms = self._conditioner.meter.period_ms
        if period_ms is None:
            self._waiting.append(reading)
            return []
        predictions: list[Prediction] = []
        if reading.rate_changed or self._streams_outdated:
            predictions += self._start_streams(1000.0 / period_ms)
            for number, waiting in enumerate(self._waiting):
                step_ms = waiting.step_ms if number else 0
                predictions += self._add_sample(waiting, step_ms, period_ms)
            self._waiting.clear()
        return predictions + self._add_sample(reading, reading.step_ms, period_ms)

    def _start_streams(self, board_hz: float) -> list[Prediction]:
        """Start the models' streams at the rate that is now known."""
        self._streams_outdated = False
        self._block.count = 0
        self._exposure_reader = BlockReader(board_hz, RATE_HZ, MAX_HOLD)
        self._exposure_due = self._exposure_reader.converter.readings_covering(1)
        self._announcing = False
        self._streams = [
            ModelStream(
                bundle,
                board_hz,
                self._heads.get(bundle.manifest.name),
                as_measured=self._report.calibration_id(bundle) is None,
            )
            for bundle in self._bundles
        ]
        predictions = self._check_channels(always=True)
        if self._exposure.phase is Phase.WARMING_UP:
            predictions += self._state_predictions()
        return predictions

    def _add_sample(
        self, reading: ConditionedReading, step_ms: int, period_ms: float
    ) -> list[Prediction]:
        """Add a reading to the block; return the predictions that it leads to."""
        self._report.t_ms, self._report.frame_seq = reading.t_ms, reading.frame_seq
        lost = lost_samples(step_ms, period_ms)
        block = self._block
        block.values[block.count] = reading.values
        block.measured[block.count] = reading.measured
        block.lost[block.count] = lost
        block.t_ms[block.count] = reading.t_ms
        block.count += 1
        predictions: list[Prediction] = []
        if lost * period_ms >= self._settings.exposure.forget_after_s * 1000.0:
            predictions += self._forget_air()
        self._exposure_due -= 1 + lost
        if self._exposure_due <= 0:
            predictions += self._detect_exposure()
        predictions += self._check_channels()
        # Half a period early is on time: the next sample would be later than that.
        on_time_ms = reading.t_ms + period_ms / 2
        for stream in self._streams:
            stream.missing_samples -= 1 + lost
            if self._is_due(stream, on_time_ms):
                predictions.append(self._predict(stream))
        for taught in self._taught:
            if self._is_due_alone(taught, on_time_ms):
                predictions.append(self._predict_alone(taught))
        if block.count == BLOCK_SAMPLES:
            self._empty_block()
        return predictions

    def _empty_block(self) -> None:
        for stream in self._streams:
            stream.extend(self._block)
            stream.rewind()
        if self._exposure_reader is not None:
            self._exposure_reader.rewind()
        self._block.count = 0

    def _is_due(self, stream: ModelStream, on_time_ms: float) -> bool:
        """Whether a model must predict now; its features are up to date then."""
        if stream.disabled or on_time_ms < stream.due_ms:
            return False
        if stream.fault:
            return True
        if stream.missing_samples > 0:
            return False
        stream.extend(self._block)
        return stream.ready

    def _predict(self, stream: ModelStream) -> Prediction:
        """Return a model's prediction from its window."""
        bundle = stream.bundle
        stream.due_ms = self._report.t_ms + round(self._settings.live_stride_s * 1000.0)
        if stream.fault:
            return self._report.prediction(
                bundle, State.FAULT, reason=stream.fault, foreign_board=stream.foreign
            )
        phase = self._exposure.phase
        # No name without an onset: no model tells a steady odour from clean air of another day.
        window_s = stream.predict(
            self._report.t_ms,
            accumulate=phase is Phase.EXPOSED,
            warm=phase is not Phase.WARMING_UP,
            clean_air=self._report.measured_clean_air,
        )
        taught = [one for one in self._taught if one.task == bundle.manifest.task]
        result = self._report.model_result(stream, window_s, taught=bool(taught))
        for one in taught:
            result = one.replace_result(result, phase, model_knows_board=stream.knows_board)
        self._note_announcing()
        prediction = self._report.prediction(bundle, **result)
        return self._report.announce(bundle.manifest.name, prediction)

    def _note_announcing(self) -> None:
        """Note whether anything is announced: quiet air is no clean air then."""
        self._announcing = any(stream.announces for stream in self._streams)
        self._announcing |= any(taught.announces for taught in self._taught)

    def _is_due_alone(self, taught: TaughtStream, on_time_ms: float) -> bool:
        """Whether what the rig was taught must predict, since no model of that task does."""
        return on_time_ms >= taught.due_ms and not any(
            stream.bundle.manifest.task == taught.task and not stream.disabled
            for stream in self._streams
        )

    def _predict_alone(self, taught: TaughtStream) -> Prediction:
        """Return a prediction from what the rig was taught."""
        taught.due_ms = self._report.t_ms + round(self._settings.live_stride_s * 1000.0)
        phase = self._exposure.phase
        result = taught.replace_result({"state": state_of(phase)}, phase, model_knows_board=False)
        self._note_announcing()
        prediction = self._report.taught_prediction(taught.task, **result)
        return self._report.announce(f"{TAUGHT} {taught.task}", prediction)

    def _detect_exposure(self) -> list[Prediction]:
        """Give the block's new samples to the exposure stream and apply the changes."""
        if self._exposure_reader is None:
            return []
        self._exposure_due = self._exposure_reader.converter.readings_covering(1)
        values, lost = self._exposure_reader.read(self._block)
        predictions: list[Prediction] = []
        longest_s = self._settings.exposure.longest_step_s
        for row, gap in zip(values, lost.tolist(), strict=True):
            step_s = min((1 + gap) / self._exposure_reader.converter.rate_hz, longest_s)
            change = self._exposure.update(row, step_s, named=self._announcing)
            for taught in self._taught:
                taught.read(self._exposure)
            self._exposure.forget_read_rows()
            if change is not None:
                predictions += self._apply_change(change)
        return predictions

    def _apply_change(self, change: Change) -> list[Prediction]:
        """Apply a change of the air to evidence and windows; predictions are due at once."""
        if change is Change.ONSET:
            self._report.add_event(EventType.ONSET)
        elif change is Change.ENDED:
            self._report.add_event(EventType.ENDED)
        # Later windows use only rows since the onset, without the clean air before it.
        starts_evidence = change in (Change.SETTLED, Change.ONSET)
        self._announcing = False
        self._report.forget_announced()
        for taught in self._taught:
            taught.due_ms = self._report.t_ms
        for stream in self._streams:
            stream.extend(self._block)
            stream.due_ms = self._report.t_ms
            if starts_evidence:
                stream.start_evidence()
            stream.discard_evidence()
        return self._state_predictions()

    def _forget_air(self) -> list[Prediction]:
        """After a long gap the air, and all evidence, are unknown."""
        self._exposure.reset()
        self._announcing = False
        self._report.forget_announced()
        for stream in self._streams:
            stream.discard_evidence()
        return self._state_predictions()

    def _state_predictions(self) -> list[Prediction]:
        """Return the state for the models whose window is still too short for a prediction.

        `sensing` waits for the first window: there is nothing to show for it before.
        """
        state = state_of(self._exposure.phase)
        if state is State.SENSING:
            return []
        return [
            self._report.prediction(stream.bundle, state, foreign_board=stream.foreign)
            for stream in self._streams
            if not stream.ready and not stream.disabled and not stream.fault
        ]

    def _check_channels(self, *, always: bool = False) -> list[Prediction]:
        """Follow channels that fail or recover: events, faults and disabled models."""
        watch, report = self._watch, self._report
        failed, recovered = watch.changes(report.t_ms)
        if not (always or failed or recovered or watch.present != self._checked_channels):
            return []
        self._checked_channels = watch.present
        for name in failed:
            detail = watch.quality_name(name)
            report.add_event(EventType.CHANNEL_FAULT, channel=name, detail=detail)
        for name in recovered:
            report.add_event(EventType.CHANNEL_RECOVERED, channel=name)
        predictions = []
        for stream in self._streams:
            manifest = stream.bundle.manifest
            disabled = feeding_problem(manifest, watch.present, self.rate_hz)
            if disabled is not None and disabled != stream.disabled:
                predictions.append(
                    report.prediction(stream.bundle, State.DISABLED, reason=disabled)
                )
            stream.disabled = disabled
            unusable = watch.unusable(manifest.preprocessing.channels)
            fault = channel_problem(manifest, unusable, "cannot use")
            if fault != stream.fault:
                stream.fault = fault
                stream.due_ms = self._report.t_ms
        return predictions
