"""Daemon: the entities of Home Assistant that act on a rig: teach, correct, record, switch models.

Pure: returns components of the discovery payload (`daemon.mqtt.home_assistant`). Each writes a
request (`request/COMMAND`); the answer of every request is shown by the sensor "Last answer".

The platforms are Home Assistant's text.mqtt, button.mqtt, switch.mqtt, select.mqtt and update.mqtt:
https://www.home-assistant.io/integrations/mqtt/.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from daemon.mqtt.topics import HEALTH, INFO, REQUEST, RESPONSE
from daemon.recording.recorder import RecorderState
from hardware.labels import MAX_LABEL_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Component = dict[str, Any]

TEACH_S = 60
"""Seconds that "Teach this smell" learns from, beginning now. The readings before them are passed
on too, so that the clean air before the onset is known."""

BASELINE_S = 60
"""Seconds of clean air that "Measure clean air" takes; they have passed already."""

STATE_LIMIT = 250
"""Home Assistant refuses states of more than 255 characters."""


def action_components() -> dict[str, Component]:
    """Return the entities that teach, correct, calibrate and record, by key."""
    return {
        "teach": _text("Teach this smell", "enroll", "mdi:school", action="teach", seconds=TEACH_S),
        "promote": _button(
            "Announce the smell taught last", "enroll", "mdi:bullhorn", action="promote"
        ),
        "undo_teaching": _button(
            "Undo the last change of smells", "enroll", "mdi:undo", action="rollback"
        ),
        "right": _button("That was right", "feedback", "mdi:thumb-up", verdict="right"),
        "wrong": _button("That was wrong", "feedback", "mdi:thumb-down", verdict="wrong"),
        "it_was": _text("It was", "feedback", "mdi:pencil", verdict="wrong"),
        "baseline": _button(
            "Measure clean air",
            "calibrate",
            "mdi:weather-windy",
            action="baseline",
            last_s=BASELINE_S,
        )
        | {"entity_category": "config"},
        "calibrate": _button("Fit the calibration", "calibrate", "mdi:tune", action="fit")
        | {"entity_category": "config"},
        "record": {
            "platform": "switch",
            "name": "Record",
            "state_topic": HEALTH,
            "value_template": f"{{{{ 'off' if value_json.recording.state == '{RecorderState.OFF}' "
            "else 'on' }}",
            "state_on": "on",
            "state_off": "off",
            "command_topic": _request("record"),
            "payload_on": json.dumps({"action": "start"}),
            "payload_off": json.dumps({"action": "stop"}),
            "entity_category": "config",
            "icon": "mdi:record-rec",
        },
        "answer": {
            "platform": "sensor",
            "name": "Last answer",
            "state_topic": f"{RESPONSE}/+",
            "value_template": f"{{{{ value_json.words[:{STATE_LIMIT}] }}}}",
            "json_attributes_topic": f"{RESPONSE}/+",
            "json_attributes_template": "{{ {'words': value_json.words, "
            "'status': value_json.status} | tojson }}",
            "icon": "mdi:message-text",
        },
    }


def version_components(name: str, versions: Iterable[str]) -> Iterator[tuple[str, Component]]:
    """Yield a select of a model's version, and the update to its newest, with their kinds.

    Parameters
    ----------
    name: of the model.
    versions: those that the rig can switch to, the newest last.
    """
    options = list(versions)
    version = (
        f"{{% set ours = value_json.models | selectattr('name', 'eq', {json.dumps(name)}) "
        "| map(attribute='version') | list %}"
    )
    yield (
        "version",
        {
            "platform": "select",
            "name": f"Version of {name}",
            "state_topic": INFO,
            "value_template": f"{version}{{{{ ours[0] if ours else 'None' }}}}",
            "options": options,
            "command_topic": _request("models"),
            "command_template": _payload(action="switch", name=name, version="{value}"),
            "entity_category": "config",
            "icon": "mdi:brain",
        },
    )
    yield (
        "update",
        {
            "platform": "update",
            "name": f"Update of {name}",
            "title": name,
            "state_topic": INFO,
            "value_template": f"{version}{{{{ {{'installed_version': ours[0] if ours else none, "
            f"'latest_version': {json.dumps(options[-1])}}} | tojson }}}}",
            "command_topic": _request("models"),
            "payload_install": json.dumps(
                {"action": "switch", "name": name, "version": options[-1]}
            ),
            "entity_category": "config",
        },
    )


def _text(name: str, command: str, icon: str, **fields: object) -> Component:
    """Return a text whose value becomes the label of a request."""
    return {
        "platform": "text",
        "name": name,
        "command_topic": _request(command),
        "command_template": _payload(**fields, label="{value}"),
        "min": 1,
        "max": MAX_LABEL_LENGTH,
        "icon": icon,
    }


def _button(name: str, command: str, icon: str, **fields: object) -> Component:
    return {
        "platform": "button",
        "name": name,
        "command_topic": _request(command),
        "payload_press": json.dumps(fields),
        "icon": icon,
    }


def _payload(**fields: object) -> str:
    """Return the template of a request; "{value}" stands for what the entity was set to."""
    return json.dumps(fields).replace('"{value}"', "{{ value | tojson }}")


def _request(command: str) -> str:
    return f"{REQUEST}/{command}"
