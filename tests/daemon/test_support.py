"""A support archive: whole, without secrets, and made whatever is broken."""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.cli import main
from daemon.support import REMOVED, collect_report, without_secrets, write_report

CONFIG = (
    "rig_id: kitchen\nsource: {{port: {folder}/none}}\nmodels: [mixtures-12]\nstate_dir: state\n"
    "mqtt: {{host: 127.0.0.1, port: 1, username: me, password_file: secret}}\n"
)


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        return {
            Path(member.name).name: archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
        }


def test_the_archive_of_a_rig_without_board_broker_and_service_holds_every_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, archive = tmp_path / "rig.yaml", tmp_path / "report.tar.gz"
    config.write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    (tmp_path / "secret").write_text("open sesame\n", encoding="utf-8")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "profile.yaml").write_text("board: open sesame\n", encoding="utf-8")
    assert main(["support", "--config", str(config), "--output", str(archive)]) == 0
    assert capsys.readouterr().out == f"{archive}\n"
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    parts = contents(archive)
    assert "password_file: secret" in parts["configuration.yaml"]
    assert "FAILED" in parts["check.txt"]
    assert "profile.yaml" in parts["state-files.txt"]
    assert "mixtures-12" in parts["models.json"]
    assert "could not be collected" in parts["status.json"]
    assert not any("open sesame" in text for text in parts.values())
    assert main(["support", "--config", str(config), "--output", str(archive)]) == 2


def test_a_broken_configuration_is_reported_as_it_is(tmp_path: Path) -> None:
    config = tmp_path / "rig.yaml"
    config.write_text("rig_id: [\n", encoding="utf-8")
    parts = collect_report(config)
    assert "rig_id: [" in parts["configuration.yaml"]
    assert "status.json" not in parts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password: hunter2", f"password: {REMOVED}"),
        ("SCENTD_MQTT__PASSWORD: hunter2", f"SCENTD_MQTT__PASSWORD: {REMOVED}"),
        ("mqtt: {password: hunter2, port: 1}", f"mqtt: {{password: {REMOVED}, port: 1}}"),
        ('{"token": "hunter2", "a": 1}', f'{{"token": {REMOVED}, "a": 1}}'),
        ("api_key = hunter2", f"api_key = {REMOVED}"),
        ("password_file: /etc/pw", "password_file: /etc/pw"),
        ("no secret here: 5", "no secret here: 5"),
    ],
)
def test_the_values_of_secret_settings_are_removed(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@given(st.text(min_size=4), st.text(), st.text())
def test_a_known_secret_is_removed_wherever_it_stands(secret: str, before: str, after: str) -> None:
    assert secret not in without_secrets(before + secret + after, [secret]).replace(REMOVED, "")


def test_text_of_any_kind_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "report.tar.gz"
    write_report({"a.txt": "\ud800 é"}, path)
    assert contents(path) == {"a.txt": "\\ud800 é"}
    with pytest.raises(FileExistsError):
        write_report({}, path)
