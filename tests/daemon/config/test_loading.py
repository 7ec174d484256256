"""The configuration: validated as a whole; every problem with its line and how to mend it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config.loading import EXAMPLE, ConfigError, load_config
from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon.config.settings import Config

    Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def write_and_load(text: str, **environ: str) -> Config:
        path = tmp_path / "scentd.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, environ)

    return write_and_load


def problems_of(load: Load, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(text, **environ)
    return [line.strip() for line in str(raised.value).splitlines()[1:]]


def test_smallest_configuration_is_complete(load: Load) -> None:
    config = load(EXAMPLE)
    assert config.rig_id == "kitchen"
    assert config.source.port == "/dev/ttyUSB0"
    assert config.source.baud == 115200
    assert config.models == ("substances-50", "mixtures-12")
    assert (config.mqtt.host, config.mqtt.port) == ("localhost", 1883)
    with pytest.raises(FrozenInstanceError):
        config.rig_id = "cellar"  # type: ignore[misc]


def test_every_problem_is_listed_with_its_line(load: Load) -> None:
    text = (
        "rig_id: Kitchen!\n"
        "source: {port: /dev/ttyUSB0, baud: fast}\n"
        "models: substances-50\n"
        "mqtt:\n"
        "  port: 99999\n"
        "  protocl: 5\n"
        "live_stride_s: soon\n"
    )
    problems = problems_of(load, text)
    assert [problem.split(":")[0] for problem in problems] == [
        "line 1",
        "line 2",
        "line 3",
        "line 5",
        "line 6",
        "line 7",
    ]
    assert "'Kitchen!' came" in problems[0]
    assert "source.baud must be a whole number, and 'fast' came" in problems[1]
    assert "for example [substances-50, mixtures-12]" in problems[2]
    assert "lies between 1 and 65535" in problems[3]
    assert "did you mean mqtt.protocol?" in problems[4]


def test_missing_settings_are_named_with_an_example(load: Load) -> None:
    (problem,) = problems_of(load, "source: {port: /dev/x}\nmodels: [substances-50]")
    assert "rig_id is missing" in problem
    assert "rig_id: kitchen" in problem


def test_a_setting_in_the_wrong_section_is_answered_with_the_right_one(load: Load) -> None:
    (problem,) = problems_of(load, f"{EXAMPLE}\nhost: pi\n")
    assert "belongs to mqtt.host" in problem


@pytest.mark.parametrize("source", ["{}", '{port: /dev/x, usb: "10c4:ea60"}'])
def test_source_is_exactly_one_of_port_and_usb(load: Load, source: str) -> None:
    (problem,) = problems_of(load, f"rig_id: a\nmodels: [m]\nsource: {source}")
    assert "exactly one of port and usb" in problem
    assert problem.startswith("line 3")


def test_a_key_written_twice_is_found(load: Load) -> None:
    (problem,) = problems_of(load, f"{EXAMPLE}\nrig_id: cellar\n")
    assert problem.startswith("line 5: rig_id stands on line 1 already")


def test_environment_overrides_single_settings(load: Load) -> None:
    config = load(
        EXAMPLE,
        SCENTD_MQTT__HOST="broker.lan",
        SCENTD_MQTT__PORT="8883",
        SCENTD_MQTT__TLS__CA="ca.pem",
        SCENTD_MQTT__USERNAME="12345",
        SCENTD_MODELS="[mixtures-12]",
        SCENTD_DATA="/somewhere",
    )
    assert (config.mqtt.host, config.mqtt.port) == ("broker.lan", 8883)
    assert config.mqtt.tls is not None
    assert config.mqtt.username == "12345"
    assert config.models == ("mixtures-12",)


def test_wrong_environment_is_listed_by_its_variable(load: Load) -> None:
    problems = problems_of(load, EXAMPLE, SCENTD_MQTT__PORT="many", SCENTD_MQT__HOST="pi")
    mended = dict(problem.split(": ", maxsplit=1) for problem in problems)
    assert mended["SCENTD_MQTT__PORT"].startswith("mqtt.port must be a whole number")
    assert mended["SCENTD_MQT__HOST"] == "mqt is not a setting; did you mean mqtt?"


@pytest.mark.parametrize("where", ["file", "environment"])
def test_a_password_in_the_configuration_is_refused_and_never_shown(load: Load, where: str) -> None:
    if where == "file":
        problems = problems_of(
            load, EXAMPLE.replace("1883}", "1883, username: me, password: hunter2}")
        )
    else:
        problems = problems_of(load, EXAMPLE, SCENTD_MQTT__PASSWORD="hunter2")  # noqa: S106
    assert "mqtt.password_file" in problems[0]
    assert "hunter2" not in "".join(problems)


def test_relative_paths_start_at_the_configurations_folder(load: Load, tmp_path: Path) -> None:
    config = load(
        "rig_id: a\nsource: {port: /dev/x}\nmodels: [./mine, substances-50]\nstate_dir: state\n"
        "mqtt: {username: me, password_file: secret}"
    )
    assert config.models == (str(tmp_path / "mine"), "substances-50")
    assert config.mqtt.password_file == tmp_path / "secret"
    assert config.recordings_dir == tmp_path / "state" / "recordings"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("rig_id: [a", "line 2: this is not YAML"),
        ("rig_id: a\n\tsource: x", "line 2: this is not YAML"),
        ("- a\n- b", "must be a section of `name: value` lines"),
        ("just words", "must be a section of `name: value` lines"),
    ],
)
def test_text_that_is_no_configuration_is_explained(load: Load, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(text)


def test_a_missing_file_shows_the_smallest_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rig_id: kitchen"):
        load_config(tmp_path / "none.yaml", {})


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("source: {usb: '10c4'}", "vendor:product"),
        ("source: {port: /dev/x, rate_hz: 100}", "0.1 to 20 Hz"),
        ("source: {port: /dev/x, rate_hz: .nan}", "0.1 to 20 Hz"),
        ("mqtt: {tls: {cert: a.pem}}", "give both, or neither"),
        ("mqtt: {password_file: secret}", "needs a username"),
        ("mqtt: {keepalive_s: 1}", "between 5 and 3600"),
        ("mqtt: {protocol: 4}", "'auto', '3.1.1', '5' or 5"),
        ("models: []", "at least one model"),
        ("models: [a, a]", "each model once"),
        ("live_stride_s: 0", "between 0.1 and 600"),
        ("decision: {anounce: 0.5}", "did you mean decision.announce?"),
        ("decision: {announce: 2}", "between 0 and 1"),
        ("decision: {announce: 0.5, withdraw: 0.6}", "must not be above announce"),
        ("decision: {announce: 0.9, error_rate: 0.1}", "one of announce and error_rate"),
        ("decision: {labels: {coffee: {anounce: 0.9}}}", "mean decision.labels.coffee.announce?"),
        ("decision: {labels: {coffee: {announce: 9}}}", "between 0 and 1"),
        ("exposure: {nonsense: 2}", "exposure.nonsense is not a setting"),
    ],
)
def test_each_rule_has_its_mend(load: Load, setting: str, said: str) -> None:
    name = setting.split(":", maxsplit=1)[0]
    rest = {"rig_id": "rig_id: a", "source": "source: {port: /dev/x}", "models": "models: [m]"}
    text = "\n".join([*(line for key, line in rest.items() if key != name), setting])
    assert said in problems_of(load, text)[0]


@given(text=st.text(max_size=200))
def test_any_text_gives_a_configuration_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("config") / "scentd.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError):
        load_config(path, {})


def test_a_credential_is_read_from_the_copy_that_systemd_made(tmp_path: Path) -> None:
    """A command run by hand reads root's file beside the configuration, the service its copy."""
    config = tmp_path / "scentd.yaml"
    config.write_text(
        "rig_id: rig\nsource: {port: /dev/ttyUSB0}\nmodels: [toy]\n"
        "mqtt: {username: rig, password_file: credentials/password, "
        "tls: {ca: ca.pem, cert: credentials/rig.pem, key: credentials/rig.key}}\n",
        encoding="utf-8",
    )
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "scentd_password").write_text("secret\n", encoding="utf-8")
    (copies / "scentd_ca.pem").write_text("not asked for\n", encoding="utf-8")
    by_hand = load_config(config, {}).mqtt
    assert by_hand.password_file == tmp_path / "credentials" / "password"
    served = load_config(config, {"CREDENTIALS_DIRECTORY": str(copies)}).mqtt
    assert served.password_file == copies / "scentd_password"
    assert served.tls is not None
    assert served.tls.ca == tmp_path / "ca.pem"
    assert served.tls.key == tmp_path / "credentials" / "rig.key"


