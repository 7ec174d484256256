"""Every state of a prediction, reached by whole scripts of odours through the real service.

A simulated board on a pseudo-terminal plays the script, the service runs in its own process,
and its messages are read from Mosquitto. As the board has a clock of its own, two hundred times
real time is safe.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hardware.simulator.board import SimulatedBoard
from models.decision_spec import DecisionSpec
from models.manifest import ARRAYS, write_bundle
from tests.models.toys import EMBEDDING, toy_arrays, toy_files, toy_manifest, toy_space
from tests.sandbox import ROOT, Mosquitto, Odours, ServiceProcess, Subscriber

NO2, ETHANOL, VOC, CO = range(4)
SPEED = 200.0
SCHEMAS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in (ROOT / "daemon" / "schemas").glob("*.json")
}

Said = list[dict[str, Any]]


class Episode:
    """What a rig published from its first reading to its last."""

    def __init__(self, ear: Subscriber) -> None:
        self._ear = ear

    def payloads(self, topic: str) -> Said:
        """Return what was published on a topic, in order, checked by its schema."""
        said = [json.loads(text) for text in self._ear.texts(f"scent/rig/{topic}")]
        for payload in said:
            jsonschema.validate(payload, SCHEMAS[topic])
        return said

    def course(self, topic: str = "substance") -> list[str]:
        """Return the states in order, each run of equal ones once."""
        states = (payload["state"] for payload in self.payloads(topic))
        return [state for state, _ in itertools.groupby(states)]

    def events(self) -> list[str]:
        """Return the types of the events, in order."""
        return [payload["type"] for payload in self.payloads("event")]


@contextmanager
def episode(
    broker: Mosquitto,
    folder: Path,
    models: list[Path],
    script: tuple[tuple[int | None, int], ...],
    *,
    faults: str = "",
    more: str = "",
) -> Iterator[Episode]:
    """Play a script to its end; the service has stopped when the block begins."""
    link = folder / "ttySIM"
    settings = (
        f"rig_id: rig\nsource: {{port: {link}}}\nmodels: [{', '.join(map(str, models))}]\n"
        f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\nstate_dir: state\n"
        f"live_stride_s: 2\n{more}"
    )
    with Subscriber(broker.port) as ear:
        with (
            SimulatedBoard(
                Odours(script), link=link, speed=SPEED, wait_for_listener=True, faults=faults or ()
            ) as board,
            ServiceProcess(folder, settings) as daemon,
        ):
            assert board.wait(60)
            assert daemon.end() == 0
        ear.await_text("scent/rig/status", "offline")
        yield Episode(ear)


@pytest.fixture(scope="module")
def model_with_novelty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of lemon, mint and garlic that recognises when an odour is none of them."""
    decision = DecisionSpec(
        novelty="cosine", unknown_above=0.5, unknown_after=0.5, set_threshold=0.2
    )
    descriptors = tuple(f"smell-{number}" for number in range(EMBEDDING))
    folder = tmp_path_factory.mktemp("bundles") / "toy-substance"
    write_bundle(
        folder,
        toy_manifest(decision=decision, descriptors=descriptors),
        {**toy_files(describes=True), ARRAYS: toy_arrays(toy_space())},
    )
    return folder


def follows(course: list[str], expected: list[str]) -> bool:
    """Whether `expected` comes in `course` in this order, with anything in between."""
    rest = iter(course)
    return all(state in rest for state in expected)


