"""Daemon: what recognises: models, pipeline, calibration and teaching of one configuration.

Made as a whole and taken on as a whole, so that a running service changes its models and settings
between two readings. A new mind hears the last minutes before it is taken on; its predictions
about them were made before, by another, and are dropped. Knows no broker and no port.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from daemon.calibrate.live import LiveCalibration
from daemon.enroll import Enrolment, stores_of
from daemon.pipeline import Pipeline, live_pipeline, nose_settings
from hardware.frames import SensorFrame
from hardware.health import ChannelHealth
from hardware.readings import judge_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from daemon.board.history import History
    from daemon.config.settings import Config
    from daemon.system.background import Steps
    from models.bundle import Bundle
    from models.taught_head import TaughtHead

READINGS_A_STEP = 100
"""Readings of the past that are heard between two looks at the present: less than a period of the
fastest board, on a Pi."""


@dataclass(frozen=True, slots=True, eq=False)
class Runtime:
    """What recognises; make one with `Runtime.made`.

    Attributes
    ----------
    bundles: the models, as the rig's owner wants them to decide.
    pipeline: from bytes to predictions.
    calibrating: the rig's profile.
    teaching: what it was taught.
    heads: by model, what it speaks with, where that is not as shipped.
    """

    bundles: tuple[Bundle, ...]
    pipeline: Pipeline
    calibrating: LiveCalibration
    teaching: Enrolment
    heads: dict[str, TaughtHead] = field(default_factory=dict)

    @classmethod
    def made(
        cls,
        config: Config,
        bundles: Sequence[Bundle],
        history: History,
    ) -> Self:
        """Return a mind with the rig's profile and what it was taught in force.

        Parameters
        ----------
        config : Config
            The rig's.
        bundles : sequence of Bundle
            Its models.
        history : History
            The last minutes, kept by the service.
        """
        pipeline = live_pipeline(config, bundles)
        nose = pipeline.nose
        heads: dict[str, TaughtHead] = {}

        def speak_with(model: str, head: TaughtHead) -> None:
            nose.set_head(model, head)
            heads[model] = head

        teaching = Enrolment(
            stores_of(bundles, config.state_dir),
            speak_with,
            history=history,
            settings=nose_settings(config),
        )
        # What was taught is heard through the correction in force.
        calibrating = LiveCalibration(
            config, bundles, nose, history, lambda: teaching.calibrate(calibrating.correction())
        )
        return cls(tuple(bundles), pipeline, calibrating, teaching, heads)

    def begin(self) -> None:
        """Put the profile and what was taught into force."""
        self.calibrating.load()

    def process_history(self, history: History) -> Steps:
        """Hear the readings that are remembered, and those that come meanwhile; yields between.

        The generator's end is reached with every reading heard: what takes this mind on then has
        lost none.
        """
        health = ChannelHealth()
        heard_ms = -1
        while len(stretch := history.since(heard_ms)):
            times = stretch.t_ms[:READINGS_A_STEP].tolist()
            for values, t_ms in zip(stretch.values, times, strict=False):
                self._hear(values, t_ms, health)
            heard_ms = times[-1]
            yield {"doing": "hearing the last minutes", "seconds": round(stretch.seconds, 1)}
        return {}

    def take_over(self, other: Runtime) -> None:
        """Go on in another mind's place: its decoder, its time, what it knows of the air."""
        self.pipeline.take_over(other.pipeline)

    def _hear(self, values: NDArray[np.float32], t_ms: int, health: ChannelHealth) -> None:
        frame = SensorFrame(0, None, values, judge_range(values))
        self.pipeline.nose.feed(frame, health.judge(frame, t_ms), t_ms)
        self.pipeline.nose.take_events()