def test_variables_that_containers_get_of_a_service_named_scentd_are_no_settings(
    load: Load,
) -> None:
    address = "tcp://10.0.0.7:1883"
    load(
        EXAMPLE,
        SCENTD_PORT=address,
        SCENTD_PORT_1883_TCP=address,
        SCENTD_PORT_1883_TCP_ADDR="10.0.0.7",
        SCENTD_SERVICE_HOST="10.0.0.7",
        SCENTD_SERVICE_PORT_MQTT="1883",
        SCENTD_BROKER_PORT=address,
    )
    (problem,) = problems_of(load, EXAMPLE, SCENTD_PORT="1883")
    assert "SCENTD_PORT" in problem
    (problem,) = problems_of(load, EXAMPLE, SCENTD_MQTT__PORT=address)
    assert "SCENTD_MQTT__PORT" in problem


def test_a_user_without_a_home_is_told_to_name_a_state_dir(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_uid: int) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(ConfigError, match="name a state_dir"):
        load(EXAMPLE)
    assert load(f"{EXAMPLE}\nstate_dir: /var/lib/scentd").rig_id == "kitchen"


def test_a_home_folder_of_an_unknown_user_is_explained(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"~nobody-here.*Write the whole path"):
        load(f"{EXAMPLE}\nstate_dir: ~nobody-here/scentd")


def test_a_configuration_is_found_without_being_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named, here = tmp_path / "other.yaml", tmp_path / "scentd.yaml"
    with pytest.raises(UsageError, match="SCENTD_CONFIG"):
        load_config(None, {})
    named.write_text(EXAMPLE.replace("kitchen", "cellar"), encoding="utf-8")
    here.write_text(EXAMPLE, encoding="utf-8")
    assert load_config(None, {}).rig_id == "kitchen"
    assert load_config(None, {"SCENTD_CONFIG": str(named)}).rig_id == "cellar"
    assert load_config(here, {"SCENTD_CONFIG": str(named)}).rig_id == "kitchen"
    with pytest.raises(ConfigError, match="no configuration file"):
        load_config(None, {"SCENTD_CONFIG": "none.yaml"})
