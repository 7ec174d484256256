"""The page in a real browser, on a real broker, a real service and a simulated board."""

from __future__ import annotations

import io
import json
import shutil
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from calibration.smell_exchange import export_smells
from calibration.smell_origin import RigIdentity
from calibration.smell_store import SmellStore
from daemon.demo.scenario import RIGS, play
from daemon.demo.taught_rig import teach_rigs
from daemon.sandbox.service_process import ServiceProcess
from daemon.sandbox.web_process import WebProcess
from hardware.channels import GAS_INDICES
from hardware.simulator.board import SimulatedBoard
from models.signals import log_signals
from tests.calibration.smells import TAR, smell_readings, write_recording
from tests.daemon.web.browser import Browser, accessibility_faults, browser
from tests.sandbox import QUIET_ROW, Mosquitto, Subscriber, wait_until

RIG = replace(RIGS[0], taught=("cloves", "peach"))
"""Its board is unlike that of the model's training, as an owner's is."""

SCENARIO = "air:150,saffron:300,air:200,peach:240,air:200,saffron:300"
SPEED = 15.0
"""Of the board: clean air lasts ten seconds, a smell twenty."""

VIEWS = ("now", "teach", "review", "recordings", "rig")


@dataclass
class House:
    """A rig and its page."""

    service: ServiceProcess
    web: WebProcess
    folder: Path

    @property
    def recordings(self) -> list[Path]:
        return sorted((self.folder / "state/recordings").glob("*.csv*"))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state folder of a rig that was taught two smells."""
    folder = tmp_path_factory.mktemp("taught")
    teach_rigs({folder / "state": RIG}, folder / "recordings")
    return folder / "state"


@contextmanager
def inhabited(broker: Mosquitto, taught: Path, tmp_path: Path, **kept: bool) -> Iterator[House]:
    """Run a rig and its page; `kept` are the settings of its recordings."""
    link = tmp_path / "board"
    shutil.copytree(taught, tmp_path / "rig/state")
    signal = play(RIG, SCENARIO, 5, loop=True)
    settings = {
        "rig_id": "kitchen",
        "source": {"port": str(link)},
        "models": ["substances-50"],
        "mqtt": {"host": "127.0.0.1", "port": broker.port},
        **kept,
    }
    with (
        SimulatedBoard(signal, link=link, speed=SPEED, seed=5, wait_for_listener=True),
        ServiceProcess(tmp_path / "rig", settings) as service,
        WebProcess(service.config) as web,
    ):
        yield House(service, web, tmp_path / "rig")


@pytest.fixture
def house(broker: Mosquitto, taught: Path, tmp_path: Path) -> Iterator[House]:
    with inhabited(broker, taught, tmp_path, record=True) as house:
        yield house


@pytest.fixture
def window(house: House, tmp_path: Path) -> Iterator[Browser]:
    with browser(house.web.address, tmp_path / "profile") as opened:
        yield opened


def smelled_for(window: Browser, seconds: float) -> bool:
    """Whether an odour is there, and has been for so long in the board's time."""
    return bool(
        window.run(
            "const {events, readings} = window.scentd.rig;"
            "const last = events.filter((e) => ['onset', 'ended'].includes(e.type)).at(-1);"
            "return last?.type === 'onset' && readings.length"
            " && readings.at(-1)[0] - last.t_ms > arguments[0] * 1000;",
            seconds,
        )
    )


def test_an_owner_teaches_a_smell_and_sees_it_named(
    house: House, window: Browser, tmp_path: Path
) -> None:
    """Open, watch a smell arrive, teach and promote it, see it named, judge, label and export."""
    window.open()
    window.await_text("Clean air", ".words")
    window.wait(lambda: smelled_for(window, 90), "a smell of a minute and a half")

    window.go("teach")
    window.type_into("Name of the smell", "saffron")
    window.find("select option[value='last 60']").click()
    window.click("Teach")
    window.await_text("would help most", ".answer")
    window.picture("teach", tmp_path)
    window.click("Let the rig announce saffron")
    window.await_text("announced", "td")

    window.go("now")
    window.await_text("saffron", ".words")
    window.await_text("taught on this rig", ".hero")
    window.picture("now", tmp_path)

    window.go("review")
    window.await_text("saffron", ".announcement")
    say_wrong_and_keep_it_unnamed(window, tmp_path)

    window.go("recordings")
    window.click(house.recordings[-1].name)
    assert_stretches_are_chosen(window)
    window.type_into("From, s", "160")
    window.type_into("To, s", "260")
    window.type_into("Label", "<script>alert(1)</script>")
    window.click("Label the stretch")
    window.await_text("<script>alert(1)</script>", "main .badge")
    window.type_into("Label", "saffron")
    window.click("Label the stretch")
    window.await_text("160 to 260 s", "main")
    window.picture("recordings", tmp_path)
    link = window.find("a[download='recordings.zip']").get_attribute("href")
    assert link
    with urllib.request.urlopen(link, timeout=30) as response:  # noqa: S310
        archive = zipfile.ZipFile(io.BytesIO(response.read()))
    (place,) = archive.namelist()
    assert place.startswith("saffron/")
    rows = archive.read(place).decode().splitlines()
    assert rows[0].startswith("timestamp_ms,NO2,")
    assert len(rows) > 100

    window.go("rig")
    window.await_text("substances-50", "main")
    window.picture("rig", tmp_path)
    assert window.complaints() == []


