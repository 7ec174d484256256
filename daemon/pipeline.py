"""Daemon: one board's way from bytes to predictions, in one thread and without a clock.

Joins `hardware.protocol`, `hardware.health` and `models.nose`. Knows no port, no
broker and no time of day: the live daemon and `scentd replay` run this very
object, which is why they say the same of the same frames.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hardware.health import ChannelHealth
from hardware.protocol import LineDecoder
from models.bundle import load_bundle
from models.decision import LabelRule
from models.exposure import ExposureSettings
from models.nose import Nose, NoseSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from daemon.config import Config, DecisionConfig
    from daemon.model_store import ModelStore
    from hardware.frames import SensorFrame
    from hardware.protocol import LineCounts
    from models.bundle import Bundle
    from models.nose import Event, Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one frame led to.

    Attributes
    ----------
    frame: the reading.
    t_ms: its time, milliseconds since the first frame.
    quality: uint8[12] of `Quality`, after channel health.
    predictions: mostly none; at most one per model.
    events: what began or ended with it.
    """

    frame: SensorFrame
    t_ms: int
    quality: NDArray[np.uint8]
    predictions: list[Prediction]
    events: list[Event]


class Pipeline:
    """Decoder, channel health and nose of one board.

    Parameters
    ----------
    nose : Nose
        With its models and settings; belongs to this pipeline from now on.

    Attributes
    ----------
    nose: for what changes it while it runs: another correction, another head.
    """

    def __init__(self, nose: Nose) -> None:
        self._decoder = LineDecoder()
        self._health = ChannelHealth()
        self.nose = nose

    @property
    def counts(self) -> LineCounts:
        """What the decoder has seen so far."""
        return self._decoder.counts

    @property
    def dialect(self) -> str | None:
        """How the board speaks, None until known."""
        return self._decoder.dialect

    @property
    def rate_hz(self) -> float | None:
        """The board's rate, None until known."""
        return self.nose.rate_hz

    def feed(self, data: bytes, arrival_ms: float) -> Iterator[Step]:
        """Decode bytes that arrived together and take every frame in them."""
        for frame in self._decoder.feed(data):
            yield self.take(frame, arrival_ms)

    def end_line(self, arrival_ms: float) -> Iterator[Step]:
        """Take what the decoder still holds: the stream was cut here."""
        for frame in self._decoder.finish():
            yield self.take(frame, arrival_ms)

    def take(self, frame: SensorFrame, arrival_ms: float) -> Step:
        """Take one frame.

        Parameters
        ----------
        frame : SensorFrame
            The next one, in order.
        arrival_ms : float
            Steady clock at its arrival; matters only for a board without a clock of its own.
        """
        t_ms = self.nose.stamp(frame, arrival_ms)
        quality = self._health.judge(frame, t_ms)
        predictions = self.nose.feed(frame, quality, t_ms)
        return Step(frame, t_ms, quality, predictions, self.nose.take_events())

    def succeed(self, other: Pipeline) -> None:
        """Go on in another pipeline's place, in the middle of a line if need be."""
        self._decoder = other._decoder
        self._health = other._health
        self.nose.succeed(other.nose)

    def finish(self) -> list[Prediction]:
        """End the stream: return what can only be said once it is over."""
        return self.nose.finish()


def load_models(
    names: Iterable[str], decision: DecisionConfig, store: ModelStore | None = None
) -> list[Bundle]:
    """Load bundles, with the rig's own decision constants where it has any.

    Parameters
    ----------
    names : iterable of str
        Names or folders, as a configuration has them.
    decision : DecisionConfig
        The rig owner's.
    store : ModelStore, optional
        What is installed on the rig, in place of what is shipped.

    Raises
    ------
    BundleError
        The first bundle that cannot be used, and why.
    """
    load = load_bundle if store is None else store.load
    return [with_decision(load(name), decision) for name in names]


def with_decision(bundle: Bundle, wanted: DecisionConfig) -> Bundle:
    """Return a bundle that decides as the rig's owner wants; the one given stays as it is.

    Raises
    ------
    ManifestError
        The owner's numbers contradict those of the manifest.
    """
    spec = bundle.manifest.decision
    if wanted.error_rate is not None:
        spec = spec.at_error_rate(wanted.error_rate)
    given = wanted.overrides()
    if spec.novelty is None:
        given.pop("unknown_above", None)  # meant for another model of the same rig
    rules = {label: LabelRule(rule.announce, rule.confirm) for label, rule in wanted.labels.items()}
    spec = replace(spec, **given, labels={**spec.labels, **rules})  # type: ignore[arg-type]
    own = copy(bundle)
    own.manifest = replace(bundle.manifest, decision=spec)
    return own


def nose_settings(config: Config) -> NoseSettings:
    """Return what the configuration says to the nose."""
    return NoseSettings(
        live_stride_s=config.live_stride_s,
        exposure=ExposureSettings(**config.exposure.overrides()),
    )


def live_pipeline(config: Config, bundles: Sequence[Bundle]) -> Pipeline:
    """Return the pipeline of a live board."""
    return Pipeline(Nose(bundles, nose_settings(config), rate_hz=config.source.rate_hz))
