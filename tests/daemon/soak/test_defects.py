"""The soak fails, and says why, on a service with a defect: each breaks one claim of the page.

The defect is put into the real service's process before it starts, by a `sitecustomize` module.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest

from daemon.soak.faults import BrokerFault, DiskFault, FaultTarget, InjectedFault, ProcessFault
from daemon.soak.main import PHASES, run_soak
from daemon.system.signals import StopEvent
from hardware.simulator.faults import FaultKind
from tests.sandbox import needs_mosquitto

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.soak.report import SoakReport

CUT = InjectedFault(FaultTarget.BROKER, BrokerFault.CUT, delay_s=0.5, duration_s=0.2)
POWER_CUT = InjectedFault(FaultTarget.DISK, DiskFault.POWER_CUT, delay_s=2.5, duration_s=0.2)
UNPLUG = InjectedFault(FaultTarget.BOARD, FaultKind.UNPLUG.value, delay_s=1.0, duration_s=20.0)
KILLED = InjectedFault(FaultTarget.PROCESS, ProcessFault.KILLED, delay_s=2.0, duration_s=0.2)
BROKER_KILLED = InjectedFault(FaultTarget.BROKER, BrokerFault.KILLED, delay_s=2.0, duration_s=0.2)


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
from daemon.mqtt.payloads import Envelope
publish, numbers = Messages.publish_prediction, count(1)
Messages.publish_prediction = lambda self, one: (
    publish(self, one) if next(numbers) % 5 else Envelope(0, False, self._boot_id, self._seq)
)
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
class EvenWaits(publisher.EvenWaits):
    def next_s(self):
        return 13.0
publisher.EvenWaits = EvenWaits
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

OTHERS = {
    "commits come every 4 s": Defect(
        """
from daemon.mqtt import outbox
outbox.COMMIT_EVERY_S = 4.0
""",
        (),
        "predictions took up to",
        odours="air:600",
    ),
    "a board is opened 8 s after it is plugged in": Defect(
        """
from daemon.board import port
class Backoff(port.Backoff):
    def next_s(self):
        return 8.0
port.Backoff = Backoff
""",
        (UNPLUG,),
        "board, unplug: it took",
    ),
    "predictions are changed after they are made": Defect(
        """
from dataclasses import replace
from daemon.mqtt.messages import Messages
publish = Messages.publish_prediction
Messages.publish_prediction = lambda self, one: publish(
    self, replace(one, window_s=one.window_s + 1)
)
""",
        (),
        "announcements differ from a replay's, such as window_s",
    ),
    "every third event is never announced": Defect(
        """
from itertools import count
from daemon.mqtt.messages import Messages
from daemon.mqtt.payloads import Envelope
publish, numbers = Messages.publish_event, count(1)
Messages.publish_event = lambda self, *more: (
    publish(self, *more) if next(numbers) % 3 else Envelope(0, False, self._boot_id, self._seq)
)
""",
        (),
        "events of a replay were never announced",
    ),
    "requests are not answered": Defect(
        """
from daemon.mqtt.messages import Messages
Messages.publish_response = lambda self, command, answer: None
""",
        (),
        "undisturbed requests were not answered",
    ),
    "there is no last will": Defect(
        """
from paho.mqtt.client import Client
Client.will_set = lambda self, *more, **named: None
""",
        (KILLED,),
        "status was not offline 5 s after SIGKILL",
    ),
    "states are not sent again to another broker": Defect(
        """
from daemon.mqtt.outgoing import Outgoing
connected = Outgoing.connected
def connected_once(self, protocol):
    first = self.report().connections == 0
    connected(self, protocol)
    if not first:
        self._unsent.clear()
Outgoing.connected = connected_once
""",
        (BROKER_KILLED,),
        "was not retained 5 s after the broker was killed",
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


def assert_soak_names(defect: Defect, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a soak of the service with a defect, and find its complaint."""
    (folder / "sitecustomize.py").write_text(defect.source, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    report = soak(folder, defect.faults, calm=not defect.faults, odours=defect.odours)
    assert any(defect.complaint in complaint for complaint in report.complaints), report.complaints
    assert not report.as_json()["holds"]


@pytest.mark.parametrize("name", DEFECTS)
def test_the_soak_fails_on_a_service_with_a_defect_and_names_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_soak_names(DEFECTS[name], tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_soak_names_other_defects_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_soak_names(OTHERS[name], tmp_path, monkeypatch)


def test_the_same_run_of_the_service_without_a_defect_is_no_complaint(tmp_path: Path) -> None:
    report = soak(tmp_path, (CUT, POWER_CUT), calm=True)
    assert report.complaints == []
    assert report.delays.events > 5
    assert report.delays.predictions > 50
    assert report.requests.undisturbed > 3
    assert report.readings.decoded > 200
    assert report.announcements.compared > 150
    assert report.delivery.power_cuts == 1
