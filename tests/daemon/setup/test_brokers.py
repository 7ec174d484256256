"""Brokers are read from what the network announces; nothing else is taken for one."""

from __future__ import annotations

import pytest

from daemon.setup.brokers import BrokerPlace, announced_brokers, parse_place

BROWSED = """\
+;eth0;IPv4;Mosquitto;_mqtt._tcp;local
=;eth0;IPv6;Mosquitto;_mqtt._tcp;local;hub.local;fe80::1;1883;
=;eth0;IPv4;Mosquitto;_mqtt._tcp;local;hub.local;192.168.1.5;1884;"x=1"
=;wlan0;IPv4;Mosquitto;_mqtt._tcp;local;hub.local;192.168.1.5;1884;
=;eth0;IPv4;Odd;_mqtt._tcp;local;hub.local;$(reboot);1883;
=;eth0;IPv4;Odd;_mqtt._tcp;local;hub.local;192.168.1.6;99999;
"""


def test_each_announced_broker_is_given_once() -> None:
    assert [str(place) for place in announced_brokers(lambda: BROWSED)] == ["192.168.1.5:1884"]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("hub", "hub", 1883),
        ("10.0.0.2:1884", "10.0.0.2", 1884),
        ("[fe80::1]:8883", "fe80::1", 8883),
    ],
)
def test_a_place_is_host_and_port(text: str, host: str, port: int) -> None:
    assert parse_place(text) == BrokerPlace(host, port, "given")


@pytest.mark.parametrize("text", ["", "a b", "hub:0", "hub:99999", "mqtt://hub"])
def test_other_texts_are_no_place(text: str) -> None:
    assert parse_place(text) is None
