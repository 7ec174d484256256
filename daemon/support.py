"""Daemon: collects what a report of a fault needs into one archive, without secrets.

Each part is a text file; one that cannot be had holds the reason instead. Nothing leaves the
computer: the owner reads the archive and sends it. Passwords and tokens are removed, readings and
taught smells are left out. Knows the state folder's layout only by listing it.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.config.credentials import read_secret
from daemon.config.loading import find_config, load_config
from daemon.installed_models.store import ModelStore
from daemon.mqtt.service_client import send_request
from hardware.errors import ScentdError
from hardware.version import installed_version
from models.bundle import shipped_bundles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from daemon.config.settings import Config

REMOVED = "(removed)"

LOG_LINES = 2000
"""Newest lines of the service's journal."""

COMMAND_S = 60.0
"""A command that takes longer is given up."""

MOST_FILES = 2000
"""Files of the state folder that are listed."""

_SECRET_LINE = re.compile(
    r"(?im)^(\s*-?\s*[\w-]*(?:password|token|secret|api_?key)[\w-]*\s*[:=]\s*).+$"
)
_SECRET_FIELD = re.compile(
    r"""(?i)(["']?[\w-]*(?:password|token|secret|api_?key)[\w-]*["']?\s*:\s*)([^,}\]\s][^,}\]\n]*)"""
)
_KEPT_VARIABLES = ("LANG", "PATH", "INVOCATION_ID", "VIRTUAL_ENV")


def collect_report(config_path: Path | None) -> dict[str, str]:
    """Return the parts of the report, text by file name.

    Parameters
    ----------
    config_path: of the rig; None for the one that commands find by themselves.
    """
    config = _load(config_path)
    parts: dict[str, Callable[[], str]] = {
        "versions.txt": _versions,
        "system.txt": _system,
        "environment.txt": _environment,
        "configuration.yaml": lambda: _configuration(config_path),
        "check.txt": lambda: _command_output("check", config_path),
        "journal.txt": _journal,
    }
    if config is not None:
        parts |= {
            "status.json": lambda: json.dumps(send_request(config, "status", {}), indent=2),
            "models.json": lambda: json.dumps(_models(config), indent=2),
            "state-files.txt": lambda: "\n".join(_files(config.state_dir)),
        }
    secrets = list(_secrets(config))
    return {name: without_secrets(_attempt(part), secrets) for name, part in parts.items()}


def write_report(parts: dict[str, str], path: Path) -> None:
    """Write the parts into a new .tar.gz that only its owner can read; refuse an existing file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with (
        os.fdopen(os.open(path, flags, 0o600), "wb") as stream,
        tarfile.open(fileobj=stream, mode="w:gz") as archive,
    ):
        for name, text in parts.items():
            data = text.encode("utf-8", "backslashreplace")
            entry = tarfile.TarInfo(f"scentd-support/{name}")
            entry.size, entry.mtime = len(data), int(time.time())
            archive.addfile(entry, io.BytesIO(data))


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without the values of secret settings, and without the secrets themselves."""
    text = _SECRET_FIELD.sub(_hidden, _SECRET_LINE.sub(_hidden, text))
    for secret in secrets:
        text = text.replace(secret, REMOVED)
    return text


def _hidden(found: re.Match[str]) -> str:
    # The name of a file that holds a password is no secret, and faults are often about it.
    keeps = re.search(r"(?i)_file[\"']?\s*[:=]\s*$", found[1])
    return found[0] if keeps else f"{found[1]}{REMOVED}"


def _attempt(part: Callable[[], str]) -> str:
    try:
        return part()
    except (ScentdError, OSError, ValueError, subprocess.SubprocessError) as error:
        return f"This could not be collected: {error}"


def _load(config_path: Path | None) -> Config | None:
    try:
        return load_config(config_path)
    except (ScentdError, OSError):
        return None  # configuration.yaml and check.txt show why


def _secrets(config: Config | None) -> Iterator[str]:
    path = None if config is None else config.mqtt.password_file
    if path is not None:
        try:
            yield read_secret(path)
        except (ScentdError, OSError):
            return


def _versions() -> str:
    lines = [f"scentd {installed_version()}", f"Python {sys.version}", f"at {sys.executable}"]
    found = {
        f"{each.name} {each.version}" for each in metadata.distributions() if each.name is not None
    }
    return "\n".join([*lines, *sorted(found, key=str.casefold)])


def _system() -> str:
    lines = [" ".join(platform.uname())]
    for path in ("/etc/os-release", "/proc/meminfo", "/proc/cpuinfo", "/proc/mounts"):
        lines += [f"== {path}", _attempt(lambda path=path: Path(path).read_text(errors="replace"))]  # type: ignore[misc]
    ports = sorted(str(port) for port in Path("/dev/serial").glob("by-*/*"))
    return "\n".join([*lines, "== serial ports", *ports])


def _environment() -> str:
    shown = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("SCENTD_") or name in _KEPT_VARIABLES
    }
    return "\n".join(f"{name}: {value}" for name, value in sorted(shown.items()))


def _configuration(config_path: Path | None) -> str:
    path = find_config(config_path)
    return f"# {path}\n{path.read_text(encoding='utf-8', errors='backslashreplace')}"


def _command_output(command: str, config_path: Path | None) -> str:
    """Return what a command of scentd prints; a process of its own, whatever happens in it."""
    options = [] if config_path is None else ["--config", str(config_path)]
    return _output([sys.executable, "-P", "-m", "daemon.cli", command, *options])


def _journal() -> str:
    lines = str(LOG_LINES)
    return _output(["journalctl", "--no-pager", "-n", lines, "-u", "scentd", "-u", "scentd@*"])


def _output(command: list[str]) -> str:
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=COMMAND_S,
        check=False,
        env={**os.environ, "PYTHONPATH": root},
    )
    return f"{done.stdout}{done.stderr}\n(exit code {done.returncode})"


def _models(config: Config) -> list[dict[str, object]]:
    store = ModelStore(config.state_dir)
    return [store.describe(name) for name in sorted({*shipped_bundles(), *store.names()})]


def _files(folder: Path) -> Iterator[str]:
    """Yield a line for each file of the state folder: size, time, name."""
    count = 0
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            count += 1
            if count > MOST_FILES:
                yield f"... more than {MOST_FILES} files"
                return
            path = Path(where, name)
            status = path.lstat()
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(status.st_mtime))
            yield f"{status.st_size:>12} {when} {path.relative_to(folder)}"
