"""The announcement of a rig to Home Assistant, over Mosquitto, and its changes."""

from __future__ import annotations

import json
import random
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from daemon.config.loading import ConfigError, load_config
from daemon.config.settings import Config, MqttConfig, SourceConfig
from daemon.mqtt.discovery import REPEAT_AFTER_S, REPEAT_WITHIN_S, Discovery
from daemon.mqtt.home_assistant import NOTHING, AnnouncedModel, components, device_payload
from daemon.mqtt.topics import topic_prefix
from hardware.simulator.board import SimulatedBoard
from models.bundle import load_bundle
from models.decision_spec import State
from models.taught_head import TaughtHead
from tests.daemon.mqtt.home_assistant import UNAVAILABLE, UNKNOWN, Entity, HomeAssistant
from tests.models.toys import LABELS
from tests.sandbox import ROOT, Mosquitto, Odours, ServiceProcess, wait_until

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = json.loads((ROOT / "daemon/schemas/home_assistant.json").read_text(encoding="utf-8"))
NO2 = 0
SUBSTANCES = AnnouncedModel("nose", "substance", LABELS, ("1",))
MIXTURES = AnnouncedModel("blend", "mixture", LABELS, ("1",))


def payload(*speakers: AnnouncedModel, gone: dict[str, str] | None = None) -> dict[str, Any]:
    announced = device_payload(
        rig_id="rig", version="1", models=speakers, live_stride_s=5.0, announced=gone or {}
    )
    jsonschema.validate(announced, SCHEMA)
    return announced


class StateCollector:
    """A publisher that collects the states, in order."""

    def __init__(self) -> None:
        self.held: list[tuple[str, str]] = []
        self.repeated: list[str] = []

    def set_state_at(self, topic: str, payload: str) -> None:
        self.held.append((topic, payload))

    def repeat(self, topic: str) -> None:
        self.repeated.append(topic)

    def components(self) -> dict[str, Any]:
        announced: dict[str, Any] = json.loads(self.held[-1][1])
        jsonschema.validate(announced, SCHEMA)
        return dict(announced["components"])


def config(folder: Path, home_assistant: bool | str = True) -> Config:
    return Config(
        rig_id="rig",
        source=SourceConfig(port="/dev/null"),
        models=("none",),
        mqtt=MqttConfig(home_assistant=home_assistant),
        state_dir=folder,
    )


@pytest.mark.parametrize(
    "speakers",
    [
        (),
        (SUBSTANCES,),
        (SUBSTANCES, MIXTURES),
        (SUBSTANCES, AnnouncedModel("other", "substance", LABELS, ("1",))),
    ],
)
def test_every_payload_has_only_documented_fields(speakers: tuple[AnnouncedModel, ...]) -> None:
    announced = payload(*speakers)["components"]
    ids = [component["unique_id"] for component in announced.values()]
    assert len(set(ids)) == len(ids)
    assert {"board", "problem", "fault", "event"} <= set(announced)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("substance", {"colour": "green"}),
        ("substance", {"state_class": "measurement"}),
        ("substance", {"options": ["a", "a"]}),
        ("confidence", {"options": ["a"]}),
        ("problem", {"options": ["a"]}),
    ],
)
def test_the_schema_refuses_fields_unknown_to_home_assistant(
    key: str, wrong: dict[str, Any]
) -> None:
    announced = payload(SUBSTANCES)
    announced["components"][key] |= wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(announced, SCHEMA)


def test_substance_is_an_enum_of_the_labels() -> None:
    assert payload(SUBSTANCES)["components"]["substance"]["options"] == [NOTHING, *LABELS]


def test_results_need_service_and_board_but_diagnostics_only_the_service() -> None:
    announced = payload(SUBSTANCES)
    topics = [one["topic"] for one in announced["availability"]]
    assert topics == ["scent/rig/status", "scent/rig/sensor/status"]
    assert announced["availability_mode"] == "all"
    assert "availability" not in announced["components"]["substance"]
    assert [one["topic"] for one in announced["components"]["board"]["availability"]] == [topics[0]]


def test_results_expire_after_a_few_strides_and_not_before_a_minute() -> None:
    quick = components("rig", [SUBSTANCES], 60)
    assert payload(SUBSTANCES)["components"]["substance"]["expire_after"] == 60
    slow = device_payload(
        rig_id="rig", version="1", models=[SUBSTANCES], live_stride_s=100, announced={}
    )
    assert slow["components"]["substance"]["expire_after"] == 400
    assert "expire_after" not in quick["state"]  # a disabled model says so once