def test_an_odour_between_clean_air_leads_through_every_state_in_order(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    script = ((None, 90), (NO2, 60), (None, 120))
    with episode(broker, tmp_path, [toy_substances], script) as rig:
        course = rig.course()
        assert follows(
            course, ["warming_up", "ambient", "sensing", "recognised", "recovering", "ambient"]
        )
        assert course[0] == "warming_up"
        assert course[-1] == "ambient"
        assert "fault" not in course
        said = rig.payloads("substance")
        named = {payload["label"] for payload in said if payload["state"] == "recognised"}
        assert named == {"lemon"}
        assert all(
            payload["label"] is None and payload["probability"] is None
            for payload in said
            if payload["state"] != "recognised"
        )
        assert follows(rig.events(), ["onset", "recognised", "ended"])


def test_a_second_odour_is_not_announced_by_the_name_of_the_first(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    """Comparable products keep announcing the previous odour."""
    script = ((None, 90), (NO2, 50), (None, 90), (VOC, 50), (None, 30))
    with episode(broker, tmp_path, [toy_substances], script) as rig:
        named = [payload["label"] for payload in rig.payloads("substance") if payload["label"]]
        assert [label for label, _ in itertools.groupby(named)] == ["lemon", "garlic"]
        events = [event for event in rig.events() if event in {"onset", "ended"}]
        assert events[:3] == ["onset", "ended", "onset"]


def test_an_unknown_odour_is_unrecognised_and_described(
    broker: Mosquitto, tmp_path: Path, model_with_novelty: Path
) -> None:
    script = ((None, 90), (CO, 80), (None, 120))
    with episode(broker, tmp_path, [model_with_novelty], script) as rig:
        assert follows(
            rig.course(), ["ambient", "sensing", "unrecognised", "recovering", "ambient"]
        )
        said = rig.payloads("substance")
        assert {payload["label"] for payload in said} == {None}
        strange = [payload for payload in said if payload["state"] == "unrecognised"]
        known = [payload for payload in said if payload["state"] == "ambient"]
        assert all(len(payload["descriptors"]) == 5 for payload in strange)
        assert not any(payload["descriptors"] for payload in known)
        assert min(payload["novelty"] for payload in strange) > 0.5
        assert follows(rig.events(), ["onset", "unrecognised", "ended"])


def test_a_known_odour_is_still_recognised_by_a_model_with_novelty(
    broker: Mosquitto, tmp_path: Path, model_with_novelty: Path
) -> None:
    with episode(broker, tmp_path, [model_with_novelty], ((None, 90), (ETHANOL, 60))) as rig:
        said = rig.payloads("substance")
        recognised = [payload for payload in said if payload["state"] == "recognised"]
        assert {payload["label"] for payload in recognised} == {"mint"}
        assert all("mint" in payload["set"]["labels"] for payload in recognised)
        assert "unrecognised" not in rig.course()


def test_a_fresh_rig_of_another_board_says_so_instead_of_naming(
    broker: Mosquitto, tmp_path: Path, foreign_substances: Path
) -> None:
    with episode(broker, tmp_path, [foreign_substances], ((None, 90), (NO2, 60))) as rig:
        said = rig.payloads("substance")
        assert not any(payload["label"] for payload in said)
        during = [payload for payload in said if payload["state"] == "unrecognised"]
        assert during
        assert all(payload["foreign_board"] and payload["top"] for payload in during)
        assert all("scentd enroll" in payload["reason"] for payload in during)
        info = rig.payloads("info")
        boards = [model["foreign_board"] for payload in info for model in payload["models"]]
        assert boards[-1] is True
        assert follows(rig.events(), ["onset", "unrecognised"])


def test_clean_air_alone_is_never_announced_as_a_smell(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    with episode(broker, tmp_path, [toy_substances], ((None, 240),)) as rig:
        assert set(rig.course()) <= {"warming_up", "sensing", "ambient"}
        assert rig.course()[-1] == "ambient"
        assert "recognised" not in rig.events()


def test_a_required_channel_that_fails_makes_a_fault_until_it_recovers(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path
) -> None:
    script = ((None, 260),)
    with episode(broker, tmp_path, [toy_substances], script, faults="nan:VOC@80:60") as rig:
        assert follows(rig.course(), ["ambient", "fault", "ambient"])
        faults = [payload for payload in rig.payloads("substance") if payload["state"] == "fault"]
        assert {payload["reason"] for payload in faults} != {None}
        assert all("VOC" in payload["channels_missing"] for payload in faults)
        assert follows(rig.events(), ["channel_fault", "channel_recovered"])


def test_a_model_that_the_board_cannot_feed_is_disabled_while_another_works(
    broker: Mosquitto, tmp_path: Path, toy_substances: Path, toy_mixtures: Path
) -> None:
    models = [toy_substances, toy_mixtures]
    with episode(broker, tmp_path, models, ((None, 90),)) as rig:
        (said,) = rig.payloads("mixture")
        assert said["state"] == "disabled"
        assert "reading a second" in said["reason"]
        assert "ambient" in rig.course("substance")
