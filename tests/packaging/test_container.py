"""The container image and compose.yaml: what they start exists, and fits the configuration."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.commands.simulate import signal_of
from daemon.config.loading import load_config
from daemon.config.settings import Config
from daemon.web.guard import PUBLIC_PATHS
from hardware.channels import N_CHANNELS
from tests.project.source_tree import ROOT
from tests.project.test_command_lines import parser_of
from tests.sandbox import Mosquitto, retained

FOLDER = ROOT / "packaging" / "container"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RIGS = ("scentd", "simulated")
STATE = "/var/lib/scentd"


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Containerfile with their arguments, lines joined."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [
        (name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined) if name
    ]


IMAGE = instructions(FOLDER / "Containerfile")
FINAL = IMAGE[max(row for row, (name, _) in enumerate(IMAGE) if name == "FROM") :]


def final(name: str) -> str:
    """Return the argument of an instruction of the last stage, which must stand there once."""
    (argument,) = [argument for found, argument in FINAL if found == name]
    return argument


def parsed(words: list[str]) -> Any:
    """Parse a command line as the program `scentd` does."""
    assert words[0] == "scentd"
    return parser_of("scentd").parse_args(words[1:])


def command_of(words: list[str]) -> str:
    """Return the name of the command that a command line runs."""
    module: str = parsed(words).run.__module__
    return module.rpartition(".")[2]


def settings_of(service: str) -> Config:
    """Return the configuration that a service of compose.yaml reads."""
    file = volumes_of(service)["/etc/scentd/scentd.yaml"]
    return load_config(FOLDER / file, environ=SERVICES[service].get("environment", {}))


def volumes_of(service: str) -> dict[str, str]:
    """Return what a service mounts, by the place where it does."""
    return {
        place: source
        for source, place, *_ in (text.split(":") for text in SERVICES[service]["volumes"])
    }


def test_the_image_runs_the_service_without_roots_rights() -> None:
    user = final("USER")
    assert user.isdecimal(), "a number, so that Kubernetes can see that it is not root"
    assert int(user) > 0
    (created,) = re.findall(r"useradd .*--uid (\d+) --groups (\S+)", final("RUN"))
    assert created == (user, "dialout")
    assert final("VOLUME") == final("WORKDIR") == STATE


def test_the_image_starts_commands_that_exist() -> None:
    entry = yaml.safe_load(final("ENTRYPOINT"))
    assert command_of(entry + yaml.safe_load(final("CMD"))) == "run"
    check = final("HEALTHCHECK").partition("CMD ")[2]
    assert command_of(yaml.safe_load(check)) == "status"


def test_the_image_is_made_of_all_that_a_wheel_needs() -> None:
    ignored = (FOLDER / "Containerfile.dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    copied = [
        word
        for name, argument in IMAGE
        if name == "COPY" and not argument.startswith("--from")
        for word in argument.split()[:-1]
    ]
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path.split('/')[0]}" in ignored, path
    (folders,) = re.findall(r"FOLDERS = \((.*)\)", (ROOT / "setup.py").read_text("utf-8"))
    assert {name.strip('" ') for name in folders.split(",")} < set(copied)


@pytest.mark.parametrize("rig", RIGS)
def test_the_configuration_fits_the_services(rig: str) -> None:
    config = settings_of(rig)
    assert config.mqtt.host in SERVICES
    listener = (FOLDER / "mosquitto.conf").read_text("utf-8")
    assert f"listener {config.mqtt.port}\n" in listener
    assert str(config.state_dir) == STATE
    assert volumes_of(rig)[STATE] in COMPOSE["volumes"]


def test_the_board_is_where_the_configuration_looks_for_it() -> None:
    (device,) = SERVICES["scentd"]["devices"]
    assert device.rpartition(":")[2] == settings_of("scentd").source.port


def test_the_page_is_that_of_the_rig_and_is_published_where_it_listens() -> None:
    page = SERVICES["page"]
    assert settings_of("page") == settings_of("scentd")
    assert volumes_of("page")[STATE] == volumes_of("scentd")[STATE]
    options = parsed(["scentd", *page["command"]])
    port = options.listen.rpartition(":")[2]
    (published,) = page["ports"]
    assert published.endswith(f":{port}")
    (checked,) = re.findall(r"http://localhost:(\d+)(/\w+)", page["healthcheck"]["test"])
    assert checked[0] == port
    assert checked[1] in PUBLIC_PATHS


def test_only_this_computer_reaches_what_is_published() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def commands_of(script: Path, **variables: str) -> list[list[str]]:
    """Return the calls of `scentd` in a shell script, with the values of its variables."""
    text = script.read_text("utf-8").replace("\\\n", " ")
    for name, value in variables.items():
        text = text.replace(f'"${name}"', value).replace(f"${name}", value)
    lines = re.findall(r"^ *(?:exec )?(scentd [^>&\n]*)", text, re.MULTILINE)
    return [shlex.split(line.replace('"$@"', "")) for line in lines]


def test_the_simulated_rig_is_taught_by_commands_that_exist() -> None:
    commands = commands_of(FOLDER / "run-simulated.sh", **{"1": "cloves", "2": "1"})
    names = [command_of(words) for words in commands]
    assert names == ["simulate", "record", "enroll", "simulate", "run"]
    for words in commands:
        if words[1] == "simulate":
            assert len(next(iter(signal_of(parsed(words))))) == N_CHANNELS


def test_the_simulated_rig_plays_a_board_that_its_service_reads() -> None:
    service = SERVICES["simulated"]
    program, script = service["entrypoint"]
    assert program == "sh"
    assert FOLDER / volumes_of("simulated")[script] == FOLDER / "run-simulated.sh"
    config = settings_of("simulated")
    text = (FOLDER / "run-simulated.sh").read_text("utf-8")
    assert f"board=${{SCENTD_SOURCE__PORT:-{config.source.port}}}" in text
    assert f"state=${{STATE:-{config.state_dir}}}" in text
    assert config.rig_id != settings_of("scentd").rig_id
    assert volumes_of("simulated")[STATE] != volumes_of("scentd")[STATE]
    assert service["profiles"], "it would start with the others"


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "broker"])
def test_the_services_may_do_as_little_as_possible(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_accepts_the_file() -> None:
    """By the schema of docker-compose 1.29, which Debian has; a project's `name` came later."""
    program = shutil.which("docker-compose") or pytest.skip(
        "docker-compose is not installed: sudo apt install docker-compose"
    )
    text = (FOLDER / "compose.yaml").read_text("utf-8").replace(f"name: {COMPOSE['name']}\n", "")
    done = subprocess.run(
        [program, "--file", "-", "config", "--quiet"],
        input=text,
        check=False,
        capture_output=True,
        text=True,
        cwd=FOLDER,
    )
    assert done.returncode == 0, done.stderr


def test_mosquitto_accepts_its_configuration(tmp_path: Path) -> None:
    lines = (FOLDER / "mosquitto.conf").read_text("utf-8").splitlines()
    settings = [line for line in lines if line and line.split()[0] not in {"listener", "#"}]
    text = "\n".join(settings).replace("/mosquitto/data/", f"{tmp_path}/")
    assert str(tmp_path) in text
    with Mosquitto(tmp_path, text) as broker:
        assert retained(broker.port, "scent/rig/status") is None


def test_the_script_of_the_environment_says_how_it_is_called() -> None:
    script = ROOT / "packaging" / "make-environment.sh"
    done = subprocess.run(["sh", script], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: make-environment.sh")