def say_wrong_and_keep_it_unnamed(window: Browser, tmp_path: Path) -> None:
    """Judge the newest announcement, and accept it as none of the taught smells."""
    name = window.find(".announcement button[aria-label$=': wrong']").get_attribute("aria-label")
    assert name
    window.click(name)
    window.await_text("wrong", ".announcement .badge")
    window.await_text("0 of 1 right", "main")
    window.await_text("not saffron", "main")
    window.picture("review", tmp_path)
    window.run(
        "[...document.querySelectorAll('button')]"
        ".find((item) => item.textContent === 'None of the taught smells').click()"
    )
    window.await_text("gets none of their names", "#notice")
    window.await_text("Nothing is proposed", "main")
    window.go("teach")
    window.await_text("never named", "td")


def assert_stretches_are_chosen(window: Browser) -> None:
    """A stretch of the curve is chosen by dragging, and by a tap at each end."""

    def stretch() -> tuple[float, float]:
        window.wait(lambda: all(window.run(values)), "a stretch")
        first, last = map(float, window.run(values))
        return first, last

    values = "return [...document.querySelectorAll('input[type=number]')].map((e) => e.value)"
    over = window.find(".u-over")
    window.run("arguments[0].scrollIntoView({block: 'center'})", over)
    drag = ActionChains(window.chrome).move_to_element_with_offset(over, -200, 0).click_and_hold()
    drag.pause(0.2).move_by_offset(90, 0).pause(0.2).move_by_offset(90, 0).pause(0.2)
    drag.release().perform()
    dragged = stretch()
    assert 0 < dragged[0] < dragged[1]
    tap = ActionChains(window.chrome).move_to_element_with_offset(over, 100, 0).click()
    tap.pause(0.6).move_to_element_with_offset(over, -100, 0).click().perform()
    window.wait(lambda: all(window.run(values)) and stretch() != dragged, "the taps")
    first, last = stretch()
    assert dragged[0] < first < last
    assert last > dragged[1]


def test_every_view_is_accessible_on_a_screen_and_on_a_phone(
    house: House, window: Browser, tmp_path: Path
) -> None:
    window.open()
    window.await_text("Clean air", ".words")
    window.await_element(".u-over")
    faults = {}
    for size in ((1200, 900), (390, 844)):
        window.chrome.set_window_size(*size)
        for view in VIEWS:
            window.go(view)
            window.wait(lambda: "Loading" not in window.text("main"), "the view")
            found = accessibility_faults(window)
            wide = window.run("return document.documentElement.scrollWidth - innerWidth")
            if found or wide > 0:
                faults[view, size] = (found, wide)
    assert faults == {}


@pytest.mark.slow
def test_the_keyboard_reaches_everything(house: House, window: Browser) -> None:
    window.open("teach")
    window.await_text("The library of this rig")
    window.wait(lambda: "Loading" not in window.text("main"), "the library")
    reached: list[str] = []
    for _ in range(60):
        ActionChains(window.chrome).send_keys(Keys.TAB).perform()
        reached.append(
            window.run(
                "const e = document.activeElement;"
                "return e.getAttribute('aria-label') || e.textContent.trim() || e.type || e.tagName"
            )
        )
    for wanted in ("Skip to the content", "Now", "Review", "Teach", "Import a library"):
        assert wanted in reached


@pytest.mark.slow
def test_smells_of_another_board_are_imported_only_after_a_question(
    house: House, window: Browser, tmp_path: Path
) -> None:
    attic, file = SmellStore(tmp_path / "attic"), tmp_path / "attic.zip"
    recording = write_recording(tmp_path / "tar.csv", smell_readings(TAR, 120, before=90))
    attic.enroll("tar", recording, source="test", start_ms=90_000)
    export_smells(attic, file, RigIdentity("attic", "attic"))
    window.open("teach")
    window.await_text("announced", "td")
    for answer in ("Cancel", "Import"):
        window.find("input[type=file]").send_keys(str(file))
        window.await_text("Import smells of another board?", "dialog")
        window.await_text("clean air is another board's", "dialog")
        assert "in shadow" not in window.text("table")
        window.click(answer)
    window.await_text("in shadow", "td")
    assert "tar" in window.text("table").lower()
    assert window.complaints() == []


