"""Feedback: kept, counted by day, and proposed to the library without any effect on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from calibration.smell_set import NEGATIVES, SmellError
from daemon.board.history import History
from daemon.config.loading import load_config
from daemon.config.settings import RecordingConfig
from daemon.enroll import Enrolment, rig_smells
from daemon.mqtt.payloads import Envelope
from daemon.mqtt.service_client import send_request
from daemon.recording.catalogue import Catalogue
from daemon.request_fields import RequestError
from daemon.review.judgements import Judgement
from daemon.review.requests import Review
from daemon.system.background import result_of
from hardware.recording import RecordingWriter
from hardware.recording_labels import read_labels
from hardware.segment_names import segment_name
from hardware.simulator.board import SimulatedBoard
from models.results import Event, EventType
from tests.calibration.smells import PETROL, smell_readings, teachable_bundle
from tests.sandbox import ROOT, Mosquitto, Odours, ServiceProcess, Subscriber, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.review.announcements import Announcement
    from daemon.system.background import Data
    from models.bundle import Bundle

BOOT, NEXT_BOOT = "0123456789abcdef", "fedcba9876543210"
NOON_MS = 1_769_860_800_000  # 2026-01-31T12:00:00Z
BEFORE_S, SMELL_S = 90, 60
NO2 = 0
SCHEMAS = {
    name: json.loads((ROOT / "daemon" / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("request_feedback", "response_feedback", "event", "response_status")
}
SEGMENT = segment_name(1, 1, "20260131T115500Z")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return teachable_bundle(tmp_path_factory.mktemp("model"))


class Rig:
    """What a service gives to its review: the history, its events and the library."""

    def __init__(
        self, bundle: Bundle, state: Path, boot_id: str = BOOT, *, clips: bool = False
    ) -> None:
        self.boot_id = boot_id
        self.state = state
        self.history = History()
        self.enrolment = Enrolment(rig_smells([bundle], state), history=self.history)
        self.published: list[tuple[Judgement, Announcement]] = []
        self.review = Review(
            state,
            state / "recordings",
            self.history,
            lambda: self.enrolment,
            on_feedback=lambda *both: self.published.append(both),
            boot_id=lambda: boot_id,
        )
        self.review.load()
        self.review.configure(RecordingConfig(clips_most=3, clips_days=3650), clips=clips)
        self.seq = 0

    def smell(self, change: tuple[float, ...] = PETROL, *, before_s: int = BEFORE_S) -> None:
        """Let clean air come, then a smell."""
        values = smell_readings(change, SMELL_S, before=before_s)
        start = -1000 if self.history.newest_ms is None else self.history.newest_ms
        for number, row in enumerate(values, 1):
            self.history.push(start + 1000 * number, row)
            self.review.announcements.begin_run(start + 1000 * number)

    def record(self) -> None:
        """Write the history as a segment of the service's recording."""
        folder = self.state / "recordings"
        folder.mkdir(parents=True)
        span = self.history.since(-1)
        with RecordingWriter(folder / SEGMENT) as writer:
            writer.write_all(span.t_ms, span.values)

    def say(self, kind: EventType, t_ms: int, *, segment: str | None = None, **fields: Any) -> int:
        """Publish an event; return its seq."""
        envelope = Envelope(NOON_MS + t_ms, True, self.boot_id, self.seq)
        self.review.add_event(Event(kind, t_ms, 0, **fields), segment, envelope)
        self.seq += 1
        return envelope.seq

    def announce(self, label: str | None = "soap", segment: str | None = None) -> int:
        """Publish the events of an exposure; return the seq of the announcement."""
        newest = self.history.newest_ms or 0
        self.say(EventType.ONSET, newest - 1000 * (SMELL_S - 10))
        kind = EventType.UNRECOGNISED if label is None else EventType.RECOGNISED
        seq = self.say(kind, newest - 20_000, label=label, model="toy", segment=segment)
        self.say(EventType.ENDED, newest)
        return seq

    def ask(self, **payload: Any) -> Data:
        jsonschema.validate(payload, SCHEMAS["request_feedback"])
        done = result_of(self.review.handle(payload))
        if payload.get("action") != "accept":
            jsonschema.validate(done, SCHEMAS["response_feedback"])
        return done


@pytest.fixture
def rig(bundle: Bundle, tmp_path: Path) -> Rig:
    rig = Rig(bundle, tmp_path / "state")
    rig.smell()
    return rig


