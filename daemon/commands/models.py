"""Leaf: `scentd models`: what bundles there are, whether they are whole, and which is in force.

A rig's own models lie below its state folder. A new one is verified and put there by this command,
which needs the right to write there; the running service then takes it on by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.config.loading import load_config
from daemon.config.settings import LogConfig
from daemon.installed_models.requests import MODELS, list_models, parse_version, switched_model
from daemon.installed_models.store import SHIPPED, ModelStore
from daemon.mqtt.service_client import send_request, service_is_online
from daemon.system.logs import configure_logs
from daemon.system.progress import Progress
from hardware.errors import ScentdError
from models.bundle import bundle_folder, load_bundle, shipped_bundles, verify_bundle

if TYPE_CHECKING:
    from daemon.config.settings import Config
    from hardware.command_line import Subparsers

EPILOG = """Examples:
  scentd models list --config rig.yaml
  scentd models verify substances-50 ./my-model
  scentd models install my-model.tar.gz --config rig.yaml
  scentd models rollback --config rig.yaml
"""

WORK_S = 120.0
"""Longest silence of a service that takes a model on: it tells its progress every second."""


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "models",
        help="list, verify, install and switch model bundles",
        description=(
            "List and verify model bundles; install one on a rig, switch to it and back. The "
            "running service takes it on without losing a reading."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def add(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        action = actions.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"Example: scentd models {example}",
        )
        action.add_argument("--json", action="store_true", help="print JSON")
        return action

    listing = add("list", "list the shipped bundles, or all of a rig", "list --json")
    listing.add_argument(
        "--config", type=Path, metavar="FILE", help="list what is on this rig, installed or shipped"
    )
    listing.set_defaults(run=run_list)
    verifying = add(
        "verify", "check every byte of bundles and run them", "verify substances-50 ./my-model"
    )
    verifying.add_argument(
        "bundles", nargs="*", metavar="BUNDLE", help="names or folders (default: all shipped)"
    )
    verifying.set_defaults(run=run_verify)
    installing = add(
        "install",
        "verify a bundle, keep it on the rig and put it in force",
        "install my-model.tar.gz --config rig.yaml",
    )
    installing.add_argument(
        "path", type=Path, metavar="PATH", help="its folder, or a .tar.gz or .zip of it"
    )
    installing.add_argument(
        "--no-switch", action="store_true", help="keep it, and leave the version in force"
    )
    installing.set_defaults(run=run_install)
    switching = add(
        "switch", "put a version in force", "switch substances-50 1.1.0 --config rig.yaml"
    )
    switching.add_argument("name", metavar="NAME", help="of the model")
    switching.add_argument("version", metavar="VERSION", help=f"an installed one, or {SHIPPED}")
    switching.set_defaults(run=run_switch)
    going_back = add(
        "rollback", "go back to the version in force before", "rollback --config rig.yaml"
    )
    going_back.add_argument(
        "name", nargs="?", metavar="NAME", help="left out: the only model that was ever switched"
    )
    going_back.set_defaults(run=run_rollback)
    for action in (installing, switching, going_back):
        action.add_argument(
            "--config", type=Path, required=True, metavar="FILE", help="the rig's YAML file"
        )


def _rig(args: argparse.Namespace) -> Config:
    """Return the rig's configuration; what is logged meanwhile is no answer."""
    configure_logs(LogConfig(level="warning"))
    return load_config(args.config)


def run_list(args: argparse.Namespace) -> int:
    """Print what every shipped bundle is, or what there is on a rig."""
    if args.config is not None:
        return _list_of_rig(_rig(args), as_json=args.json)
    rows = [_described(name) for name in shipped_bundles()]
    if args.json:
        print(json.dumps(rows))
        return 0
    print(f"{'NAME':<20} {'VERSION':<9} {'TASK':<10} {'LABELS':>6} {'SIZE':>8}  CHANNELS")
    for row in rows:
        print(
            f"{row['name']:<20} {row['version']:<9} {row['task']:<10} {len(row['labels']):>6} "
            f"{row['size_mb']:>5.1f} MB  {', '.join(row['channels'])}"
        )
    return 0


