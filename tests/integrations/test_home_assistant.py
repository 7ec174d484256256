"""Home Assistant's real core shows a rig, teaches it, and runs the blueprint.

Needs a Python with Home Assistant, named by SCENTD_HOME_ASSISTANT (CONTRIBUTING.md says how to
make one); skipped without it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest

from tests.sandbox import ROOT, Mosquitto, ServiceProcess, wait_until

PYTHON = os.environ.get("SCENTD_HOME_ASSISTANT", "")
BLUEPRINT = "notify_on_a_smell.yaml"
AUTOMATION = {
    "alias": "notify",
    "use_blueprint": {
        "path": f"scentd/{BLUEPRINT}",
        "input": {"substance": "sensor.scent_rig_substance", "lasting": "00:00:01"},
    },
}

pytestmark = pytest.mark.skipif(
    not PYTHON, reason="SCENTD_HOME_ASSISTANT names no Python with Home Assistant"
)


class Core:
    """The real core in a process of its own; a context manager."""

    def __init__(self, folder: Path, port: int) -> None:
        blueprints = folder / "blueprints" / "automation" / "scentd"
        blueprints.mkdir(parents=True)
        (folder / "configuration.yaml").touch()
        shutil.copy(ROOT / "integrations" / "home-assistant" / BLUEPRINT, blueprints)
        script = Path(__file__).with_name("home_assistant_core.py")
        self._process = subprocess.Popen(
            [PYTHON, script, folder, str(port), json.dumps(AUTOMATION)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "log").open("w"),
            text=True,
        )

    def __enter__(self) -> Self:
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def call(self, domain: str, service: str, key: str, **data: object) -> None:
        """Call a service for the rig's entity of a key."""
        entity = self.states()[key]["entity_id"]
        answer = self._ask({"call": [domain, service, {"entity_id": entity, **data}]})
        assert answer is True, answer

    def states(self) -> dict[str, Any]:
        """Return every entity by its key, and the notifications."""
        states: dict[str, Any] = self._ask({"states": True})
        return {key.removeprefix("scentd_rig_"): value for key, value in states.items()}

    def state(self, key: str) -> str | None:
        """Return the state of an entity, None where there is none."""
        found = self.states().get(key)
        return None if found is None else str(found["state"])

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def test_a_smell_is_shown_taught_and_promoted_from_home_assistant(
    broker: Mosquitto, tmp_path: Path, rig: ServiceProcess
) -> None:
    with Core(tmp_path / "home", broker.port) as home:
        wait_until(lambda: home.state("substance") == "lemon", "the smell")
        attributes = home.states()["substance"]["attributes"]
        assert attributes["top"][0]["label"] == "lemon"
        wait_until(lambda: home.states()["notifications"], "the blueprint's notification")
        title, message = home.states()["notifications"][0]
        assert title == "Smell: lemon"
        assert "with a probability of" in message
        assert home.state("update_toy_substance") == "off"
        home.call("text", "set_value", "teach", value="soap")
        wait_until(lambda: "Learnt soap" in str(home.state("answer")), "the answer in words")
        home.call("button", "press", "promote")
        wait_until(
            lambda: "soap" in home.states()["substance"]["attributes"]["options"], "the new option"
        )
        home.call("switch", "turn_on", "record")
        wait_until(lambda: home.state("record") == "on", "the recording")
        home.call("select", "select_option", "version_toy_substance", option="1.2.3")
        wait_until(lambda: "is not installed" in str(home.state("answer")), "the answer")
        assert set(home.states()) >= {"right", "wrong", "it_was", "baseline", "calibrate"}
