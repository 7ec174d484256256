"""Recordings are listed, labelled, cut and exported below their folder, and nowhere else."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest

from daemon.installed_models.store import FOLDER, SHIPPED
from daemon.web.app import WebApp
from hardware.recording import RecordingWriter
from hardware.recording_rows import OWN_HEADER
from tests.daemon.web.asgi import call, web_app
from tests.sandbox import Odours, settings

BASE = "/api/rigs/kitchen/recordings"
ROW = b"200,300,400,500,3,20,2,25.5,1013.0,40.0,80.0,50.0"


@pytest.fixture
def app(tmp_path: Path) -> WebApp:
    folder = tmp_path / "recordings"
    folder.mkdir()
    rows = b"".join(b"%d,%s\n" % (second * 1000, ROW) for second in range(300))
    (folder / "coffee.csv").write_bytes(OWN_HEADER + rows)
    (tmp_path / "secret.csv").write_bytes(OWN_HEADER + rows)
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    return web_app(tmp_path)


def test_a_recording_is_listed_and_shown_in_few_points(app: WebApp) -> None:
    (item,) = call(app, BASE).json["recordings"]
    assert (item["name"], item["labels"]) == ("coffee.csv", [])
    shown = call(app, f"{BASE}/coffee.csv").json
    assert shown["curve"]["readings"] == 300
    assert len(shown["curve"]["t_ms"]) <= 300
    assert shown["curve"]["channels"]["NO2"][0] == 200
    # The rest of the query is given to the part alone.
    assert call(app, f"{BASE}/coffee.csv/curve").json["readings"] == 300


def test_a_stretch_is_labelled_cut_and_exported_for_the_trainer(app: WebApp) -> None:
    stretch = {"start_ms": 100_000, "end_ms": 200_000}
    body = {**stretch, "label": "coffee"}
    answer = call(app, f"{BASE}/coffee.csv/label", method="POST", body=body)
    assert answer.json["labels"] == [{**stretch, "label": "coffee", "author": "page"}]
    cut = call(app, f"{BASE}/coffee.csv/cut", method="POST", body=stretch).json["name"]
    assert cut in [item["name"] for item in call(app, BASE).json["recordings"]]
    answer = call(app, f"{BASE}/export")
    assert answer.headers["content-type"] == "application/zip"
    names = zipfile.ZipFile(io.BytesIO(answer.body)).namelist()
    assert all(name.startswith("coffee/") for name in names)
    assert len(names) == 2
    assert call(app, f"{BASE}/{cut}/remove", method="POST", body={}).status == 200
    assert len(call(app, BASE).json["recordings"]) == 1


def test_an_export_leaves_no_file_behind(app: WebApp, tmp_path: Path) -> None:
    body = {"start_ms": 0, "end_ms": 9000, "label": "coffee"}
    call(app, f"{BASE}/coffee.csv/label", method="POST", body=body)
    call(app, f"{BASE}/export")
    assert list((tmp_path / "exports").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../secret.csv", "..%2Fsecret.csv", "/etc/passwd", "link.csv", ".csv", "x" * 5000, "a\0.csv"],
)
def test_no_name_leads_out_of_the_folder(app: WebApp, name: str) -> None:
    for path in (f"{BASE}/{name}", f"{BASE}/{quote(name, safe='')}", f"{BASE}/{name}/curve"):
        answer = call(app, path)
        assert answer.status in (404, 422)
        assert b"200,300" not in answer.body
        assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"start_ms": -1, "end_ms": 5, "label": "a"},
        {"start_ms": 5, "end_ms": 5, "label": "a"},
        {"start_ms": 1.5, "end_ms": 5, "label": "a"},
        {"start_ms": True, "end_ms": 5, "label": "a"},
        {"start_ms": 1, "end_ms": 1 << 60, "label": "a"},
        {"start_ms": 1, "end_ms": 5, "label": "x" * 10_000},
        {"start_ms": 1, "end_ms": 5, "label": ""},
        {"start_ms": 1, "end_ms": 5, "label": 7},
        {"start_ms": 1, "end_ms": 5, "label": "a\nb"},
    ],
)
def test_what_is_no_stretch_or_no_label_is_refused(app: WebApp, body: dict[str, object]) -> None:
    answer = call(app, f"{BASE}/coffee.csv/label", method="POST", body=body)
    assert answer.status == 422
    assert answer.json["error"]
    assert call(app, BASE).json["recordings"][0]["labels"] == []


def test_a_recording_is_played_back_through_the_rigs_models(
    toy_substances: Path, tmp_path: Path
) -> None:
    config = tmp_path / "scentd.yaml"
    config.write_text(settings("./board", [toy_substances], 1883))
    folder = tmp_path / "state/recordings"
    folder.mkdir(parents=True)
    odours = Odours(((None, 60), (0, 60)))
    with RecordingWriter(folder / "lemon.csv") as writer:
        for second, values in enumerate(odours):
            writer.write(second * 1000, values)
    app = web_app(tmp_path / "state", configs={"kitchen": config})
    answer = call(app, f"{BASE}/lemon.csv/replay", method="POST", body={})
    assert answer.status == 200, answer.json
    assert answer.json["summaries"][0]["model"] == "toy-substance"
    assert "lemon" in [change["label"] for change in answer.json["changes"]]
    assert call(app, f"{BASE}/none.csv/replay", method="POST", body={}).status == 422
    config.write_text("nonsense")
    answer = call(app, f"{BASE}/lemon.csv/replay", method="POST", body={})
    assert (answer.status, "cannot be used" in answer.json["error"]) == (422, True)


def test_a_cut_overwrites_nothing(app: WebApp) -> None:
    body = {"start_ms": 0, "end_ms": 9000, "target": "coffee.csv"}
    answer = call(app, f"{BASE}/coffee.csv/cut", method="POST", body=body)
    assert (answer.status, "exists already" in answer.json["error"]) == (422, True)


def test_the_recordings_of_a_rig_elsewhere_are_not_invented(app: WebApp) -> None:
    assert call(app, "/api/rigs/attic/recordings").status == 404


def test_nothing_labelled_is_nothing_to_export(app: WebApp) -> None:
    answer = call(app, f"{BASE}/export")
    assert (answer.status, "Nothing is labelled" in answer.json["error"]) == (422, True)


def test_a_library_is_put_where_the_service_reads_it(app: WebApp, tmp_path: Path) -> None:
    library = "/api/rigs/kitchen/library"
    assert call(app, library).status == 404
    answer = call(app, library, method="PUT", raw=b"zip", content_type="application/octet-stream")
    assert (tmp_path / answer.json["path"]).read_bytes() == b"zip"
    assert call(app, library, method="PUT", raw=b"zip", content_type="text/plain").status == 415
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports/smells.zip").write_bytes(b"exported")
    assert call(app, library).body == b"exported"


def test_the_cards_of_shipped_models_are_shown(app: WebApp) -> None:
    card = call(app, "/api/rigs/kitchen/models/substances-50/card").json
    assert "substances-50" in card["text"]
    assert card["version"]
    for name in ("..", "nothing", "substances-50%2f.."):
        assert call(app, f"/api/rigs/kitchen/models/{name}/card").status == 404


def test_the_card_of_an_installed_version_is_that_of_its_own_files(
    app: WebApp, tmp_path: Path
) -> None:
    models = "/api/rigs/kitchen/models"
    installed = tmp_path / FOLDER / "my-rig/2.0"
    installed.mkdir(parents=True)
    assert call(app, f"{models}/my-rig/card?version=2.0").status == 404
    (installed / "README.md").write_text("# <script>my rig</script>")
    card = call(app, f"{models}/my-rig/card?version=2.0").json
    assert card == {"text": "# <script>my rig</script>", "version": "2.0"}
    assert call(app, f"{models}/substances-50/card?version={SHIPPED}").status == 200
    (tmp_path / "README.md").write_text("secret")
    for version in ("..", "2.0/../../..", "", "3.0"):
        assert call(app, f"{models}/my-rig/card?version={version}").status == 404
    (installed / "README.md").unlink()
    (installed / "README.md").symlink_to(tmp_path / "README.md")
    assert call(app, f"{models}/my-rig/card?version=2.0").status >= 400
    assert "another computer" in call(app, "/api/rigs/attic/models/a/card?version=1").json["error"]
