"""Daemon: asking a running service, as its own commands do: one question, one answer.

Enters the broker as a visitor. Knows topics and the envelope of requests; nothing of what
is asked. The service holds the port while it runs, so this is how commands reach the board.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho

from daemon.mqtt.connection import BrokerError, connected_client
from daemon.mqtt.topics import OFFLINE, REQUEST, RESPONSE, STATUS, topic_prefix
from daemon.requests import OK, WORKING
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemon.config.settings import Config

PRESENT_WITHIN_S = 2.0
"""The retained `status` comes with the subscription; a rig that never ran has none."""

MAYBE_DONE = "What was asked may be done all the same: see what there is before you ask again."

ANSWER_TIMEOUT_S = 10.0
"""The service answers, or tells its progress, far more often than this."""


class NoServiceError(ScentdError):
    """No service of this rig listens to the broker."""


class RequestRefusedError(ScentdError):
    """The service answered with an error; the message is the service's."""


@dataclass(slots=True)
class _Conversation:
    """What was heard of the rig since the question."""

    prefix: str
    command: str
    transaction: str
    present: str | None = None
    subscribed: bool = False
    answers: list[dict[str, Any]] = field(default_factory=list)

    def hear(self, message: paho.MQTTMessage) -> None:
        """Note the rig's status and the answers to this very question."""
        if message.topic == self.prefix + STATUS:
            self.present = bytes(message.payload).decode("utf-8", "replace")
            return
        try:
            answer = json.loads(message.payload)
        except ValueError:
            return
        if isinstance(answer, dict) and answer.get("transaction") == self.transaction:
            self.answers.append(answer)


def send_request(
    config: Config,
    command: str,
    payload: Mapping[str, Any],
    *,
    timeout_s: float = ANSWER_TIMEOUT_S,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Ask the rig's running service and return the answer's data.

    Parameters
    ----------
    config : Config
        Gives the broker and the rig.
    command : str
        `status`, `calibrate`, `enroll` ...
    payload : mapping
        What is asked, without transaction.
    timeout_s : float
        Longest silence before the question counts as unheard; progress is a sign of life.
    on_progress : callable, optional
        Called with the data of every word about progress.

    Raises
    ------
    BrokerError
        If the broker cannot be used.
    NoServiceError
        If no service runs, or it does not listen to requests.
    RequestRefusedError
        If the service answers with an error.
    """
    talk = _Conversation(topic_prefix(config.rig_id), command, secrets.token_hex(8))
    question = {**payload, "transaction": talk.transaction, "progress": on_progress is not None}
    with connected_client(config.rig_id, config.mqtt, suffix=f"-asks-{talk.transaction}") as client:
        _subscribe(client, talk, config)
        client.publish(f"{talk.prefix}{REQUEST}/{command}", json.dumps(question), qos=1)
        heard_s = time.monotonic()
        while time.monotonic() - heard_s < timeout_s:
            _turn(client)
            while talk.answers:
                heard_s = time.monotonic()
                answer = talk.answers.pop(0)
                if answer.get("status") != WORKING:
                    return _data(answer)
                if on_progress is not None:
                    on_progress(answer.get("data") or {})
            if talk.present == OFFLINE:
                raise NoServiceError(
                    f"The service of rig {config.rig_id!r} went offline before it answered: it "
                    f"was stopped, or lost the broker. {MAYBE_DONE}"
                )
    raise NoServiceError(
        f"The service of rig {config.rig_id!r} did not answer request/{command} within "
        f"{timeout_s:g} s. See that its configuration does not say mqtt.requests: false, that the "
        "broker lets it subscribe, and what its log says."
    )


def service_is_online(config: Config) -> bool:
    """Whether a service of this rig is online at the broker; False where there is no broker."""
    talk = _Conversation(topic_prefix(config.rig_id), "status", "")
    try:
        with connected_client(
            config.rig_id, config.mqtt, suffix=f"-looks-{secrets.token_hex(8)}"
        ) as client:
            _subscribe(client, talk, config)
    except (BrokerError, NoServiceError):
        return False
    return True


def _subscribe(client: paho.Client, talk: _Conversation, config: Config) -> None:
    """Listen for the answer before asking, and see that somebody is there."""

    def subscribed(*_: object) -> None:
        talk.subscribed = True

    client.on_message = lambda _client, _data, message: talk.hear(message)
    client.on_subscribe = subscribed
    topics = (f"{talk.prefix}{RESPONSE}/{talk.command}", f"{talk.prefix}{STATUS}")
    client.subscribe([(topic, 1) for topic in topics])
    deadline_s = time.monotonic() + PRESENT_WITHIN_S
    while not (talk.subscribed and talk.present) and time.monotonic() < deadline_s:
        _turn(client)
    if talk.present is None:
        raise NoServiceError(
            f"No rig {config.rig_id!r} has ever been on the broker at {config.mqtt.host}:"
            f"{config.mqtt.port}. Start it (scentd run --config FILE), or correct rig_id."
        )
    if talk.present == OFFLINE:
        raise NoServiceError(_stopped(config))


def _stopped(config: Config) -> str:
    return (
        f"The service of rig {config.rig_id!r} is not running: its status at "
        f"{config.mqtt.host}:{config.mqtt.port} is offline. Start it: scentd run --config FILE."
    )


def _turn(client: paho.Client) -> None:
    if client.loop(0.1) != paho.MQTT_ERR_SUCCESS:
        raise BrokerError(f"The broker closed the connection before the answer came. {MAYBE_DONE}")


def _data(answer: Mapping[str, Any]) -> dict[str, Any]:
    if answer.get("status") == OK:
        return dict(answer.get("data") or {})
    raise RequestRefusedError(str(answer.get("error") or "The service refused without saying why."))
