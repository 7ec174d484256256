"""The runtime of a new configuration: it processes the history while readings go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from daemon.board.history import History
from daemon.service import runtime as module
from daemon.service.runtime import STEP_S, Runtime
from tests.sandbox import QUIET_ROW

PER_READING_S = 0.004


@dataclass
class SlowNose:
    """Takes the time of an inference for every reading, as with a short `live_stride_s`."""

    now_s: float = 0.0
    times_ms: list[int] = field(default_factory=list)

    def process(self, _frame: object, *, t_ms: int) -> None:
        self.now_s += PER_READING_S
        self.times_ms.append(t_ms)


def test_the_history_is_processed_in_short_steps_also_where_each_reading_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nose, history = SlowNose(), History()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: nose.now_s))
    for second in range(500):
        history.push(second * 1000, np.array(QUIET_ROW, np.float32))
    runtime = Runtime((), cast("Any", nose), cast("Any", None), cast("Any", None), {}, [])
    before_s, steps_s = 0.0, []
    for _ in runtime.process_history(history):
        steps_s.append(nose.now_s - before_s)
        if len(steps_s) == 1:
            history.push(500_000, np.array(QUIET_ROW, np.float32))  # one arrives meanwhile
        before_s = nose.now_s
    assert max(steps_s) <= STEP_S + PER_READING_S
    assert nose.times_ms == [second * 1000 for second in range(501)]
