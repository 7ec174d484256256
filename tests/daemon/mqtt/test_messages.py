"""What the service publishes does not say where on the computer it lies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from daemon.mqtt.messages import Messages
from daemon.mqtt.outbox_values import Message
from daemon.mqtt.payloads import RigEvent, RigEventType

if TYPE_CHECKING:
    from pathlib import Path


class Collector:
    """Keeps what would be published."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def publish(self, message: Message) -> None:
        self.messages.append(message)


def test_errors_and_events_name_files_without_the_state_folder(tmp_path: Path) -> None:
    state = tmp_path / 'a "quoted" folder'
    collector = Collector()
    messages = Messages(collector, version="1", folders={"state_dir": state})  # type: ignore[arg-type]
    error = f"{state}/models/mint/1.0/model.onnx is damaged; {state} is full."
    messages.publish_response("models", {"status": "error", "error": error})
    messages.publish_event(RigEvent(RigEventType.RELOAD_REFUSED, error, None, None))
    response, event = (json.loads(one.payload) for one in collector.messages)
    hidden = "models/mint/1.0/model.onnx is damaged; state_dir is full."
    assert response["error"] == event["detail"] == hidden
