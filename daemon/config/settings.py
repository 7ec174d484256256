"""Daemon: the configuration as frozen values, each field beside its rule and its mend.

This file may import the standard library and `hardware`. It must not import
pydantic, numpy or anything slow: `daemon.config.loading` reads and validates, and
everything else only holds these values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping  # noqa: TC003 - pydantic reads it
from dataclasses import dataclass, field, fields
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

TOPIC_ROOT = "scent"
"""Every topic starts with it; rigs on one broker differ by their `rig_id`."""

BOARD_BAUD = 115200
"""What the firmware in the field speaks."""


@dataclass(frozen=True, slots=True)
class Must:
    """A rule for one value: `holds` judges it, `mend` is the sentence shown when it does not."""

    holds: Callable[[Any], bool]
    mend: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Let pydantic apply the rule after its own type check."""
        # Looked up here, because only the process that validates pays for pydantic.
        core_schema = import_module("pydantic_core.core_schema")
        return core_schema.no_info_after_validator_function(self.checked, handler(source))

    def checked(self, value: Any) -> Any:
        """Return `value`, or raise `ValueError` with the mend."""
        if value is not None and not self.holds(value):
            raise ValueError(self.mend)
        return value


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


def _within(low: float, high: float) -> Callable[[float], bool]:
    return lambda value: isfinite(value) and low <= value <= high


_FORBID_UNKNOWN_KEYS = {"extra": "forbid"}

DISCOVERY_PREFIX = "homeassistant"
"""Home Assistant's own default."""

_IS_PREFIX = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


