"""Daemon: `scentd models`: list, verify, install and switch model bundles.

A rig's own models lie below its state folder. This command verifies a new one and writes it there,
for which it needs permission; a running service then applies it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.commands._options import CONFIG_DEFAULT, add_action, add_config_option
from daemon.commands._service import do_by_service_or_here, load_rig, print_answer
from daemon.config.loading import default_config_path
from daemon.installed_models.onnx_runtime import require_runtime
from daemon.installed_models.requests import MODELS, list_models, parse_version, switched_model
from daemon.installed_models.store import SHIPPED, ModelStore
from daemon.installed_models.trial import try_bundle
from hardware.counting import counted
from hardware.errors import ScentdError
from hardware.hub import PREFIX, HubAddress
from models.bundle import (
    available_precisions,
    bundle_folder,
    shipped_bundles,
    verify_bundle,
)
from models.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.config.settings import Config
    from daemon.system.background import Data
    from models.manifest import Manifest

_LEAST_WIDTH = 40

EPILOG = """Examples:
  scentd models list --config rig.yaml
  scentd models list --labels
  scentd models verify substances-50 ./my-model
  scentd models install my-model.tar.gz --config rig.yaml
  scentd models install hf:owner/my-model@v1 --config rig.yaml
  scentd models rollback --config rig.yaml
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "List and verify model bundles; install one on a rig, switch to it and back. The "
        "running service applies it without losing a reading."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    add = partial(add_action, actions, "models")

    listing = add("list", "list the shipped bundles, or all of a rig", "--json", run_list)
    listing.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"list the models of this rig, installed or shipped ({CONFIG_DEFAULT}, "
        "else the shipped ones)",
    )
    listing.add_argument(
        "--labels", action="store_true", help="list what each model recognises, one line a model"
    )
    verifying = add(
        "verify",
        "check every byte of bundles and run them",
        "substances-50 ./my-model",
        run_verify,
    )
    verifying.add_argument(
        "bundles", nargs="*", metavar="BUNDLE", help="names or folders (default: all shipped)"
    )
    installing = add(
        "install",
        "verify and install a bundle, and activate it",
        "my-model.tar.gz --config rig.yaml",
        run_install,
    )
    installing.add_argument(
        "source",
        metavar="SOURCE",
        help="its folder, a .tar.gz or .zip of it, or hf:OWNER/NAME[@REVISION] on the hub",
    )
    installing.add_argument(
        "--no-switch", action="store_true", help="install only; the active version stays"
    )
    switching = add(
        "switch", "activate a version", "substances-50 1.1.0 --config rig.yaml", run_switch
    )
    switching.add_argument("name", metavar="NAME", help="name of the model")
    switching.add_argument("version", metavar="VERSION", help=f"an installed one, or {SHIPPED}")
    going_back = add(
        "rollback", "activate the previous version again", "--config rig.yaml", run_rollback
    )
    going_back.add_argument(
        "name", nargs="?", metavar="NAME", help="left out: the only model that was ever switched"
    )
    for action in (installing, switching, going_back):
        add_config_option(action)


def run_list(args: argparse.Namespace) -> int:
    """Print the shipped bundles, or the models of a rig."""
    args.config = args.config or default_config_path()
    if args.labels:
        return _print_labels(args)
    if args.config is not None:
        return _print_rig_models(load_rig(args.config), as_json=args.json)
    rows = [_describe_bundle(name) for name in shipped_bundles()]
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


def _print_labels(args: argparse.Namespace) -> int:
    """Print the labels of the shipped bundles, or of the versions that a rig runs."""
    if args.config is None:
        manifests = [verify_bundle(bundle_folder(name)) for name in shipped_bundles()]
    else:
        config = load_rig(args.config)
        store = ModelStore(config.state_dir)
        manifests = [verify_bundle(store.folder(name)) for name in config.models]
    if args.json:
        print(json.dumps({manifest.name: list(manifest.labels) for manifest in manifests}))
        return 0
    for manifest in manifests:
        labels = counted(len(manifest.labels), "label")
        text = f"{manifest.name} {manifest.version}, {labels}: {', '.join(manifest.labels)}"
        width = max(shutil.get_terminal_size().columns, _LEAST_WIDTH)
        print(textwrap.fill(text, width, subsequent_indent="  ", break_on_hyphens=False))
    return 0