def test_labels_of_any_spelling_have_their_own_entities() -> None:
    labels = ("Crème brûlée", 'say "cheese" }}', "a b", "a-b", "\\n")
    announced = payload(AnnouncedModel("blend", "mixture", labels, ("1",)))["components"]
    shares = {
        key: one
        for key, one in announced.items()
        if key.startswith("mixture_") and "unit" in str(one)
    }
    assert len(shares) == len(labels)
    said = {"state": "recognised", "components": [{"label": labels[1], "proportion": 0.25}]}
    for label, component in zip(labels, shares.values(), strict=True):
        shown = Entity(component).rendered(json.dumps(said))
        assert float(shown) == (25.0 if label == labels[1] else 0.0)


def test_the_short_list_is_shown_as_text_and_none_without_one() -> None:
    entity = Entity(payload(SUBSTANCES)["components"]["short_list"])
    listed = {"short_list": {"coverage": 0.7, "labels": ["mint", "lemon", "kiwi"]}}
    assert entity.rendered(json.dumps(listed)) == "mint, lemon, kiwi"
    assert entity.rendered(json.dumps({"short_list": None})) == NOTHING


def test_each_entity_follows_its_own_model_of_two_on_a_topic() -> None:
    announced = payload(SUBSTANCES, AnnouncedModel("other", "substance", ("tar",), ("1",)))[
        "components"
    ]
    entity = Entity(announced["substance_other"])
    entity.take('{"model": "nose", "label": "mint"}')
    assert entity.state == UNKNOWN
    entity.take('{"model": "other", "label": "tar"}')
    entity.take('{"model": "nose", "label": "mint"}')
    assert entity.state == "tar"


def test_removed_components_are_given_by_their_platform_alone(
    tmp_path: Path, toy_mixtures: Path
) -> None:
    collector = StateCollector()
    bundle = load_bundle(toy_mixtures)
    first = Discovery(config(tmp_path), version="1")
    first.use_publisher(collector)
    first.announce([bundle], {}, (), {})
    assert {f"mixture_{label}" for label in LABELS} < set(collector.components())
    # Another start, which runs no mixture model any more.
    later = Discovery(config(tmp_path), version="1")
    later.use_publisher(collector)
    later.announce([], {}, (), {})
    announced = collector.components()
    assert all(announced[f"mixture_{label}"] == {"platform": "sensor"} for label in LABELS)
    later.announce([bundle], {}, (), {})
    assert "state_topic" in collector.components()["mixture_lemon"]


def test_the_payload_is_sent_only_when_it_changes(tmp_path: Path, toy_substances: Path) -> None:
    collector = StateCollector()
    bundle = load_bundle(toy_substances)
    discovery = Discovery(config(tmp_path), version="1")
    discovery.use_publisher(collector)
    for _ in range(3):
        discovery.announce([bundle], {}, (), {})
    assert len(collector.held) == 1
    head = TaughtHead(hidden=frozenset({"mint"}), renamed={"lemon": "citron"})
    discovery.announce([bundle], {"toy-substance": head}, (), {})
    assert collector.components()["substance"]["options"] == [NOTHING, "citron", "garlic"]
    discovery.announce([bundle], {}, ("soap", "lemon"), {"toy-substance": ("0.9", "1.0")})
    announced = collector.components()
    assert announced["substance"]["options"] == [NOTHING, *LABELS, "soap"]
    assert announced["version_toy_substance"]["options"] == ["0.9", "1.0"]


@pytest.mark.parametrize(
    ("setting", "moved_to"), [(False, None), ("house", "house/device/scentd_rig/config")]
)
def test_an_announcement_on_another_topic_is_removed(
    tmp_path: Path, toy_substances: Path, setting: bool | str, moved_to: str | None
) -> None:
    bundle = load_bundle(toy_substances)
    collector = StateCollector()
    before = Discovery(config(tmp_path), version="1")
    before.use_publisher(collector)
    before.announce([bundle], {}, (), {})
    old_topic = collector.held[0][0]
    assert old_topic == "homeassistant/device/scentd_rig/config"
    after = Discovery(config(tmp_path, setting), version="1")
    after.use_publisher(collector)
    after.announce([bundle], {}, (), {})
    assert collector.held[1] == (old_topic, "")
    assert [topic for topic, _ in collector.held[2:]] == ([] if moved_to is None else [moved_to])
    if setting is False:
        third = StateCollector()
        Discovery(config(tmp_path, False), version="1").use_publisher(third)
        assert third.held == []


