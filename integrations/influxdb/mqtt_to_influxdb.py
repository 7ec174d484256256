"""Writes the results of scentd's rigs to InfluxDB, as its line protocol.

    python mqtt_to_influxdb.py --broker 127.0.0.1 --url http://127.0.0.1:8086 --database scentd
    python mqtt_to_influxdb.py --broker 127.0.0.1        # prints the lines

Needs paho-mqtt 2. Measurements: scentd_substance, scentd_mixture (a point for each component) and
scentd_health, tagged with rig and model. InfluxDB 2 and 3 take the same lines at
/api/v2/write?bucket=BUCKET&org=ORG with a token in the header; telegraf/ does the same without
code.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOPICS = ("substance", "mixture", "health")
HEALTH_FIELDS = ("frames_ok", "frames_lost", "outbox_depth", "rate_hz", "rss_mb")


def lines(topic: str, payload: Mapping[str, Any]) -> Iterator[str]:
    """Yield the points of a message, nothing for one that has no time or no value."""
    _, rig, kind = topic.split("/", 2)
    time_ns = int(datetime.fromisoformat(payload["ts"]).timestamp() * 1000) * 1_000_000
    if kind == "substance":
        tags = {"rig": rig, "model": payload["model"]}
        names = ("state", "label", "probability", "novelty", "latency_ms")
        yield from _line("scentd_substance", tags, {name: payload[name] for name in names}, time_ns)
    elif kind == "mixture":
        for part in payload["components"]:
            tags = {"rig": rig, "model": payload["model"], "label": part["label"]}
            fields = {name: value for name, value in part.items() if name != "label"}
            yield from _line("scentd_mixture", tags, fields, time_ns)
    elif kind == "health":
        fields = {name: payload[name] for name in HEALTH_FIELDS}
        yield from _line("scentd_health", {"rig": rig}, fields, time_ns)


def _line(
    measurement: str, tags: Mapping[str, Any], fields: Mapping[str, Any], time_ns: int
) -> Iterator[str]:
    shown = [f"{name}={_field(value)}" for name, value in fields.items() if value is not None]
    if shown:
        keys = "".join(f",{name}={_tag(str(value))}" for name, value in tags.items())
        yield f"{measurement}{keys} {','.join(shown)} {time_ns}"


def _tag(text: str) -> str:
    for sign in ("\\", ",", "=", " "):
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def _field(value: object) -> str:
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    return json.dumps(float(value))  # type: ignore[arg-type]


def write(url: str, database: str, text: str) -> None:
    """Send lines to InfluxDB; a refusal is printed and the lines are lost."""
    query = urllib.parse.urlencode({"db": database, "precision": "ns"})
    request = urllib.request.Request(f"{url}/write?{query}", text.encode())  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    except urllib.error.URLError as error:
        print(f"InfluxDB at {url} did not take {text!r}: {error}", file=sys.stderr)


def main() -> None:
    """Pass messages on until stopped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--broker", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--url", help="of InfluxDB; without it, the lines are printed")
    parser.add_argument("--database", default="scentd")
    args = parser.parse_args()

    def connected(client: paho.Client, *_: object) -> None:
        client.subscribe([(f"scent/+/{topic}", 1) for topic in TOPICS])

    def received(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        try:
            points = list(lines(message.topic, json.loads(message.payload)))
        except (ValueError, KeyError, TypeError) as error:
            print(f"{message.topic} is no message of scentd: {error!r}", file=sys.stderr)
            return
        if points and args.url:
            write(args.url, args.database, "\n".join(points))
        elif points:
            print("\n".join(points), flush=True)

    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect, client.on_message = connected, received
    client.connect(args.broker, args.port)
    client.loop_forever()


if __name__ == "__main__":
    main()
