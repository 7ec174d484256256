"""Models: the nose. It turns readings into predictions and events.

May import hardware and models. Must never read a clock (the timer for latencies is a parameter),
open a port or publish: the same object runs live, in replay and in evaluation, and its
predictions depend on the readings and their `t_ms` alone.

Samples are collected in one block that all models share. A model turns its part of the block
into features only when a prediction is due, so a sample costs little more than its copy; no
prediction waits for a block to fill.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from hardware.channels import CHANNEL_NAMES
from hardware.errors import UsageError
from hardware.health import ChannelHealth
from models.channel_watch import ChannelWatch
from models.correction import Correction, correction_for
from models.decision_spec import State
from models.exposure import Change, ExposureDetector, Phase
from models.exposure_settings import ExposureSettings
from models.model_stream import BLOCK_SAMPLES, Block, BlockReader, ModelStream
from models.results import Event, EventType, Prediction, Step
from models.substance_decision import state_of
from models.timing import RateMeter, Timeline, lost_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from hardware.frames import SensorFrame
    from models.bundle import Bundle
    from models.taught_head import TaughtHead

_EXPOSURE_HZ = 1.0
"""Rate at which the air is judged: an odour takes seconds, and averaging lowers the noise."""


@dataclass(frozen=True, slots=True)
class NoseSettings:
    """What the rig's owner may set.

    Attributes
    ----------
    live_stride_s: seconds of stream time between two inferences of a model.
    exposure: when an odour begins and ends.
    window_from_onset: look only at rows since the onset, so that clean air does not blur it.
    """

    live_stride_s: float = 5.0
    exposure: ExposureSettings = field(default_factory=ExposureSettings)
    window_from_onset: bool = True


class Nose:
    """Joins time, channel health, exposure, models and decisions of one board.

    Call `process` for every reading, in order. A model that the board's rate or channels cannot
    feed gives one prediction with the state `disabled`.

    Parameters
    ----------
    bundles: the models, at most one line of predictions each.
    settings: the owner's.
    rate_hz: the board's rate where it is given; measured otherwise, from eight differences,
        while frames wait.
    skip_warm_up: the sensors are warm (a recording of a warm board).
    assume_exposed: the recording lies within one exposure, whole (the published layouts).
    timer: seconds of any steady clock, for latencies.
    correction: of this rig's readings; None takes them as they are.
    heads: by model, what the rig's owner taught it, hid and renamed.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        settings: NoseSettings | None = None,
        *,
        rate_hz: float | None = None,
        skip_warm_up: bool = False,
        assume_exposed: bool = False,
        timer: Callable[[], float] = time.perf_counter,
        correction: Correction | None = None,
        heads: Mapping[str, TaughtHead] | None = None,
    ) -> None:
        self._bundles = tuple(bundles)
        self._correction = correction
        self._heads: dict[str, TaughtHead | None] = {}
        self._renew = False
        self._settings = settings or NoseSettings()
        self._timer = timer
        self._timeline = Timeline(rate_hz)
        self._health = ChannelHealth()
        self._meter = RateMeter(rate_hz)
        self._watch = ChannelWatch()
        self._air = ExposureDetector(
            self._settings.exposure, skip_warm_up=skip_warm_up, assume_exposed=assume_exposed
        )
        self._listeners: list[ModelStream] = []
        self._block = Block()
        self._air_tap: BlockReader | None = None
        self._air_awaits = 0
        self._fed_ms: int | None = None
        self._t_ms = 0
        self._frame_seq = 0
        self._waiting: list[tuple[NDArray[np.float32], NDArray[np.float32], int, int]] = []
        self._events: list[Event] = []
        self._named = False
        self._started_s = 0.0
        self._seen_channels: frozenset[int] = frozenset()
        for model, head in (heads or {}).items():
            self.set_head(model, head)

    @property
    def rate_hz(self) -> float | None:
        """The board's rate, None until known."""
        return self._meter.rate_hz

    @property
    def phase(self) -> Phase:
        """What is known of the air."""
        return self._air.phase

    def set_head(self, model: str, head: TaughtHead | None) -> None:
        """Let a model decide with another head from its next look on, which is at once.

        Raises
        ------
        UsageError: no such model here, or it knows nothing of its embeddings.
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
        for listener in self._listeners:
            if listener.bundle.manifest.name == model:
                listener.set_head(head)
                listener.due_ms = self._t_ms
        self._named = any(listener.announces for listener in self._listeners)

    def set_correction(self, correction: Correction | None) -> None:
        """Correct readings in another way from the next frame on.

        Features, evidence and what is known of the air start anew, as the same air now has other
        numbers; sensors that were warm stay so.
        """
        if correction is not None:
            correction.reset()
        self._correction = correction
        self._waiting.clear()
        self._air.restart()
        self._renew = True

    def take_over(self, other: Self) -> None:
        """Replace another nose between two readings of its board.

        Takes over its clock, its channel health and, where the settings are equal, its exposure
        detector. The models of this nose know the board from the readings it processed before.
        """
        self._timeline = other._timeline
        self._health = other._health
        if self._settings.exposure == other._settings.exposure:
            self._air = other._air

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
        self._started_s = self._timer()
        if t_ms is None:
            t_ms = self._timeline.stamp(frame, arrival_ms)
        quality = self._health.assess(frame, t_ms)
        self._events = []
        return Step(frame, t_ms, quality, self._predictions(frame, quality, t_ms), self._events)

    def _predictions(
        self, frame: SensorFrame, quality: NDArray[np.uint8], t_ms: int
    ) -> list[Prediction]:
        """Return the predictions that a reading leads to."""
        step_ms = 0 if self._fed_ms is None else t_ms - self._fed_ms
        self._fed_ms = t_ms
        unusable = self._watch.update(quality, t_ms)
        measured = frame.values
        if unusable:
            measured = measured.copy()
            measured[unusable] = np.nan
        values = measured
        if self._correction is not None:
            values = self._corrected(self._correction, measured, step_ms / 1000.0)
        turned = step_ms > 0 and self._meter.observe(step_ms)
        period_ms = self._meter.period_ms
        if period_ms is None:
            self._waiting.append((values, measured, t_ms, frame.frame_seq))
            return []
        said: list[Prediction] = []
        if turned or self._air_tap is None or self._renew:
            said += self._begin()
            said += self._catch_up(period_ms)
        lost = lost_samples(step_ms, period_ms)
        return said + self._take(values, measured, lost, t_ms, frame.frame_seq)

    def _corrected(
        self, correction: Correction, values: NDArray[np.float32], step_s: float
    ) -> NDArray[np.float32]:
        """Return a frame corrected; what a correction remembers ends with a gap, as all does."""
        if step_s >= self._settings.exposure.forget_after_s:
            correction.reset()
            step_s = 0.0
        return correction(values, step_s)

    def finish(self) -> list[Prediction]:
        """End the stream; say why nothing could be said of one too short to know its rate."""
        if not self._waiting:
            return []
        reason = f"{len(self._waiting)} readings are too few to measure the board's rate"
        *_, self._t_ms, self._frame_seq = self._waiting[-1]
        return [self._empty(bundle, State.DISABLED, reason) for bundle in self._bundles]

    def _begin(self) -> list[Prediction]:
        """Start listening at the rate that is now known."""
        board_hz = self._meter.rate_hz or _EXPOSURE_HZ
        self._renew = False
        self._block.count = 0
        self._air_tap = BlockReader(board_hz, _EXPOSURE_HZ, max_hold=3)
        self._air_awaits = self._air_tap.factor
        self._named = False
        self._listeners = [
            ModelStream(
                bundle,
                board_hz,
                self._heads.get(bundle.manifest.name),
                as_measured=self._calibration_of(bundle) is None,
            )
            for bundle in self._bundles
        ]
        said = self._check_channels(anew=True)
        if self._air.phase is Phase.WARMING_UP:
            said += self._say_state()
        return said

    def _catch_up(self, period_ms: float) -> list[Prediction]:
        """Take the frames that waited for the rate to be known."""
        said: list[Prediction] = []
        before_ms: int | None = None
        for values, measured, t_ms, frame_seq in self._waiting:
            lost = 0 if before_ms is None else lost_samples(t_ms - before_ms, period_ms)
            said += self._take(values, measured, lost, t_ms, frame_seq)
            before_ms = t_ms
        self._waiting.clear()
        return said

    def _take(
        self,
        values: NDArray[np.float32],
        measured: NDArray[np.float32],
        lost: int,
        t_ms: int,
        frame_seq: int,
    ) -> list[Prediction]:
        """Take one sample of known loss."""
        self._t_ms, self._frame_seq = t_ms, frame_seq
        block = self._block
        block.values[block.count] = values
        block.measured[block.count] = measured
        block.lost[block.count] = lost
        block.count += 1
        said: list[Prediction] = []
        period_ms = self._meter.period_ms or 1.0
        if lost * period_ms >= self._settings.exposure.forget_after_s * 1000.0:
            said += self._start_anew()
        self._air_awaits -= 1 + lost
        if self._air_awaits <= 0:
            said += self._judge_air()
        said += self._check_channels()
        # Half a period early is on time: the next sample would be later than that.
        on_time_ms = t_ms + period_ms / 2
        for listener in self._listeners:
            if self._is_due(listener, 1 + lost, on_time_ms):
                said.append(self._speak(listener))
        if block.count == BLOCK_SAMPLES:
            self._empty_block()
        return said

    def _empty_block(self) -> None:
        for listener in self._listeners:
            listener.drain(self._block)
            listener.rewind()
        if self._air_tap is not None:
            self._air_tap.rewind()
        self._block.count = 0

    def _is_due(self, listener: ModelStream, samples: int, on_time_ms: float) -> bool:
        """Whether a model must speak now; its features are up to date then."""
        awaits = listener.awaits(samples)
        if listener.disabled or on_time_ms < listener.due_ms:
            return False
        if listener.fault:
            return True
        if awaits:
            return False
        listener.drain(self._block)
        return listener.ready

    def _speak(self, listener: ModelStream) -> Prediction:
        """Look at a model's window and say what it is now."""
        listener.due_ms = self._t_ms + round(self._settings.live_stride_s * 1000.0)
        if listener.fault:
            return self._empty(listener.bundle, State.FAULT, listener.fault)
        phase = self._air.phase
        doubtful = phase is Phase.AMBIENT and not self._air.air_known
        accumulate = doubtful or phase in (Phase.UNKNOWN, Phase.EXPOSED)
        window_s = listener.look(self._t_ms, accumulate=accumulate)
        decision = listener.decision
        if doubtful and decision.belief >= listener.bundle.manifest.decision.overrule:
            self._air.presume_odour()
        state = state_of(
            self._air.phase,
            named=listener.announces,
            fault=False,
            unrecognised=decision.unrecognised,
        )
        recognised = state is State.RECOGNISED
        label, probability = (recognised and decision.named) or (None, None)
        self._named = any(item.announces for item in self._listeners)
        news, turned = listener.news(), listener.turned_unrecognised()
        if recognised and news is not None:
            self._note(
                EventType.RECOGNISED,
                model=listener.bundle.manifest.name,
                label=news,
                probability=probability,
            )
        if state is State.UNRECOGNISED and turned:
            self._note(EventType.UNRECOGNISED, model=listener.bundle.manifest.name)
        label_set = decision.label_set
        return Prediction(
            task=listener.bundle.manifest.task,
            model=listener.bundle.manifest.name,
            t_ms=self._t_ms,
            frame_seq=self._frame_seq,
            state=state,
            label=label,
            probability=probability,
            top=decision.top,
            components=decision.components if recognised else (),
            window_s=window_s,
            channels_missing=self._watch.unusable(listener.spec.channels),
            latency_ms=(self._timer() - self._started_s) * 1000.0,
            calibration=self._calibration_of(listener.bundle),
            label_set=label_set,
            set_coverage=listener.bundle.manifest.decision.set_coverage if label_set else None,
            novelty=decision.novelty,
            descriptors=decision.descriptors if state is State.UNRECOGNISED else (),
        )

    def _calibration_of(self, bundle: Bundle) -> str | None:
        """Return the id of the profile by which a model's readings are corrected, or None."""
        correction = correction_for(bundle.manifest.name, self._correction)
        return None if correction is None else correction.id

    def _judge_air(self) -> list[Prediction]:
        """Hand the air's samples to the exposure detector and act on what they change."""
        if self._air_tap is None:
            return []
        self._air_awaits = self._air_tap.factor
        values, lost = self._air_tap.drain(self._block)
        said: list[Prediction] = []
        longest_s = self._settings.exposure.longest_step_s
        for row, gap in zip(values.tolist(), lost.tolist(), strict=True):
            step_s = min((1 + gap) / self._air_tap.rate_hz, longest_s)
            change = self._air.update(row, step_s, named=self._named)
            if change is not None:
                said += self._turn(change)
        return said

    def _turn(self, change: Change) -> list[Prediction]:
        """Let a change of the air take effect on evidence and windows, and say it at once."""
        if change is Change.ONSET:
            self._note(EventType.ONSET)
        elif change is Change.ENDED:
            self._note(EventType.ENDED)
        cuts = change is Change.SETTLED or (
            change is Change.ONSET and self._settings.window_from_onset
        )
        # Air that only seems clean may yet be an odour older than the start.
        keeps_evidence = not self._air.air_known and change in (Change.CLEAN, Change.ENDED)
        self._named &= keeps_evidence
        for listener in self._listeners:
            listener.drain(self._block)
            listener.due_ms = self._t_ms
            if cuts:
                listener.cut()
            if not keeps_evidence:
                listener.forget()
        return self._say_state()

    def _start_anew(self) -> list[Prediction]:
        """After a long gap nothing is known of the air."""
        self._air.reset()
        self._named = False
        for listener in self._listeners:
            listener.forget()
        return self._say_state()

    def _say_state(self) -> list[Prediction]:
        """Say the state for the models whose window is still too short to be looked at.

        `sensing` waits for the first window: there is nothing to show for it before.
        """
        state = state_of(self._air.phase, named=False, fault=False)
        if state is State.SENSING:
            return []
        return [
            self._empty(listener.bundle, state, None)
            for listener in self._listeners
            if not listener.ready and not listener.disabled and not listener.fault
        ]

    def _check_channels(self, *, anew: bool = False) -> list[Prediction]:
        """Follow channels that fail or come back: events, faults and disabled models."""
        failed, recovered = self._watch.changes(self._t_ms)
        if not (anew or failed or recovered or self._watch.seen != self._seen_channels):
            return []
        self._seen_channels = self._watch.seen
        for index in failed:
            self._note(
                EventType.CHANNEL_FAULT,
                channel=CHANNEL_NAMES[index],
                detail=self._watch.word(index),
            )
        for index in recovered:
            self._note(EventType.CHANNEL_RECOVERED, channel=CHANNEL_NAMES[index])
        said = []
        for listener in self._listeners:
            disabled = listener.rate_problem() or listener.absence_problem(self._watch)
            if disabled is not None and disabled != listener.disabled:
                said.append(self._empty(listener.bundle, State.DISABLED, disabled))
            listener.disabled = disabled
            fault = listener.fault_problem(self._watch)
            if fault != listener.fault:
                listener.fault = fault
                listener.due_ms = self._t_ms
        return said

    def _note(
        self,
        kind: EventType,
        *,
        model: str | None = None,
        label: str | None = None,
        probability: float | None = None,
        channel: str | None = None,
        detail: str | None = None,
    ) -> None:
        self._events.append(
            Event(kind, self._t_ms, self._frame_seq, model, label, probability, channel, detail)
        )

    def _empty(self, bundle: Bundle, state: State, reason: str | None) -> Prediction:
        """Return a prediction of a model that has no window to speak of."""
        return Prediction(
            task=bundle.manifest.task,
            model=bundle.manifest.name,
            t_ms=self._t_ms,
            frame_seq=self._frame_seq,
            state=state,
            channels_missing=self._watch.unusable(bundle.manifest.preprocessing.channels),
            latency_ms=(self._timer() - self._started_s) * 1000.0,
            reason=reason,
            calibration=self._calibration_of(bundle),
        )
