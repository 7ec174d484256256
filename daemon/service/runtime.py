"""Daemon: the runtime: models, nose, calibration and enrolment of one configuration.

Made and replaced as a whole, so that a running service changes its models and settings between
two readings. The new runtime processes the last minutes of readings before it replaces the old
one; its predictions for them are dropped, since the old one made them. Knows no broker, no port.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from daemon.calibrate.live import LiveCalibration
from daemon.enroll import Enrolment, smell_stores
from daemon.installed_models.loading import live_nose, nose_settings
from hardware.frames import SensorFrame
from hardware.readings import range_quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.board.history import History
    from daemon.config.settings import Config
    from daemon.system.background import Steps
    from models.bundle import Bundle
    from models.nose import Nose
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
    nose: from readings to predictions.
    calibrating: the rig's profile.
    teaching: what it was taught.
    heads: by model, what it speaks with, where that is not as shipped.
    """

    bundles: tuple[Bundle, ...]
    nose: Nose
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
        nose = live_nose(config, bundles)
        heads: dict[str, TaughtHead] = {}

        def speak_with(model: str, head: TaughtHead) -> None:
            nose.set_head(model, head)
            heads[model] = head

        teaching = Enrolment(
            smell_stores(bundles, config.state_dir),
            speak_with,
            history=history,
            settings=nose_settings(config),
        )
        # What was taught is heard through the correction in force.
        calibrating = LiveCalibration(
            config,
            bundles,
            nose,
            history,
            lambda: teaching.set_correction(calibrating.correction()),
        )
        return cls(tuple(bundles), nose, calibrating, teaching, heads)

    def begin(self) -> None:
        """Put the profile and what was taught into force."""
        self.calibrating.load()

    def process_history(self, history: History) -> Steps:
        """Process the readings of the history, and those that arrive meanwhile; yields between.

        When the generator ends, every reading has been processed: a runtime that replaces the old
        one at that moment has missed none.
        """
        newest_ms = -1
        while len(stretch := history.since(newest_ms)):
            times = stretch.t_ms[:READINGS_A_STEP].tolist()
            for values, t_ms in zip(stretch.values, times, strict=False):
                self.nose.process(SensorFrame(0, None, values, range_quality(values)), t_ms=t_ms)
            newest_ms = times[-1]
            yield {"doing": "hearing the last minutes", "seconds": round(stretch.seconds, 1)}
        return {}
