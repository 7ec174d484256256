"""Requests: checked when received, done in steps, answered once, over real brokers too."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import jsonschema
import paho.mqtt.publish
import pytest

from daemon.config.settings import Config, MqttConfig, SourceConfig
from daemon.mqtt.outbox import Outbox
from daemon.mqtt.publisher import Publisher
from daemon.mqtt.service_client import (
    NoServiceError,
    RequestRefusedError,
    send_request,
    service_is_online,
)
from daemon.requests import (
    BURST,
    JOBS_LIMIT,
    LONG_BURST,
    LONG_PER_SECOND,
    PAYLOAD_LIMIT,
    QUEUE_LIMIT,
    SHORT_LIMIT,
    Inbox,
    Request,
    Requests,
)
from daemon.system.background import HANGS, Data, Short, Steps
from hardware.errors import ScentdError
from tests.sandbox import ROOT, Board, Mosquitto, ServiceProcess, Subscriber, wait_until

RESPONSE = json.loads((ROOT / "daemon" / "schemas" / "response.json").read_text(encoding="utf-8"))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Desk:
    """Requests without a broker: payloads as bytes, and a list of the answers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.inbox = Inbox(clock=self.clock)
        self.answers: list[tuple[str, Data]] = []
        self.requests = Requests(
            self.inbox, lambda *answer: self.answers.append(answer), clock=self.clock
        )

    def ask(self, command: str, payload: bytes | Data) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.inbox.receive(command, data, False)

    def said(self) -> list[Data]:
        for _, answer in self.answers:
            jsonschema.validate({**answer, "words": ""}, RESPONSE)
        return [answer for _, answer in self.answers]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_handler_gets_the_payload_and_its_data_is_the_answer(desk: Desk) -> None:
    desk.requests.register({"double": lambda payload: {"twice": 2 * payload["number"]}})
    desk.ask("double", {"number": 4, "transaction": "a"})
    desk.requests.work()
    assert desk.answers[0][0] == "double"
    assert desk.said() == [
        {"status": "ok", "data": {"twice": 8}, "error": None, "transaction": "a"}
    ]


def test_requests_are_only_done_in_the_pipelines_thread(desk: Desk) -> None:
    desk.requests.register({"x": lambda _payload: {}})
    desk.ask("x", {})
    assert desk.answers == []


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"[1, 2]", "is a JSON object"),
        (b"not json", "is a JSON object"),
        (b"\xff\xfe", "is a JSON object"),
        (b"[" * 8000, "is a JSON object"),
        (b'{"transaction": {"a": 1}}', "transaction must be"),
        (b'{"transaction": true}', "transaction must be"),
        (b'{"transaction": "%s"}' % (b"x" * 129), "transaction must be"),
        (b'{"progress": 1}', "progress must be true or false"),
        (b'{"x": "%s"}' % (b"x" * PAYLOAD_LIMIT), "at most 8192 bytes"),
    ],
)
def test_a_malformed_request_is_answered_with_the_reason(
    desk: Desk, payload: bytes, told: str
) -> None:
    desk.requests.register({"x": lambda _payload: {}})
    desk.ask("x", payload)
    desk.requests.work()
    (answer,) = desk.said()
    assert answer["status"] == "error"
    assert told in answer["error"]
    assert answer["transaction"] is None


def test_an_empty_payload_is_a_request_without_fields(desk: Desk) -> None:
    desk.requests.register({"x": lambda payload: {"got": payload}})
    desk.ask("x", b"")
    desk.requests.work()
    assert desk.said()[0]["data"] == {"got": {}}


def test_the_answer_to_an_unknown_command_lists_the_commands(desk: Desk) -> None:
    desk.requests.register({"status": lambda _payload: {}})
    desk.ask("statos", {"transaction": 7})
    desk.requests.work()
    (answer,) = desk.said()
    assert answer["status"] == "error"
    assert "This rig knows: status" in answer["error"]
    assert answer["transaction"] == 7


