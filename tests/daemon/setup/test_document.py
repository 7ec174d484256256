"""The first configuration is read back as it was answered, whatever the answers hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daemon.config.loading import load_config
from daemon.setup.document import Answers, configuration_text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["kitchen", "1234", "null", "1e5", "on", "a-b_c"])
def test_answers_are_read_back(name: str, tmp_path: Path) -> None:
    answers = Answers(
        rig_id=name,
        source="/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0-port0",
        source_note="Found.",
        models=["substances-50", name],
        host="fe80::1",
        port=8883,
        state_dir="/var/lib/my rigs # 1",
    )
    path = tmp_path / "scentd.yaml"
    path.write_text(configuration_text(answers), encoding="utf-8")
    config = load_config(path, {})
    assert config.rig_id == name
    assert config.source.port == answers.source
    assert config.models == ("substances-50", name)
    assert (config.mqtt.host, config.mqtt.port) == ("fe80::1", 8883)
    assert str(config.state_dir) == answers.state_dir
