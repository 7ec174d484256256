"""What the command line says about listening is understood, or refused with an example."""

from __future__ import annotations

import pytest

from daemon.web.options import (
    is_loopback,
    parse_address,
    parse_host_name,
    parse_listen,
    parse_root_path,
)
from hardware.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8733", ("127.0.0.1", 8733)),
        ("192.168.1.5:80", ("192.168.1.5", 80)),
        ("[::1]:0", ("::1", 0)),
        ("rig.local:8733", ("rig.local", 8733)),
    ],
)
def test_an_address_is_read(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "1:99999", "host:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--listen"):
        parse_listen(text)


@pytest.mark.parametrize(("text", "prefix"), [("", ""), ("/", ""), ("/scent/", "/scent")])
def test_a_prefix_is_read(text: str, prefix: str) -> None:
    assert parse_root_path(text) == prefix


@pytest.mark.parametrize("text", ["scent", "/a b", "/a//b", "/<script>"])
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--root-path"):
        parse_root_path(text)


def test_hosts_and_addresses_are_checked() -> None:
    assert parse_host_name("Scent.Example.org") == "scent.example.org"
    assert parse_address("172.30.32.2") == "172.30.32.2"
    with pytest.raises(UsageError, match="without a port"):
        parse_host_name("a:80")
    with pytest.raises(UsageError, match="IP address"):
        parse_address("proxy")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("192.168.1.5", False),
        ("rig", False),
    ],
)
def test_only_this_computer_reaches_the_loopback_interface(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
