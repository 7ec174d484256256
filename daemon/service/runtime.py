"""Daemon: the runtime: models, nose, calibration and enrolment of one configuration.

A running service replaces it as a whole, between two readings. The new runtime first processes the
last minutes of readings; its predictions for them are dropped, since the old one published its own.
Knows no broker and no port.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from calibration.smell_origin import RigIdentity
from daemon.calibrate.live import LiveCalibration
from daemon.enroll import Enrolment, TaughtSmells, rig_smells
from daemon.installed_models.loading import live_nose, nose_settings
from daemon.system.background import at_once
from daemon.system.logs import get_logger
from hardware.frames import SensorFrame
from hardware.readings import range_quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.board.history import History
    from daemon.config.settings import Config
    from daemon.system.background import OnDisk, Steps
    from models.bundle import Bundle
    from models.nose import Nose
    from models.taught_head import TaughtHead

STEP_S = 0.02
"""Time of one step through the history: less than a period of the fastest board. With steps of a
number of readings, a short `live_stride_s` would make them long, and readings would be dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class Runtime:
    """The objects that recognise smells; make it with `Runtime.build`.

    Attributes
    ----------
    bundles: the models, with the configured decision settings.
    heads: the heads of the models that were taught something, by name.
    taught: labels that the rig's recogniser and unmixing know.
    """

    bundles: tuple[Bundle, ...]
    nose: Nose
    calibration: LiveCalibration
    enrolment: Enrolment
    heads: dict[str, TaughtHead]
    taught: list[str]

    @classmethod
    def build(
        cls,
        config: Config,
        bundles: Sequence[Bundle],
        history: History,
        on_disk: OnDisk = at_once,
    ) -> Self:
        """Return a runtime without the rig's profile and taught smells, which `load` applies.

        `on_disk` calls what uses the disk for requests.
        """
        nose = live_nose(config, bundles)
        heads: dict[str, TaughtHead] = {}
        taught: list[str] = []

        def apply(smells: TaughtSmells) -> None:
            for model, head in smells.heads.items():
                # An empty head would needlessly reset the evidence of the nose.
                if not head.empty or model in heads:
                    nose.set_head(model, head)
                    heads[model] = head
            nose.set_taught(smells.recogniser, smells.unmixing)
            taught[:] = () if smells.recogniser is None else smells.recogniser.labels

        enrolment = Enrolment(
            rig_smells(bundles, config.state_dir),
            apply,
            history=history,
            settings=nose_settings(config),
            air=lambda: nose.exposure,
            on_disk=on_disk,
            identity=lambda: RigIdentity(config.rig_id, config.board_id, calibration.profile),
        )
        calibration = LiveCalibration(
            config, bundles, nose, history, enrolment.with_correction, on_disk
        )
        return cls(tuple(bundles), nose, calibration, enrolment, heads, taught)

    def load(self) -> None:
        """Apply the profile and, through its correction, the taught smells; reads the disk here."""
        self.calibration.load()

    def renew(self) -> Steps:
        """Apply what was calibrated or taught since `load`."""
        yield from self.calibration.renew()
        return (yield from self.enrolment.renew())

    def process_history(self, history: History) -> Steps:
        """Process the readings of the history and those that arrive meanwhile, in steps.

        When the generator ends, no reading is missing.
        """
        newest_ms = -1
        # With this time a replay can start its own runtime at the same reading.
        from_ms = next(iter(history.since(newest_ms).t_ms.tolist()), None)
        get_logger("service").debug("the last minutes are processed", from_ms=from_ms)
        while len(span := history.since(newest_ms)):
            until_s = time.monotonic() + STEP_S
            for values, t_ms in zip(span.values, span.t_ms.tolist(), strict=True):
                self.nose.process(SensorFrame(0, None, values, range_quality(values)), t_ms=t_ms)
                newest_ms = t_ms
                if time.monotonic() >= until_s:
                    break
            yield {"doing": "hearing the last minutes", "seconds": round(span.seconds, 1)}
        return {}
