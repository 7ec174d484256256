"""Telegraf's section reads fields that the rig's payloads have."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from tests.sandbox import ROOT

CONSUMERS = tomllib.loads(
    (ROOT / "integrations" / "telegraf" / "scentd.conf").read_text(encoding="utf-8")
)["inputs"]["mqtt_consumer"]


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda one: one["name_override"])
def test_every_path_is_a_field_of_the_payload(consumer: dict[str, Any]) -> None:
    (topic,) = consumer["topics"]
    root, rig, name = topic.split("/")
    assert (root, rig) == ("scent", "+")
    schema = json.loads((ROOT / f"daemon/schemas/{name}.json").read_text(encoding="utf-8"))
    known, required = schema["properties"], set(schema["required"])
    (parser,) = consumer["json_v2"]
    assert parser["timestamp_path"] in required
    for one in [*parser.get("field", ()), *parser.get("tag", ()), *parser.get("object", ())]:
        assert one["path"] in required
    for one in parser.get("field", ()):
        kinds = known[one["path"]].get("type", [])
        may_be_null = "null" in kinds or any(
            part.get("type") == "null" for part in known[one["path"]].get("oneOf", ())
        )
        assert one.get("optional", False) == may_be_null, one["path"]
    for part in parser.get("object", ()):
        fields = known[part["path"]]["items"]["properties"]
        assert {*part["tags"], *part["fields"]} <= set(fields)