def test_a_wrong_name_with_the_true_one_proposes_the_readings_of_the_exposure(rig: Rig) -> None:
    seq = rig.announce("soap")
    said = rig.ask(seq=seq, verdict="wrong", label="petrol", note="from the can")
    (proposal,) = said["proposals"]
    assert (proposal["kind"], proposal["label"]) == ("exposure", "petrol")
    assert proposal["session"] == "2026-01-31"
    assert SMELL_S <= proposal["seconds"] <= SMELL_S + 20
    assert said["score"]["days"] == [{"day": "2026-01-31", "announced": 1, "right": 0, "wrong": 1}]
    (judgement, announcement), *more = rig.published
    assert not more
    assert (judgement.truth, judgement.note) == ("petrol", "from the can")
    assert announcement.label == "soap"


def test_nothing_is_taught_before_the_owner_accepts(rig: Rig) -> None:
    rig.ask(seq=rig.announce(), verdict="wrong", label="petrol")
    assert rig.enrolment.store.smells().smells == ()
    (proposal,) = rig.ask(action="list")["proposals"]
    taught = rig.ask(action="accept", id=proposal["id"])
    assert (taught["label"], taught["shadow"]) == ("petrol", True)
    assert taught["clean_air"] is not None
    (smell,) = rig.enrolment.store.smells().smells
    assert smell.exposures[0].session == "2026-01-31"
    assert rig.ask(action="list")["proposals"] == []


def test_an_exposure_of_an_announced_smell_needs_the_owners_word(rig: Rig) -> None:
    rig.ask(seq=rig.announce(), verdict="wrong", label="petrol")
    (proposal,) = rig.ask(action="list")["proposals"]
    rig.ask(action="accept", id=proposal["id"], promote=True)
    rig.smell(before_s=240)
    said = rig.ask(seq=rig.announce("petrol"), verdict="right")
    (proposal,) = said["proposals"]
    with pytest.raises(SmellError, match="promote: true"):
        rig.ask(action="accept", id=proposal["id"])
    assert rig.ask(action="accept", id=proposal["id"], promote=True)["exposures"] == 2


def test_a_wrong_name_without_the_true_one_proposes_a_negative(rig: Rig) -> None:
    said = rig.ask(verdict="wrong", seq=rig.announce("soap"))
    (proposal,) = said["proposals"]
    assert (proposal["kind"], proposal["label"]) == ("negative", "soap")
    with pytest.raises(RequestError, match="not soap"):
        rig.ask(action="accept", id=proposal["id"], label="soap")
    assert rig.ask(action="accept", id=proposal["id"], label="paint")["label"] == "paint"
    rig.ask(verdict="wrong", seq=rig.announce("soap"))
    (proposal,) = rig.ask(action="list")["proposals"]
    assert rig.ask(action="dismiss", id=proposal["id"])["proposals"] == []


def test_an_accepted_negative_is_used_at_once_and_is_no_smell(rig: Rig) -> None:
    rig.ask(verdict="wrong", seq=rig.announce("soap"))
    (proposal,) = rig.ask(action="list")["proposals"]
    taught = rig.ask(action="accept", id=proposal["id"])
    assert (taught["label"], taught["negative"], taught["shadow"]) == (NEGATIVES, True, False)
    store = rig.enrolment.store
    assert len(store.negatives()) == 1
    assert store.taught_exposures() == []
    assert store.head()[0].taught == ()
    (listed,) = result_of(rig.enrolment.handle({"action": "list"}))["smells"]
    assert (listed["negative"], listed["exposures"]) == (True, 1)
    result_of(rig.enrolment.handle({"action": "forget", "label": NEGATIVES}))
    assert store.negatives() == []


def test_mixtures_and_rightly_unknown_smells_propose_nothing(rig: Rig) -> None:
    assert rig.ask(seq=rig.announce(None), verdict="right")["proposals"] == []
    assert rig.ask(seq=rig.announce("mint + soap"), verdict="right")["proposals"] == []


def test_the_newest_announcement_is_meant_where_none_is_named(rig: Rig) -> None:
    rig.announce("soap")
    seq = rig.announce("tar")
    assert rig.ask(verdict="right")["feedback"][0]["seq"] == seq


