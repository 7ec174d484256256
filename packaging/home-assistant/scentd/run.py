"""Start scentd and its page as an app of Home Assistant.

The configuration is made from the options of the app and from what the Supervisor says of its
broker: https://developers.home-assistant.io/docs/apps/communication#services-api. Settings that are
no options come from a file `scentd.yaml` in the app's folder. Both programs belong to the user
scentd; this one keeps root's rights to read /data/options.json, and ends when one of them ends.
"""

import argparse
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

INGRESS = "172.30.32.2"
"""The only address from which Home Assistant's ingress connects."""

WITHIN_S = 10.0
"""Seconds within which the Supervisor must answer."""

HOW_TO_GET_A_BROKER = (
    "Install and start the app Mosquitto broker and the integration MQTT, or name a broker under "
    "mqtt in scentd.yaml in the folder of this app (see its documentation)."
)


def main() -> int:
    """Write the configuration, run the service and its page, and return an exit status."""
    parser = argparse.ArgumentParser(description="Start scentd as an app of Home Assistant.")
    parser.add_argument("--data", type=Path, default=Path("/data"), help="options and state")
    parser.add_argument("--own", type=Path, default=Path("/config/scentd.yaml"))
    parser.add_argument("--made", type=Path, default=Path("/run/scentd"), help="for what is made")
    parser.add_argument("--user", default="scentd", help="whose state and secrets they are")
    parser.add_argument("--supervisor", default="http://supervisor")
    parser.add_argument("--listen", default="0.0.0.0:8099", help="address and port of the page")
    parser.add_argument("--trust", default=INGRESS, help="the only address that may open the page")
    args = parser.parse_args()
    options = json.loads((args.data / "options.json").read_text("utf-8"))
    own = read_own(args.own)
    broker = {} if "host" in own.get("mqtt", {}) else ask_for_broker(args.supervisor)
    state, config = args.data / "state", args.made / "scentd.yaml"
    for folder in (state, args.made):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        give_to(folder, args.user)
    password = write_password(args.made, broker.pop("password", None), args.user)
    settings = configuration(options, broker | password, own) | {"state_dir": str(state)}
    config.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    give_to(config, args.user)
    page = ["--listen", args.listen, "--trust", args.trust, "--only-trusted"]
    return run_together(
        ["scentd", "run", "--config", str(config)],
        ["scentd", "web", "--config", str(config), *page],
    )


def read_own(path: Path) -> dict[str, Any]:
    """Return the settings of the owner's own file; none without one."""
    try:
        settings = yaml.safe_load(path.read_text("utf-8")) if path.exists() else None
    except yaml.YAMLError as error:
        sys.exit(f"{path} is not YAML: {error}")
    settings = {} if settings is None else settings
    if not isinstance(settings, dict) or not isinstance(settings.get("mqtt", {}), dict):
        sys.exit(f"{path} must hold settings by their names, such as live_stride_s: 2.")
    return settings


def ask_for_broker(supervisor: str) -> dict[str, Any]:
    """Return host, port, username and password of the broker, and `tls` where it is encrypted."""
    request = urllib.request.Request(  # noqa: S310 - the Supervisor's own address
        f"{supervisor}/services/mqtt",
        headers={"Authorization": f"Bearer {os.environ.get('SUPERVISOR_TOKEN', '')}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:  # noqa: S310
            service = json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        sys.exit(f"The Supervisor names no MQTT broker ({error}). {HOW_TO_GET_A_BROKER}")
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"The Supervisor did not say where the MQTT broker is ({error}). Start again.")
    broker = {"host": service["host"], "port": int(service["port"])}
    if service.get("username"):
        broker |= {"username": service["username"], "password": service["password"]}
    if service.get("ssl"):
        broker["tls"] = {}
    return broker


def configuration(
    options: dict[str, Any], broker: dict[str, Any], own: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings of scentd: options and broker, and before them the owner's own file."""
    chosen = {
        "rig_id": options["rig_id"],
        "source": {"port": options.get("port") or "auto"},
        "models": options["models"],
        "record": options["record"],
        "clips": options["clips"],
        "log": {"level": options["log_level"]},
    }
    return chosen | own | {"mqtt": broker | own.get("mqtt", {})}


def write_password(folder: Path, password: str | None, user: str) -> dict[str, str]:
    """Write the broker's password to a file for a user, and return the setting for it."""
    if password is None:
        return {}
    file = folder / "mqtt-password"
    file.touch(mode=0o600)
    file.write_text(f"{password}\n", "utf-8")
    give_to(file, user)
    return {"password_file": str(file)}


def give_to(path: Path, user: str) -> None:
    """Let a user own a path: the service and its page become the owner of their state."""
    shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


def run_together(*commands: list[str]) -> int:
    """Run commands until one of them ends or a signal stops them, and end the others.

    Returns
    -------
    the exit status of the first that ended; 0 after a signal.
    """
    running: dict[int, subprocess.Popen[bytes]] = {}
    started: dict[int, list[str]] = {}
    signalled = False

    def end_all() -> None:
        for child in running.values():
            child.terminate()

    def on_signal(*_: object) -> None:
        nonlocal signalled
        signalled = True
        end_all()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    for command in commands:
        child = subprocess.Popen(command)
        running[child.pid], started[child.pid] = child, command
    if signalled:
        end_all()  # some started after the signal
    pid, ended = os.wait()
    del running[pid]
    if not signalled:
        print(f"'{' '.join(started[pid][:2])}' ended, and so the app ends.", file=sys.stderr)
    end_all()
    for child in running.values():
        child.wait()
    return 0 if signalled else os.waitstatus_to_exitcode(ended) or 1


if __name__ == "__main__":
    sys.exit(main())
