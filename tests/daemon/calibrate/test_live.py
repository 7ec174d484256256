"""Calibration as a user does it: by the command, by requests, and in the running service."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.rig_reference import RigReference
from daemon.board.history import History
from daemon.calibrate.captures import Captures
from daemon.calibrate.live import LiveCalibration
from daemon.cli import main
from daemon.config.loading import load_config
from daemon.installed_models.loading import live_nose, load_models
from daemon.mqtt.service_client import RequestRefusedError, send_request
from hardware.recording import RecordingWriter, read_recording
from hardware.simulator.board import SimulatedBoard
from hardware.simulator.signals import ReplaySignal
from models.decision_spec import State
from models.exposure import Phase
from models.manifest import ARRAYS, write_bundle
from models.nose import Nose
from models.results import Prediction
from tests.calibration.air import LEVELS, clean_air, frames, odour
from tests.models.toys import LABELS, toy_files, toy_manifest
from tests.sandbox import ROOT, Board, Mosquitto, ServiceProcess, Subscriber, wait_until

VOC = 2
HEALTH = json.loads((ROOT / "daemon/schemas/health.json").read_text(encoding="utf-8"))


def on_this_rig(signals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-conductances as the rig under test measures them: less sensitive, and shifted."""
    middle = signals.mean(axis=0)
    return middle + 0.7 * (signals - middle) + 0.5


