"""Teaching smells to a running rig: over `request/enroll`, from the command line, in replays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest

from calibration.exposures import EnrolmentError
from calibration.smell_set import SmellError
from daemon.board.history import History, NoHistoryError
from daemon.cli import main
from daemon.config.loading import load_config
from daemon.enroll import Enrolment, TaughtSmells, rig_smells, taught_smells
from daemon.mqtt.service_client import send_request
from daemon.request_fields import RequestError
from daemon.system.background import result_of
from hardware.frames import SensorFrame
from hardware.simulator.board import SimulatedBoard
from models.nose import Nose, NoseSettings
from models.results import Prediction
from tests.calibration.smells import (
    AIR,
    LEMON,
    PETROL,
    TAR,
    Shifted,
    smell_readings,
    teachable_bundle,
    write_recording,
)
from tests.sandbox import ROOT, Mosquitto, Odours, ServiceProcess, Subscriber, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from daemon.system.background import Data
    from models.bundle import Bundle

CO = 3
SCHEMA = json.loads(
    (ROOT / "daemon" / "schemas" / "request_enroll.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return teachable_bundle(tmp_path_factory.mktemp("model"))


class Rig:
    """A nose, its history and its enrolment, without the threads of a service."""

    def __init__(self, bundle: Bundle, state: Path) -> None:
        self.nose = Nose([bundle], NoseSettings(live_stride_s=2), skip_warm_up=True)
        self.history = History()
        self.teaching = Enrolment(
            rig_smells([bundle], state),
            self.apply,
            history=self.history,
            air=lambda: self.nose.exposure,
        )
        self.frames = 0

    def apply(self, smells: TaughtSmells) -> None:
        """Let the nose use what was taught."""
        for model, head in smells.heads.items():
            self.nose.set_head(model, head)
        self.nose.set_taught(smells.recogniser, smells.unmixing)

    def smell(self, values: NDArray[np.float32]) -> list[Prediction]:
        """Let readings come in, one a second."""
        said = []
        for row in values:
            frame = SensorFrame(self.frames, 1000 * self.frames, row.copy(), np.zeros(12, np.uint8))
            step = self.nose.process(frame)
            self.history.push(step.t_ms, frame.values)
            said += step.predictions
            self.frames += 1
        return said

    def ask(self, meanwhile: Callable[[], Any] = lambda: None, **payload: Any) -> Data:
        """Ask as a request does; `meanwhile` happens between two steps."""
        jsonschema.validate(payload, SCHEMA)
        return result_of(self.teaching.handle(payload), lambda _progress: meanwhile())


@pytest.fixture
def rig(bundle: Bundle, tmp_path: Path) -> Rig:
    rig = Rig(bundle, tmp_path / "state")
    rig.smell(smell_readings(PETROL, 0, before=60))
    return rig


def steady_smell(seconds: int, *, before: int) -> NDArray[np.float32]:
    """Return float32[before + seconds, 12] at 1 Hz: clean air, then a smell that settles."""
    ramp = np.clip(np.arange(-before, seconds), 0, 60)
    start = np.log(AIR[:4] / (1023 - AIR[:4]))
    noise = np.random.default_rng(3).normal(0.0, 0.002, (len(ramp), 4))
    values = np.tile(AIR, (len(ramp), 1))
    signal = start + ramp[:, None] * np.array((0.01, 0.012, 0.015, 0.004)) + noise
    values[:, :4] = np.rint(1023 / (1 + np.exp(-signal)))
    return values


@pytest.mark.parametrize("seconds", [200, 400, 800])
def test_a_smell_that_came_long_before_it_is_taught_has_its_clean_air(
    bundle: Bundle, tmp_path: Path, seconds: int
) -> None:
    """The service keeps ten minutes of readings, the library an exposure and two minutes before."""
    rig = Rig(bundle, tmp_path / "state")
    rig.smell(steady_smell(seconds, before=90))
    told = rig.ask(label="soap", last_s=120, past=False)
    assert told["clean_air"] == "ambient"
    assert told["response_s"] > 100
    (exposure,) = rig.teaching.store.smells().smell("soap").exposures
    assert exposure.clean_air is not None
    start = np.log(AIR[:4] / (1023 - AIR[:4]))
    assert exposure.clean_air.array()[:4] == pytest.approx(start, abs=0.02)
    assert exposure.clean_air.age_s == pytest.approx(max(0, seconds - 240), abs=20)
    (taught,) = rig.teaching.store.taught_exposures(shadow="soap")
    rise = 60 * np.array((0.01, 0.012, 0.015, 0.004))
    assert np.median(taught.rows.response[:, :4], axis=0) == pytest.approx(rise, abs=0.03)


def test_clean_air_of_long_ago_is_corrected_by_a_later_calibration(
    bundle: Bundle, tmp_path: Path
) -> None:
    rig = Rig(bundle, tmp_path / "state")
    rig.smell(steady_smell(400, before=90))
    rig.ask(label="soap", last_s=120, past=False)
    store = rig.teaching.store
    (measured,) = store.taught_exposures(shadow="soap")
    store.use_correction(Shifted())
    (corrected,) = store.taught_exposures(shadow="soap")
    assert corrected.clean_air is not None
    assert measured.clean_air is not None
    air, shifted = measured.clean_air[0], corrected.clean_air[0]
    assert shifted == pytest.approx(np.log((100 - 50) / (1023 - 50)), abs=0.05)
    assert air == pytest.approx(np.log(100 / 923), abs=0.02)
    assert corrected.clean_air[1:4] == pytest.approx(measured.clean_air[1:4], abs=0.01)


def labels(said: list[Prediction]) -> set[str | None]:
    return {prediction.label for prediction in said}


def test_the_last_seconds_become_a_smell_that_the_next_prediction_names(rig: Rig) -> None:
    values = smell_readings(PETROL, 90)
    assert labels(rig.smell(values[:60])) == {None}
    told = rig.ask(label="petrol", last_s=50, promote=True)
    assert told["windows"] > 3
    assert told["effect_ms"] > 0
    said = rig.smell(values[60:80])
    assert said[0].top[0][0] == "petrol"
    assert said[-1].label == "petrol"


def test_a_smell_in_shadow_is_previewed_and_not_announced_before_it_is_promoted(rig: Rig) -> None:
    values = smell_readings(PETROL, 100)
    rig.smell(values[:60])
    told = rig.ask(label="petrol", last_s=50)
    assert told["shadow"]
    (past,) = told["past"]
    assert "petrol" in past["with_s"]
    assert "petrol" not in past["without_s"]
    said = rig.smell(values[60:80])
    assert all("petrol" not in dict(prediction.top) for prediction in said)
    rig.ask(action="promote", label="petrol")
    assert rig.smell(values[80:])[-1].label == "petrol"


def test_the_coming_seconds_are_captured_first(rig: Rig) -> None:
    values = iter(smell_readings(PETROL, 90))
    steps = 0

    def a_second_passes() -> None:
        nonlocal steps
        steps += 1
        if (row := next(values, None)) is not None:
            rig.smell(row[np.newaxis])

    told = rig.ask(a_second_passes, label="petrol", seconds=60, promote=True, past=False)
    assert steps > 60
    assert 45 <= told["seconds"] <= 61
    assert told["past"] == []


def test_an_exposure_under_45_s_teaches_nothing_however_it_comes(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Readings of two minutes may hold less of the smell than that."""
    rig.smell(smell_readings(PETROL, 30))
    with pytest.raises(EnrolmentError, match="s of the smell are too short"):
        rig.ask(label="petrol", last_s=80)
    assert rig.ask(action="list")["smells"] == []
    bundle = next(iter(rig.teaching.store.bundles.values()))
    file, state = tmp_path / "tar.csv", tmp_path / "other"
    write_recording(file, smell_readings(TAR, 40, before=80))
    assert enroll("tar", "--recording", file, "--state", state, "--model", bundle.folder) == 1
    assert "of the smell are too short. 45 s are needed" in capsys.readouterr().err
    assert list(state.glob("smells/exposures/*")) == []