def _list_of_rig(config: Config, *, as_json: bool) -> int:
    told = list_models(ModelStore(config.state_dir), config.models)
    if as_json:
        print(json.dumps(told["models"]))
        return 0
    print(f"{'NAME':<20} {'RUNS':<5} {'IN FORCE':<12} {'BEFORE':<12} {'SHIPPED':<12} INSTALLED")
    for row in told["models"]:
        print(
            f"{row['name']:<20} {'yes' if row['configured'] else 'no':<5} "
            f"{row['active'] or '-':<12} {row['previous'] or '-':<12} {row['shipped'] or '-':<12} "
            f"{', '.join(one['version'] for one in row['installed']) or '-'}"
        )
    return 0


def _described(name: str) -> dict[str, Any]:
    folder = bundle_folder(name)
    manifest = verify_bundle(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "labels": list(manifest.labels),
        "channels": list(manifest.preprocessing.channels),
        "size_mb": round(size / 1e6, 2),
        "metrics": manifest.metrics,
    }


def run_verify(args: argparse.Namespace) -> int:
    """Check bundles; return 1 if any cannot be used."""
    results = [_verified(name) for name in args.bundles or shipped_bundles()]
    if args.json:
        print(json.dumps(results))
    else:
        for result in results:
            if result["ok"]:
                print(f"ok      {result['bundle']}: {result['files']} files, runs as int8 and fp32")
            else:
                print(f"FAILED  {result['bundle']}: {result['error']}")
    if not results:
        print("scentd: no bundle came with this installation.", file=sys.stderr)
    return 0 if results and all(result["ok"] for result in results) else 1


def _verified(name: str) -> dict[str, Any]:
    try:
        bundle = load_bundle(name, "int8")
        load_bundle(name, "fp32")
    except ScentdError as error:
        return {"bundle": name, "ok": False, "error": str(error)}
    return {"bundle": name, "ok": True, "files": len(bundle.manifest.files) + 1}


def run_install(args: argparse.Namespace) -> int:
    """Keep a bundle on the rig and, unless told otherwise, put it in force."""
    config = _rig(args)
    # Here and not in the service: that may read no files of this user.
    manifest = ModelStore(config.state_dir).install(args.path)
    if args.no_switch:
        return _tell(args, ModelStore(config.state_dir).describe(manifest.name), config)
    return _switch(args, config, manifest.name, manifest.version)


def run_switch(args: argparse.Namespace) -> int:
    """Put a version in force."""
    return _switch(args, _rig(args), args.name, args.version)


def run_rollback(args: argparse.Namespace) -> int:
    """Put the version before in force again."""
    config = _rig(args)
    store = ModelStore(config.state_dir)
    name = args.name or switched_model(store)
    if service_is_online(config):
        return _tell(args, _asked(config, {"action": "rollback", "name": name}), config)
    store.rollback(name)
    return _tell(args, store.describe(name), config)


def _switch(args: argparse.Namespace, config: Config, name: str, version: str) -> int:
    if service_is_online(config):
        answer = _asked(config, {"action": "switch", "name": name, "version": version})
        return _tell(args, answer, config)
    store = ModelStore(config.state_dir)
    store.switch(name, parse_version(version))
    return _tell(args, store.describe(name), config)


def _asked(config: Config, payload: dict[str, Any]) -> dict[str, Any]:
    with Progress() as bar:
        return send_request(
            config,
            MODELS,
            payload,
            timeout_s=WORK_S,
            on_progress=lambda told: bar.show(0.5, str(told.get("doing", ""))),
        )


def _tell(args: argparse.Namespace, told: dict[str, Any], config: Config) -> int:
    """Print what there is of a model now, and who runs it."""
    if args.json:
        print(json.dumps(told))
        return 0
    name = told["name"]
    print(
        f"{name}: {told['active'] or 'no version'} in force, {told['previous'] or 'none'} before; "
        f"installed: {', '.join(one['version'] for one in told['installed']) or 'none'}."
    )
    if name not in config.models:
        print(f"The configuration does not run it. Add {name} to models, and reload.")
    elif told.get("in_force"):
        print("The running service has taken it on.")
    else:
        print("The service takes it on when it starts.")
    return 0
