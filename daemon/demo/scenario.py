"""Demo: the scenario: two taught rigs, and for each some odours in a random order.

May import the simulator. Pure: no clock, no port.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from hardware.simulator.other_rig import FIXED_RIG, OtherRigSignal
from hardware.simulator.scenario import Episode, parse_scenario
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import SUBSTANCE_BOARD, load_board

if TYPE_CHECKING:
    from hardware.simulator.signals import Signal

TAUGHT_DAYS = (1, 2, 3)
"""Days of the simulated rig on which it was taught, one exposure of each smell a day. The demo
plays day 0."""

TAUGHT_SEED = 1
"""Of the taught exposures: the rigs have one past, whatever is played."""


@dataclass(frozen=True, slots=True)
class DemoRig:
    """One simulated board with the service that reads it.

    Attributes
    ----------
    model: of the service, beside what the rig was taught.
    topic: the one that the panel shows, `substance` or `mixture`.
    board: the simulator's name of the board.
    question: the panel's title.
    rate_hz: readings per second of the board's time.
    speed: board seconds per real second.
    air_s, odour_s: how long clean air and an odour last, in the board's time.
    taught: smells that the rig is taught before the demo begins.
    odours: what is played, as a scenario writes it without durations.
    named_after: how long a name takes in the board's time, for people.
    never_taught: one more, of which the rig knows nothing; None plays none.
    """

    rig_id: str
    model: str
    topic: str
    board: str
    question: str
    rate_hz: float
    speed: float
    air_s: float
    odour_s: float
    taught: tuple[str, ...]
    odours: tuple[str, ...]
    named_after: str
    never_taught: str | None = None


TAUGHT = ("cloves", "peach", "pineapple", "saffron", "star_anise")
"""Smells that both rigs are taught."""

_PAIRS = (
    "cloves=.5+saffron=.5",
    "cloves=.5+star_anise=.5",
    "pineapple=.5+saffron=.5",
    "pineapple=.5+star_anise=.5",
    "saffron=.5+star_anise=.5",
)
"""Pairs of comparable smells: peach, which is stronger, hides most others."""

MODEL = "mixtures-12"
"""The services' only model. It needs a board of 2.5 Hz or more, so that at 1 Hz all names come from
what the rigs were taught."""

OTHER_BOARD = FIXED_RIG
"""The rigs' boards are unlike that of the models' training, as an owner's board is."""

RIGS: tuple[DemoRig, ...] = (
    DemoRig(
        rig_id="substances",
        model=MODEL,
        topic="substance",
        board=SUBSTANCE_BOARD,
        question="Which substance?",
        rate_hz=1.0,
        speed=25.0,
        air_s=140.0,
        odour_s=120.0,
        taught=TAUGHT,
        odours=TAUGHT,
        named_after="mostly 10 to 60 s",
        never_taught="lemon",
    ),
    DemoRig(
        rig_id="mixtures",
        model=MODEL,
        topic="mixture",
        board=SUBSTANCE_BOARD,
        question="What is mixed?",
        rate_hz=1.0,
        speed=25.0,
        air_s=140.0,
        odour_s=120.0,
        taught=TAUGHT,
        odours=_PAIRS,
        named_after="mostly 10 to 60 s",
    ),
)
"""The speed makes an odour and the air before it last ten seconds."""


@dataclass(frozen=True, slots=True)
class DemoEpisode:
    """An odour or clean air for a while.

    Attributes
    ----------
    number: counts from 0, over all repetitions of the schedule.
    odour: the names in it, sorted; empty for clean air.
    taught: whether the rig was taught all of them; true of clean air.
    start_s, end_s: in the board's time.
    """

    number: int
    odour: tuple[str, ...]
    taught: bool
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
        odour = tuple(sorted(name for name, _ in episode.components))
        return DemoEpisode(
            number=int(rounds) * len(self.episodes) + index,
            odour=odour,
            taught=set(odour) <= set(self.rig.taught),
            start_s=end_s - episode.duration_s,
            end_s=end_s,
        )


def choose_schedule(rig: DemoRig, seed: int) -> DemoSchedule:
    """Return air and odours in turn, the odours in a random order.

    The smell that was never taught comes third, within the first minute.
    """
    rng = random.Random(seed)
    odours = rng.sample(rig.odours, len(rig.odours))
    if rig.never_taught is not None:
        odours.insert(2, rig.never_taught)
    scenario = ",".join(f"air:{rig.air_s:g},{odour}:{rig.odour_s:g}" for odour in odours)
    return DemoSchedule(rig, parse_scenario(scenario, load_board(rig.board).fingerprints))


def play(
    rig: DemoRig,
    episodes: tuple[Episode, ...] | str,
    seed: int,
    *,
    day: int = 0,
    loop: bool = False,
) -> Signal:
    """Return what a rig's board sends of a scenario."""
    signal = SyntheticSignal(
        episodes, rate_hz=rig.rate_hz, seed=seed, day=day, loop=loop, board=rig.board
    )
    return OtherRigSignal(signal, OTHER_BOARD)