def test_hidden_and_renamed_labels_take_effect_at_the_next_prediction(rig: Rig) -> None:
    values = smell_readings(LEMON, 100)
    assert rig.smell(values[:60])[-1].label == "lemon"
    rig.ask(action="rename", label="lemon", name="citron")
    assert rig.smell(values[60:75])[-1].label == "citron"
    rig.ask(action="hide", label="citron")
    assert "citron" not in dict(rig.smell(values[75:90])[-1].top)
    assert rig.ask(action="list")["hidden"] == ["lemon"]
    rig.ask(action="rollback")
    assert rig.smell(values[90:])[-1].label == "citron"


def test_a_taught_smell_is_known_after_a_restart(rig: Rig, bundle: Bundle, tmp_path: Path) -> None:
    rig.smell(smell_readings(PETROL, 60))
    rig.ask(label="petrol", last_s=50, promote=True)
    again = Rig(bundle, tmp_path / "state")
    again.teaching.load()
    assert again.smell(smell_readings(PETROL, 60, seed=4))[-1].label == "petrol"


def test_a_new_calibration_is_applied_to_smells_taught_before(rig: Rig) -> None:
    rig.smell(smell_readings(PETROL, 60))
    rig.ask(label="petrol", last_s=50, promote=True)
    store = rig.teaching.store
    before = store.head()[0].taught[0].mean[CO]

    class Still:
        """Undoes whatever CO does."""

        id = "still"
        model = None

        def __call__(self, values: NDArray[np.float32], _dt_s: float) -> NDArray[np.float32]:
            return np.where(np.arange(12) == CO, np.float32(800), values)

        def reset(self) -> None:
            """Nothing is remembered."""

    rig.teaching.with_correction(Still())()
    assert before > 1.0
    assert store.head()[0].taught[0].mean[CO] == pytest.approx(0.0, abs=1e-6)
    rig.teaching.with_correction(None)()
    assert store.head()[0].taught[0].mean[CO] == pytest.approx(before)


