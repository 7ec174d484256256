"""Daemon: `scentd setup`: find board and broker, write the configuration, check it.

Asks at a terminal; everywhere else options answer. Only ports whose USB chip is that of a board are
opened without being named: another device might take bytes, or the opening itself, for an order.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.board import port as board_port
from daemon.board.known_boards import chip_of, known_boards, lasting_names
from daemon.board.listening import LISTEN_S, listen_to_board
from daemon.commands import check
from daemon.commands._options import positive_seconds
from daemon.commands._service import log_warnings_only
from daemon.config.loading import CONFIG_PLACES, load_config, source_from_options
from daemon.config.settings import AUTO_PORT, MqttConfig
from daemon.mqtt.connection import BrokerError, try_broker
from daemon.setup.brokers import LOOPBACK, BrokerPlace, announced_brokers, parse_place
from daemon.setup.document import Answers, configuration_text
from daemon.setup.first_look import look_for
from hardware.errors import ScentdError, UsageError
from hardware.files import write_atomically
from models.bundle import RIG_BUNDLES

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_S = 20.0

PROBE_S = 8.0
"""Of each of several known ports: the slowest usual board sends a reading in 2.7 s."""

EPILOG = """Examples:
  scentd setup
  scentd setup --port /dev/ttyUSB0 --broker localhost --rig-id kitchen --yes
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Find the board and the broker, write the rig's configuration with comments, check it, and "
        "say what the rig smells now. It asks what it cannot find out; with --yes it takes what it "
        "finds."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the file to write (default: /etc/scentd/scentd.yaml for root, else ./scentd.yaml)",
    )
    parser.add_argument(
        "--port", metavar="PATH", help="the board's port, or auto (default: the known board)"
    )
    parser.add_argument(
        "--broker", metavar="HOST[:PORT]", help="the MQTT broker (default: one that is found)"
    )
    parser.add_argument(
        "--rig-id", metavar="NAME", help="name of the rig (default: this computer's name)"
    )
    parser.add_argument(
        "--models",
        metavar="A,B",
        help=f"models of the rig (default: {','.join(RIG_BUNDLES)})",
        default=None,
    )
    parser.add_argument("--state", metavar="DIR", help="the rig's state folder")
    parser.add_argument("--record", action="store_true", help="record continuously")
    parser.add_argument("--yes", action="store_true", help="ask nothing, take what is found")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--look",
        type=positive_seconds,
        default=LOOK_S,
        metavar="N",
        help="seconds to smell at the end (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write a configuration and check it; return 1 if something in it does not work yet."""
    log_warnings_only()
    ask = None if args.yes or not sys.stdin.isatty() else _ask
    path = args.config or (CONFIG_PLACES[1] if os.geteuid() == 0 else CONFIG_PLACES[0])
    if path.exists() and not args.force:
        raise UsageError(f"{path} exists already. Give --force to replace it, or another --config.")
    source, note = _find_board(args.port, ask)
    place = _find_broker(args.broker, ask)
    rig_id = args.rig_id or _rig_id(socket.gethostname())
    if ask is not None and args.rig_id is None:
        rig_id = ask(f"Name of the rig [{rig_id}]: ") or rig_id
    state_dir = "/var/lib/scentd" if path == CONFIG_PLACES[1] else None
    if args.state is not None:
        state_dir = str(Path(args.state).absolute())  # the file may lie elsewhere
    answers = Answers(
        rig_id=rig_id,
        source=source,
        source_note=note,
        models=args.models.split(",") if args.models else RIG_BUNDLES,
        host=place.host,
        port=place.port,
        state_dir=state_dir,
        record=args.record,
    )
    _write(path.absolute(), configuration_text(answers))
    print(f"Written: {path}\n")
    works = check.run(argparse.Namespace(config=path, listen=LISTEN_S, json=False)) == 0
    print()
    try:
        for sentence in look_for(load_config(path), args.look):
            print(sentence)
    except ScentdError as error:
        print(f"Nothing to smell yet: {error}")
        works = False
    option = "" if path in CONFIG_PLACES else f" --config {path}"
    print(f"\nStart it: scentd run{option}. Teach it a smell: scentd enroll LABEL{option}.")
    return 0 if works else 1


