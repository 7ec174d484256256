"""Leaf: `scentd models`: what bundles there are, and whether they are whole."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from hardware.errors import ScentdError
from models.bundle import bundle_folder, load_bundle, shipped_bundles, verify_bundle

if TYPE_CHECKING:
    import argparse

    from hardware.command_line import Subparsers


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = subparsers.add_parser(
        "models",
        help="list and verify model bundles",
        description="List the model bundles that came with scentd, or verify bundles.",
        epilog="Example: scentd models verify substances-50 ./my-model",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list",
        help="list the shipped bundles",
        description="List the shipped bundles.",
        epilog="Example: scentd models list --json",
    )
    listing.add_argument("--json", action="store_true", help="print one JSON array")
    listing.set_defaults(run=run_list)
    verifying = actions.add_parser(
        "verify",
        help="check every byte of bundles, and run each once",
        description="Check every byte of bundles against their manifest, and run each model once.",
        epilog="Example: scentd models verify substances-50",
    )
    verifying.add_argument(
        "bundles", nargs="*", metavar="NAME|FOLDER", help="which (default: all shipped bundles)"
    )
    verifying.add_argument("--json", action="store_true", help="print one JSON array")
    verifying.set_defaults(run=run_verify)


def run_list(args: argparse.Namespace) -> int:
    """Print what every shipped bundle is."""
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
