"""Daemon: reads a configuration: YAML and environment in, a frozen `Config` or every problem out.

Opens no other file.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.config.credentials import credential_path
from daemon.config.settings import AUTO_PORT, Config, SourceConfig
from hardware.errors import ScentdError, UsageError
from hardware.file_owner import other_owner
from hardware.typed_yaml import TypedYamlError, Words, YamlMapping, build

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT_PREFIX = "SCENTD_"
CONFIG_VARIABLE = "SCENTD_CONFIG"
NOT_SETTINGS = frozenset({"SCENTD_DATA", CONFIG_VARIABLE})
"""Variables with this prefix that are no settings: SCENTD_DATA is the tests' recordings folder,
SCENTD_CONFIG names the configuration's file."""

CONFIG_PLACES = (Path("scentd.yaml"), Path("/etc/scentd/scentd.yaml"))
"""Where a configuration is looked for that neither `--config` nor SCENTD_CONFIG names."""

EXAMPLE = """\
rig_id: kitchen
source: {port: /dev/ttyUSB0}
models: [substances-50, mixtures-12]
mqtt: {host: localhost, port: 1883}"""

_NO_SECRETS = (
    "secrets do not belong in the configuration. Put the password alone in a file that only scentd "
    "may read, and name it with mqtt.password_file."
)
_OF_CONTAINERS = re.compile(
    r"SCENTD_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""Docker and Kubernetes give every container such variables of a service named scentd."""

WORDS = Words("setting", dict.fromkeys(("password", "passwd"), _NO_SECRETS))


class ConfigError(ScentdError):
    """The configuration cannot be used; the message lists every problem and its repair."""


def default_config_path(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the configuration that a command uses which names none; None where there is none."""
    variables = os.environ if environ is None else environ
    if named := variables.get(CONFIG_VARIABLE):
        return Path(named)
    return next((path for path in CONFIG_PLACES if path.exists()), None)


def find_config(path: Path | None, environ: Mapping[str, str] | None = None) -> Path:
    """Return the configuration's file: the one that was named, or else the default one.

    Raises
    ------
    UsageError: none was named, and there is none at the default places.
    """
    found = path or default_config_path(environ)
    if found is None:
        places = " and ".join(str(place) for place in CONFIG_PLACES)
        raise UsageError(
            f"Expected a configuration, and none was named (--config FILE, or {CONFIG_VARIABLE}) "
            f"and none lies at {places}. `scentd setup` writes one."
        )
    return found


def load_config(path: Path | None, environ: Mapping[str, str] | None = None) -> Config:
    """Read and validate a YAML file, with single settings overridden by the environment.

    Parameters
    ----------
    path: of the file, by default the one that `find_config` finds; relative paths inside it start
        at its folder.
    environ: holds variables such as SCENTD_MQTT__HOST; the process's own by default.

    Raises
    ------
    ConfigError: with every problem at once.
    UsageError: no file is named, and there is none at the default places.
    """
    variables = os.environ if environ is None else environ
    path = find_config(path, variables)
    text = _read_text(path)
    try:
        document = YamlMapping(text, WORDS)
        for name in sorted(variables):
            if _is_setting(name, variables[name]):
                location = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
                document.override(location, variables[name], name)
        config = document.build(Config)
    except TypedYamlError as error:
        count = len(error.problems)
        counted = "one problem" if count == 1 else f"{count} problems"
        listed = "\n".join(f"  {problem}" for problem in error.problems)
        raise ConfigError(
            f"{path} cannot be used: {counted}, and nothing was opened.\n{listed}"
        ) from None
    return _with_absolute_paths(config, path.resolve().parent, variables)


def _is_setting(name: str, value: str) -> bool:
    """Whether a variable of the environment is meant as a setting."""
    if not name.startswith(ENVIRONMENT_PREFIX) or name in NOT_SETTINGS:
        return False
    if "__" in name:
        return True
    address = name.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", value)
    return not (address or _OF_CONTAINERS.fullmatch(name))


def source_from_options(**options: Any) -> SourceConfig:
    """Return the source that a command line names, validated as in a file."""
    try:
        return build(SourceConfig, options, WORDS)
    except TypedYamlError as error:
        raise UsageError(str(error)) from None


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration file {path}. Write one; the smallest is:\n\n{EXAMPLE}"
        ) from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder; --config needs the YAML file inside it, "
            f"for example {path}/scentd.yaml."
        ) from None
    except PermissionError:
        raise ConfigError(
            f"The configuration file {path} may not be read by this user. "
            f"Give it to the group that scentd runs as: sudo chgrp scentd {path}."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"The configuration file {path} is not UTF-8 text (byte {error.start}). "
            "Save it as UTF-8."
        ) from None
    if not text.strip():
        raise ConfigError(f"The configuration file {path} is empty. The smallest is:\n\n{EXAMPLE}")
    return text


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} cannot be used: {error} Write the whole path.") from None


def _resolved(state_dir: Path) -> Path:
    """Return the state folder without links on the way to it: below it none is followed."""
    try:
        resolved = state_dir.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise ConfigError(f"state_dir {state_dir} cannot be used: {error}. Name another.") from None
    owner = other_owner(state_dir)
    if owner is not None and other_owner(resolved) is None:
        raise ConfigError(
            f"state_dir {state_dir} leads, by a link or folder of user {owner.name}, to root's "
            f"{resolved}, and root follows no path that another user can change. Name the folder "
            "itself."
        )
    return resolved


def _with_absolute_paths(config: Config, folder: Path, environ: Mapping[str, str]) -> Config:
    """Return the configuration with relative paths made absolute, from its own folder."""

    def find_secret(path: Path | None) -> Path | None:
        return None if path is None else credential_path(folder / _expanded(path), folder, environ)

    tls = config.mqtt.tls
    if tls is not None:
        tls = replace(
            tls, ca=find_secret(tls.ca), cert=find_secret(tls.cert), key=find_secret(tls.key)
        )
    port = config.source.port
    return replace(
        config,
        source=replace(
            config.source, port=port if port in (None, AUTO_PORT) else str(folder / port)
        ),
        models=tuple(
            str(folder / _expanded(Path(name))) if "/" in name else name for name in config.models
        ),
        mqtt=replace(config.mqtt, tls=tls, password_file=find_secret(config.mqtt.password_file)),
        state_dir=_resolved(folder / _expanded(config.state_dir)),
    )
