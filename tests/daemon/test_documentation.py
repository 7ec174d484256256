"""The pages about configuration and MQTT say what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING

from daemon.commands.config import markdown_table
from daemon.config.description import list_settings
from daemon.config.loading import load_config
from daemon.config.settings import DecisionConfig
from models.decision_spec import DecisionSpec, State
from tests.sandbox import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
SMALLEST, LARGER = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def test_both_examples_are_valid(tmp_path: Path) -> None:
    path = tmp_path / "scentd.yaml"
    for text in (SMALLEST, LARGER):
        path.write_text(text, encoding="utf-8")
        assert load_config(path, {}).rig_id == "kitchen"


def test_the_table_of_settings_is_that_of_the_source() -> None:
    table = markdown_table(list(list_settings()))
    assert table in PAGE, "replace it by the output of: scentd config explain --markdown"


def test_overrides_have_the_names_of_what_they_override() -> None:
    spec = {item.name for item in fields(DecisionSpec)}
    assert {item.name for item in fields(DecisionConfig)} < spec


def test_every_state_and_schema_is_explained() -> None:
    page = (ROOT / "docs" / "mqtt.md").read_text(encoding="utf-8")
    for state in State:
        assert f"| `{state}` |" in page
    for schema in (ROOT / "daemon" / "schemas").glob("*.json"):
        assert f"`{schema.name}`" in page
