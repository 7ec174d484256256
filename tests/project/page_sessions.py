"""Which command of the pages runs in which test, or why it cannot run in one.

A page's commands run one after the other in one shell, in an empty folder, as its reader types
them; `prepare` provides what the page takes for granted. A command that cannot run is listed with
the reason. A new command in a page runs with the others, or the test fails until it is listed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from daemon.recording.segments import compress_segment
from hardware.recording import RecordingWriter, read_recording
from hardware.recording_labels import LabelledStretch, RecordingLabels, write_labels
from hardware.simulator.board import SimulatedBoard
from hardware.simulator.signals import ReplaySignal, SyntheticSignal
from tests.project.source_tree import ROOT
from tests.sandbox import Mosquitto, ServiceProcess
from tests.training.exposures import two_days
from tests.training.tiny import write_recordings

ENGINE = "needs a container engine; tests/packaging checks the files, and runs the built image"
ROOT_RIGHTS = "needs root and a booted systemd; tests/systemd runs the installer below a folder"
OF_THE_PACKAGE = "needs debhelper and another root; make test-deb does all of it"
NO_INDEX = "fetches packages from an index"
SUITE = "runs tests of this suite"
TRAINS = "trains for an hour or more, on the published recordings"
OF_A_TRAINING = "needs the run folder of a training that takes an hour or more"
OF_THE_HUB = "needs the hub; tests/daemon/installed_models/test_hub_download.py has one of its own"
MINUTES = "computes for more than ten minutes"

NOT_RUN: dict[str, str] = {
    # README.md, CONTRIBUTING.md
    "python3.13 -m venv .venv-home-assistant": NO_INDEX,
    ".venv-home-assistant/bin/pip install homeassistant==2025.4.4 paho-mqtt==2.1.0": NO_INDEX,
    "SCENTD_HOME_ASSISTANT=.venv-home-assistant/bin/python .venv/bin/pytest tests/integrations": (
        SUITE
    ),
    "make test": SUITE,
    "make test-slow": SUITE,
    "make test-arm64": "needs root, and takes some twenty minutes in an emulated processor",
    "sudo apt install python3-venv mosquitto mosquitto-clients": ROOT_RIGHTS,
    "sudo systemd/install.sh": ROOT_RIGHTS,
    "sudoedit /etc/scentd/scentd.yaml": ROOT_RIGHTS,
    "sudo systemctl reload scentd": ROOT_RIGHTS,
    "mosquitto_sub -t 'scent/#' -v": "never ends; the page on MQTT runs one like it",
    # install-the-service.md
    "sudo apt install python3-venv": ROOT_RIGHTS,
    "systemctl status scentd": ROOT_RIGHTS,
    "python3 -m venv scentd-env && . scentd-env/bin/activate && pip install .": (
        f"{NO_INDEX}; tests/project/test_wheel.py installs the wheel"
    ),
    "pip download --require-hashes --no-deps --only-binary :all: --dest wheels "
    "-r systemd/requirements.txt -r systemd/requirements-web.txt "
    "-r systemd/build-requirements.txt": (
        "tests/systemd/test_install.py runs it, and installs from what it fetched"
    ),
    "sudo systemd/install.sh --find-links wheels": ROOT_RIGHTS,
    "systemd/install.sh --root image": f"{NO_INDEX}; tests/systemd/test_install.py runs it without",
    "systemctl --root=image enable scentd": "tests/systemd/test_install.py runs it",
    "sudo install -m 600 /dev/stdin /etc/scentd/credentials/mqtt-password": ROOT_RIGHTS,
    "sudo systemd/install.sh --rig kitchen --rig attic": ROOT_RIGHTS,
    # install.md
    "make deb": OF_THE_PACKAGE,
    "sudo apt install ./dist/scentd_*.deb": OF_THE_PACKAGE,
    "scentd demo": OF_THE_PACKAGE,
    "sudo python3 -m venv /opt/smell": ROOT_RIGHTS,
    "sudo /opt/smell/bin/pip install 'scentd[web]'": NO_INDEX,
    "sudo /opt/smell/bin/scentd service install": ROOT_RIGHTS,
    # share.md
    "pip install 'scentd[hub]'": NO_INDEX,
    "scentd models install hf:OWNER/NAME@REVISION --config rig.yaml": OF_THE_HUB,
    **dict.fromkeys(
        (
            "scent-train publish my-bundle --to hf:OWNER/NAME --license mit "
            "--dataset DeweiFeng/SmellNet --dry-run",
            "scent-train publish my-bundle --to hf:OWNER/NAME --license mit --private",
        ),
        OF_THE_HUB,
    ),
    **dict.fromkeys(
        (
            "scentd smells export kitchen.zip --config kitchen.yaml",
            "scentd smells import kitchen.zip --config attic.yaml --check",
            "scentd smells import kitchen.zip --config attic.yaml",
        ),
        "needs two rigs; tests/daemon/commands/test_smells.py has them",
    ),
    # container.md, home-assistant.md
    **dict.fromkeys(
        (
            "make image",
            "cd packaging/container",
            "docker compose up simulated",
            "BOARD=/dev/ttyUSB0 docker compose up --detach",
            "docker compose logs page",
            "docker compose exec scentd scentd status",
            "docker compose exec scentd scentd models list",
        ),
        ENGINE,
    ),
    "make app": f"{NO_INDEX}; tests/packaging runs what it puts together",
    # web-page.md
    "pip install 'scentd[web]'": NO_INDEX,
    "sudo systemd/install.sh --web": ROOT_RIGHTS,
    "scentd web --config rig.yaml": "never ends; tests/daemon/web/test_server.py runs it",
    **dict.fromkeys(
        (
            "scent-train init --data data --output my-rig.yaml",
            "scent-train crossval --sessions --config my-rig.yaml --data data",
            "scent-train fit --config my-rig.yaml --data data",
            "scent-train export --config my-rig.yaml --data data --output my-rig",
        ),
        "takes minutes; the slow test of the page trains on an export of its own",
    ),
    # performance.md
    'make test-slow ARGS="-k twenty_pages"': SUITE,
    # security.md
    "sudo mosquitto_passwd -c /etc/mosquitto/passwd kitchen": "tests/faults/test_access.py runs it",
    "sudo chown mosquitto: /etc/mosquitto/passwd /etc/mosquitto/scentd.acl": (
        "tests/faults/test_access.py runs it"
    ),
    "sudo chmod 600 /etc/mosquitto/passwd /etc/mosquitto/scentd.acl": (
        "tests/faults/test_access.py runs it"
    ),
    "sudo systemctl restart mosquitto": ROOT_RIGHTS,
    "pipx run pip-audit --require-hashes --disable-pip -r systemd/requirements.txt "
    "-r systemd/requirements-web.txt": NO_INDEX,
    # reliability.md
    "HYPOTHESIS_PROFILE=long pytest tests/faults/test_fuzz.py --timeout 0": SUITE,
    "pip install atheris": NO_INDEX,
    # record-label-train.md
    "scentd setup": "asks; tests/daemon/commands/test_setup.py answers",
    "python tests/guided_fuzz.py decoder -max_total_time=3600 -max_len=4096": "runs for an hour",
    'make test-slow ARGS="-k flipped_bits"': SUITE,
    'make test-slow ARGS="-k outbox_damage"': SUITE,
    'make test-slow ARGS="-k million"': SUITE,
    # fleet.md
    'scentd fleet run models \'{"action": "switch", "name": "substances-50", "version": "0.4.0"}\' '
    "--where 'rig=lab-*' --where online=yes --canary 1 --wave 10 --pause 30": (
        "needs several rigs; tests/daemon/fleet sends requests in waves"
    ),
    "scentd fleet bench": "takes minutes; tests/daemon/fleet_bench runs its parts",
    # performance.md
    "make bench": "runs the two commands below it",
    # models.md, train-a-model.md, trust.md, session-leakage.md
    "make models": TRAINS,
    "scent-train data get --output data/smellnet": "fetches the published recordings",
    "scent-train crossval --sessions --config fruits-5 --data runs/fruits5": TRAINS,
    "scent-train fit      --config fruits-5 --data runs/fruits5": TRAINS,
    "scent-train export   --config fruits-5 --data runs/fruits5 --output models/bundles/fruits-5": (
        TRAINS
    ),
}

_TRAINED = re.compile(
    r"(?:\w+=\S+ )?scent-train +(crossval|fit|export|cross-modal|audit|compare|search|trust)\b"
    r".*\$SCENTD_DATA/"
)


_MEASURES = re.compile(r"scent-train +(rigs|unmix|boards)\b.*\$SCENTD_DATA")


def why_not_run(page: str, command: str) -> str | None:
    """Return why a command of a page does not run in its session; None if it runs."""
    if command in NOT_RUN:
        return NOT_RUN[command]
    if _MEASURES.match(command):
        return f"{MINUTES}; tests/training/experiments computes the same of few recordings"
    if command.startswith("scentd soak"):
        return "judges times of recovery, which a busy machine misses; tests/daemon/soak runs parts"
    if match := _TRAINED.match(command):
        return OF_A_TRAINING if match[1] in {"audit", "trust"} else TRAINS
    if command.startswith("scentd simulate") and not command.endswith("&"):
        return "runs by itself, in test_a_simulated_board_of_a_page_can_be_read"
    return None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page's commands run: an empty folder, a free port, and what to close in the end."""

    folder: Path
    closing: ExitStack
    broker_port: int