def test_errors_are_answered_and_bugs_do_not_end_the_service(desk: Desk) -> None:
    def refuse(_payload: Data) -> Data:
        raise ScentdError("No such smell. Ask for another.")

    def break_down(_payload: Data) -> Data:
        raise ZeroDivisionError

    desk.requests.register({"refuse": refuse})
    desk.requests.register({"break": break_down})
    desk.ask("refuse", {})
    desk.ask("break", {})
    desk.requests.work()
    refused, broken = desk.said()
    assert refused["error"] == "No such smell. Ask for another."
    assert "which is a bug" in broken["error"]


def counting(upto: int) -> Steps:
    for number in range(upto):
        yield {"done": number}
    return {"counted": upto}


def test_a_file_that_cannot_be_used_is_named_with_what_to_do(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "feedback"
    file.write_text("no folder")
    desk.requests.register({"list": lambda _: {"found": (file / "below").read_text()}})
    desk.ask("list", {})
    desk.requests.work()
    (answer,) = desk.said()
    assert answer["error"].startswith(f"The rig cannot use its file {file / 'below'}: Not a direct")
    assert "Errno" not in answer["error"]


def test_long_work_is_done_step_by_step_and_answered_at_its_end(desk: Desk) -> None:
    desk.requests.register({"count": lambda payload: counting(payload["upto"])})
    desk.ask("count", {"upto": 3})
    for _ in range(3):
        desk.requests.work()
        assert desk.answers == []
        assert desk.requests.busy
    desk.requests.work()
    assert [answer["data"] for answer in desk.said()] == [{"counted": 3}]
    assert not desk.requests.busy


def test_progress_is_published_once_a_second_if_requested(desk: Desk) -> None:
    desk.requests.register({"count": lambda payload: counting(payload["upto"])})
    desk.ask("count", {"upto": 9, "progress": True, "transaction": 5})
    for _ in range(10):
        desk.requests.work()
        desk.clock.now_s += 0.4
    said = desk.said()
    assert [answer["status"] for answer in said] == ["working", "working", "working", "ok"]
    assert [answer["data"]["done"] for answer in said[:-1]] == [0, 3, 6]
    assert {answer["transaction"] for answer in said} == {5}


def test_only_a_few_long_requests_run_at_a_time(desk: Desk) -> None:
    desk.requests.register({"count": lambda payload: counting(payload["upto"])})
    for number in range(JOBS_LIMIT + 1):
        desk.ask("count", {"upto": 50, "transaction": number})
    desk.requests.work()
    (refused,) = desk.said()
    assert refused["transaction"] == JOBS_LIMIT
    assert "under way already" in refused["error"]


def test_requests_with_long_work_have_a_rate_of_their_own(desk: Desk) -> None:
    desk.requests.register({"reload": lambda _: counting(1), "status": lambda _: {}})
    for number in range(40):  # five a second
        desk.clock.now_s += 0.2
        desk.ask("reload", {"transaction": number})
        desk.ask("status", {})
        desk.requests.work()
        desk.requests.work()
    done = [answer["status"] for command, answer in desk.answers if command == "reload"]
    assert LONG_BURST <= done.count("ok") <= LONG_BURST + 1 + 8 * LONG_PER_SECOND
    refused = [answer["error"] for _, answer in desk.answers if answer["status"] == "error"]
    assert "too many requests like this one" in refused[0]
    assert [answer["status"] for command, answer in desk.answers if command == "status"].count(
        "ok"
    ) == sum(command == "status" for command, _ in desk.answers)
    desk.clock.now_s += 1 / LONG_PER_SECOND
    desk.ask("reload", {"transaction": "later"})
    desk.requests.work()
    desk.requests.work()
    assert desk.answers[-1][1]["status"] == "ok"
    # A signal of this computer is not limited.
    for _ in range(LONG_BURST):
        desk.requests.begin(Request("reload", answered=False))
        desk.requests.work()


def test_work_that_waits_for_the_disk_alone_is_not_long_work(desk: Desk) -> None:
    desk.requests.register({"count": lambda payload: Short(counting(payload["upto"]))})
    for number in range(SHORT_LIMIT + 1):
        desk.requests.begin(Request("count", {"upto": 2}, number))
    assert not desk.requests.busy
    assert not desk.requests.works_on("count")
    (refused,) = desk.said()
    assert refused["transaction"] == SHORT_LIMIT
    assert "wait for the rig's disk" in refused["error"]
    for _ in range(3):
        desk.requests.work()
    answers = [(answer["transaction"], answer["status"]) for answer in desk.said()[1:]]
    assert answers == [(number, "ok") for number in range(SHORT_LIMIT)]


def test_work_that_does_not_advance_is_answered_once_with_the_reason_and_goes_on(
    desk: Desk,
) -> None:
    done = []

    def waiting() -> Steps:
        yield {"doing": "waiting"}
        yield {"doing": "waiting", HANGS: "the disk hangs"}
        yield {"doing": "waiting", HANGS: "the disk hangs"}
        done.append(True)
        return {}

    desk.requests.register({"wait": lambda _: waiting()})
    desk.ask("wait", {"transaction": 1, "progress": True})
    for _ in range(4):
        desk.requests.work()
    assert [answer["status"] for answer in desk.said()] == ["working", "error"]
    assert desk.said()[-1]["error"] == "the disk hangs"
    assert done == [True]
    assert not desk.requests.busy


def test_work_under_way_at_the_end_is_answered(desk: Desk) -> None:
    desk.requests.register({"count": lambda payload: counting(payload["upto"])})
    desk.ask("count", {"upto": 50})
    desk.requests.work()
    desk.requests.close()
    assert "stopping" in desk.said()[0]["error"]
    assert not desk.requests.busy


def test_retained_requests_are_ignored_and_counted(desk: Desk) -> None:
    desk.requests.register({"x": lambda _payload: {}})
    desk.inbox.receive("x", b"{}", True)
    desk.requests.work()
    assert desk.answers == []
    assert desk.inbox.counts.retained == 1


def test_requests_beyond_the_rate_are_dropped_and_counted(desk: Desk) -> None:
    desk.requests.register({"x": lambda _payload: {}})
    for _ in range(BURST + 30):
        desk.ask("x", {})
        desk.requests.work()
    assert len(desk.answers) == BURST
    assert desk.inbox.counts.dropped == 30
    desk.clock.now_s += 1.0
    for _ in range(10):
        desk.ask("x", {})
        desk.requests.work()
    assert len(desk.answers) == BURST + 5


def test_requests_beyond_the_queue_are_dropped_and_counted(desk: Desk) -> None:
    desk.requests.register({"x": lambda _payload: {}})
    for _ in range(BURST):
        desk.ask("x", {})
    desk.requests.work()
    assert len(desk.answers) == QUEUE_LIMIT
    assert desk.inbox.counts.dropped == BURST - QUEUE_LIMIT


def rig(port: int, **mqtt: Any) -> Config:
    """Return the configuration by which a command finds the rig under test."""
    return Config(
        rig_id="rig",
        source=SourceConfig(port="/dev/null"),
        models=("none",),
        mqtt=MqttConfig(host="127.0.0.1", port=port, **mqtt),
    )


def daemon_at(folder: Path, board: Board, model: Path, port: int, mqtt: str = "") -> ServiceProcess:
    return ServiceProcess(
        folder,
        f"rig_id: rig\nsource: {{port: {board.link}}}\nmodels: [{model}]\n"
        f"mqtt: {{host: 127.0.0.1, port: {port}{mqtt}}}\nstate_dir: state",
    )


def send(port: int, command: str, payload: str, *, retain: bool = False) -> None:
    paho.mqtt.publish.single(
        f"scent/rig/request/{command}", payload, qos=1, retain=retain, hostname="127.0.0.1",
        port=port,
    )  # fmt: skip


def test_a_running_service_answers_requests(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    send(broker.port, "status", '{"transaction": "old"}', retain=True)
    with (
        Subscriber(broker.port) as ear,
        daemon_at(tmp_path, board, toy_substances, broker.port) as daemon,
    ):
        ear.await_text("scent/rig/status", "online")
        config = rig(broker.port)
        assert service_is_online(config)
        status = send_request(config, "status", {})
        assert status["rig_id"] == "rig"
        assert list(status["models"]) == ["toy-substance"]
        assert "status" in status["requests"]
        with pytest.raises(RequestRefusedError, match=r"This rig knows: .*status"):
            send_request(config, "nonsense", {})
        with pytest.raises(RequestRefusedError, match="no field colour"):
            send_request(config, "status", {"colour": "green"})
        send(broker.port, "status", "x" * (PAYLOAD_LIMIT + 1))
        wait_until(lambda: "8193 came" in str(ear.texts("scent/rig/response/status")), "refusal")
        daemon.end()
        ear.await_text("scent/rig/status", "offline")
        answers = [
            json.loads(message.text)
            for message in ear.received
            if message.topic.startswith("scent/rig/response/")
        ]
        assert not service_is_online(config)
        with pytest.raises(NoServiceError, match="is not running: its status at"):
            send_request(config, "status", {})
    assert len(answers) == 4
    assert "old" not in {answer["transaction"] for answer in answers}
    for answer in answers:
        jsonschema.validate(answer, RESPONSE)
    assert "a retained request is ignored" in daemon.log


def test_requests_can_be_switched_off(
    broker: Mosquitto, tmp_path: Path, board: Board, toy_substances: Path
) -> None:
    with (
        Subscriber(broker.port) as ear,
        daemon_at(tmp_path, board, toy_substances, broker.port, ", requests: false"),
    ):
        ear.await_text("scent/rig/status", "online")
        with pytest.raises(NoServiceError, match=r"has no `mqtt\.requests: false`"):
            send_request(rig(broker.port), "status", {}, timeout_s=1.0)


def test_a_rig_that_never_ran_is_distinguished_from_a_stopped_one(broker: Mosquitto) -> None:
    with pytest.raises(NoServiceError, match="No rig 'rig' has ever been on the broker"):
        send_request(rig(broker.port), "status", {})


def test_a_service_that_ends_during_a_request_may_have_done_it(
    broker: Mosquitto,
) -> None:
    def say(status: str) -> None:
        paho.mqtt.publish.single(
            "scent/rig/status", status, qos=1, retain=True, hostname="127.0.0.1", port=broker.port
        )

    say("online")
    with Subscriber(broker.port) as ear:

        def go_when_asked() -> None:
            wait_until(lambda: ear.texts("scent/rig/request/status"), "the question")
            say("offline")

        service = threading.Thread(target=go_when_asked)
        service.start()
        with pytest.raises(
            NoServiceError, match=r"went offline before.*may have been carried out: check that"
        ):
            send_request(rig(broker.port), "status", {}, timeout_s=60)
        service.join()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_requests_are_received_by_both_versions_of_mqtt(broker: Mosquitto, protocol: str) -> None:
    heard: list[tuple[str, bytes, bool]] = []
    config = MqttConfig(host="127.0.0.1", port=broker.port, protocol=protocol)  # type: ignore[arg-type]
    with (
        Subscriber(broker.port) as ear,
        Outbox(None) as outbox,
        Publisher(
            rig_id="rig",
            config=config,
            outbox=outbox,
            on_request=lambda *request: heard.append(request),
        ),
    ):
        ear.await_text("scent/rig/status", "online")
        send(broker.port, "status", "{}")
        wait_until(lambda: heard, "the request")
        send(broker.port, "status", "[]", retain=True)
        wait_until(lambda: len(heard) == 2, "the second request")
    assert heard[0] == ("status", b"{}", False)
    assert heard[1] == ("status", b"[]", protocol == "5")


def test_requests_are_received_over_an_old_broker(old_broker: int) -> None:
    heard: list[tuple[str, bytes, bool]] = []
    with (
        Subscriber(old_broker) as ear,
        Outbox(None) as outbox,
        Publisher(
            rig_id="rig",
            config=MqttConfig(host="127.0.0.1", port=old_broker),
            outbox=outbox,
            on_request=lambda *request: heard.append(request),
        ),
    ):
        ear.await_text("scent/rig/status", "online")
        send(old_broker, "status", "{}")
        wait_until(lambda: heard == [("status", b"{}", False)], "the request")
