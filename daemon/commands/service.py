"""Daemon: `scentd service`: add this environment to systemd as a service, and remove it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.commands.web import EXTRA
from daemon.setup.service_scripts import check_not_packaged, interpreter, run_script

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    parser.description = (
        "Let systemd run this environment's scentd as a service, or remove the service. Needs root."
    )
    parser.epilog = "Example: scentd service install"
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    install = actions.add_parser(
        "install",
        help="add the service and start it",
        description=(
            "Put the units, the udev rule for the board's port, a first configuration in "
            "/etc/scentd and the command /usr/local/bin/scentd, and start the service. With the "
            "extra `web` installed, the page is served too. It can be run again at any time, as "
            "after an upgrade: configuration and state are never changed."
        ),
        epilog="Example: scentd service install --rig kitchen --rig attic",
    )
    install.add_argument(
        "--rig",
        action="append",
        default=[],
        metavar="NAME",
        help="one of several boards on this computer: /etc/scentd/NAME/scentd.yaml, run as "
        "scentd@NAME (default: the only rig, /etc/scentd/scentd.yaml, run as scentd)",
    )
    install.add_argument(
        "--no-start", action="store_true", help="enable the service, but do not start it"
    )
    install.set_defaults(run=_install)
    uninstall = actions.add_parser(
        "uninstall",
        help="stop the service and remove it; configuration and state stay",
        description="Stop the service and remove what install has put; the environment stays.",
        epilog="Example: scentd service uninstall",
    )
    uninstall.add_argument(
        "--purge",
        action="store_true",
        help="also remove configuration, secrets and state: calibration, taught smells, "
        "recordings and undelivered messages are lost",
    )
    uninstall.set_defaults(run=_uninstall)
    for action in (install, uninstall):
        action.add_argument(
            "--root", type=Path, metavar="DIR", help="act below DIR, an image; starts nothing"
        )


def _install(args: argparse.Namespace) -> int:
    options = ["--python", str(interpreter(args.root))]
    for rig in args.rig:
        options += ["--rig", rig]
    if all(find_spec(name) for name in EXTRA):
        options.append("--web")
    if args.no_start:
        options.append("--no-start")
    return run_script("add-service.sh", *options, *_root(args))


def _uninstall(args: argparse.Namespace) -> int:
    check_not_packaged(args.root)
    return run_script("uninstall.sh", *(["--purge"] if args.purge else []), *_root(args))


def _root(args: argparse.Namespace) -> list[str]:
    return [] if args.root is None else ["--root", str(args.root)]