@dataclass(frozen=True, slots=True)
class Session:
    """How the commands of one page run.

    Attributes
    ----------
    prepare: provides what the page takes for granted.
    change: regular expressions in commands, and what stands in their place here: ports of this
        test, and times that suit it.
    printed: parts of the output that must appear.
    data: whether the page's commands read the real recordings.
    slow: whether it takes more than half a minute.
    """

    prepare: Callable[[Place], object] = lambda _place: None
    change: tuple[tuple[str, str], ...] = ()
    printed: tuple[str, ...] = ()
    data: bool = False
    slow: bool = False


BOARD = "ttyUSB0"
RECORD_S = 5
"""Real seconds of a recording here; the board is 60 times faster."""

AT_BOARD = (r"/dev/ttyUSB0", BOARD)
FROM_BOARD = (
    AT_BOARD,
    (r"(scentd record .*--seconds) \d+", rf"\1 {RECORD_S}"),
)


def plug_in(place: Place) -> None:
    """Plug in a board that sends a minute of clean air, then cloves, fast enough for all models."""
    signal = SyntheticSignal("air:60,clove:1200", rate_hz=10)
    board = SimulatedBoard(signal, link=place.folder / BOARD, speed=60, wait_for_listener=True)
    place.closing.enter_context(board)


def start_broker(place: Place) -> None:
    """Start a broker on the port that the session's SCENTD_MQTT__PORT names."""
    place.closing.enter_context(Mosquitto(place.folder, port=place.broker_port))