def test_a_smell_whose_readings_are_lost_is_not_announced_after_a_new_calibration(rig: Rig) -> None:
    values = smell_readings(PETROL, 90)
    rig.smell(values[:60])
    rig.ask(label="petrol", last_s=50, promote=True)
    assert rig.smell(values[60:75])[-1].label == "petrol"
    for path in (rig.teaching.store.folder / "exposures").iterdir():
        path.unlink()
    rig.teaching.with_correction(None)()
    assert "petrol" not in dict(rig.smell(values[75:])[-1].top)


def test_a_damaged_store_leaves_the_shipped_labels_working(
    rig: Rig, bundle: Bundle, tmp_path: Path
) -> None:
    rig.ask(action="hide", label="lemon")
    rig.teaching.store.folder.joinpath("index.yaml").write_text("][")
    smells = taught_smells(rig.teaching.store)
    assert (smells.heads, smells.recogniser) == ({}, None)
    assert "--rollback" in smells.problems[0]
    again = Rig(bundle, tmp_path / "state")
    again.teaching.load()
    assert again.smell(smell_readings(LEMON, 60))[-1].label == "lemon"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"action": "sniff"}, "teach, list"),
        ({"label": "petrol", "last_s": 50, "seconds": 50}, "not both"),
        ({"label": "petrol", "last": 50}, "no field last"),
        ({"label": "petrol", "last_s": "50"}, "last_s must be a number"),
        ({"last_s": 50}, "label must be text"),
        ({"label": "petrol", "last_s": 50, "promote": "yes"}, "true or false"),
        ({"label": "petrol", "last_s": 20}, "45 to 600"),
        ({"label": "petrol", "seconds": 20}, "45 to 600"),
        ({"action": "rename", "label": "lemon"}, "name must be text"),
    ],
)
def test_wrong_requests_are_refused_with_the_reason(rig: Rig, payload: Data, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        result_of(rig.teaching.handle(payload))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, SCHEMA)


def test_seconds_before_the_first_reading_cannot_be_taught(rig: Rig) -> None:
    with pytest.raises(NoHistoryError, match="only 59 s"):
        rig.ask(label="petrol", last_s=200)


def enroll(*arguments: object) -> int:
    return main(["enroll", *map(str, arguments)])


def answer(capsys: pytest.CaptureFixture[str]) -> Data:
    data: Data = json.loads(capsys.readouterr().out)
    return data