def recorded(path: Path, values: NDArray[np.float32]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with RecordingWriter(path) as recording:
        for second, row in enumerate(values):
            recording.write(second * 1000, row)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a toy bundle that holds what its training rig measured."""
    reference = RigReference.measure(
        {
            label: [frames(odour(number, take=take)) for take in range(4)]
            for number, label in enumerate(LABELS)
        }
    )
    arrays = io.BytesIO()
    np.savez(arrays, **reference.to_arrays())  # type: ignore[arg-type]
    folder = tmp_path_factory.mktemp("bundles") / "toy-substance"
    write_bundle(folder, toy_manifest(), {**toy_files(), ARRAYS: arrays.getvalue()})
    return folder


class Rig:
    """A rig's configuration, its recordings, and `scentd calibrate` on it."""

    def __init__(
        self, folder: Path, model: Path, capsys: pytest.CaptureFixture[str], port: int = 9
    ) -> None:
        self.folder = folder
        self.link = folder / "ttySIM"
        self.settings = (
            f"rig_id: rig\nsource: {{port: {self.link}}}\nmodels: [{model}]\n"
            f"mqtt: {{host: 127.0.0.1, port: {port}}}\nstate_dir: state\nlive_stride_s: 2\n"
        )
        self.config = folder / "scentd.yaml"
        self.config.write_text(self.settings, encoding="utf-8")
        self._capsys = capsys

    @property
    def profile(self) -> Path:
        return self.folder / "state" / "calibration.yaml"

    def air(self) -> Path:
        return recorded(self.folder / "air.csv", clean_air(120))

    def exposure(self, label: str, *, take: int = 9) -> Path:
        signals = on_this_rig(odour(LABELS.index(label), take=take))
        return recorded(self.folder / label / f"{take}.csv", frames(signals))

    def calibrate(self, *words: object, code: int = 0) -> Any:
        """Run the command; return what it printed as JSON, or the error."""
        self._capsys.readouterr()
        arguments = ["calibrate", *map(str, words), "--config", str(self.config), "--json"]
        assert main(arguments) == code
        heard = self._capsys.readouterr()
        return json.loads(heard.out) if code == 0 else heard.err

    def told(self, *words: object) -> str:
        """Run the command as a person does; return what it printed."""
        self._capsys.readouterr()
        assert main(["calibrate", *map(str, words), "--config", str(self.config)]) == 0
        return self._capsys.readouterr().out

    def measured(self) -> None:
        self.calibrate("baseline", "--recording", self.air())
        for label in LABELS:
            self.calibrate("reference", label, "--recording", self.exposure(label))


@pytest.fixture
def rig(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> Rig:
    return Rig(tmp_path, model, capsys)


def test_recordings_are_measured_fitted_shown_and_scored_without_a_service(rig: Rig) -> None:
    kept = rig.calibrate("baseline", "--recording", rig.air())
    assert kept["seconds"] == 120.0
    assert kept["channels"]["Alcohol"]["r0_kohm"] > 0
    for label in LABELS:
        rig.calibrate("reference", label, "--recording", rig.exposure(label))
    fitted = rig.calibrate("fit")["profile"]
    assert fitted["references"] == list(LABELS)
    errors = fitted["figures"]
    assert errors[f"error_{fitted['method']}"] < errors["error_none"]
    shown = rig.calibrate("show")
    assert shown["profile"] == fitted
    assert [item["label"] for item in shown["captures"]] == [None, *LABELS]
    score = rig.calibrate("score", *[rig.exposure(label, take=10) for label in LABELS])
    assert score["profile"] == fitted["id"]
    assert [item["label"] for item in score["files"]] == list(LABELS)
    assert {item["before"]["looks"] for item in score["files"]} != {0}
    assert score["before"]["recordings"] is not None
    assert score["after"]["recordings"] is not None


def test_the_command_prints_tables(rig: Rig) -> None:
    table = rig.told("baseline", "--recording", rig.air())
    assert "Kept 120 s of clean air." in table
    assert "kOhm" in table
    for label in LABELS:
        assert f"of {label}." in rig.told("reference", label, "--recording", rig.exposure(label))
    fitted = rig.told("fit")
    assert "towards the training rig of toy-substance" in fitted
    assert "Teach your smells first: scentd enroll" in fitted
    assert "3 recordings" in rig.told("score")
    assert "The profile was fitted to these references" in rig.told("score")
    assert "clean air" in rig.told("show")
    assert "Forgotten" in rig.told("forget", "mint")
    assert "uncalibrated" in rig.told("undo")


def test_undo_exchanges_the_profile_for_the_one_before(rig: Rig) -> None:
    rig.measured()
    first = rig.calibrate("fit")["profile"]["id"]
    rig.calibrate("forget", "mint")
    second = rig.calibrate("fit")["profile"]["id"]
    assert first != second
    assert rig.calibrate("undo")["profile"]["id"] == first
    assert rig.calibrate("undo")["profile"]["id"] == second


def test_a_replay_uses_the_rigs_profile(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.measured()
    profile = rig.calibrate("fit")["profile"]["id"]
    assert main(["replay", str(rig.exposure("mint", take=11)), "--json", "--config",
                 str(rig.config)]) == 0  # fmt: skip
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["calibration"] for line in lines if line.get("topic") == "substance"} == {profile}


def test_an_odour_is_refused_as_clean_air_and_the_channel_is_named(rig: Rig) -> None:
    error = rig.calibrate("baseline", "--recording", rig.exposure("mint"), code=1)
    assert "not of clean air" in error
    assert "VOC" in error
    assert rig.calibrate("show")["captures"] == []


def test_a_missing_capture_is_named_with_advice(rig: Rig) -> None:
    rig.measured()
    folder = rig.folder / "state" / "calibration"
    lost = Captures(folder).references()[0]
    (folder / lost.file).unlink()
    error = rig.calibrate("fit", code=1)
    assert f"A capture of {lost.label} cannot be used" in error
    assert f"forget it (scentd calibrate forget {lost.label})" in error
    rig.calibrate("forget", lost.label)
    assert lost.label not in rig.calibrate("fit")["profile"]["references"]


def test_a_damaged_profile_is_not_kept_as_the_one_before(rig: Rig) -> None:
    rig.measured()
    first = rig.calibrate("fit")["profile"]["id"]
    rig.calibrate("forget", "mint")
    rig.calibrate("fit")
    rig.profile.write_text("torn", encoding="utf-8")
    rig.calibrate("fit")
    assert rig.calibrate("undo")["profile"]["id"] == first


def test_errors_say_what_to_do(rig: Rig, tmp_path: Path) -> None:
    assert "does not know 'tea'" in rig.calibrate(
        "reference", "tea", "--recording", rig.air(), code=2
    )
    short = recorded(tmp_path / "short.csv", frames(odour(0))[:40])
    assert "at least 100 s" in rig.calibrate("reference", "mint", "--recording", short, code=1)
    assert "nothing to fit" in rig.calibrate("fit", code=1)
    assert "nothing to score" in rig.calibrate("score", code=1)
    assert "no profile and no previous one" in rig.calibrate("undo", code=1)
    assert "no reference of 'mint'" in rig.calibrate("forget", "mint", code=1)
    assert "Only a running service remembers" in rig.calibrate("baseline", "--last", 60, code=2)


def test_a_model_without_a_rig_reference_cannot_be_calibrated_to(
    tmp_path: Path, toy_substances: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(tmp_path, toy_substances, capsys)
    rig.measured()
    error = rig.calibrate("fit", code=1)
    assert "does not hold the responses of its training rig" in error


@pytest.fixture
def live(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], broker: Mosquitto) -> Rig:
    """Return a rig with a broker."""
    return Rig(tmp_path, model, capsys, broker.port)


def endless_air(rig: Rig) -> ReplaySignal:
    """Return endless clean air, as this rig's board sends it."""
    path = recorded(rig.folder / "calm.csv", clean_air(400, seed=3))
    return ReplaySignal(read_recording(path), loop=True)


def test_a_running_rig_is_calibrated_over_mqtt_and_every_prediction_names_the_profile(
    live: Rig, broker: Mosquitto
) -> None:
    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(endless_air(live), link=live.link, speed=50),
        ServiceProcess(live.folder, live.settings) as daemon,
    ):
        config = load_config(live.config)

        def said() -> list[dict[str, Any]]:
            return [json.loads(text) for text in ear.texts("scent/rig/substance")]

        wait_until(lambda: "ambient" in {item["state"] for item in said()}, "clean air")
        assert {item["calibration"] for item in said()} == {None}
        seen: list[dict[str, Any]] = []
        kept = send_request(
            config, "calibrate", {"action": "baseline", "seconds": 90}, on_progress=seen.append
        )
        assert kept["seconds"] == pytest.approx(90, abs=3)
        assert seen[-1]["of_s"] == 90.0
        assert {"settled", "unsettled"} <= set(seen[-1])
        air = live.calibrate("reference", "lemon", "--last", 110, code=1)
        assert "Expected lemon, but every channel reads what it read in clean air" in air
        live.calibrate("forget")
        assert live.calibrate("reference", "lemon", "--last", 110)["label"] == "lemon"
        live.calibrate("forget", "lemon")
        live.calibrate("baseline", "--last", 90)
        for label in LABELS:
            live.calibrate("reference", label, "--recording", live.exposure(label))
        answer = live.calibrate("fit")
        profile = answer["profile"]["id"]
        assert answer["in_force"]["state"] == "ok"
        wait_until(lambda: profile in {item["calibration"] for item in said()}, "the profile")
        info = json.loads(ear.texts("scent/rig/info")[-1])
        assert info["calibration"] == profile
        status = send_request(config, "status", {})
        assert status["calibration"]["profile"] == profile
        assert set(status["calibration"]["drift"]) >= {"NO2", "VOC"}
        with pytest.raises(RequestRefusedError, match="action must be one of"):
            send_request(config, "calibrate", {"action": "dance"})
        with pytest.raises(RequestRefusedError, match="not both"):
            send_request(config, "calibrate", {"action": "baseline", "seconds": 90, "last_s": 90})
        with pytest.raises(RequestRefusedError, match="paths below the rig's state_dir"):
            send_request(config, "calibrate", {"action": "score", "files": ["../../etc/passwd"]})
        own = [str(path.relative_to(live.folder)) for path in [live.exposure("mint", take=12)]]
        (live.folder / "state" / "mint").mkdir()
        (live.folder / own[0]).rename(live.folder / "state" / own[0])
        scored = send_request(config, "calibrate", {"action": "score", "files": own}, timeout_s=60)
        assert [item["label"] for item in scored["files"]] == ["mint"]
        undone = live.calibrate("undo")
        assert undone["in_force"]["state"] == "none"
        assert daemon.end() == 0
    for text in ear.texts("scent/rig/health"):
        jsonschema.validate(json.loads(text), HEALTH)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda text: text.replace("rig", "other"), "damaged"),
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace("version: 1", "version: 99"), "version 99"),
    ],
)
def test_without_a_usable_profile_the_rig_reports_that_it_is_uncalibrated(
    live: Rig, broker: Mosquitto, board: Board, spoil: Any, why: str
) -> None:
    live.measured()
    live.calibrate("fit")
    live.profile.write_text(spoil(live.profile.read_text(encoding="utf-8")), encoding="utf-8")
    settings = live.settings.replace(str(live.link), str(board.link))
    with Subscriber(broker.port) as ear, ServiceProcess(live.folder, settings) as daemon:
        wait_until(lambda: ear.texts("scent/rig/health"), "health")
        health = json.loads(ear.texts("scent/rig/health")[-1])
        jsonschema.validate(health, HEALTH)
        assert health["calibration"]["state"] == "unusable"
        assert why in health["calibration"]["why"]
        assert json.loads(ear.texts("scent/rig/info")[-1])["calibration"] is None
        assert "The rig runs uncalibrated" in daemon.log