def plug_in_and_start_broker(place: Place) -> None:
    """A board and a broker, for a service started by hand."""
    plug_in(place)
    start_broker(place)


def rig_kitchen(place: Place) -> None:
    """The service of the rig `kitchen`, with a board in clean air.

    It repeats eight readings: the draughts of a synthetic room would make one capture of clean air
    in four a matter of chance, as it begins at another moment on every machine.
    """
    start_broker(place)
    link = place.folder / "tty"
    calm = place.folder / "calm.csv"
    with RecordingWriter(calm) as writer:
        for row, values in enumerate(SyntheticSignal("air:8")):
            writer.write(1000 * row, values)
    signal = ReplaySignal(read_recording(calm), loop=True)
    place.closing.enter_context(SimulatedBoard(signal, link=link, speed=60))
    settings = {
        "rig_id": "kitchen",
        "source": {"port": str(link)},
        "models": ["substances-50"],
        "mqtt": {"host": "127.0.0.1", "port": place.broker_port},
    }
    place.closing.enter_context(ServiceProcess(place.folder, settings))


def write_rig_config(place: Place) -> None:
    """Write the `scentd.yaml` of a rig, which commands find by themselves."""
    (place.folder / "scentd.yaml").write_text(
        f"rig_id: kitchen\nsource: {{port: {BOARD}}}\nmodels: [substances-50]\n"
        "mqtt: {host: localhost}\nstate_dir: state\n",
        encoding="utf-8",
    )


def foreign_and_own_recordings(place: Place) -> None:
    """A board, segments of a service, real recordings of another project and a table of ours."""
    plug_in(place)
    folder = place.folder
    write_rig_config(place)
    for number in (2, 3):
        name = f"r000012-000{number}-20261121T072{number}41Z.live.csv"
        with RecordingWriter(folder / name) as writer:
            for row, values in enumerate(SyntheticSignal("air:90")):
                writer.write(1000 * (row + 90 * number), values)
    compress_segment(folder / "r000012-0003-20261121T072341Z.live.csv", lambda: False)
    rename = "r000012-0003-20261121T072341Z.live.csv.gz"
    (folder / rename).rename(folder / "r000012-0003-20261121T072041Z.live.csv.gz")
    link_rigs(place)
    table = folder / "my-recordings" / "cloves_20260102.csv"
    table.parent.mkdir()
    table.write_text(
        "millis,board2_no2,board2_eth,board2_CO,board2_heater\n"
        + "".join(f"{1000 * row},300,1.2,0.4,{50_000 + row}\n" for row in range(120)),
        encoding="utf-8",
    )


def link_rigs(place: Place) -> None:
    """Link the real recordings of other projects as `rigs`."""
    (place.folder / "rigs").symlink_to(Path(os.environ["SCENTD_DATA"]) / "rigs")


def smells_of_two_days(place: Place) -> None:
    """A board, and made recordings of three smells on two days that begin in clean air."""
    plug_in(place)
    write_recordings(two_days(), place.folder / "my-smells")
    write_rig_config(place)


