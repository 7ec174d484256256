"""Daemon: the payload that announces a rig to Home Assistant: one device and its entities.

Pure: from a rig's name and its models' labels to the payload of MQTT device discovery. Knows the
payloads that the rig publishes, whose fields the templates read; no socket and no clock.

The format is Home Assistant's: https://www.home-assistant.io/integrations/mqtt/ (device discovery)
and, per platform, sensor.mqtt, binary_sensor.mqtt and event.mqtt beside it. The templates use only
what Jinja itself offers.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.board.monitor import BoardState
from daemon.config.settings import RIG_ID_PATTERN
from daemon.mqtt.home_assistant_actions import (
    STATE_LIMIT,
    Component,
    action_components,
    version_components,
)
from daemon.mqtt.payloads import RigEventType
from daemon.mqtt.topics import (
    EVENT,
    HEALTH,
    MIXTURE,
    OFFLINE,
    ONLINE,
    SENSOR_STATUS,
    STATUS,
    SUBSTANCE,
    topic_prefix,
)
from daemon.recording.recorder import RecorderState
from models.decision_spec import State
from models.results import EventType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NOTHING = "none"
"""Option of `substance` while no label is announced; `state` gives the reason."""

UNKNOWN = "'None'"
"""The result of a template that Home Assistant shows as `unknown`."""

MIN_EXPIRY_S = 60
EXPIRY_STRIDES = 4
HEALTH_EXPIRY_S = 60
"""Six times the interval of `health`: an older value describes another situation."""

_TOPICS = ("state_topic", "command_topic", "json_attributes_topic")
"""Options of a component that are topics, given below the rig's prefix."""

FAULTLESS = ["ok", "missing", "spike"]
"""States of a channel that are no fault: a board may lack it, and a spike is one reading."""

CALIBRATION_STATES = ("none", "ok", "recalibrate", "unusable")

PERCENT = {
    "unit_of_measurement": "%",
    "state_class": "measurement",
    "suggested_display_precision": 0,
}


@dataclass(frozen=True, slots=True)
class AnnouncedModel:
    """A running model.

    Attributes
    ----------
    name, task: of the model.
    labels: those that it may announce.
    versions: those that the rig can switch to, the newest last; at least the one that runs.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    versions: tuple[str, ...]


def device_id(rig_id: str) -> str:
    """Return the rig's identifier in Home Assistant."""
    return f"scentd_{rig_id}"


def config_topic(prefix: str, rig_id: str) -> str:
    """Return the topic of the rig's discovery payload."""
    return f"{prefix}/device/{device_id(rig_id)}/config"


_CONFIG_TOPIC = re.compile(rf"[^+#\x00]+/device/scentd_{RIG_ID_PATTERN}/config")


def is_config_topic(value: object) -> bool:
    """Tell whether a value read from a file is a topic that `config_topic` returns."""
    return isinstance(value, str) and _CONFIG_TOPIC.fullmatch(value) is not None


def birth_topic(prefix: str) -> str:
    """Return the topic on which Home Assistant announces its start."""
    return f"{prefix}/status"


def device_payload(
    *,
    rig_id: str,
    version: str,
    models: Sequence[AnnouncedModel],
    live_stride_s: float,
    announced: Mapping[str, str],
) -> dict[str, Any]:
    """Return the discovery payload of a rig.

    Parameters
    ----------
    rig_id: names the device and its topics.
    version: of scentd.
    models: those that run.
    live_stride_s: seconds between two predictions; a result that misses several has expired.
    announced: platform by key of every component of earlier payloads. Home Assistant removes a
        component of which nothing but its platform is given.
    """
    expiry_s = max(MIN_EXPIRY_S, math.ceil(EXPIRY_STRIDES * live_stride_s))
    live = components(rig_id, models, expiry_s)
    removed = {
        key: {"platform": platform} for key, platform in announced.items() if key not in live
    }
    return {
        "device": {
            "identifiers": [device_id(rig_id)],
            "name": f"Scent {rig_id}",
            "manufacturer": "scentd",
            "model": "gas-sensor rig",
            "sw_version": version,
        },
        "origin": {"name": "scentd", "sw_version": version},
        "availability": [_availability(rig_id, STATUS), _availability(rig_id, SENSOR_STATUS)],
        "availability_mode": "all",
        "qos": 1,
        "components": {**removed, **live},
    }


