"""The soak fails, and says why, on a service with a defect: each breaks one claim of the page.

The defect is put into the real service's process before it starts, by a `sitecustomize` module.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest

from daemon.soak.faults import BrokerFault, DiskFault, FaultTarget, InjectedFault
from daemon.soak.main import PHASES, run_soak
from daemon.system.signals import StopEvent
from tests.sandbox import needs_mosquitto

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.soak.report import SoakReport

CUT = InjectedFault(FaultTarget.BROKER, BrokerFault.CUT, delay_s=0.5, duration_s=0.2)
POWER_CUT = InjectedFault(FaultTarget.DISK, DiskFault.POWER_CUT, delay_s=2.5, duration_s=0.2)


class Defect(NamedTuple):
    """A change to the service, the faults that show it, and words of the soak's complaint."""

    source: str
    faults: tuple[InjectedFault, ...]
    complaint: str
    odours: str = PHASES[0].odours


DEFECTS = {
    "commits come once an hour": Defect(
        """
from daemon.mqtt import outbox
outbox.COMMIT_EVERY_S = 3600.0
""",
        (),
        "predictions took up to",
        odours="air:600",  # an event would write the predictions, too
    ),
    "every fifth prediction is never announced": Defect(
        """
from itertools import count
from daemon.mqtt.messages import Messages
publish, numbers = Messages.publish_prediction, count(1)
Messages.publish_prediction = lambda self, one: next(numbers) % 5 and publish(self, one)
""",
        (),
        "predictions of a replay were never announced",
    ),
    "every third reading is dropped behind the decoder": Defect(
        """
from itertools import count
from hardware.protocol import LineDecoder
feed, numbers = LineDecoder.feed, count(1)
LineDecoder.feed = lambda self, data: [one for one in feed(self, data) if next(numbers) % 3]
""",
        (),
        "readings that the board sent were not decoded",
    ),
    "events wait": Defect(
        """
from dataclasses import replace
from daemon.mqtt.outbox import Outbox, Priority
put = Outbox.put
Outbox.put = lambda self, one: put(
    self, replace(one, priority=min(one.priority, Priority.CHANGE))
)
""",
        (),
        "events wait: one in four took longer",
    ),
    "reconnection takes 13 s": Defect(
        """
from daemon.mqtt import publisher
class Backoff(publisher.Backoff):
    def next_s(self):
        return 13.0
publisher.Backoff = Backoff
""",
        (CUT,),
        "broker, cut: it took",
    ),
    "the database does not sync": Defect(
        """
from daemon.mqtt.outbox_database import OutboxFile
prepare = OutboxFile._prepare
def prepare_unsynced(self):
    prepare(self)
    self._db.execute("PRAGMA synchronous = OFF")
OutboxFile._prepare = prepare_unsynced
""",
        (POWER_CUT,),
        "gone after a power cut: the database does not synchronise",
    ),
}


def soak(
    folder: Path,
    faults: tuple[InjectedFault, ...],
    *,
    calm: bool,
    odours: str = PHASES[0].odours,
) -> SoakReport:
    """Run a soak of a few seconds, with one board."""
    needs_mosquitto()
    return run_soak(
        faults,
        folder,
        StopEvent(),
        seed=1,
        on_fault=lambda _number, _fault: None,
        phases=[replace(PHASES[0], calm=calm, odours=odours)],
    )


@pytest.mark.parametrize("name", DEFECTS)
def test_the_soak_fails_on_a_service_with_a_defect_and_names_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defect = DEFECTS[name]
    (tmp_path / "sitecustomize.py").write_text(defect.source, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = soak(tmp_path, defect.faults, calm=not defect.faults, odours=defect.odours)
    assert any(defect.complaint in complaint for complaint in report.complaints), report.complaints
    assert not report.as_json()["holds"]


def test_the_same_run_of_the_service_without_a_defect_is_no_complaint(tmp_path: Path) -> None:
    report = soak(tmp_path, (CUT, POWER_CUT), calm=True)
    assert report.complaints == []
    assert report.delays.events > 5
    assert report.delays.predictions > 50
    assert report.requests.undisturbed > 3
    assert report.readings.decoded > 200
    assert report.announcements.compared > 150
    assert report.delivery.power_cuts == 1