def recorded_days(place: Place) -> None:
    """A board, a broker, and labelled segments of two days of a service."""
    plug_in_and_start_broker(place)
    write_rig_config(place)
    folder = place.folder / "state" / "recordings"
    folder.mkdir(parents=True)
    scenario = "air:60,clove:340,air:300,almond:300,air:260,almond:240"
    for run, day in ((1, "20261126"), (2, "20261127")):
        path = folder / f"r00000{run}-0001-{day}T090000Z.live.csv"
        with RecordingWriter(path) as writer:
            for row, values in enumerate(SyntheticSignal(scenario, seed=run)):
                writer.write(1000 * row, values)
        lavender = LabelledStretch(60_000, 400_000, "lavender")
        banana = LabelledStretch(700_000, 1_000_000, "banana")
        write_labels(path, RecordingLabels((lavender, banana)))


def makefile(place: Place) -> None:
    """The project's Makefile with the environment that runs this test in the place of `.venv`."""
    for path in ROOT.iterdir():
        if path.name not in {".venv", ".git"}:
            (place.folder / path.name).symlink_to(path)
    environment = place.folder / ".venv"
    environment.mkdir()
    (environment / "bin").symlink_to(Path(sys.executable).parent)
    for stamp in ("demo-installed", "dev-installed"):
        (environment / stamp).touch()


SHORT_TRAINING = (
    (
        r"(scent-train init --data) (\S+)",
        r"\1 \2; sed -i -E '/min_steps/! s/steps: [0-9]+/steps: 3/g' \2.yaml",
    ),
)
"""Three steps instead of hundreds."""

SESSIONS: dict[str, Session] = {
    "README.md": Session(
        makefile,
        ((r"^make demo$", 'make demo ARGS="--plain --seconds 20"'),),
        ("substances: ",),
        slow=True,
    ),
    "CONTRIBUTING.md": Session(makefile, printed=("make test-slow",)),
    "calibrate-a-rig.md": Session(
        printed=("10 recordings ", "Kept 301 s of garlic.", "profile "), slow=True
    ),
    "fleet.md": Session(
        rig_kitchen,
        (
            # The board is there after a second or two.
            (r"^(scentd fleet status)$", r"until \1; do sleep 1; done"),
            (r"^mosquitto_sub (.*) &$", r"timeout 5 mosquitto_sub -p $SCENTD_MQTT__PORT \1 &"),
        ),
        ("kitchen  yes     yes",),
    ),
    "install-the-service.md": Session(
        plug_in_and_start_broker,
        (
            AT_BOARD,
            # It runs until Ctrl-C.
            (r"^scentd run", "timeout --preserve-status --signal=INT 10 scentd run"),
        ),
        ("ok  ",),
    ),
    "models.md": Session(data=True),
    "mqtt.md": Session(
        rig_kitchen,
        (
            (r"(mosquitto_sub|mosquitto_pub)", r"\1 -p $SCENTD_MQTT__PORT"),
            (r"(.*request/calibrate.*)", r"\1; sleep 6; kill %%"),
        ),
        ('response/status {"status":"ok"', '"kind":"baseline"'),
    ),
    "performance.md": Session(slow=True, data=True),
    "recordings.md": Session(
        foreign_and_own_recordings,
        (
            *FROM_BOARD,
            (r"coffee-20261126T090000Z\.csv", "$(basename state/recordings/coffee-*Z.csv)"),
        ),
        ("data/fruits5/", "data/mine/cloves/20260102/", '"type": "summary"'),
        data=True,
        slow=True,
    ),
    "teach-smells.md": Session(
        plug_in_and_start_broker,
        (
            *FROM_BOARD,
            (r"^(scentd enroll smoothie)", r"sleep 29; \1"),
            # The smoothie is still there.
            (r"^(scentd enroll --promote .not a taught smell.*)", r"\1; kill %1 %2; wait"),
        ),
        (
            "=> banana",
            "smoothie: learnt 120 s",
            "smoothie                 announced",
            "not a taught smell       in use",
        ),
        data=True,
        slow=True,
    ),
    "train-a-model.md": Session(
        smells_of_two_days,
        (*FROM_BOARD, *SHORT_TRAINING),
        ("my-smells-bundle: my-smells ", "my-smells: no version active"),
        data=True,
        slow=True,
    ),
    "archive.md": Session(recorded_days, (), ("rig=kitchen", "2 scored now")),
    "record-label-train.md": Session(
        recorded_days,
        (
            (r"^scentd run$", "scentd run > service.log 2>&1 & sleep 8"),
            # Of the board's seconds.
            (r"(scentd record .*--seconds) 300", r"\1 100"),
            (r"~/\.local/state/scentd/", "state/"),
            *SHORT_TRAINING,
            (r"^(scentd models install .*)", r"\1; kill %1; wait"),
        ),
        ("banana 1260-1400 s", "readings", "my-smells-bundle: my-smells "),
        slow=True,
    ),
}
"""By page; a page that is not here has no command that runs in its session."""
