"""Runs the real Home Assistant core with its MQTT integration, for a test in another process.

Started by the Python that Home Assistant is installed in, with its configuration folder and the
broker's port. Reads one JSON object a line: {"call": [domain, service, data]} or {"states": true};
answers each by one line. Knows nothing of scentd.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

from homeassistant import auth, bootstrap, config_entries, core, loader
from homeassistant.helpers import entity_registry
from homeassistant.setup import async_setup_component


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


async def start(folder: str, port: int, automation: dict[str, Any]) -> core.HomeAssistant:
    hass = core.HomeAssistant(folder)
    loader.async_setup(hass)
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await bootstrap.async_load_base_functionality(hass)
    hass.auth = await auth.auth_manager_from_config(hass, [], [])
    http = {"http": {"server_host": "127.0.0.1", "server_port": free_port()}}
    assert await async_setup_component(hass, "http", http)
    await async_setup_component(hass, "homeassistant", {})
    await async_setup_component(hass, "persistent_notification", {})
    await hass.async_start()
    flow = await hass.config_entries.flow.async_init("mqtt", context={"source": "user"})
    result = await hass.config_entries.flow.async_configure(
        flow["flow_id"], {"broker": "127.0.0.1", "port": port}
    )
    assert result["type"] == "create_entry", result
    await hass.async_block_till_done()
    if automation:
        assert await async_setup_component(hass, "automation", {"automation": [automation]})
    return hass


def states(hass: core.HomeAssistant) -> dict[str, Any]:
    """Return state and attributes of every entity, by what follows the rig in its unique id."""
    registry = entity_registry.async_get(hass)
    found = {}
    for entry in registry.entities.values():
        state = hass.states.get(entry.entity_id)
        if state is not None:
            attributes = json.loads(json.dumps(dict(state.attributes), default=str))
            found[entry.unique_id] = {
                "entity_id": entry.entity_id,
                "state": state.state,
                "attributes": attributes,
            }
    notifications = hass.data.get("persistent_notification", {})
    found["notifications"] = [
        [one["title"], one["message"]] for one in dict(notifications).values()
    ]
    return found


def write(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def serve(hass: core.HomeAssistant) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        try:
            if "call" in order:
                domain, service, data = order["call"]
                await hass.services.async_call(domain, service, data, blocking=True)
                answer: object = True
            else:
                answer = states(hass)
        except Exception as error:  # noqa: BLE001 - the test shows it
            answer = {"error": f"{type(error).__name__}: {error}"}
        write(answer)


async def main() -> None:
    folder, port, automation = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    hass = await start(folder, port, automation)
    write("ready")
    await serve(hass)
    await hass.async_stop()


asyncio.run(main())
