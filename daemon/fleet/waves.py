"""Daemon: the order in which a request goes to many rigs: a canary, then waves, until one fails.

Pure: knows no broker. The caller sends each wave and returns the rigs' answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the waves.

    Attributes
    ----------
    canary: rigs of the first wave, which is tried alone; 0 for none.
    wave: rigs of every other wave.
    failures: in all, from which on no further wave is sent.
    """

    canary: int = 1
    wave: int = 10
    failures: int = 1

    def waves(self, rigs: Sequence[str]) -> Iterator[list[str]]:
        """Yield the rigs of each wave, in order, every rig once."""
        start = 0
        if self.canary and rigs:
            yield list(rigs[: self.canary])
            start = self.canary
        for first in range(start, len(rigs), self.wave):
            yield list(rigs[first : first + self.wave])


@dataclass(frozen=True, slots=True)
class RigAnswer:
    """What became of the request of one rig.

    Attributes
    ----------
    ok: whether the rig did it.
    text: the rig's answer in words, or why there is none.
    """

    rig: str
    ok: bool
    text: str


@dataclass(slots=True)
class Rollout:
    """What became of all requests.

    Attributes
    ----------
    outcomes: of the rigs that were asked, in order.
    left_out: rigs that were not asked because others had failed.
    """

    outcomes: list[RigAnswer] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every rig was asked and did it."""
        return not self.left_out and all(outcome.ok for outcome in self.outcomes)


def send_in_waves(
    rigs: Sequence[str],
    plan: Plan,
    send: Callable[[list[str]], list[RigAnswer]],
    pause: Callable[[], None] = lambda: None,
) -> Rollout:
    """Send wave after wave, until all are asked or too many have failed.

    Parameters
    ----------
    rigs: in the order in which they are asked.
    plan: sizes of the waves.
    send: sends the request to the rigs of a wave and returns an outcome for each.
    pause: called between two waves.
    """
    rollout = Rollout()
    waves = list(plan.waves(rigs))
    for number, wave in enumerate(waves):
        if number:
            pause()
        rollout.outcomes += send(wave)
        if sum(not outcome.ok for outcome in rollout.outcomes) >= plan.failures:
            rollout.left_out = [rig for later in waves[number + 1 :] for rig in later]
            break
    return rollout