def test_a_message_during_the_exposure_stands_for_its_announcement(rig: Rig) -> None:
    seq = rig.announce("soap")
    assert rig.ask(seq=seq + 1, verdict="right")["feedback"][0]["seq"] == seq
    with pytest.raises(RequestError, match="Nothing was announced at message"):
        rig.ask(seq=seq + 2, verdict="right")
    with pytest.raises(RequestError, match="Nothing was announced at message"):
        rig.ask(seq=0, verdict="right")
    ts = "2026-01-31T12:20:00.000Z"
    assert rig.ask(ts=ts, verdict="right")["feedback"][0]["seq"] == seq
    with pytest.raises(RequestError, match="Nothing was announced before"):
        rig.ask(ts="2026-01-30T12:00:00.000Z", verdict="right")


def test_later_feedback_replaces_earlier_and_its_proposal(rig: Rig) -> None:
    seq = rig.announce("soap")
    rig.ask(seq=seq, verdict="wrong", label="petrol")
    rig.ask(seq=seq, verdict="wrong", label="tar")
    listed = rig.ask(action="list")
    assert [item["label"] for item in listed["proposals"]] == ["tar"]
    assert listed["announcements"][0]["feedback"]["label"] == "tar"
    assert (listed["score"]["right"], listed["score"]["wrong"]) == (0, 1)


def test_several_announcements_get_one_verdict_together(rig: Rig) -> None:
    seqs = [rig.announce("soap"), rig.announce("tar")]
    said = rig.ask(seq=seqs, verdict="wrong", label="petrol")
    assert [item["announced"] for item in said["feedback"]] == ["soap", "tar"]
    assert said["score"]["share_right"] == 0.0
    assert len(said["proposals"]) == 2


def test_after_a_restart_the_readings_come_from_the_recording(rig: Rig, bundle: Bundle) -> None:
    seq = rig.announce("soap", SEGMENT)
    rig.record()
    later = Rig(bundle, rig.state, NEXT_BOOT)
    (listed,) = later.ask(action="list")["announcements"]
    assert (listed["boot_id"], listed["seq"], listed["label"]) == (BOOT, seq, "soap")
    assert listed["ended_ms"] is not None
    said = later.ask(seq=seq, boot_id=BOOT, verdict="wrong", label="petrol")
    (proposal,) = said["proposals"]
    assert later.ask(action="accept", id=proposal["id"])["clean_air"] is not None


def test_the_true_name_labels_the_exposure_in_the_recording(rig: Rig) -> None:
    rig.record()
    rig.ask(seq=rig.announce("soap", SEGMENT), verdict="wrong", label="petrol")
    (stretch,) = read_labels(rig.state / "recordings" / SEGMENT).stretches
    assert (stretch.label, stretch.author) == ("petrol", "feedback")
    assert stretch.start_ms == 1000 * (BEFORE_S - 11)


def test_a_clip_is_kept_of_every_announced_exposure(bundle: Bundle, tmp_path: Path) -> None:
    rig = Rig(bundle, tmp_path / "state", clips=True)
    rig.smell()
    seq = rig.announce("soap")
    later = Rig(bundle, rig.state, NEXT_BOOT, clips=True)
    (listed,) = later.ask(action="list")["announcements"]
    assert listed["clip"] == f"clip-20260131T120209Z-{seq}.csv"
    catalogue = Catalogue(rig.state / "recordings")
    assert catalogue.curve(listed["clip"]).readings == BEFORE_S + SMELL_S
    said = later.ask(seq=seq, boot_id=BOOT, verdict="wrong", label="petrol")
    assert [item["label"] for item in said["proposals"]] == ["petrol"]
    assert [item.label for item in catalogue.labels(listed["clip"]).stretches] == ["petrol"]


def test_clips_stay_within_their_bounds_and_labelled_ones_go_last(
    bundle: Bundle, tmp_path: Path
) -> None:
    rig = Rig(bundle, tmp_path / "state", clips=True)
    for number in range(5):
        rig.smell()
        seq = rig.announce("soap")
        if number == 0:
            rig.ask(seq=seq, verdict="right")
    kept = Catalogue(rig.state / "recordings").list()
    assert len(kept) == 3
    assert [bool(item.labels.stretches) for item in kept].count(True) == 1