@pytest.mark.parametrize(
    "content",
    [
        '{"topic": 3',
        "[" * 100_000,
        '{"topic": "scent/rig/status", "gone": {}}',
        '{"topic": "homeassistant/#/device/scentd_rig/config", "gone": {}}',
        '{"topic": "homeassistant/device/scentd_rig/config", "gone": {}, "sha256": "0"}',
    ],
    ids=["cut", "deep", "another topic", "wildcard", "checksum"],
)
def test_the_rig_is_announced_with_a_damaged_file_of_the_last_announcement(
    tmp_path: Path, toy_substances: Path, content: str
) -> None:
    (tmp_path / "home_assistant.json").write_text(content, encoding="utf-8")
    collector = StateCollector()
    discovery = Discovery(config(tmp_path), version="1")
    discovery.use_publisher(collector)
    discovery.announce([load_bundle(toy_substances)], {}, (), {})
    assert "substance" in collector.components()


def test_birth_messages_are_answered_at_a_limited_rate(tmp_path: Path) -> None:
    now_s = 100.0
    collector = StateCollector()
    discovery = Discovery(config(tmp_path), version="1", clock=lambda: now_s)
    discovery.use_publisher(collector)

    def repeated(wait_s: float) -> int:
        nonlocal now_s
        now_s += wait_s
        discovery.announce([], {}, (), {})
        return len(collector.repeated)

    discovery.on_birth(b"offline")
    assert repeated(REPEAT_WITHIN_S) == 0
    for _ in range(50):
        discovery.on_birth(b"online")
    assert repeated(REPEAT_WITHIN_S) == 1
    assert repeated(REPEAT_AFTER_S) == 1
    discovery.on_birth(b"online")
    assert repeated(REPEAT_WITHIN_S) == 2


def test_the_rigs_of_a_fleet_answer_a_birth_message_one_after_the_other(tmp_path: Path) -> None:
    now_s = 0.0
    collector = StateCollector()
    rigs = [
        Discovery(config(tmp_path), version="1", clock=lambda: now_s, source=random.Random(number))
        for number in range(200)
    ]
    for rig in rigs:
        rig.use_publisher(collector)
        rig.on_birth(b"online")
    of_second = []
    while now_s < REPEAT_WITHIN_S:
        now_s += 1.0
        before = len(collector.repeated)
        for rig in rigs:
            rig.announce([], {}, (), {})
        of_second.append(len(collector.repeated) - before)
    assert sum(of_second) == len(rigs)
    assert max(of_second) < 80


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("true", "homeassistant"), ("false", None), ("house/ha", "house/ha"), ('"off"', "off")],
)
def test_the_setting_is_a_switch_or_a_prefix(tmp_path: Path, text: str, prefix: str | None) -> None:
    path = tmp_path / "scentd.yaml"
    path.write_text(
        f"rig_id: rig\nsource: {{port: x}}\nmodels: [a]\nmqtt: {{home_assistant: {text}}}", "utf-8"
    )
    assert load_config(path, {}).mqtt.discovery_prefix == prefix
    assert load_config(path, {"SCENTD_MQTT__HOME_ASSISTANT": "false"}).mqtt.discovery_prefix is None
    with pytest.raises(ConfigError, match=r"mqtt\.home_assistant: say true, false, or"):
        load_config(path, {"SCENTD_MQTT__HOME_ASSISTANT": "home/#"})


def test_home_assistant_shows_the_predictions_of_the_rig(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path, toy_mixtures: Path
) -> None:
    link = tmp_path / "ttyBOARD"
    settings = (
        f"rig_id: rig\nsource: {{port: {link}}}\nmodels: [{toy_substances}, {toy_mixtures}]\n"
        f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\nstate_dir: state\nlive_stride_s: 1\n"
        "exposure: {warm_up_min_s: 5, warm_up_max_s: 20, quiet_s: 10}\n"
    )
    with HomeAssistant(broker.port) as home, ServiceProcess(tmp_path, settings) as daemon:
        wait_until(lambda: home.payloads, "discovery")
        jsonschema.validate(home.payloads[-1], SCHEMA)
        wait_until(lambda: home.state("board") == "off", "the board to be missed")
        assert home.state("substance") == UNAVAILABLE
        wait_until(lambda: home.state("problem") == "on", "the problem to be announced")
        with SimulatedBoard(Odours(((None, 60), (NO2, 600))), link=link, speed=20):
            wait_until(lambda: home.state("substance") == "lemon", "the smell")
            wait_until(lambda: float(home.state("confidence") or 0) > 50, "its confidence")
            assert home.state("board") == "on"
            assert home.state("mixture_state") in {str(state) for state in State}
            before = len(home.payloads)
            home.be_born()
            wait_until(lambda: len(home.payloads) > before, "discovery after the birth")
            wait_until(lambda: home.state("event") not in (None, UNKNOWN), "an event")
        daemon.end()
        wait_until(lambda: home.state("board") == UNAVAILABLE, "the service to be missed")
    with HomeAssistant(broker.port) as home:  # a restart: what is retained is enough
        wait_until(lambda: home.state("board") == UNAVAILABLE, "the retained payload")
    off = settings.replace("mqtt: {", "mqtt: {home_assistant: false, ")
    with HomeAssistant(broker.port) as home:
        wait_until(lambda: "substance" in home.entities, "the retained payload")
        with ServiceProcess(tmp_path, off):
            wait_until(lambda: not home.entities, "the device to be removed")
    with HomeAssistant(broker.port) as home:
        wait_until(
            lambda: topic_prefix("rig") + "status" in home.texts, "the rig's retained status"
        )
        assert home.payloads == []


