"""Waits before another attempt: one client is back soon, and many do not come at once."""

from __future__ import annotations

import random

import numpy as np
import pytest

from daemon.mqtt.publisher import FIRST_RETRY_S, RETRY_EVERY_S
from daemon.mqtt.takeovers import EARLY_S
from daemon.system.backoff import Backoff, EvenWaits

RIGS = 1000
MOST_PER_SECOND = 350
"""Of 1,000 rigs, in any second: 286 on average, and what chance adds to that."""

ATTEMPTS = 20


def attempts_s(seed: int) -> np.ndarray:
    """Return when one rig tries to connect after it has lost its connection at 0."""
    waits = EvenWaits(first_s=FIRST_RETRY_S, every_s=RETRY_EVERY_S, source=random.Random(seed))
    return np.cumsum([waits.next_s() for _ in range(ATTEMPTS)])


@pytest.mark.parametrize("fleet", range(5))
def test_a_thousand_rigs_reconnect_below_a_stated_rate_whenever_the_broker_returns(
    fleet: int,
) -> None:
    of_rigs = np.array([attempts_s(fleet * RIGS + rig) for rig in range(RIGS)])
    for returned_s in np.arange(0.0, 60.0, 0.25):
        # The first attempt after the return succeeds.
        back_s = np.sort([rig[np.searchsorted(rig, returned_s)] for rig in of_rigs])
        in_a_second = np.searchsorted(back_s, back_s + 1.0) - np.arange(RIGS)
        assert in_a_second.max() <= MOST_PER_SECOND
        assert back_s[-1] - returned_s <= FIRST_RETRY_S + RETRY_EVERY_S


def test_independent_random_waits_would_exceed_that_rate() -> None:
    """Waits of 1 to 3 s, drawn independently, bring more rigs back in one second."""
    source = random.Random(1)
    back_s = sorted(
        Backoff(first_s=1.0, longest_s=3.0, source=source).next_s() for _ in range(RIGS)
    )
    assert sum(time_s <= back_s[0] + 1.0 for time_s in back_s) > MOST_PER_SECOND


def test_the_first_wait_is_random_again_after_a_success() -> None:
    waits = EvenWaits(first_s=0.5, every_s=3.5, source=random.Random(7))
    first, second, third = (waits.next_s() for _ in range(3))
    assert 0.5 <= first <= 4.0
    assert second == third == 3.5
    waits.reset()
    assert waits.next_s() not in (first, 3.5)


def test_two_services_with_one_name_end_each_other_soon_enough_to_be_noticed() -> None:
    assert FIRST_RETRY_S + RETRY_EVERY_S < EARLY_S
