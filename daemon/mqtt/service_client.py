"""Daemon: sends a request to the running service, as the commands do, and waits for its response.

Connects to the broker beside the service. Knows topics and the envelope of requests, not their
content. The service holds the port while it runs, so that commands reach the board this way.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho

from daemon.mqtt.connection import BrokerError, connected_client
from daemon.mqtt.topics import OFFLINE, REQUEST, RESPONSE, STATUS, topic_prefix
from daemon.requests import OK, WORKING
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from daemon.config.settings import Config

STATUS_WITHIN_S = 2.0
"""The retained `status` comes with the subscription; a rig that never ran has none."""

ANSWER_TIMEOUT_S = 10.0
"""The service answers, or reports progress, far more often than this."""

MAYBE_DONE = "The request may have been carried out: check that before you send it again."


class NoServiceError(ScentdError):
    """No service of this rig answers on the broker."""


class RequestRefusedError(ScentdError):
    """The service answered with an error; the message is the service's."""


@dataclass(slots=True)
class _Conversation:
    """A client that has subscribed to the rig's status and to the responses to one request."""

    client: paho.Client
    prefix: str
    transaction: str
    status: str | None = None
    subscribed: bool = False
    answers: list[dict[str, Any]] = field(default_factory=list)

    def on_message(self, message: paho.MQTTMessage) -> None:
        if message.topic == self.prefix + STATUS:
            self.status = bytes(message.payload).decode("utf-8", "replace")
            return
        try:
            answer = json.loads(message.payload)
        except ValueError:
            return
        if isinstance(answer, dict) and answer.get("transaction") == self.transaction:
            self.answers.append(answer)

    def work(self) -> None:
        """Let the client receive for a moment."""
        if self.client.loop(0.1) != paho.MQTT_ERR_SUCCESS:
            raise BrokerError(
                f"The broker closed the connection before the answer came. {MAYBE_DONE}"
            )


def send_request(
    config: Config,
    command: str,
    payload: Mapping[str, Any],
    *,
    timeout_s: float = ANSWER_TIMEOUT_S,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Send a request to the rig's running service and return the response's data.

    Parameters
    ----------
    config: of the broker and the rig.
    command: `status`, `calibrate`, `enroll` ...
    payload: the request, without `transaction`.
    timeout_s: longest time without an answer or progress.
    on_progress: called with the data of every report of progress.

    Raises
    ------
    BrokerError: the broker cannot be used.
    NoServiceError: no service runs, or it does not accept requests.
    RequestRefusedError: the service answers with an error.
    """
    with _conversation(config, command, "asks") as talk:
        request = {
            **payload,
            "transaction": talk.transaction,
            "progress": on_progress is not None,
        }
        talk.client.publish(f"{talk.prefix}{REQUEST}/{command}", json.dumps(request), qos=1)
        answered_s = time.monotonic()
        while time.monotonic() - answered_s < timeout_s:
            talk.work()
            while talk.answers:
                answered_s = time.monotonic()
                answer = talk.answers.pop(0)
                data: dict[str, Any] = answer.get("data") or {}
                if answer.get("status") == OK:
                    return data
                if answer.get("status") != WORKING:
                    reason = answer.get("error") or "The service refused without saying why."
                    raise RequestRefusedError(str(reason))
                if on_progress is not None:
                    on_progress(data)
            if talk.status == OFFLINE:
                raise NoServiceError(
                    f"The service of rig {config.rig_id!r} went offline before it answered: it "
                    f"was stopped, or lost the broker. {MAYBE_DONE}"
                )
    raise NoServiceError(
        f"The service of rig {config.rig_id!r} did not answer request/{command} within "
        f"{timeout_s:g} s. Check that its configuration has no `mqtt.requests: false`, that the "
        "broker allows it to subscribe, and its log."
    )


def service_is_online(config: Config) -> bool:
    """Whether a service of this rig is online at the broker; False where there is no broker."""
    try:
        with _conversation(config, "status", "looks"):
            return True
    except (BrokerError, NoServiceError):
        return False


@contextmanager
def _conversation(config: Config, command: str, purpose: str) -> Iterator[_Conversation]:
    """Subscribe to the responses to a command, before it is sent, and check that a service runs."""
    transaction = secrets.token_hex(8)
    suffix = f"-{purpose}-{transaction}"
    with connected_client(config.rig_id, config.mqtt, suffix=suffix) as client:
        talk = _Conversation(client, topic_prefix(config.rig_id), transaction)

        def on_subscribe(*_: object) -> None:
            talk.subscribed = True

        client.on_message = lambda _client, _data, message: talk.on_message(message)
        client.on_subscribe = on_subscribe
        topics = (f"{talk.prefix}{RESPONSE}/{command}", talk.prefix + STATUS)
        client.subscribe([(topic, 1) for topic in topics])
        deadline_s = time.monotonic() + STATUS_WITHIN_S
        while not (talk.subscribed and talk.status) and time.monotonic() < deadline_s:
            talk.work()
        broker = f"{config.mqtt.host}:{config.mqtt.port}"
        if talk.status is None:
            raise NoServiceError(
                f"No rig {config.rig_id!r} has ever been on the broker at {broker}. Start it "
                "(scentd run --config FILE), or correct rig_id."
            )
        if talk.status == OFFLINE:
            raise NoServiceError(
                f"The service of rig {config.rig_id!r} is not running: its status at {broker} is "
                "offline. Start it: scentd run --config FILE."
            )
        yield talk