def components(
    rig_id: str, models: Sequence[AnnouncedModel], expiry_s: int
) -> dict[str, Component]:
    """Return every entity of the rig by its key."""
    found: dict[str, Component] = {}
    for task, build in ((SUBSTANCE, _substances), (MIXTURE, _mixtures)):
        of_task = [model for model in models if model.task == task]
        for model in of_task:
            own = build(model, expiry_s)
            if len(of_task) > 1:
                own = {
                    f"{key}_{_slug(model.name)}": _of_model(component, model.name)
                    for key, component in own.items()
                }
            found |= own
    found |= {EVENT: _event()} | _diagnostics(rig_id) | _actions(rig_id, models)
    prefix = topic_prefix(rig_id)
    return {
        key: {
            **component,
            "unique_id": f"{device_id(rig_id)}_{key}",
            **{name: prefix + component[name] for name in _TOPICS if name in component},
        }
        for key, component in found.items()
    }


def _actions(rig_id: str, models: Iterable[AnnouncedModel]) -> dict[str, Component]:
    """Return the entities that send requests, available while the service is."""
    found = action_components()
    for model in models:
        for kind, component in version_components(model.name, model.versions):
            found[_free_key(f"{kind}_{_slug(model.name)}", found)] = component
    own = {"availability": [_availability(rig_id, STATUS)]}
    return {key: {**component, **own} for key, component in found.items()}


def _substances(model: AnnouncedModel, expiry_s: int) -> dict[str, Component]:
    """Return the substance, its probability, the short list, and the state of the model."""
    labels = [label for label in model.labels if label != NOTHING]
    return {
        "substance": _sensor(
            "Substance",
            SUBSTANCE,
            f"{{{{ value_json.label if value_json.label is not none else '{NOTHING}' }}}}",
            **_enum([NOTHING, *labels]),
            expire_after=expiry_s,
            icon="mdi:scent",
            json_attributes_topic=SUBSTANCE,
            json_attributes_template=_ATTRIBUTES,
        ),
        "confidence": _sensor(
            "Confidence",
            SUBSTANCE,
            "{{ (value_json.probability * 100) | round(1) "
            f"if value_json.probability is not none else {UNKNOWN} }}}}",
            **PERCENT,
            expire_after=expiry_s,
        ),
        "short_list": _sensor(
            "Probably one of",
            SUBSTANCE,
            f"{{{{ (value_json.short_list.labels | join(', '))[:{STATE_LIMIT}] "
            f"if value_json.short_list else '{NOTHING}' }}}}",
            expire_after=expiry_s,
            icon="mdi:format-list-bulleted",
        ),
        "state": _state("State", SUBSTANCE),
    }


def _mixtures(model: AnnouncedModel, expiry_s: int) -> dict[str, Component]:
    """Return the share of every component, and the state of the model."""
    idle = [str(State.WARMING_UP), str(State.FAULT), str(State.DISABLED)]
    found = {"mixture_state": _state("Mixture state", MIXTURE)}
    for label in model.labels:
        key = _free_key(f"mixture_{_slug(label)}", found)
        found[key] = _sensor(
            f"Share of {label}",
            MIXTURE,
            f"{{% set share = value_json.components | selectattr('label', 'eq', {_quoted(label)}) "
            "| map(attribute='proportion') | list %}"
            f"{{{{ (share[0] * 100) | round(1) if share else "
            f"({UNKNOWN} if value_json.state in {idle} else 0) }}}}",
            **PERCENT,
            expire_after=expiry_s,
        )
    return found


def _event() -> Component:
    """Return the entity of all events."""
    return {
        "platform": "event",
        "name": "Event",
        "state_topic": EVENT,
        "event_types": [str(kind) for kind in (*EventType, *RigEventType)],
        "value_template": "{{ {'event_type': value_json.type, 'label': value_json.label, "
        "'model': value_json.model, 'probability': value_json.probability, "
        "'channel': value_json.channel, 'detail': value_json.detail} | tojson }}",
    }