def test_without_readings_the_verdict_counts_and_the_answer_says_why(
    rig: Rig, bundle: Bundle
) -> None:
    seq = rig.announce("soap")
    later = Rig(bundle, rig.state, NEXT_BOOT)
    said = later.ask(seq=seq, boot_id=BOOT, verdict="wrong", label="petrol")
    assert said["proposals"] == []
    assert "record: true" in said["why"][0]
    assert said["score"]["wrong"] == 1
    assert Rig(bundle, rig.state, NEXT_BOOT).review.score()["wrong"] == 1


def test_readings_of_a_time_that_began_anew_are_never_taken_for_those_before(rig: Rig) -> None:
    seq = rig.announce("soap")
    rig.review.announcements.begin_run(0)
    assert rig.ask(seq=seq, verdict="wrong", label="petrol")["proposals"] == []


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"verdict": "perhaps"}, "one of right, wrong"),
        ({"verdict": "wrong", "label": "x" * 65}, "1 to 64 characters"),
        ({"verdict": "wrong", "note": "x" * 501}, "1 to 500 characters"),
        ({"verdict": "wrong", "seq": -1}, "whole number"),
        ({"verdict": "wrong", "seq": [1] * 51}, "whole number"),
        ({"verdict": "wrong", "seq": 1.5}, "whole number"),
        ({"verdict": "wrong", "seq": 1, "ts": "2026-01-31T12:00:00Z"}, "not both"),
    ],
)
def test_wrong_requests_are_refused(rig: Rig, payload: Data, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        result_of(rig.review.handle(payload))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, SCHEMAS["request_feedback"])


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"verdict": "right", "label": "tar"}, "cannot be right"),
        ({"verdict": "wrong", "label": "soap"}, "was announced"),
        ({"verdict": "right", "ts": "yesterday"}, "is no time"),
        ({"verdict": "right", "ts": "2026-01-31T12:00:00"}, "is no time"),
    ],
)
def test_contradictions_are_refused_and_not_kept(rig: Rig, payload: Data, said: str) -> None:
    rig.announce("soap")
    with pytest.raises(RequestError, match=said):
        result_of(rig.review.handle(payload))
    assert rig.review.score()["share_right"] is None


def test_a_proposal_outside_the_folder_is_not_reached(rig: Rig) -> None:
    with pytest.raises(RequestError, match="There is no proposal"):
        rig.ask(action="accept", id="../../smells/index")


def test_a_damaged_proposal_is_left_out(rig: Rig) -> None:
    rig.ask(seq=rig.announce("soap"), verdict="wrong")
    (about,) = (rig.state / "feedback" / "proposals").glob("*.json")
    about.write_text(about.read_text().replace("soap", "tar"))
    assert rig.ask(action="list")["proposals"] == []


def test_a_running_rig_keeps_feedback_and_sends_readings_while_they_are_wanted(
    broker: Mosquitto, bundle: Bundle, tmp_path: Path
) -> None:
    link = tmp_path / "ttySIM"
    settings = (
        f"rig_id: rig\nsource: {{port: {link}}}\nmodels: [{bundle.folder}]\n"
        f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\nstate_dir: state\nlive_stride_s: 2\n"
    )
    with (
        Subscriber(broker.port) as client,
        SimulatedBoard(
            Odours(((None, 90), (NO2, 120), (None, 100)) * 20),
            link=link,
            speed=40,
            wait_for_listener=True,
        ),
        ServiceProcess(tmp_path, settings) as daemon,
    ):
        config = load_config(daemon.config)
        wait_until(lambda: client.events("recognised"), "an announcement")
        assert client.payloads("sample") == []
        assert send_request(config, "sample", {"seconds": 30})["seconds"] == 30.0
        wait_until(lambda: len(client.payloads("sample")) > 5, "raw readings")
        event = client.events("recognised")[0]
        said = send_request(
            config, "feedback", {"seq": event["seq"], "verdict": "wrong", "label": "petrol"}
        )
        jsonschema.validate(said, SCHEMAS["response_feedback"])
        assert [item["label"] for item in said["proposals"]] == ["petrol"]
        wait_until(lambda: client.events("feedback"), "the event")
        (published,) = client.events("feedback")
        jsonschema.validate(published, SCHEMAS["event"])
        assert published["feedback"]["seq"] == event["seq"]
        assert published["label"] == "petrol"
        status = send_request(config, "status", {})
        jsonschema.validate(status, SCHEMAS["response_status"])
        assert status["feedback"]["wrong"] == 1
        assert daemon.end() == 0