def _discovery_setting(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and bool(_IS_PREFIX.fullmatch(value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """Where the board is: a port by its path, or a USB serial adapter by its ids."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    port: Annotated[
        str | None, Must(lambda text: bool(text.strip()), "name the port, for example /dev/ttyUSB0")
    ] = None
    """Path of the serial port, a stable link below /dev/serial/by-id included."""

    usb: Annotated[
        str | None,
        Must(
            _matches(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}(:[^\s:]+)?"),
            'write it as vendor:product or vendor:product:serial, for example "10c4:ea60"',
        ),
    ] = None
    """USB vendor:product[:serial] in hexadecimal; found wherever it is plugged in."""

    baud: Annotated[
        int, Must(_within(300, 4_000_000), "a baud rate lies between 300 and 4000000")
    ] = BOARD_BAUD
    """Bits per second on the wire."""

    rate_hz: Annotated[
        float | None, Must(_within(0.1, 20.0), "boards from 0.1 to 20 Hz are accepted")
    ] = None
    """The board's true rate; measured from its lines when left out."""

    def __post_init__(self) -> None:
        if (self.port is None) == (self.usb is None):
            came = "neither" if self.port is None else "both"
            raise ValueError(
                f"give exactly one of port and usb ({came} came), as port: /dev/ttyUSB0 "
                'or usb: "10c4:ea60"'
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Certificates of an encrypted connection; all three are paths of PEM files."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    ca: Path | None = None
    """Who signed the broker's certificate; the system's authorities when left out."""

    cert: Path | None = None
    """This rig's own certificate, where the broker asks for one."""

    key: Path | None = None
    """The private key of `cert`."""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: give both, or neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttConfig:
    """The broker, and what is sent to it beyond the results."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    host: Annotated[str, Must(lambda text: bool(text.strip()), "name the broker's host")] = (
        "localhost"
    )
    port: Annotated[int, Must(_within(1, 65535), "a TCP port lies between 1 and 65535")] = 1883
    username: str | None = None
    password_file: Path | None = None
    """A file whose first line is the password: secrets never stand in the configuration."""

    tls: TlsConfig | None = None
    protocol: Literal["auto", "3.1.1", "5", 5] = "auto"
    """`auto` tries MQTT 5 and falls back to 3.1.1. YAML reads a bare 5 as a number."""

    keepalive_s: Annotated[
        int, Must(_within(5, 3600), "a keep-alive lies between 5 and 3600 seconds")
    ] = 30
    """How long the broker waits for a sign of life before it publishes the last will (x1.5)."""

    sample: bool = False
    """Publish every raw frame on `sample` as well."""

    requests: bool = True
    """Listen to `request/+`: whoever may publish there may calibrate and teach this rig."""

    home_assistant: Annotated[
        Any,
        Must(
            _discovery_setting,
            "say true, false, or the discovery prefix that Home Assistant was given",
        ),
    ] = True
    """Announce the rig to Home Assistant (MQTT device discovery): true, false, or the prefix."""

    @property
    def discovery_prefix(self) -> str | None:
        """The prefix of Home Assistant's discovery topics; None where nothing is announced."""
        # From the environment true and false come as text.
        told = str(self.home_assistant)
        if told.lower() in {"true", "false"}:
            return DISCOVERY_PREFIX if told.lower() == "true" else None
        return told

    def __post_init__(self) -> None:
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file needs a username beside it")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What is logged and how it looks."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = "auto"
    """`auto` is JSON under systemd or into a pipe, and human on a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingConfig:
    """The bounds of the continuous recording that `record` asks for."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    segment_s: Annotated[
        float, Must(_within(1, 86400), "a segment lasts 1 to 86400 seconds of the board's time")
    ] = 3600.0
    """A new file is begun so often, and sooner where it would pass an eighth of `max_mb`."""

    max_mb: Annotated[
        float, Must(_within(0.1, 1e6), "recordings may take 0.1 to 1000000 megabytes")
    ] = 1000.0
    """All segments together take no more: the oldest are removed."""

    reserve_mb: Annotated[
        float, Must(_within(0, 1e6), "a reserve lies between 0 and 1000000 megabytes")
    ] = 200.0
    """With less than this free on the disk the recording pauses: others need room too."""

    compress: bool = True
    """Pack closed segments (gzip); `scentd replay` reads them as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxConfig:
    """How much may wait on disk for the broker; docs/mqtt.md says what gives way first."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    max_messages: Annotated[
        int, Must(_within(10, 10_000_000), "the outbox may hold 10 to 10000000 messages")
    ] = 50_000
    """A day and a half of outage with two models and a 5 s stride, before anything is thinned."""

    max_mb: Annotated[
        float, Must(_within(0.01, 1e5), "the outbox may hold 0.01 to 100000 megabytes")
    ] = 64.0
    """Of payloads; the file is an eighth larger, and does not shrink again."""

    max_age_days: Annotated[
        float, Must(_within(0.001, 3650), "messages may wait 0.001 to 3650 days")
    ] = 7.0
    """Counted while scentd runs: without a clock chip a rig does not know how long it was off."""


_Seconds = Annotated[
    float | None, Must(_within(0.001, 1e6), "a time in seconds lies above 0 and below 1000000")
]
_Share = Annotated[
    float | None, Must(lambda value: 0 < value < 1, "a share lies between 0 and 1, both excluded")
]
_Amount = Annotated[float | None, Must(_within(1e-9, 1e6), "this must be a positive number")]


_Count = Annotated[int | None, Must(_within(1, 1000), "this counts predictions, 1 at least")]


def _overrides(section: Any) -> dict[str, float]:
    """Return the numbers of a section that were given."""
    values = {item.name: getattr(section, item.name) for item in fields(section)}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConfig:
    """What is asked of one label in place of what is asked of all."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    announce: _Share = None
    confirm: _Count = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionConfig:
    """Overrides of the models' manifests; `DecisionSpec` explains them."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    announce: _Share = None
    withdraw: _Share = None
    memory_s: _Seconds = None
    confirm: _Count = None
    error_rate: _Share = None
    """Share of announcements that may be wrong; gives `announce`, so give one of the two."""

    unknown_above: Annotated[
        float | None, Must(_within(-1e6, 1e6), "a novelty lies between -1000000 and 1000000")
    ] = None
    unknown_after: _Amount = None
    unknown_confirm: _Count = None
    set_threshold: _Share = None
    labels: Mapping[str, LabelConfig] = field(default_factory=dict)
    """By label as published; a label that no model has is of no effect."""

    def __post_init__(self) -> None:
        announce, withdraw = self.announce, self.withdraw
        if announce is not None and self.error_rate is not None:
            raise ValueError("give one of announce and error_rate: error_rate asks for an announce")
        if announce is not None and withdraw is not None and withdraw > announce:
            raise ValueError("withdraw must not be above announce")

    def overrides(self) -> dict[str, float]:
        """Return the numbers that were given, by the names of `DecisionSpec`."""
        return _overrides(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureConfig:
    """Overrides of the onset detector; `models.exposure.ExposureSettings` explains them."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    warm_up_min_s: _Seconds = None
    warm_up_max_s: _Seconds = None
    settled_slope: _Amount = None
    quiet_s: _Seconds = None
    quiet_steps: _Amount = None
    smoothing_s: _Seconds = None
    baseline_s: _Seconds = None
    allowance: _Amount = None
    threshold: _Amount = None
    certain: _Amount = None
    end_fraction: _Share = None
    recovered: _Amount = None
    recovery_max_s: _Seconds = None
    steady_max_s: _Seconds = None
    back_s: _Seconds = None
    young_s: _Seconds = None
    slope_s: _Seconds = None
    least_noise: _Amount = None
    mq_exponent: _Amount = None
    largest_deviation: _Amount = None
    longest_step_s: _Seconds = None
    forget_after_s: _Seconds = None

    def overrides(self) -> dict[str, float]:
        """Return what was given, by the names of `ExposureSettings`."""
        return _overrides(self)


def default_state_dir() -> Path:
    """Return where state lives when the configuration does not say.

    systemd names the unit's own folder in STATE_DIRECTORY; a user's run follows
    the XDG base directories.
    """
    if systemd := os.environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":", maxsplit=1)[0])
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "scentd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a rig's daemon was told."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN_KEYS

    rig_id: Annotated[
        str,
        Must(
            _matches(r"[a-z0-9_-]{1,32}"),
            "use 1 to 32 of a-z, 0-9, _ and -: it becomes part of every MQTT topic",
        ),
    ]
    source: SourceConfig
    models: Annotated[
        tuple[str, ...],
        Must(lambda names: len(names) > 0, "name at least one model, for example [substances-50]"),
        Must(lambda names: len(set(names)) == len(names), "name each model once"),
    ]
    """Names of shipped or installed bundles, or their folders."""

    mqtt: MqttConfig = field(default_factory=MqttConfig)
    live_stride_s: Annotated[
        float, Must(_within(0.1, 600), "a stride lies between 0.1 and 600 seconds")
    ] = 5.0
    """Seconds of the board's time between two inferences of a model."""

    record: bool = False
    """Write every frame to CSV segments below `state_dir`/recordings."""

    recording: RecordingConfig = field(default_factory=RecordingConfig)
    outbox: OutboxConfig = field(default_factory=OutboxConfig)

    state_dir: Path = field(default_factory=default_state_dir)
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    exposure: ExposureConfig = field(default_factory=ExposureConfig)

    log: LogConfig = field(default_factory=LogConfig)

    @property
    def recordings_dir(self) -> Path:
        """Where recordings are written."""
        return self.state_dir / "recordings"

    @property
    def board(self) -> str:
        """What a calibration profile calls this rig's board: a profile of another is refused."""
        return self.rig_id if self.source.usb is None else f"{self.rig_id} {self.source.usb}"

    @property
    def profile_path(self) -> Path:
        """Where the rig's calibration profile lies, if it has one."""
        return self.state_dir / "calibration.yaml"  # calibration.profile.PROFILE

    @property
    def calibration_dir(self) -> Path:
        """Where the captures lie that the profile is fitted to."""
        return self.state_dir / "calibration"