def test_another_rigs_profile_is_refused(live: Rig, broker: Mosquitto, board: Board) -> None:
    live.measured()
    live.calibrate("fit")
    settings = live.settings.replace(str(live.link), str(board.link)).replace(
        "rig_id: rig", "rig_id: cellar"
    )
    with Subscriber(broker.port) as ear, ServiceProcess(live.folder, settings):
        wait_until(lambda: ear.texts("scent/cellar/health"), "health")
        health = json.loads(ear.texts("scent/cellar/health")[-1])
    assert health["calibration"]["state"] == "unusable"
    assert "was calibrated for board 'rig'" in health["calibration"]["why"]


def run_rig(
    rig: Rig, values: NDArray[np.float32], predictions: list[Prediction] | None = None
) -> tuple[LiveCalibration, Nose]:
    """Process air at 1 Hz with a rig's profile, without a service; add its predictions."""
    config = load_config(rig.config)
    bundles = load_models(config)
    nose = live_nose(config, bundles)
    calibrating = LiveCalibration(config, bundles, nose, History())
    calibrating.load()
    recording = read_recording(recorded(rig.folder / "breathed.csv", values))
    for frame in recording.frames():
        step = nose.process(frame)
        calibrating.observe(step)
        if predictions is not None:
            predictions += step.predictions
    return calibrating, nose


