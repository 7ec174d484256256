"""Daemon: `scentd config`: explain the settings, or print their JSON Schema for editors."""

from __future__ import annotations

import difflib
import json
import textwrap
from typing import TYPE_CHECKING

from daemon.config.description import Setting, json_schema, list_settings
from hardware.errors import UsageError

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = "Explain the configuration file."
    parser.epilog = "Example: scentd config explain mqtt.keepalive_s"
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    explain = actions.add_parser(
        "explain",
        help="print settings with their meaning, default and range",
        description="Print every setting, or one setting or section, with its meaning, what it "
        "accepts and its default.",
        epilog="Example: scentd config explain recording",
    )
    explain.add_argument("key", nargs="?", metavar="KEY", help="a setting or section: mqtt.port")
    explain.add_argument(
        "--markdown", action="store_true", help="print the table of docs/configuration.md"
    )
    explain.set_defaults(run=run_explain)
    schema = actions.add_parser(
        "schema",
        help="print the JSON Schema of the configuration",
        description="Print the JSON Schema of the configuration. An editor that knows it checks "
        "the file while it is written, and shows what every setting means.",
        epilog="Example: scentd config schema",
    )
    schema.set_defaults(run=run_schema)


def run_schema(_args: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(json_schema(), indent=2))
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """Print the settings that were named, or all."""
    settings = list(list_settings())
    if args.key is not None:
        chosen = [
            setting
            for setting in settings
            if setting.name == args.key or setting.name.startswith(f"{args.key}.")
        ]
        if not chosen:
            close = difflib.get_close_matches(args.key, [setting.name for setting in settings], 1)
            meant = f"; did you mean {close[0]}?" if close else "; `scentd config explain` has all."
            raise UsageError(f"{args.key} is not a setting{meant}")
        settings = chosen
    if args.markdown:
        print(markdown_table(settings))
    else:
        print("\n\n".join(_paragraph(setting) for setting in settings))
    return 0


def markdown_table(settings: list[Setting]) -> str:
    """Return settings as the table of docs/configuration.md."""
    rows = [
        f"| `{name}` | {accepts or 'section'} | {default} | {text} |"
        for name, accepts, default, text in settings
    ]
    return "\n".join(["| setting | accepts | default | meaning |", "|---|---|---|---|", *rows])


def _paragraph(setting: Setting) -> str:
    lines = textwrap.wrap(setting.description, 76, initial_indent="    ", subsequent_indent="    ")
    if setting.accepts:
        lines.append(f"    accepts: {setting.accepts}")
    if setting.default:
        lines.append(f"    default: {setting.default}")
    return "\n".join([setting.name, *lines])
