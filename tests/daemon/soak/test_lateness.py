"""How long the service waited for a processor extends the limits, within bounds."""

from __future__ import annotations

import time

from daemon.soak.claims import ALLOWANCE_S, extended
from daemon.soak.lateness import Lateness

_NO_PROCESS = 2**22 + 1
"""Above the largest id that Linux gives."""


def test_a_limit_is_extended_to_twice_as_much_at_most() -> None:
    assert extended(5.0, 0.0) == 5.0 + ALLOWANCE_S
    assert extended(5.0, 2.0) == 7.0 + ALLOWANCE_S
    assert extended(5.0, 100.0) == 10.0 + ALLOWANCE_S


def test_only_delays_of_the_asked_time_are_added() -> None:
    with Lateness() as lateness:
        before_s = time.time()
        time.sleep(0.2)
        after_s = time.time()
    assert lateness.between_s(before_s - 100, before_s - 99) == 0.0
    assert 0.0 <= lateness.between_s(before_s, after_s) <= lateness.total_s()


def test_the_waiting_of_a_process_that_ended_is_no_error() -> None:
    with Lateness(lambda: _NO_PROCESS) as lateness:
        time.sleep(0.12)
    assert lateness.total_s() >= 0.0