def test_constant_clean_air_needs_no_new_calibration(rig: Rig) -> None:
    rig.measured()
    rig.calibrate("fit")
    calibrating, nose = run_rig(rig, clean_air(2500, seed=5))
    assert nose.exposure.phase is Phase.AMBIENT
    report = calibrating.report()
    assert report["state"] == "ok"
    assert max(abs(value) for value in report["drift"].values()) < 0.01


def test_live_and_in_a_replay_an_odour_from_the_start_lies_above_the_calibrations_clean_air(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.calibrate("baseline", "--recording", rig.air())
    rig.calibrate("fit")
    still = frames(np.tile(LEVELS + 1.0, (300, 1)))
    seen: list[Prediction] = []
    run_rig(rig, still, seen)
    assert str(seen[-1].clean_air) == "calibration"
    assert seen[-1].state is State.SENSING
    recording = str(rig.folder / "breathed.csv")
    capsys.readouterr()
    assert main(["replay", recording, "--live", "--json", "--config", str(rig.config)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    replayed = [line for line in lines if line.get("topic") == "substance"]
    assert [(line["state"], line["clean_air"]) for line in replayed] == [
        (one.state.value, {"source": str(one.clean_air), "age_s": one.clean_air_age_s})
        for one in seen
    ]


def test_drifted_clean_air_requires_a_new_calibration_and_the_channel_is_named(
    rig: Rig,
) -> None:
    rig.measured()
    rig.calibrate("fit")
    moved = clean_air(2500, seed=5)
    moved[:, VOC] *= 1.25
    calibrating, _ = run_rig(rig, moved)
    report = calibrating.report()
    assert report["state"] == "recalibrate"
    assert report["why"].startswith("VOC in clean air")
    others = [value for name, value in report["drift"].items() if name != "VOC"]
    assert report["drift"]["VOC"] > 2 * max(abs(value) for value in others)


def test_the_schema_of_requests_lists_all_actions(rig: Rig) -> None:
    calibrating, _ = run_rig(rig, clean_air(20))
    schema = json.loads(
        (ROOT / "daemon/schemas/request_calibrate.json").read_text(encoding="utf-8")
    )
    assert set(schema["properties"]["action"]["enum"]) == set(calibrating.handle.actions)
    jsonschema.validate({"action": "reference", "label": "mint", "seconds": 90}, schema)
    for wrong in ({"action": "reference"}, {"seconds": 9}, {"seconds": 20, "last_s": 20}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