def _write(path: Path, text: str) -> None:
    """Write the file, after it was read as a configuration: a bad answer leaves no file."""
    trial = path.with_name(f".{path.name}.setup")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.write_text(text, encoding="utf-8")
        try:
            load_config(trial)
        finally:
            trial.unlink()
        write_atomically(path.resolve(), text.encode())
    except OSError as error:
        raise ScentdError(
            f"{path} cannot be written ({error.strerror}). Run this as a user who may, or name "
            "another file: --config FILE."
        ) from None


def _find_board(given: str | None, ask: Callable[[str], str] | None) -> tuple[str, str]:
    """Return the source to write, and a sentence about it."""
    ports = board_port.list_ports()
    if given is not None and given != AUTO_PORT:
        return str(Path(given).absolute()), "Named by its owner."
    boards = known_boards(ports)
    names = lasting_names(boards)
    for board, name in zip(boards, names, strict=True):
        print(f"Found a {chip_of(board)} at {name}")
    if len(boards) == 1:
        return AUTO_PORT, f"Found: {names[0]} ({chip_of(boards[0])})."
    if boards:
        return _choose_board(boards, names, ask)
    others = sorted(str(port.device) for port in ports)
    listed = f" Other ports, which are not opened: {', '.join(others)}." if others else ""
    if ask is not None:
        answer = ask(f"No known board is plugged in.{listed} Port of the board [auto]: ")
        return (answer or AUTO_PORT), "Named by its owner."
    if given is None and others:
        raise UsageError(f"No known board is plugged in.{listed} Name the board's: --port PATH.")
    return AUTO_PORT, "None was plugged in when this was written."


def _choose_board(
    boards: list[Any], names: list[str], ask: Callable[[str], str] | None
) -> tuple[str, str]:
    """Return the only one of several known ports that sends readings, or the one that is chosen."""
    sending = []
    for board, name in zip(boards, names, strict=True):
        try:
            found = listen_to_board(source_from_options(port=str(board.device)), PROBE_S)
        except ScentdError as error:
            print(f"  {name}: {error}")
        else:
            print(f"  {name}: {found.describe()}")
            sending.append(name)
    if len(sending) == 1:
        return sending[0], "The only port of several that sends readings."
    if ask is not None:
        return ask(f"Which is the board? [{names[0]}]: ") or names[0], "Chosen by its owner."
    raise UsageError(
        f"{len(boards)} ports may be the board: {', '.join(names)}. Name one: --port {names[0]}."
    )


def _find_broker(given: str | None, ask: Callable[[str], str] | None) -> BrokerPlace:
    """Return the broker that is named, or the first that answers."""
    if given is not None:
        place = parse_place(given)
        if place is None:
            raise UsageError(f"--broker is HOST or HOST:PORT, and {given!r} came.")
        return place
    local = BrokerPlace(LOOPBACK)
    for place in (local, *announced_brokers()):
        try:
            version = try_broker("setup", MqttConfig(host=place.host, port=place.port))
        except BrokerError:
            continue
        print(f"Found a broker at {place} ({place.source}, MQTT {version})")
        return place
    print("No broker answers on this computer or is announced on the network.")
    if ask is not None:
        answer = ask("Host of the broker, HOST or HOST:PORT [localhost]: ")
        place = parse_place(answer) if answer else local
        if place is None:
            raise UsageError(f"The broker is HOST or HOST:PORT, and {answer!r} came.")
        return place
    return local


def _rig_id(text: str) -> str:
    """Return a name of a rig from that of a computer."""
    name = re.sub(r"[^a-z0-9_-]+", "-", text.split(".", maxsplit=1)[0].lower()).strip("-")
    return name[:32] or "rig"


def _ask(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        return ""