def test_recordings_teach_without_a_service_and_replay_names_the_smell(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ("--state", tmp_path / "state", "--model", bundle.folder)
    for number in range(3):
        write_recording(tmp_path / f"{number}.csv", smell_readings(PETROL, seed=number))
    files = (tmp_path / "0.csv", tmp_path / "1.csv")
    past = tmp_path / "2.csv"
    assert enroll("petrol", *state, "--json", "--past", past, "--recording", *files) == 0
    told = answer(capsys)
    assert (told["exposures"], told["shadow"]) == (2, True)
    assert told["rehearsal"]["held_out_by"] == "session"
    assert told["sessions"] == 2
    assert told["advice"] == {"label": "petrol", "sessions": 2, "gain": 0.0}
    assert told["past"][0]["with_s"]["petrol"] > 10
    assert enroll("--promote", "petrol", *state) == 0
    capsys.readouterr()
    replay = ["replay", past, "--model", bundle.folder, "--json"]
    assert main([*map(str, replay), "--state", str(tmp_path / "state")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["label"] == "petrol"
    assert main([*map(str, replay)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["label"] is None


def test_mixtures_of_taught_smells_do_not_mix_with_the_summary_of_a_replay(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both kinds of predictions once took turns, line by line, and the last one was the result."""
    state = ("--state", tmp_path / "state", "--model", bundle.folder)
    for label, gains in (("petrol", PETROL), ("tar", TAR)):
        for number in range(2):
            file = tmp_path / f"{label}{number}.csv"
            write_recording(file, smell_readings(gains, 120, before=60, seed=number))
            assert enroll(label, "--recording", file, "--promote", *state) == 0
    capsys.readouterr()
    replay = ["replay", *map(str, (tmp_path / "petrol0.csv", *state))]
    assert main([*replay, "--json"]) == 0
    *lines, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_topic = {
        topic: [line for line in lines if line.get("topic") == topic]
        for topic in ("substance", "mixture")
    }
    assert by_topic["mixture"]
    named = [line for line in by_topic["substance"] if line["state"] == "recognised"]
    assert (summary["label"], summary["probability"]) == ("petrol", named[-1]["probability"])
    assert main(replay) == 0
    states = [
        line.split()[2] for line in capsys.readouterr().out.splitlines()[1:] if " s  " in line
    ]
    assert states.count("recognised") == 1


def test_every_change_is_printed_for_people(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ("--state", tmp_path / "state", "--model", bundle.folder)
    file = tmp_path / "tar.csv"
    write_recording(file, smell_readings(TAR))
    assert enroll("tar", "--recording", file, "--promote", *state) == 0
    assert "The rig announces it from now on" in capsys.readouterr().out
    for change, said in (
        (("--hide", "mint"), "hidden"),
        (("--rename", "lemon", "citron"), "is called citron"),
        (("--rename", "tar", "pitch"), "pitch"),
        (("--unhide", "mint"), "showed mint"),
        (("--export", tmp_path / "smells.zip"), "pitch"),
        (("--forget", "pitch"), "nothing was taught yet"),
        (("--import", tmp_path / "smells.zip"), "in shadow"),
        (("--rollback",), "forgot pitch"),
        (("--list",), "version"),
    ):
        assert enroll(*change, *state) == 0
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("soap",),
        ("soap", "--list"),
        ("soap", "--forget", "tar"),
        ("--promote",),
        ("soap", "--recording", "a.csv", "--last", "50"),
        ("soap", "--last", "20"),
        ("soap", "--seconds", "20"),
        ("--list", "--recording", "a.csv"),
    ],
)
def test_contradictions_are_wrong_use(
    bundle: Bundle, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert enroll(*arguments, "--state", tmp_path, "--model", bundle.folder) == 2


def test_a_running_rig_is_taught_over_mqtt_and_announces_the_new_smell(
    broker: Mosquitto, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "ttySIM"
    settings = (
        f"rig_id: rig\nsource: {{port: {link}}}\nmodels: [{bundle.folder}]\n"
        f"mqtt: {{host: 127.0.0.1, port: {broker.port}}}\nstate_dir: state\nlive_stride_s: 2\n"
    )
    script = ((None, 90), (CO, 240), (None, 100)) * 20

    def said(ear: Subscriber) -> list[Data]:
        return [json.loads(text) for text in ear.texts("scent/rig/substance")]

    with (
        Subscriber(broker.port) as ear,
        SimulatedBoard(Odours(script), link=link, speed=40, wait_for_listener=True),
        ServiceProcess(tmp_path, settings) as daemon,
    ):
        config = load_config(daemon.config)
        wait_until(
            lambda: [p["state"] for p in said(ear)][-20:].count("sensing") == 20,
            "a smell that nobody knows",
        )
        assert enroll("petrol", "--config", daemon.config, "--last", "50", "--json") == 0
        told = answer(capsys)
        assert told["shadow"]
        assert told["effect_ms"] > 0
        assert "petrol" not in {p["label"] for p in said(ear)}
        send_request(config, "enroll", {"action": "promote", "label": "petrol"})
        wait_until(lambda: "petrol" in {p["label"] for p in said(ear)}, "the new smell")
        write_recording(tmp_path / "tar.csv", smell_readings(TAR))
        files = ("--recording", tmp_path / "tar.csv")
        assert enroll("tar", *files, "--config", daemon.config, "--promote") == 0
        listed = send_request(config, "enroll", {"action": "list"})
        assert [smell["label"] for smell in listed["smells"]] == ["petrol", "tar"]
        file = [str(tmp_path / "smells.zip"), "--config", str(daemon.config)]
        assert main(["smells", "export", *file]) == 0
        send_request(config, "enroll", {"action": "forget", "label": "tar"})
        assert main(["smells", "import", *file]) == 0
        (_, tar) = send_request(config, "enroll", {"action": "list"})["smells"]
        assert (tar["label"], tar["shadow"]) == ("tar", True)
        assert daemon.end() == 0


def test_exposures_are_listed_by_session_with_few_points(rig: Rig) -> None:
    rig.smell(smell_readings(PETROL, 60))
    rig.ask(label="petrol", last_s=50)
    told = rig.ask(action="exposures", label="petrol", points=20)
    ((session, exposures),) = ((item["session"], item["exposures"]) for item in told["sessions"])
    assert session == exposures[0]["taught"][:10]
    curve = exposures[0]["curve"]
    assert len(curve["t_s"]) == len(curve["CO"]) == 20
    assert curve["CO"][-1] > 0.5
    assert abs(curve["VOC"][-1]) < 0.1
    assert (
        rig.ask(action="exposures", label="petrol", points=0)["sessions"][0]["exposures"][0][
            "curve"
        ]
        is None
    )


def test_one_exposure_is_forgotten_and_comes_back(rig: Rig) -> None:
    for number in range(2):
        rig.smell(smell_readings(PETROL, 120, before=200, seed=number))
        rig.ask(label="petrol", last_s=110)
    (session,) = rig.ask(action="exposures", label="petrol", points=0)["sessions"]
    first, second = (item["id"] for item in session["exposures"])
    with pytest.raises(SmellError, match=first):
        rig.ask(action="forget", label="petrol", exposure="0" * 16)
    rig.ask(action="forget", label="petrol", exposure=first)
    (session,) = rig.ask(action="exposures", label="petrol", points=0)["sessions"]
    assert [item["id"] for item in session["exposures"]] == [second]
    assert rig.ask(action="forget", label="petrol", exposure=second)["smells"] == []
    rig.ask(action="rollback")
    assert rig.ask(action="rollback")["smells"][0]["exposures"] == 2


def test_smells_are_exported_and_imported_by_request(rig: Rig) -> None:
    rig.smell(smell_readings(PETROL, 60))
    rig.ask(label="petrol", last_s=50, promote=True)
    made = rig.ask(action="export")
    state = rig.teaching.store.folder.parent
    assert (state / made["file"]).stat().st_size == made["bytes"]
    rig.ask(action="forget", label="petrol")
    checked = rig.ask(action="import", path=made["file"], check=True)
    assert (checked["same_board"], checked["problem"]) == (True, None)
    answer = rig.ask(action="import", path=made["file"], rename={"petrol": "fuel"})
    (smell,) = answer["smells"]
    assert (smell["label"], smell["shadow"], smell["other_board"]) == ("fuel", True, False)
    assert answer["imported"]["planned"][0]["exposures"] == 1
    with pytest.raises(RequestError, match="below the rig's state_dir"):
        rig.ask(action="import", path="/etc/passwd")
