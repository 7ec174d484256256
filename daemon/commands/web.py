"""Daemon: `scentd web`: the web page of the rigs on a broker.

The page needs the extra `web`; missing packages are reported here.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.commands._options import add_config_option
from daemon.config.loading import ConfigError, find_config, load_config
from daemon.system.logs import configure_logs
from daemon.system.owner import become_owner
from daemon.web.options import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    WebOptions,
    parse_address,
    parse_host_name,
    parse_listen,
    parse_root_path,
)
from hardware.errors import UsageError
from hardware.extras import require_extra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.config.settings import Config
    from daemon.web.access import Token

EXTRA = ("starlette", "uvicorn", "prometheus_client", "websockets")
"""What the extra `web` installs."""

EPILOG = """Examples:
  scentd web --config /etc/scentd/scentd.yaml
  scentd web --config rig.yaml --listen 0.0.0.0:8733
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Serve a web page: what the rigs on the broker smell now, teaching by a click, the "
        "recordings, and metrics for Prometheus. A process of its own beside the service. It "
        "listens on this computer alone unless told otherwise; elsewhere a browser must show the "
        "token, which is printed when it is made."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_config_option(parser)
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="configuration of another rig of this computer and broker, whose recordings, curves "
        "and models' cards the page then shows too; several times for several rigs",
    )
    parser.add_argument(
        "--listen",
        default=f"{DEFAULT_HOST}:{DEFAULT_PORT}",
        metavar="[ADDRESS:]PORT",
        help="where to listen (default: %(default)s)",
    )
    parser.add_argument(
        "--root-path",
        default="",
        metavar="PATH",
        help="prefix under which a proxy serves the page, such as /scent",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name by which the page is called; then the token is needed",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="address of a proxy that checks who calls, such as Home Assistant's",
    )
    parser.add_argument(
        "--only-trusted",
        action="store_true",
        help="refuse everybody but these proxies; then there is no token",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file of the token (default: web-token in the rig's state folder)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    host, port = parse_listen(args.listen)
    if args.only_trusted and (not args.trust or {"127.0.0.1", "::1"} & set(args.trust)):
        raise UsageError(
            "--only-trusted needs the address of a proxy on another computer or in another "
            "container: --trust ADDRESS. Every program of this computer has 127.0.0.1 and ::1."
        )
    rigs = _load_rigs(find_config(args.config), args.also)
    config = next(iter(rigs.values()))[0]
    options = WebOptions(
        host=host,
        port=port,
        root_path=parse_root_path(args.root_path),
        allowed_hosts=frozenset(map(parse_host_name, args.allow_host)),
        trusted=frozenset(map(parse_address, args.trust)),
        only_trusted=args.only_trusted,
        state_dirs={rig: one.state_dir for rig, (one, _) in rigs.items()},
        configs={rig: path.resolve() for rig, (_, path) in rigs.items()},
    )
    require_extra("The page", "web", EXTRA)
    become_owner(config.state_dir)
    configure_logs(config.log)
    import_module("daemon.web.server").serve(config, options, args.token_file, _announce)
    return 0


def _load_rigs(path: Path, others: Sequence[Path]) -> dict[str, tuple[Config, Path]]:
    """Return configuration and file by rig, the first rig first.

    One of `others` that cannot be read is left out, which is said: it must not take the page of all
    rigs down.

    Raises
    ------
    UsageError: two are of one rig.
    """
    first = load_config(path)
    rigs = {first.rig_id: (first, path)}
    for other in others:
        try:
            config = load_config(other)
        except ConfigError as error:
            print(f"The recordings of the rig in {other} are not shown: {error}", file=sys.stderr)
            continue
        if config.rig_id in rigs:
            raise UsageError(
                f"{rigs[config.rig_id][1]} and {other} are both of rig {config.rig_id!r}. Name "
                "each rig once, and give each its own rig_id."
            )
        rigs[config.rig_id] = config, other
    return rigs


def _announce(address: str, token: Token | None) -> None:
    if token is not None and token.is_new:
        address += f"#token={token.text}"
        print(f"The token of this page, which is not printed again: {token.text}", flush=True)
    print(f"The page: {address}", flush=True)
    if token is not None and not token.is_new:
        print("A browser that is not logged in asks for the token.", file=sys.stderr)