def _diagnostics(rig_id: str) -> dict[str, Component]:
    """Return the entities about the rig itself, available while the service is."""
    faults = (
        "(value_json.channels or {}).items() "
        f"| rejectattr(1, 'in', {FAULTLESS}) | map('join', ' ') | list"
    )
    # Every part of the rig that can fail gives its reason; a channel, its name and state.
    why = (
        f"{{% set why = ([value_json.board.why, value_json.recording.why, value_json.outbox.why, "
        f"value_json.calibration.why] | select | list) + ({faults}) %}}"
    )
    count = {"state_class": "total_increasing"}  # starts again with the process
    measured = {"state_class": "measurement"}
    hidden = {"enabled_by_default": False}
    gauges: dict[str, tuple[str, str, Component]] = {
        "fault": ("Fault", f"{why}{{{{ (why | join('; '))[:{STATE_LIMIT}] or 'none' }}}}", {}),
        "board_state": ("Board state", _text("board.state"), _enum(BoardState)),
        "calibration": ("Calibration", _text("calibration.state"), _enum(CALIBRATION_STATES)),
        "recording": ("Recording", _text("recording.state"), _enum(RecorderState)),
        "rate": (
            "Rate",
            _number("rate_hz"),
            _unit("Hz", "frequency") | measured | {"suggested_display_precision": 1},
        ),
        "frames_lost": ("Readings lost", _number("frames_lost"), count),
        "board_losses": ("Board lost", _number("board.losses"), count),
        "outbox_depth": ("Waiting for the broker", _number("outbox_depth"), measured),
        "outbox_dropped": ("Messages lost", _number("outbox_dropped"), count),
        "memory": ("Memory", _number("rss_mb"), _unit("MB", "data_size") | measured | hidden),
        "uptime": ("Up for", _number("uptime_s"), _unit("s", "duration") | hidden),
    }
    found: dict[str, Component] = {
        "board": {
            "platform": "binary_sensor",
            "name": "Board",
            "state_topic": SENSOR_STATUS,
            "device_class": "connectivity",
            "payload_on": ONLINE,
            "payload_off": OFFLINE,
        },
        "problem": {
            "platform": "binary_sensor",
            "name": "Problem",
            "state_topic": HEALTH,
            "device_class": "problem",
            "value_template": why + "{{ 'ON' if why else 'OFF' }}",
            "expire_after": HEALTH_EXPIRY_S,
        },
    }
    for key, (name, template, more) in gauges.items():
        found[key] = _sensor(name, HEALTH, template, expire_after=HEALTH_EXPIRY_S, **more)
    own = {"entity_category": "diagnostic", "availability": [_availability(rig_id, STATUS)]}
    return {key: {**component, **own} for key, component in found.items()}


_ATTRIBUTES = (
    "{{ {'top': value_json.top, 'set': value_json.set, 'novelty': value_json.novelty, "
    "'probably_one_of': value_json.short_list.labels if value_json.short_list else [], "
    "'reason': value_json.reason, 'model': value_json.model} | tojson }}"
)
"""Attributes of a substance: the likeliest labels with their probabilities, and the rest."""


def _sensor(name: str, topic: str, template: str, **more: Any) -> Component:
    return {
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": template,
        **more,
    }


def _enum(options: Iterable[str]) -> Component:
    return {"device_class": "enum", "options": [str(option) for option in options]}


def _unit(unit: str, device_class: str) -> Component:
    return {"unit_of_measurement": unit, "device_class": device_class}


def _state(name: str, topic: str) -> Component:
    """Return a model's state. It does not expire: a disabled model publishes it only once."""
    return _sensor(name, topic, _text("state"), **_enum(State))


def _text(field: str) -> str:
    return f"{{{{ value_json.{field} }}}}"


def _number(field: str) -> str:
    return f"{{{{ value_json.{field} if value_json.{field} is not none else {UNKNOWN} }}}}"


def _of_model(component: Component, model: str) -> Component:
    """Return an entity that ignores the payloads of the other models on its topic."""
    template = component["value_template"]
    kept = f"{{{{ this.state if this.state not in ['unknown', 'unavailable'] else {UNKNOWN} }}}}"
    # Attributes cannot be kept over a payload of another model, so that two models have none.
    kept_options = {
        name: value for name, value in component.items() if not name.startswith("json_attributes")
    }
    return {
        **kept_options,
        "name": f"{component['name']} ({model})",
        "value_template": f"{{% if value_json.model == {_quoted(model)} %}}{template}"
        f"{{% else %}}{kept}{{% endif %}}",
    }


def _availability(rig_id: str, topic: str) -> dict[str, str]:
    return {
        "topic": topic_prefix(rig_id) + topic,
        "payload_available": ONLINE,
        "payload_not_available": OFFLINE,
    }


def _quoted(text: str) -> str:
    """Return a text as Jinja writes one."""
    return json.dumps(text, ensure_ascii=False)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "label"


def _free_key(wanted: str, taken: Mapping[str, object]) -> str:
    """Return `wanted`, with a number if another label has it already."""
    key, number = wanted, 2
    while key in taken:
        key, number = f"{wanted}_{number}", number + 1
    return key
