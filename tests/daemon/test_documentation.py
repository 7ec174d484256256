"""The pages about configuration and MQTT say what the code does."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import yaml

from daemon.config.loading import load_config
from daemon.config.settings import Config, DecisionConfig
from models.decision_spec import DecisionSpec, State
from models.exposure_settings import ExposureSettings
from tests.sandbox import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
SMALLEST, EVERYTHING = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def names_in(kind: Any) -> dict[str, Any]:
    """Return the settings of a configuration class, sections as mappings."""
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for item in fields(kind):
        hint = hints[item.name]
        section = next((kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)), None)
        nested = section is not None and section is not ExposureSettings
        found[item.name] = names_in(section) if nested else None
    return found


def names_of(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        name: names_of(value) if isinstance(value, dict) and value else None
        for name, value in settings.items()
    }


def test_both_examples_are_valid(tmp_path: Path) -> None:
    path = tmp_path / "scentd.yaml"
    for text in (SMALLEST, EVERYTHING):
        path.write_text(text, encoding="utf-8")
        assert load_config(path, {}).rig_id == "kitchen"


def test_the_full_example_has_every_setting() -> None:
    there = names_of(yaml.safe_load(EVERYTHING))
    # Shown in comments: of port and usb, of announce and error_rate only one may stand.
    there["source"]["usb"] = there["decision"]["error_rate"] = None
    there["decision"]["labels"] = there["decision"]["labels"]["coffee"]
    assert there == names_in(Config)


def test_overrides_have_the_names_of_what_they_override() -> None:
    spec = {item.name for item in fields(DecisionSpec)}
    assert {item.name for item in fields(DecisionConfig)} < spec


def test_every_state_and_schema_is_explained() -> None:
    page = (ROOT / "docs" / "mqtt.md").read_text(encoding="utf-8")
    for state in State:
        assert f"| `{state}` |" in page
    for schema in (ROOT / "daemon" / "schemas").glob("*.json"):
        assert f"`{schema.name}`" in page
