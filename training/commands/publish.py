"""training/: `scent-train publish`: write a bundle to the Hugging Face hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.errors import UsageError
from hardware.hub import HubAddress, require_hub_client
from models.bundle import bundle_folder
from training.export.hub_upload import prepare_upload, remote_state, upload_bundle

if TYPE_CHECKING:
    import argparse

    from training.export.hub_upload import RemoteState, Upload


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Verify a bundle, run it once, and write its files to a repository of the Hugging Face "
        "hub, as one commit, with the front matter that the hub reads before its card. Recordings "
        "are never uploaded. Log in first: hf auth login, or HF_TOKEN."
    )
    parser.epilog = (
        "Example: scent-train publish my-bundle --to hf:me/my-smells --license mit --dry-run"
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="its folder, or the name of a shipped one")
    parser.add_argument(
        "--to", required=True, metavar="hf:OWNER/NAME", help="the repository, made if there is none"
    )
    parser.add_argument(
        "--private", action="store_true", help="only you see a repository that is made"
    )
    parser.add_argument(
        "--license", metavar="ID", help="the licence, as the hub names it: mit, apache-2.0, cc0-1.0"
    )
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="OWNER/NAME",
        help="a data set of the hub that the model was trained on",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be uploaded; ask the hub nothing"
    )
    parser.add_argument(
        "--yes", action="store_true", help="do not ask before something becomes public"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, say what is uploaded, and upload it."""
    address = HubAddress.parse(args.to)
    if address.revision is not None:
        raise UsageError(
            f"A bundle is published to the main branch of a repository: --to "
            f"hf:{address.repository}, without @{address.revision}."
        )
    for name in args.dataset:
        HubAddress.parse(f"hf:{name}")
    upload = prepare_upload(Path(bundle_folder(args.bundle)), args.license, args.dataset)
    _print_upload(upload, address, args.license)
    if args.dry_run:
        print("Nothing was uploaded (--dry-run).", file=sys.stderr)
        return 0
    require_hub_client("Publishing")
    state = remote_state(address)
    if _becomes_public(state, address, private=args.private) and not args.yes:
        _ask(address)
    written = upload_bundle(upload, address, state, private=args.private)
    print(f"Published. Install it on a rig: scentd models install {written}")
    return 0


def _print_upload(upload: Upload, address: HubAddress, licence: str | None) -> None:
    """Print every file that is uploaded, with its size, and the front matter."""
    manifest = upload.manifest
    print(f"{manifest.name} {manifest.version} ({manifest.sha256[:16]}) to {address}:")
    for name, content in upload.files.items():
        print(f"  {name:<20} {len(content) / 1000:>9,.1f} kB")
    print(
        "No recording is among them; training_files.txt lists the hashes and names of the "
        "recordings, and arrays.npz means and levels computed from them."
    )
    if licence is None:
        print("No licence is stated (--license), so that nobody may use it.", file=sys.stderr)


def _becomes_public(state: RemoteState | None, address: HubAddress, *, private: bool) -> bool:
    """Tell whether everyone will see what is uploaded.

    Raises
    ------
    UsageError: it was to be private, and the repository is public.
    """
    if state is None:
        return not private
    if private and not state.private:
        raise UsageError(
            f"{address} is public already, so --private cannot be. Make it private on its page, "
            "or name another repository."
        )
    return not state.private


def _ask(address: HubAddress) -> None:
    """Raise `UsageError` unless the user agrees to publish."""
    question = f"Everyone will be able to download it from {address}."
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Add --yes to agree, or --private.")
    print(f"{question} Publish it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("Nothing was uploaded.")