def _print_rig_models(config: Config, *, as_json: bool) -> int:
    models = list_models(ModelStore(config.state_dir), config.models)["models"]
    if as_json:
        print(json.dumps(models))
        return 0
    print(f"{'NAME':<20} {'RUNS':<5} {'ACTIVE':<12} {'PREVIOUS':<12} {'SHIPPED':<12} INSTALLED")
    for row in models:
        print(
            f"{row['name']:<20} {'yes' if row['configured'] else 'no':<5} "
            f"{row['active'] or '-':<12} {row['previous'] or '-':<12} {row['shipped'] or '-':<12} "
            f"{', '.join(one['version'] for one in row['installed']) or '-'}"
        )
    return 0


def _describe_bundle(name: str) -> Data:
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
    require_runtime()
    results = [_verify(name) for name in args.bundles or shipped_bundles()]
    if args.json:
        print(json.dumps(results))
    else:
        for result in results:
            if result["ok"]:
                runs = " and ".join(result["precisions"])
                files = counted(result["files"], "file")
                print(f"ok      {result['bundle']}: {files}, runs as {runs}")
            else:
                print(f"FAILED  {result['bundle']}: {result['error']}")
    if not results:
        print("scentd: this installation contains no bundle.", file=sys.stderr)
    return 0 if results and all(result["ok"] for result in results) else 1


def _verify(name: str) -> Data:
    try:
        folder = bundle_folder(name)
        try_bundle(folder)
    except ScentdError as error:
        return {"bundle": name, "ok": False, "error": str(error)}
    precisions = available_precisions(folder)
    files = len(read_manifest(folder).files) + len(precisions) - 1  # the manifest, without a twin
    return {"bundle": name, "ok": True, "files": files, "precisions": list(precisions)}


def run_install(args: argparse.Namespace) -> int:
    """Install a bundle on the rig and, without `--no-switch`, activate it."""
    config = load_rig(args.config)
    store = ModelStore(config.state_dir)
    # Not in the service, which may not read this user's files.
    manifest = _install(store, args.source)
    if args.no_switch:
        return _print_model(args, config, store.describe(manifest.name))
    return _switch(args, config, manifest.name, manifest.version)


def _install(store: ModelStore, source: str) -> Manifest:
    """Install a bundle from a path or from the hub."""
    if not source.startswith(PREFIX):
        return store.install(Path(source))
    # Only the hub needs its client.
    from daemon.installed_models.hub_download import fetched_bundle  # noqa: PLC0415

    address = HubAddress.parse(source)
    with fetched_bundle(address) as fetched:
        manifest = store.install(fetched.folder, str(fetched.address))
    print(
        f"{manifest.name} {manifest.version} came from {fetched.address}; this address always "
        "installs the same.",
        file=sys.stderr,
    )
    return manifest


def run_switch(args: argparse.Namespace) -> int:
    """Activate a version."""
    return _switch(args, load_rig(args.config), args.name, args.version)


def run_rollback(args: argparse.Namespace) -> int:
    """Activate the previous version again."""
    config = load_rig(args.config)
    store = ModelStore(config.state_dir)
    name = args.name or switched_model(store)
    request = {"action": "rollback", "name": name}
    return _change(args, config, request, lambda: store.rollback(name))


def _switch(args: argparse.Namespace, config: Config, name: str, version: str) -> int:
    store = ModelStore(config.state_dir)
    request = {"action": "switch", "name": name, "version": version}
    return _change(args, config, request, lambda: store.switch(name, parse_version(version)))


def _change(
    args: argparse.Namespace, config: Config, request: Data, change: Callable[[], object]
) -> int:
    """Change the active version through the service, or by `change` where none runs."""

    def change_here() -> Data:
        change()
        return ModelStore(config.state_dir).describe(request["name"])

    answer = do_by_service_or_here(
        config, MODELS, request, change_here, lambda data: (0.5, str(data.get("doing", "")))
    )
    return _print_model(args, config, answer)


def _print_model(args: argparse.Namespace, config: Config, model: Data) -> int:
    """Print a model's versions, and whether the service runs it."""

    def lines(model: Data) -> Iterator[str]:
        name = model["name"]
        yield (
            f"{name}: {model['active'] or 'no version'} active, previously "
            f"{model['previous'] or 'none'}; installed: "
            f"{', '.join(one['version'] for one in model['installed']) or 'none'}."
        )
        if name not in config.models:
            yield f"The configuration does not run it. Add {name} to models, and reload."
        elif model.get("in_force"):
            yield "The running service has applied it."
        else:
            yield "The service applies it when it starts."

    print_answer(model, lines, as_json=args.json)
    return 0
