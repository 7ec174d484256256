"""Daemon: what Home Assistant is told of a rig: one device and its entities, as documented there.

Pure: from a rig's name and its models' labels to the payload of MQTT device discovery. Knows the
payloads that the rig publishes, whose fields the templates read; must never know a socket or a
clock.

The format is Home Assistant's: https://www.home-assistant.io/integrations/mqtt/ (device discovery)
and, per platform, sensor.mqtt, binary_sensor.mqtt and event.mqtt beside it. The templates keep to
what Jinja itself offers.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from models.decision_spec import State
from models.results import EventType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Component = dict[str, Any]

NOTHING = "none"
"""Option of `substance` while no label is announced; `state` says why."""

UNKNOWN = "'None'"
"""What a template gives for Home Assistant's `unknown`."""

LEAST_EXPIRY_S = 60
EXPIRY_STRIDES = 4
HEALTH_EXPIRY_S = 60
"""Six times the interval of `health`: a value older than that describes another situation."""

STATE_LIMIT = 250
"""Home Assistant refuses states of more than 255 characters."""

HEALED_CHANNELS = ("ok", "missing", "spike")
"""Of a channel: no fault. A board may lack it, and a spike is over with the next reading."""

CALIBRATION_STATES = ("none", "ok", "recalibrate", "unusable")
RECORDING_STATES = ("off", "waiting", "recording", "paused")
BOARD_STATES = ("online", "absent", "silent", "nonsense")


@dataclass(frozen=True, slots=True)
class AnnouncedModel:
    """A model that speaks: its name, its task, and the labels that it may announce."""

    name: str
    task: str
    labels: tuple[str, ...]


def device_id(rig_id: str) -> str:
    """Return how Home Assistant knows the rig's device."""
    return f"scentd_{rig_id}"


def config_topic(prefix: str, rig_id: str) -> str:
    """Return the topic of the rig's discovery payload."""
    return f"{prefix}/device/{device_id(rig_id)}/config"


def birth_topic(prefix: str) -> str:
    """Return the topic on which Home Assistant says that it is there."""
    return f"{prefix}/status"


def device_payload(
    *,
    rig_id: str,
    version: str,
    speakers: Sequence[AnnouncedModel],
    live_stride_s: float,
    gone: Mapping[str, str],
) -> dict[str, Any]:
    """Return the discovery payload of a rig.

    Parameters
    ----------
    rig_id : str
        Names the device and begins its topics.
    version : str
        Of scentd.
    speakers : sequence of AnnouncedModel
        The models that run.
    live_stride_s : float
        Seconds between two predictions; a result that misses several of them has expired.
    gone : mapping
        Components of an earlier payload that there are no more, and their platforms. Named with
        nothing but its platform, Home Assistant removes a component.
    """
    expiry_s = max(LEAST_EXPIRY_S, math.ceil(EXPIRY_STRIDES * live_stride_s))
    live = components(rig_id, speakers, expiry_s)
    removed = {key: {"platform": platform} for key, platform in gone.items() if key not in live}
    return {
        "device": {
            "identifiers": [device_id(rig_id)],
            "name": f"Scent {rig_id}",
            "manufacturer": "scentd",
            "model": "gas-sensor rig",
            "sw_version": version,
        },
        "origin": {"name": "scentd", "sw_version": version},
        "availability": [_online(rig_id, STATUS), _online(rig_id, SENSOR_STATUS)],
        "availability_mode": "all",
        "qos": 1,
        "components": {**removed, **live},
    }


def components(
    rig_id: str, speakers: Sequence[AnnouncedModel], expiry_s: int
) -> dict[str, Component]:
    """Return every entity of the rig by its key."""
    found: dict[str, Component] = {}
    for task, build in ((SUBSTANCE, _substances), (MIXTURE, _mixtures)):
        of_task = [speaker for speaker in speakers if speaker.task == task]
        for speaker in of_task:
            alone = len(of_task) == 1
            for key, component in build(speaker, expiry_s).items():
                if alone:
                    found[key] = component
                else:
                    found[f"{key}_{_slug(speaker.name)}"] = _of_one(component, speaker.name)
    found |= {EVENT: _event()} | _diagnostics(rig_id)
    prefix = topic_prefix(rig_id)
    return {
        key: {
            **component,
            "unique_id": f"{device_id(rig_id)}_{key}",
            "state_topic": prefix + component["state_topic"],
        }
        for key, component in found.items()
    }


def _substances(speaker: AnnouncedModel, expiry_s: int) -> dict[str, Component]:
    """Return what is smelled, how sure that is, and in which state the model is."""
    labels = [label for label in speaker.labels if label != NOTHING]
    return {
        "substance": _sensor(
            "Substance",
            SUBSTANCE,
            f"{{{{ value_json.label if value_json.label is not none else '{NOTHING}' }}}}",
            device_class="enum",
            options=[NOTHING, *labels],
            expire_after=expiry_s,
            icon="mdi:scent",
        ),
        "confidence": _sensor(
            "Confidence",
            SUBSTANCE,
            "{{ (value_json.probability * 100) | round(1) "
            f"if value_json.probability is not none else {UNKNOWN} }}}}",
            unit_of_measurement="%",
            state_class="measurement",
            suggested_display_precision=0,
            expire_after=expiry_s,
        ),
        "state": _state("State", SUBSTANCE),
    }


