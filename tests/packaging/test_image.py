"""The built image runs: first prediction, health, SIGTERM, state that stays; slow, and by request.

SCENTD_IMAGE names the image that `make image` built, SCENTD_ENGINE the program that runs it
(docker, else podman). The broker is a Mosquitto of the test, which the container reaches by the
network of this computer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.packaging.test_container import FOLDER, SERVICES, STATE, volumes_of
from tests.sandbox import Mosquitto, Subscriber, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

NAME = "scentd-under-test"
RIG = "simulated"

TAUGHT_WITHIN_S = 240.0
"""The rig is taught three smells first, which takes a minute."""


def engine(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the container engine with these words."""
    program = os.environ.get("SCENTD_ENGINE") or ("docker" if shutil.which("docker") else "podman")
    return subprocess.run([program, *words], check=False, capture_output=True, text=True)


def must(*words: str) -> str:
    """Run the container engine, and return what it printed; fail if it fails."""
    done = engine(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Container:
    """The simulated rig of compose.yaml, started as it says, on this computer's network."""

    def __init__(self, broker: Mosquitto) -> None:
        service = SERVICES["simulated"]
        variables = {
            **service["environment"],
            "SCENTD_MQTT__HOST": "127.0.0.1",
            "SCENTD_MQTT__PORT": str(broker.port),
            "SCENTD_LIVE_STRIDE_S": "2",
        }
        self._words = ["--network", "host", "--read-only", "--cap-drop", "ALL"]
        self._words += ["--tmpfs", *service["tmpfs"]]
        self._words += ["--security-opt", "no-new-privileges:true"]
        for place, source in volumes_of("simulated").items():
            mounted = NAME if place == STATE else FOLDER / source
            self._words += ["--volume", f"{mounted}:{place}{'' if place == STATE else ':ro'}"]
        program, self._script = service["entrypoint"]
        self._words += ["--entrypoint", program]
        for name, value in variables.items():
            self._words += ["--env", f"{name}={value}"]

    def start(self) -> None:
        image = os.environ["SCENTD_IMAGE"]
        must("run", "--detach", "--name", NAME, *self._words, image, self._script)

    def stop(self) -> int:
        """Send SIGTERM, remove it, and return its exit status."""
        must("stop", "--time", "10", NAME)
        status = must("inspect", "--format", "{{.State.ExitCode}}", NAME)
        must("rm", NAME)
        return int(status)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        return engine("exec", NAME, *command)


@pytest.fixture
def container(broker: Mosquitto) -> Iterator[Container]:
    if not os.environ.get("SCENTD_IMAGE"):
        pytest.skip("set SCENTD_IMAGE to the image that `make image` built")
    engine("rm", "--force", NAME)
    engine("volume", "rm", NAME)
    yield Container(broker)
    engine("rm", "--force", NAME)
    engine("volume", "rm", NAME)


def predictions(subscriber: Subscriber) -> list[dict[str, Any]]:
    return [json.loads(text) for text in subscriber.texts(f"scent/{RIG}/substance")]


@pytest.mark.timeout(900)
def test_the_image_runs_as_its_page_says(container: Container, broker: Mosquitto) -> None:
    check = yaml.safe_load(
        (FOLDER / "Containerfile")
        .read_text("utf-8")
        .partition("--retries=2 CMD ")[2]
        .split("\n")[0]
    )
    with Subscriber(broker.port) as subscriber:
        container.start()
        wait_until(lambda: predictions(subscriber), "a prediction", TAUGHT_WITHIN_S)
        user = container.execute("id").stdout
        assert user.startswith("uid=10001(scentd)")
        assert "20(dialout)" in user
        wait_until(lambda: container.execute(*check).returncode == 0, "a healthy service")
        # The board goes away: its process ends with the link to its port.
        ended = container.execute(
            "python3",
            "-c",
            "import glob, os, signal\n"
            "for path in glob.glob('/proc/[0-9]*/cmdline'):\n"
            "    words = open(path).read().split('\\0')\n"
            "    if 'simulate' in words:\n"
            "        os.kill(int(path.split('/')[2]), signal.SIGTERM)\n",
        )
        assert ended.returncode == 0, ended.stderr
        wait_until(lambda: container.execute(*check).returncode == 1, "a board that is missed")
        broker.stop()
        gone = container.execute(*check)
        assert (gone.returncode, "broker" in gone.stderr) == (1, True)
        broker.start()
        assert container.stop() == 0
    with Subscriber(broker.port) as subscriber:
        container.start()
        wait_until(lambda: predictions(subscriber), "a prediction after the new start")
        taught = container.execute("scentd", "enroll", "--list").stdout
        assert "star_anise" in taught
        assert container.stop() == 0
