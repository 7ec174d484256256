"""Daemon: one board's way from bytes to predictions, in one thread and without a clock.

Joins `hardware.protocol`, `hardware.health` and `models.nose`. Knows no port, no
broker and no time of day: the live daemon and `scentd replay` run this very
object, which is why they say the same of the same frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.health import ChannelHealth
from hardware.protocol import LineDecoder
from models.exposure import ExposureSettings
from models.nose import Nose, NoseSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from daemon.config.settings import Config
    from hardware.frames import SensorFrame
    from hardware.protocol import LineCounts
    from models.bundle import Bundle
    from models.results import Event, Prediction


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

    def take_over(self, other: Pipeline) -> None:
        """Go on in another pipeline's place, in the middle of a line if need be."""
        self._decoder = other._decoder
        self._health = other._health
        self.nose.take_over(other.nose)

    def finish(self) -> list[Prediction]:
        """End the stream: return what can only be said once it is over."""
        return self.nose.finish()


def nose_settings(config: Config) -> NoseSettings:
    """Return what the configuration says to the nose."""
    return NoseSettings(
        live_stride_s=config.live_stride_s,
        exposure=ExposureSettings(**config.exposure.overrides()),
    )


def live_pipeline(config: Config, bundles: Sequence[Bundle]) -> Pipeline:
    """Return the pipeline of a live board."""
    return Pipeline(Nose(bundles, nose_settings(config), rate_hz=config.source.rate_hz))