@pytest.mark.slow
def test_a_rig_that_keeps_only_clips_shows_the_curves_of_its_announcements(
    broker: Mosquitto, taught: Path, tmp_path: Path
) -> None:
    with (
        inhabited(broker, taught, tmp_path, clips=True) as house,
        browser(house.web.address, tmp_path / "profile") as window,
    ):
        window.open("review")
        window.await_element(".announcement svg.spark")
        assert {path.name[:5] for path in house.recordings} == {"clip-"}
        assert "above clean air" in str(window.find("svg.spark").get_attribute("aria-label"))


@pytest.mark.slow
def test_two_pages_do_not_teach_the_same_air_twice(
    house: House, window: Browser, tmp_path: Path
) -> None:
    with browser(house.web.address, tmp_path / "other") as other:
        for page, name in ((window, "coffee"), (other, "tea")):
            page.open("teach")
            page.await_text("announced", "td")
            page.type_into("Name of the smell", name)
            page.find("select option[value='next 300']").click()
        window.click("Teach")
        other.await_text("Another page is teaching coffee")
        other.click("Teach")
        other.await_text("'coffee' is being taught on this rig", ".answer.bad")


@pytest.mark.slow
def test_a_page_says_what_is_missing_and_recovers(
    house: House, window: Browser, broker: Mosquitto
) -> None:
    window.open()
    window.await_text("Clean air", ".words")
    assert not window.find("#banner").is_displayed()
    broker.stop()
    window.await_text("No connection to the broker", "#banner")
    broker.start()
    window.wait(lambda: not window.find("#banner").is_displayed(), "the broker")
    house.service.end()
    window.await_text("is not running", "#banner")
    window.go("teach")
    window.await_text("does not run now")
    house.service.start()
    window.wait(lambda: not window.find("#banner").is_displayed(), "the service")
    house.web.close()
    window.await_text("server of this page does not answer", "#banner")


def configuration(broker: Mosquitto, folder: Path) -> Path:
    """Write the configuration of the rig `kitchen`, whose service does not run."""
    path = folder / "scentd.yaml"
    settings = {
        "rig_id": "kitchen",
        "source": {"port": "./board"},
        "models": ["substances-50"],
        "mqtt": {"host": "127.0.0.1", "port": broker.port},
        "state_dir": "state",
    }
    path.write_text(json.dumps(settings))
    return path


def test_the_page_begins_with_a_rig_that_runs(broker: Mosquitto, tmp_path: Path) -> None:
    with Subscriber(broker.port, topic="none") as publisher:
        publisher.publish("scent/attic/status", "online", retain=True)
        publisher.catch_up()
    with WebProcess(configuration(broker, tmp_path)) as web:
        until = (f"{web.address}metrics", 'scentd_up{rig="attic"}')
        wait_until(lambda: until[1].encode() in urllib.request.urlopen(until[0]).read(), until[1])  # noqa: S310
        with browser(web.address, tmp_path / "profile") as window:
            window.open()
            window.wait(lambda: window.run("return window.scentd.rig.rig") == "attic", "the attic")


def test_a_login_with_the_printed_address(broker: Mosquitto, tmp_path: Path) -> None:
    config = configuration(broker, tmp_path)
    with (
        WebProcess(config, ["--allow-host", "scent.example.org", "--root-path", "/scent"]) as web,
        browser(web.address, tmp_path / "profile") as window,
    ):
        window.open()
        window.await_text("Log in", "h1")
        window.type_into("Token", "wrong")
        window.click("Log in")
        window.await_text("This is not the token")
        token = (tmp_path / "state/web-token").read_text().strip()
        window.chrome.get("about:blank")
        window.chrome.get(f"{web.address}#token={token}")
        window.await_text("Waiting", ".state")
        assert token not in window.chrome.current_url
        assert window.chrome.find_element(By.ID, "rig").get_attribute("value") == "kitchen"
        window.chrome.refresh()
        window.await_text("Waiting", ".state")
        assert_signals_agree(window)


def assert_signals_agree(window: Browser) -> None:
    """The page turns readings into signals as the models do."""
    rng = np.random.default_rng(7)
    values = np.tile(QUIET_ROW, (40, 1)) * rng.uniform(0.01, 3.0, (40, 12))
    values[:, :4] = np.round(values[:, :4])
    readings = values.astype(np.float32)
    script = (
        "const [rows, done] = arguments; import('./static/js/signals.js').then((m) => done("
        "rows.map((row) => m.CHANNELS.map(({part}, i) => m.signal(part, row[i])))));"
    )
    shown = window.chrome.execute_async_script(script, readings.astype(float).tolist())
    ours = np.array(shown, dtype=float)[:, list(GAS_INDICES)]
    np.testing.assert_allclose(ours, log_signals(readings), atol=1e-4)