def test_the_attributes_of_a_substance_are_its_likeliest_labels() -> None:
    component = payload(SUBSTANCES)["components"]["substance"]
    prediction = {
        "top": [{"label": "mint", "probability": 0.4}],
        "set": None,
        "novelty": 0.5,
        "short_list": {"coverage": 0.7, "labels": ["mint", "lemon", "kiwi"]},
        "reason": None,
        "model": "nose",
    }
    template = {**component, "value_template": component["json_attributes_template"]}
    shown = json.loads(Entity(template).rendered(json.dumps(prediction)))
    assert shown["top"] == prediction["top"]
    assert shown["probably_one_of"] == ["mint", "lemon", "kiwi"]


@pytest.mark.parametrize(
    ("key", "value", "command", "fields"),
    [
        ("teach", 'say "soap" }}', "enroll", {"action": "teach", "label": 'say "soap" }}'}),
        ("promote", None, "enroll", {"action": "promote"}),
        ("undo_teaching", None, "enroll", {"action": "rollback"}),
        ("right", None, "feedback", {"verdict": "right"}),
        ("wrong", None, "feedback", {"verdict": "wrong"}),
        ("it_was", "soap", "feedback", {"verdict": "wrong", "label": "soap"}),
        ("record", "on", "record", {"action": "start"}),
        ("record", "off", "record", {"action": "stop"}),
        ("baseline", None, "calibrate", {"action": "baseline", "last_s": 60}),
        ("calibrate", None, "calibrate", {"action": "fit"}),
        ("version_nose", "1", "models", {"action": "switch", "name": "nose", "version": "1"}),
        ("update_nose", None, "models", {"action": "switch", "name": "nose", "version": "1"}),
    ],
)
def test_every_action_is_a_request_that_its_schema_knows(
    key: str, value: str | None, command: str, fields: dict[str, Any]
) -> None:
    topic, text = Entity(payload(SUBSTANCES)["components"][key]).command(value)
    request = json.loads(text)
    assert topic == f"scent/rig/request/{command}"
    assert fields.items() <= request.items()
    path = ROOT / f"daemon/schemas/request_{command}.json"
    jsonschema.validate(request, json.loads(path.read_text(encoding="utf-8")))


def test_a_smell_is_taught_and_announced_from_home_assistant(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    link = tmp_path / "ttyBOARD"
    settings = (
        f"rig_id: rig\nsource: {{port: {link}}}\nmodels: [{toy_substances}]\n"
        f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\nstate_dir: state\nlive_stride_s: 1\n"
        "exposure: {warm_up_min_s: 5, warm_up_max_s: 20, quiet_s: 10}\n"
    )
    with (
        HomeAssistant(broker.port) as home,
        ServiceProcess(tmp_path, settings),
        ExitStack() as board,
    ):
        wait_until(lambda: home.payloads, "discovery")
        board.enter_context(SimulatedBoard(Odours(((None, 60), (NO2, 6000))), link=link, speed=8))
        wait_until(lambda: home.state("substance") == "lemon", "the smell")
        home.act("teach", "soap")
        wait_until(lambda: "Learnt soap" in str(home.state("answer")), "the answer in words")
        assert "It is in shadow" in str(home.state("answer"))
        assert "soap" not in home.entities["substance"].config["options"]
        home.act("promote")
        wait_until(lambda: "soap" in home.entities["substance"].config["options"], "the new option")
        assert home.state("record") == "off"
        home.act("record", "on")
        wait_until(lambda: "The recording is" in str(home.state("answer")), "the answer")
        home.act("it_was", "tea")
        wait_until(lambda: "wrong, it was tea" in str(home.state("answer")), "the verdict")
        home.act("version_toy_substance", "7.7")
        wait_until(lambda: "7.7 is not installed" in str(home.state("answer")), "the refusal")
