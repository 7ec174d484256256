"""Every setting is explained, and its JSON Schema accepts and refuses what the reader does."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from daemon.cli import main
from daemon.config.description import json_schema, list_settings
from daemon.config.loading import EXAMPLE


def test_every_setting_has_a_description() -> None:
    settings = {setting.name: setting for setting in list_settings()}
    assert len(settings) > 60
    assert [name for name, setting in settings.items() if not setting.description] == []
    keepalive = settings["mqtt.keepalive_s"]
    assert (keepalive.accepts, keepalive.default) == ("whole number, 5 to 3600", "30")
    assert settings["rig_id"].default == "required"
    assert settings["exposure.warm_up_max_s"].default == "120.0"
    assert "decision.labels.NAME.announce" in settings


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mqtt: {protocol: 5, home_assistant: house/ha, tls: {}}",
        "decision: {announce: 0.5, labels: {coffee: {confirm: 3}}}",
        "exposure: {quiet_s: 10}\nlog: {level: debug}\nstate_dir: /var/lib/scentd",
    ],
)
def test_the_schema_accepts_a_configuration(text: str) -> None:
    jsonschema.validate(yaml.safe_load(f"{EXAMPLE.rsplit('mqtt')[0]}{text}"), json_schema())


@pytest.mark.parametrize(
    "text",
    [
        "rig_id: Kitchen!",
        "mqtt: {protcol: 5}",
        "mqtt: {port: 99999}",
        "mqtt: {home_assistant: 'home/#'}",
        "models: [a, a]",
        "source: {usb: '10c4'}",
        "decision: {labels: {coffee: {announce: 1}}}",
        "log: {level: loud}",
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**yaml.safe_load(EXAMPLE), **yaml.safe_load(text)}, schema)


def test_one_setting_or_section_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", "mqtt.keepalive_s"]) == 0
    assert "default: 30" in capsys.readouterr().out
    assert main(["config", "explain", "recording"]) == 0
    assert "recording.max_mb" in capsys.readouterr().out


def test_an_unknown_setting_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "explain", "mqtt.prot"]) == 2
    assert "did you mean mqtt.port?" in capsys.readouterr().err
