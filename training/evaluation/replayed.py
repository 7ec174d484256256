"""training/: held-out recordings replayed through the whole nose, as a rig's owner sees them.

numpy and ONNX Runtime. The same object as in the service and in `scentd replay`
(`models.nose.Nose`): what is counted are names that it announced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hardware.frames import Quality, SensorFrame
from models.decision_spec import State
from models.exposure import Phase
from models.nose import Nose
from training.data.clean_air import onset_s
from training.evaluation.scoring import Ratio, Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.bundle import Bundle
    from training.data.dataset import Sample

SOON_S = 60.0
"""Seconds after the onset within which an announcement is soon."""
USUAL_S = 240.0
"""Seconds after the onset at which most owners will have looked."""


@dataclass(frozen=True, slots=True)
class Announcements:
    """The names that a recording was given, in order.

    Attributes
    ----------
    names: each name that differs from the one before.
    seconds: when each was announced, since the smell arrived (since the start of a recording
        that lies within one exposure).
    taken_back: a name was withdrawn or replaced while the exposure lasted.
    """

    names: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()
    taken_back: bool = False

    def name_at(self, seconds: float) -> str | None:
        """Return the last name that was announced until then."""
        known = [
            name for name, at_s in zip(self.names, self.seconds, strict=True) if at_s <= seconds
        ]
        return known[-1] if known else None


def replay_recordings(
    bundle: Bundle, samples: Sequence[Sample], *, from_onset: bool = False
) -> list[Announcements]:
    """Replay recordings at the model's rate on a warm board.

    Each counts as one exposure throughout; with `from_onset`, the nose has to notice the onset, as
    in `scentd replay`.
    """
    return [_replay(bundle, sample, assume_exposed=not from_onset) for sample in samples]


def _replay(bundle: Bundle, sample: Sample, *, assume_exposed: bool) -> Announcements:
    nose = Nose(
        [bundle],
        rate_hz=sample.rate_hz,
        skip_warm_up=True,
        assume_exposed=assume_exposed,
    )
    start_s = onset_s(sample) or 0.0
    names: list[str] = []
    seconds: list[float] = []
    taken_back, announced = False, None
    for row, values in enumerate(sample.values):
        quality = np.where(np.isfinite(values), Quality.OK, Quality.MISSING).astype(np.uint8)
        frame = SensorFrame(row, round(row * 1000 / sample.rate_hz), values, quality)
        for prediction in nose.process(frame).predictions:
            label = prediction.label if prediction.state is State.RECOGNISED else None
            taken_back |= announced not in (None, label) and nose.exposure.phase is Phase.EXPOSED
            announced = label
            if label is None:
                continue
            if not names or label != names[-1]:
                names.append(label)
                seconds.append(prediction.t_ms / 1000.0 - start_s)
    return Announcements(tuple(names), tuple(seconds), taken_back)


def announcement_tally(replayed: Sequence[Announcements], truth: Sequence[str]) -> Tally:
    """Count announcements.

    Returns
    -------
    Shares of recordings: `announced`, given any name; `announced_60s`, within 60 s of the onset;
    `right_in_the_end` and `wrong_in_the_end`, by the last name; `another_name_first`;
    `taken_back`, by a name that was withdrawn or replaced while the exposure lasted. And
    `announced_right`, the share of announced recordings whose last name is right; `right_240s` and
    `wrong_240s`, by the last name until 240 s after the onset.
    """
    every = np.ones(len(truth))
    last = [one.names[-1] if one.names else None for one in replayed]
    named = np.array([name is not None for name in last], dtype=float)
    right = np.array([a == b for a, b in zip(last, truth, strict=True)], dtype=float)
    soon = np.array([bool(one.seconds) and one.seconds[0] <= SOON_S for one in replayed], float)
    first_wrong = np.array(
        [bool(one.names) and one.names[0] != b for one, b in zip(replayed, truth, strict=True)],
        float,
    )
    then = [one.name_at(USUAL_S) for one in replayed]
    right_then = np.array([a == b for a, b in zip(then, truth, strict=True)], float)
    named_then = np.array([name is not None for name in then], float)
    return {
        "announced": Ratio(named, every),
        "announced_right": Ratio(right, named),
        "right_in_the_end": Ratio(right, every),
        "wrong_in_the_end": Ratio(named - right, every),
        "another_name_first": Ratio(first_wrong, every),
        "announced_60s": Ratio(soon, every),
        "taken_back": Ratio(np.array([one.taken_back for one in replayed], float), every),
        "right_240s": Ratio(right_then, every),
        "wrong_240s": Ratio(named_then - right_then, every),
    }
