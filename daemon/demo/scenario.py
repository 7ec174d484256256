"""Demo: the scenario: two rigs, and for each some odours in a random order.

May import the simulator. Pure: no clock, no port. The odours are those that the shipped models
recognise in the simulator's own check (`scent-train fingerprints --check`).
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from hardware.simulator.scenario import Episode, parse_scenario
from hardware.simulator.tables import MIXTURE_BOARD, SUBSTANCE_BOARD, load_board, load_playable

FEWEST_ODOURS, SUBSTITUTES = 3, 8
"""With fewer playable odours than FEWEST_ODOURS, the SUBSTITUTES recognised most often are played:
otherwise the demo would hardly vary."""


@dataclass(frozen=True, slots=True)
class DemoRig:
    """One simulated board with the service that reads it.

    Each model has its own, because the two models were trained on two kinds of boards.

    Attributes
    ----------
    board: the simulator's name of the board.
    question: the panel's title.
    rate_hz: readings per second of the board's time.
    speed: board seconds per real second.
    air_s, odour_s: how long clean air and an odour last, in the board's time.
    """

    rig_id: str
    model: str
    board: str
    question: str
    rate_hz: float
    speed: float
    air_s: float
    odour_s: float


RIGS: tuple[DemoRig, ...] = (
    DemoRig(
        "substances", "substances-50", SUBSTANCE_BOARD, "Which substance?", 1.0, 30.0, 60.0, 420.0
    ),
    DemoRig("mixtures", "mixtures-12", MIXTURE_BOARD, "What is mixed?", 10.0, 8.0, 60.0, 90.0),
)
"""The times are those of the simulator's check; the speeds make an odour and the air before it last
about 17 seconds."""


@dataclass(frozen=True, slots=True)
class DemoEpisode:
    """An odour or clean air for a while.

    Attributes
    ----------
    number: counts from 0, over all repetitions of the schedule.
    odour: the names in it, sorted; empty for clean air.
    start_s, end_s: in the board's time.
    """

    number: int
    odour: tuple[str, ...]
    start_s: float
    end_s: float


class DemoSchedule:
    """A rig's episodes, repeated without end."""

    def __init__(self, rig: DemoRig, episodes: tuple[Episode, ...]) -> None:
        self.rig = rig
        self.episodes = episodes
        self._ends_s = list(accumulate(episode.duration_s for episode in episodes))

    def episode_at(self, board_s: float) -> DemoEpisode:
        """Return the episode at a moment of the board's time."""
        length_s = self._ends_s[-1]
        rounds, within_s = divmod(board_s, length_s)
        index = min(bisect_right(self._ends_s, within_s), len(self.episodes) - 1)
        episode = self.episodes[index]
        end_s = rounds * length_s + self._ends_s[index]
        return DemoEpisode(
            number=int(rounds) * len(self.episodes) + index,
            odour=tuple(sorted(name for name, _ in episode.components)),
            start_s=end_s - episode.duration_s,
            end_s=end_s,
        )


def choose_schedule(rig: DemoRig, seed: int) -> DemoSchedule:
    """Return air and odours in turn: first a quickly recognised one, then the others at random."""
    odours = load_playable(rig.board)
    if len(odours) < FEWEST_ODOURS:
        odours = load_playable(rig.board, least_right=0.0)[:SUBSTITUTES]
    rng = random.Random(seed)
    quickest = sorted(odours, key=lambda item: item.right_after_s or rig.odour_s)[:FEWEST_ODOURS]
    first = rng.choice(quickest)
    others = [item for item in odours if item is not first]
    rng.shuffle(others)
    scenario = ",".join(
        f"air:{rig.air_s:g},{item.odour}:{rig.odour_s:g}" for item in (first, *others)
    )
    return DemoSchedule(rig, parse_scenario(scenario, load_board(rig.board).fingerprints))