def _mixtures(speaker: AnnouncedModel, expiry_s: int) -> dict[str, Component]:
    """Return every component's share, and in which state the model is."""
    idle = [str(State.WARMING_UP), str(State.FAULT), str(State.DISABLED)]
    found = {"mixture_state": _state("Mixture state", MIXTURE)}
    for label in speaker.labels:
        key = _free_key(f"mixture_{_slug(label)}", found)
        found[key] = _sensor(
            f"Share of {label}",
            MIXTURE,
            f"{{% set share = value_json.components | selectattr('label', 'eq', {_quoted(label)}) "
            "| map(attribute='proportion') | list %}"
            f"{{{{ (share[0] * 100) | round(1) if share else "
            f"({UNKNOWN} if value_json.state in {idle} else 0) }}}}",
            unit_of_measurement="%",
            state_class="measurement",
            suggested_display_precision=0,
            expire_after=expiry_s,
        )
    return found


def _event() -> Component:
    """Return the entity of everything that begins or ends."""
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
    """Return what tells how the rig is; there while the service is, whatever the board does."""
    bad = (
        "(value_json.channels or {}).items() "
        f"| rejectattr(1, 'in', {list(HEALED_CHANNELS)}) | map('join', ' ') | list"
    )
    # Every part of the rig that can fail says why; the channels say it by their names.
    why = (
        f"{{% set why = ([value_json.board.why, value_json.recording.why, value_json.outbox.why, "
        f"value_json.calibration.why] | select | list) + ({bad}) %}}"
    )
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
        "fault": _gauge("Fault", f"{why}{{{{ (why | join('; '))[:{STATE_LIMIT}] or 'none' }}}}"),
        "board_state": _gauge(
            "Board state",
            "{{ value_json.board.state }}",
            device_class="enum",
            options=list(BOARD_STATES),
        ),
        "calibration": _gauge(
            "Calibration",
            "{{ value_json.calibration.state }}",
            device_class="enum",
            options=list(CALIBRATION_STATES),
        ),
        "recording": _gauge(
            "Recording",
            "{{ value_json.recording.state }}",
            device_class="enum",
            options=list(RECORDING_STATES),
        ),
        "rate": _gauge(
            "Rate",
            _number("rate_hz"),
            device_class="frequency",
            unit_of_measurement="Hz",
            state_class="measurement",
            suggested_display_precision=1,
        ),
        "frames_lost": _counter("Readings lost", "frames_lost"),
        "board_losses": _counter("Board lost", "board.losses"),
        "outbox_depth": _gauge(
            "Waiting for the broker", _number("outbox_depth"), state_class="measurement"
        ),
        "outbox_dropped": _counter("Messages lost", "outbox_dropped"),
        "memory": _gauge(
            "Memory",
            _number("rss_mb"),
            device_class="data_size",
            unit_of_measurement="MB",
            state_class="measurement",
            enabled_by_default=False,
        ),
        "uptime": _gauge(
            "Up for",
            _number("uptime_s"),
            device_class="duration",
            unit_of_measurement="s",
            enabled_by_default=False,
        ),
    }
    own = {"entity_category": "diagnostic", "availability": [_online(rig_id, STATUS)]}
    return {key: {**component, **own} for key, component in found.items()}


def _sensor(name: str, topic: str, template: str, **more: Any) -> Component:
    return {
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": template,
        **more,
    }


def _state(name: str, topic: str) -> Component:
    """Return a model's state. It does not expire: a model that is disabled says so only once."""
    return _sensor(
        name,
        topic,
        "{{ value_json.state }}",
        device_class="enum",
        options=[str(state) for state in State],
    )


def _gauge(name: str, template: str, **more: Any) -> Component:
    return _sensor(name, HEALTH, template, expire_after=HEALTH_EXPIRY_S, **more)


def _counter(name: str, field: str) -> Component:
    """Return a count since the start of the process: Home Assistant knows that it begins anew."""
    return _gauge(name, _number(field), state_class="total_increasing")


def _number(field: str) -> str:
    return f"{{{{ value_json.{field} if value_json.{field} is not none else {UNKNOWN} }}}}"


def _of_one(component: Component, model: str) -> Component:
    """Let an entity hear one of several models that speak on a topic; the others change nothing."""
    template = component["value_template"]
    kept = f"{{{{ this.state if this.state not in ['unknown', 'unavailable'] else {UNKNOWN} }}}}"
    return {
        **component,
        "name": f"{component['name']} ({model})",
        "value_template": f"{{% if value_json.model == {_quoted(model)} %}}{template}"
        f"{{% else %}}{kept}{{% endif %}}",
    }


def _online(rig_id: str, topic: str) -> dict[str, str]:
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
    """Return `wanted`, numbered where another label has it already."""
    key, number = wanted, 2
    while key in taken:
        key, number = f"{wanted}_{number}", number + 1
    return key
