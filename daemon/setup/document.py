"""Daemon: the text of a first configuration, with a comment at every setting.

Pure: answers in, YAML out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a first configuration needs.

    Attributes
    ----------
    source: the port or `auto`.
    source_note: which board that is, for the comment.
    state_dir: None for the default.
    """

    rig_id: str
    source: str
    source_note: str
    models: Sequence[str]
    host: str
    port: int
    state_dir: str | None = None
    record: bool = False


def configuration_text(answers: Answers) -> str:
    """Return the YAML of a configuration."""
    state = (
        "# state_dir: /var/lib/scentd   # of all that scentd keeps; default: ~/.local/state/scentd"
        if answers.state_dir is None
        else f"state_dir: {_scalar(answers.state_dir)}   # of all that scentd keeps"
    )
    models = ", ".join(map(_scalar, answers.models))
    return f"""\
# The configuration of this rig, written by `scentd setup`. `scentd config explain` explains every
# setting. After a change of a running service: sudo systemctl reload scentd.

# Short name of the rig, part of every MQTT topic: scent/{answers.rig_id}/...
rig_id: {_scalar(answers.rig_id)}

# The board: a port, or auto for the only known one. {answers.source_note}
source: {{port: {_scalar(answers.source)}}}

# What names smells: shipped or installed models (`scentd models list`). What you teach the rig
# comes on top of them, and needs none.
models: [{models}]

# The broker to which results are published. A password goes into a file of its own:
#   username: rig
#   password_file: mqtt-password
mqtt:
  host: {_scalar(answers.host)}
  port: {answers.port}

# Write every reading to disk, within `recording` (1000 MB by default).
record: {str(answers.record).lower()}

# Keep the readings around every announcement, to review and to train with.
clips: true

{state}
"""


def _scalar(text: str) -> str:
    """Return a text as YAML reads it: plain where that is certain, else quoted."""
    plain = _PLAIN.fullmatch(text) and re.search(r"[A-Za-z/]", text)
    words = text.lower() in {"true", "false", "yes", "no", "on", "off", "null"}
    return text if plain and not words else json.dumps(text, ensure_ascii=False)
