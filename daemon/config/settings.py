"""Daemon: the configuration as frozen values, each field with its rule and its description.

`scentd config explain`, the JSON Schema and the table in docs/configuration.md show the text below
each field. May import the standard library, `hardware` and
`models.exposure_settings`; numpy and anything slow must not enter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping  # noqa: TC003 - read by get_type_hints
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from hardware.typed_yaml import Example, Rule, between
from models.exposure_settings import Amount, ExposureSettings, Seconds, Share

RIG_ID_PATTERN = "[a-z0-9_-]{1,32}"
"""Of a rig's name, which becomes a part of each of its MQTT topics."""

TOPIC_ROOT = "scent"
"""First level of every topic; the second is the `rig_id`."""

AUTO_PORT = "auto"
"""In the place of a port: the only port whose USB chip is that of a board."""

BOARD_BAUD = 115200
"""Baud rate of the boards' firmware."""

DISCOVERY_PREFIX = "homeassistant"
"""Home Assistant's own default."""

_Count = Annotated[
    int,
    between(1, 1000, "this counts predictions, from {} to {}"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """Where the board is: exactly one of `port` and `usb`."""

    port: (
        Annotated[str, Rule("name the port, for example /dev/ttyUSB0", pattern=r"[\s\S]*\S[\s\S]*")]
        | None
    ) = None
    """Path of the serial port; a stable link below /dev/serial/by-id as well. `auto`: the only port
    whose USB chip is that of a board."""

    usb: (
        Annotated[
            str,
            Rule(
                'write it as vendor:product or vendor:product:serial, for example "10c4:ea60"',
                pattern=r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}(:[^\s:]+)?",
            ),
        ]
        | None
    ) = None
    """USB vendor:product[:serial] in hexadecimal; the board is found wherever it is plugged in."""

    baud: Annotated[
        int,
        between(300, 4_000_000, "a baud rate lies between {} and {}"),
    ] = BOARD_BAUD
    """Bits per second on the wire."""

    rate_hz: (
        Annotated[
            float,
            between(0.1, 20, "boards from {} to {} Hz are accepted"),
        ]
        | None
    ) = None
    """The board's true rate; measured from its lines when left out."""

    def __post_init__(self) -> None:
        if (self.port is None) == (self.usb is None):
            given = "neither" if self.port is None else "both"
            raise ValueError(
                f"give exactly one of port and usb ({given} came), as port: /dev/ttyUSB0 "
                'or usb: "10c4:ea60"'
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Certificates of an encrypted connection, as PEM files; left out, it is not encrypted."""

    ca: Path | None = None
    """Authority that signed the broker's certificate; the system's authorities when left out."""

    cert: Path | None = None
    """This rig's own certificate, where the broker requires one."""

    key: Path | None = None
    """The private key of `cert`."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: give both, or neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttConfig:
    """The broker, and what is published in addition to the results."""

    host: Annotated[str, Rule("name the broker's host", pattern=r"[\s\S]*\S[\s\S]*")] = "localhost"
    """Name or address of the broker."""

    port: Annotated[int, between(1, 65535, "a TCP port lies between {} and {}")] = 1883
    """TCP port of the broker; 8883 is usual with TLS."""

    username: str | None = None
    """Name to log in with; anonymous when left out."""

    password_file: Path | None = None
    """A file whose first line is the password; the configuration itself holds no secrets."""

    tls: TlsConfig | None = None
    """Certificates; not encrypted when left out, and `{}` trusts the system's authorities."""

    protocol: Literal["auto", "3.1.1", "5", 5] = "auto"
    """Version of MQTT; `auto` tries MQTT 5 and falls back to 3.1.1."""

    keepalive_s: Annotated[
        int,
        between(5, 3600, "a keep-alive lies between {} and {} seconds"),
    ] = 30
    """The broker publishes the last will when it receives nothing for 1.5 times this."""

    sample: bool = False
    """Publish every raw frame on `sample` as well."""

    requests: bool = True
    """Accept `request/+`: every client that may publish there can calibrate and teach this rig."""

    home_assistant: Annotated[
        bool | str,
        Rule(
            "say true, false, or the discovery prefix that Home Assistant was given",
            pattern="[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*",
        ),
    ] = True
    """Announce the rig to Home Assistant (MQTT device discovery): true, false, or the prefix."""

    @property
    def discovery_prefix(self) -> str | None:
        """The prefix of Home Assistant's discovery topics; None where nothing is announced."""
        text = str(self.home_assistant)  # from the environment true and false are text
        return {"true": DISCOVERY_PREFIX, "false": None}.get(text.lower(), text)

    def __post_init__(self) -> None:
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file needs a username beside it")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What is logged and in which format."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is logged."""

    format: Literal["auto", "human", "json"] = "auto"
    """`auto` is JSON under systemd or into a pipe, and human on a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingConfig:
    """Limits of the continuous recording that `record` switches on."""

    segment_s: Annotated[
        float,
        between(1, 86400, "a segment lasts {} to {} seconds of the board's time"),
    ] = 3600.0
    """Length of one file; it ends sooner where it would exceed an eighth of `max_mb`."""

    max_mb: Annotated[
        float,
        between(0.1, 1000000, "recordings may take {} to {} megabytes"),
    ] = 1000.0
    """Size of all files together; the oldest are removed."""

    reserve_mb: Annotated[
        float,
        between(0, 1000000, "a reserve lies between {} and {} megabytes"),
    ] = 200.0
    """The recording pauses while less than this is free on the disk: others need room too."""

    compress: bool = True
    """Compress closed files (gzip); `scentd replay` reads them as they are."""

    clips_most: Annotated[
        int,
        between(1, 100000, "{} to {} clips may be kept"),
    ] = 200
    """Number of clips that `clips` keeps; the oldest are removed, labelled ones last."""

    clips_mb: Annotated[
        float,
        between(0.1, 1000000, "clips may take {} to {} megabytes"),
    ] = 50.0
    """Size of all clips together."""

    clips_days: Annotated[float, between(0.01, 3650, "clips may be kept for {} to {} days")] = 90.0
    """Age at which a clip is removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxConfig:
    """Limits of the messages on disk; docs/mqtt.md lists the order in which they are dropped."""

    max_messages: Annotated[
        int,
        between(10, 10_000_000, "the outbox may hold {} to {} messages"),
    ] = 50_000
    """Messages that may wait: a day and a half of two models at a 5 s stride, all kept."""

    max_mb: Annotated[
        float,
        between(0.01, 100000, "the outbox may hold {} to {} megabytes"),
    ] = 64.0
    """Size of the payloads; the file is an eighth larger, and does not shrink again."""

    max_age_days: Annotated[float, between(0.001, 3650, "messages may wait {} to {} days")] = 7.0
    """Age of a message, counted while scentd runs: without a clock chip the rig does not know how
    long it was off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConfig:
    """Rules of one label, in place of those of all labels."""

    announce: Share | None = None
    """Probability from which on this label is announced."""

    confirm: _Count | None = None
    """Predictions in a row before this label is announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionConfig:
    """Overrides of every model's manifest; a setting left out keeps the manifest's value."""

    announce: Share | None = None
    """Probability from which on a label is announced."""

    withdraw: Share | None = None
    """Probability below which an announced label is withdrawn; at most `announce`."""

    memory_s: Seconds | None = None
    """Evidence fades by 1/e in this time."""

    confirm: _Count | None = None
    """Predictions in a row over `announce` before a label is announced."""

    error_rate: Share | None = None
    """Share of announcements that may be wrong; gives `announce`, so give one of the two."""

    unknown_above: (
        Annotated[
            float,
            between(-1000000, 1000000, "a novelty lies between {} and {}"),
        ]
        | None
    ) = None
    """Novelty from which on a smell is none of the labels; a large number switches that off."""

    unknown_after: Amount | None = None
    """Full windows of evidence before `unrecognised` may be published."""

    unknown_confirm: _Count | None = None
    """Predictions in a row above `unknown_above` before `unrecognised` is published."""

    set_threshold: Share | None = None
    """Probability from which on a label is in the prediction set."""

    labels: Mapping[str, LabelConfig] = field(default_factory=dict)
    """Rules for single labels, by published name; a label that no model has is of no effect."""

    def __post_init__(self) -> None:
        announce, withdraw = self.announce, self.withdraw
        if announce is not None and self.error_rate is not None:
            raise ValueError(
                "give one of announce and error_rate: error_rate determines an announce"
            )
        if announce is not None and withdraw is not None and withdraw > announce:
            raise ValueError("withdraw must not be above announce")

    def overrides(self) -> dict[str, float]:
        """Return the numbers that are set, by the field names of `DecisionSpec`."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, int | float)}


def default_state_dir() -> Path:
    """Return the default of `state_dir`: systemd's STATE_DIRECTORY, or else by the XDG standard."""
    if systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":", maxsplit=1)[0])
    base = os.environ.get("XDG_STATE_HOME")
    if base:
        return Path(base) / "scentd"
    try:
        return Path.home() / ".local" / "state" / "scentd"
    except RuntimeError:
        raise ValueError(
            "name a state_dir: this user has no home folder for the default (HOME is not set)"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The configuration of one rig."""

    rig_id: Annotated[
        str,
        Rule(
            "use 1 to 32 of a-z, 0-9, _ and -: it becomes part of every MQTT topic",
            pattern=RIG_ID_PATTERN,
        ),
        Example("kitchen"),
    ]
    """Short name of the rig, part of every MQTT topic."""

    source: Annotated[SourceConfig, Example("{port: /dev/ttyUSB0}")]

    models: Annotated[
        tuple[str, ...],
        Rule("name at least one model, for example [substances-50]", minItems=1),
        Rule("name each model once", uniqueItems=True),
        Example("[substances-50, mixtures-12]"),
    ]
    """Names of shipped or installed models, or folders of bundles."""

    mqtt: MqttConfig = field(default_factory=MqttConfig)

    live_stride_s: Annotated[
        float,
        between(0.1, 600, "a stride lies between {} and {} seconds"),
    ] = 5.0
    """Seconds of the board's time between two inferences of a model."""

    record: bool = False
    """Write every frame to CSV files below `state_dir`/recordings."""

    clips: bool = False
    """Keep the readings around every announcement as a recording, whether `record` is on or not."""

    recording: RecordingConfig = field(default_factory=RecordingConfig)
    outbox: OutboxConfig = field(default_factory=OutboxConfig)

    state_dir: Path = field(default_factory=default_state_dir)
    """Folder of all that scentd keeps: STATE_DIRECTORY, or else ~/.local/state/scentd."""

    decision: DecisionConfig = field(default_factory=DecisionConfig)

    exposure: ExposureSettings = field(default_factory=ExposureSettings)

    log: LogConfig = field(default_factory=LogConfig)

    @property
    def recordings_dir(self) -> Path:
        """Folder of the continuous recording."""
        return self.state_dir / "recordings"

    @property
    def board_id(self) -> str:
        """Identifies the board; a calibration profile of another board is refused."""
        return self.rig_id if self.source.usb is None else f"{self.rig_id} {self.source.usb}"

    @property
    def profile_path(self) -> Path:
        """File of the rig's calibration profile, if it has one."""
        return self.state_dir / "calibration.yaml"  # calibration.rig_profile.PROFILE

    @property
    def calibration_dir(self) -> Path:
        """Folder of the captures that the profile is fitted to."""
        return self.state_dir / "calibration"
