"""Soak: the report of a run: what each part of the judgement found, and every complaint.

Pure.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.soak.claims import RECOVERY_WITHIN_S, extended
from daemon.soak.faults import FaultTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from daemon.soak.announcements import AnnouncementReport
    from daemon.soak.delays import DelayReport
    from daemon.soak.delivery import DeliveryReport
    from daemon.soak.faults import InjectedFault
    from daemon.soak.readings import ReadingReport
    from daemon.soak.requests import RequestReport
    from daemon.soak.retained import RetainedReport
    from daemon.soak.run import MeasuredRecovery

PREDICTS_AFTER_S = 600.0
"""Board time of a phase from which its model must have predicted something."""


def slow_recoveries(
    recoveries: Iterable[MeasuredRecovery], late_s: Callable[[float, float], float]
) -> list[str]:
    """Return a sentence for every recovery that took longer than is claimed."""
    slow = []
    for recovery in recoveries:
        claimed_s = RECOVERY_WITHIN_S[recovery.part]
        if recovery.took_s > extended(claimed_s, late_s(recovery.start_s, recovery.end_s)):
            slow.append(
                f"{recovery.part}, {recovery.fault}: it took {recovery.took_s:.1f} s until it "
                f"worked again, and {claimed_s:g} s are claimed"
            )
    return slow


def silent_models(board_s: Mapping[str, float], predicted: Mapping[str, int]) -> list[str]:
    """Return a sentence for every model that predicted nothing, by the board time it had."""
    return [
        f"{model} predicted nothing in {seconds / 60:.0f} minutes of the board's time"
        for model, seconds in board_s.items()
        if seconds > PREDICTS_AFTER_S and not predicted.get(model)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakReport:
    """The result of a soak run.

    Attributes
    ----------
    faults: those injected.
    recoveries: how long parts took to work again: the broker from its return to the service's
        connection, the board from its plugging in to the opened port, the process from its start
        to its readiness or from a reload to its end, the disk from free space to the next write.
    slow: a sentence for every recovery beyond the claim.
    silent: a sentence for every model that predicted nothing although it had the time.
    broker: name of the broker's program.
    real_s, board_s: duration of the run, in real time and in the board's time.
    lateness_s: how long this machine let the service wait for a processor, in all.
    notes: what was not tested, and why.
    """

    faults: Sequence[InjectedFault]
    delivery: DeliveryReport
    readings: ReadingReport
    announcements: AnnouncementReport
    delays: DelayReport
    requests: RequestReport
    retained: RetainedReport
    recoveries: Sequence[MeasuredRecovery]
    slow: Sequence[str]
    silent: Sequence[str]
    broker: str
    real_s: float
    board_s: float
    lateness_s: float
    notes: Sequence[str]

    @property
    def complaints(self) -> list[str]:
        """A sentence for everything wrong; empty when every claim holds."""
        parts = (
            self.delivery,
            self.readings,
            self.announcements,
            self.delays,
            self.requests,
            self.retained,
        )
        found = [complaint for part in parts for complaint in part.complaints]
        return [*found, *self.slow, *self.silent]

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        parts = {
            str(part): sum(fault.part is part for fault in self.faults) for part in FaultTarget
        }
        took_s: defaultdict[str, list[float]] = defaultdict(list)
        for recovery in self.recoveries:
            took_s[str(recovery.part)].append(recovery.took_s)
        return {
            "faults": {"total": len(self.faults), **parts},
            **self.delivery.as_json(),
            "readings": self.readings.as_json(),
            "announcements": self.announcements.as_json(),
            "delays": self.delays.as_json(),
            "requests": self.requests.as_json(),
            "retained": self.retained.as_json(),
            "recovery_s": {
                part: {
                    "count": len(times),
                    "median": round(statistics.median(times), 3),
                    "longest": round(max(times), 3),
                    "claimed": RECOVERY_WITHIN_S[FaultTarget(part)],
                }
                for part, times in took_s.items()
            },
            "broker": self.broker,
            "real_s": round(self.real_s, 1),
            "board_s": round(self.board_s, 1),
            "lateness_s": round(self.lateness_s, 2),
            "notes": list(self.notes),
            "holds": not self.complaints,
            "complaints": self.complaints,
        }
