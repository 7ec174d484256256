"""Fuzzing: all input from outside is understood, or refused with a reason; nothing breaks.

Everything read from a port, a broker, a disk or another rig is fuzzed here: bytes into the
decoder, requests into a whole service, and damaged texts into configuration, manifest, profile,
taught smells, captures and recordings. `HYPOTHESIS_PROFILE=long` and atheris go on for hours; see
docs/reliability.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibration.rig_profile import load_profile, save_profile
from calibration.smell_exchange import (
    MAX_IMPORT_BYTES,
    ORIGIN,
    ImportChoices,
    export_smells,
    import_smells,
)
from calibration.smell_origin import RigIdentity
from calibration.smell_set import SmellError, SmellSet
from calibration.smell_store import INDEX, SmellStore
from daemon.config.loading import load_config
from daemon.config.settings import Config, MqttConfig, SourceConfig
from daemon.requests import PAYLOAD_LIMIT
from daemon.service.answers import describe_answer
from daemon.service.main import Service
from daemon.system.background import Data
from daemon.system.systemd import ServiceManager
from hardware.checksum_line import with_checksum
from hardware.encoding import encode_csv, encode_csv_header, encode_labelled, encode_scent
from hardware.errors import ScentdError
from hardware.protocol import LineDecoder
from hardware.recording import read_recording
from models.manifest import Manifest
from tests.calibration.smells import PETROL, record_smell, teachable_bundle
from tests.calibration.test_rig_profile import _profile
from tests.models.toys import toy_manifest
from tests.sandbox import QUIET_ROW, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.bundle import Bundle

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "20000")) if LONG else 150,
    derandomize=not LONG,  # the same examples every time, except in a long run
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

FUZZED_BYTES = 10_000_000
CHUNK_BYTES = 4096


# The decoder


def noise(rng: np.random.Generator, count: int) -> bytes:
    """Return real lines of all dialects with bytes changed, removed and inserted, and noise."""
    row = np.array(QUIET_ROW, dtype=np.float32)
    lines = [
        encode_scent(int(rng.integers(2**32)), int(rng.integers(2**32)), row),
        encode_labelled(row),
        encode_csv(row, int(rng.integers(10**9))),
        encode_csv_header(),
        b"test\r\nSetting up sensors...\r\n",
        b"$SCENT,1,",
        bytes(rng.integers(0x20, 0x7F, size=300, dtype=np.uint8)) + b"\n",
        b",:*$\r\n",
    ]
    pieces, size = [], 0
    while size < count:
        piece = bytearray(lines[int(rng.integers(len(lines)))])
        for _ in range(int(rng.integers(4))):
            place = int(rng.integers(len(piece) + 1))
            match int(rng.integers(4)):
                case 0:
                    piece[place:place] = rng.bytes(int(rng.integers(1, 20)))
                case 1:
                    del piece[place : place + int(rng.integers(1, 20))]
                case 2:
                    piece[place:place] = b"9" * int(rng.integers(1, 400))
                case _:
                    piece[place : place + 1] = rng.bytes(1)
        pieces.append(bytes(piece))
        size += len(piece)
    return b"".join(pieces)


def test_ten_million_fuzzed_bytes_are_decoded_without_an_exception() -> None:
    rng = np.random.default_rng(5)
    decoder = LineDecoder()
    fed = frames = 0
    while fed < FUZZED_BYTES:
        # Half a megabyte of noise is fed in pieces of all sizes, then the same reversed.
        made = noise(rng, 500_000)
        for data in (made, made[::-1]):
            place = 0
            while place < len(data):
                size = int(rng.integers(1, CHUNK_BYTES))
                frames += len(decoder.feed(data[place : place + size]))
                place += size
            fed += len(data)
    frames += len(decoder.finish())
    counts = decoder.counts
    whole = counts.frames + counts.duplicates + counts.blank + counts.headers + counts.text
    assert frames == counts.frames > 1000
    assert counts.lines == whole + counts.damaged
    assert min(counts.checksum, counts.malformed, counts.binary, counts.text) > 1000
    good = encode_scent(7, 700, np.array(QUIET_ROW, dtype=np.float32))
    assert [frame.frame_seq for frame in decoder.feed(b"\n" + good)] == [7]


# Texts on disk

NASTY = [
    "null",
    "[]",
    "{}",
    "[[[[[]]]]]",
    "{a: {b: {c: 1}}}",
    "9" * 5000,
    "0x" + "f" * 5000,
    "-1",
    "1e400",
    ".nan",
    "-.inf",
    "1:60:60",
    "2001-99-99",
    "2001-01-01 25:61:61",
    "!!binary ====",
    "!!set {a, b}",
    "!!python/object/apply:os.system [true]",
    "!!int x",
    "!!float x",
    "!!bool x",
    "*nowhere",
    "&a [*a]",
    "<<: 1",
    "? [1, 2]\n: 3",
    "{[1, 2]: 3}",
    "{{a: 1}: 2}",
    "../../etc/passwd",
    "/etc/passwd",
    '"\\0"',
    '"\\ud800"',
    "\x00",
    "\ufeff",
    "\t",
    "---",
    "%YAML 9.9",
    "yes",
    "'",
    '"',
    "x" * 5000,
    "[" * 2000,
    "{a: " * 2000,
]


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """Draw a YAML or CSV text with some of it replaced, cut, doubled, or made of other bytes."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(lines) - 1)))
        line = lines[place] if lines else ""
        key, colon, _ = line.partition(":")
        other = draw(st.one_of(st.sampled_from(NASTY), st.text(max_size=20)))
        lines[place : place + 1] = draw(
            st.sampled_from(
                [
                    [f"{key}{colon} {other}"],
                    [other],
                    [],
                    [line, line],
                    [f"{other}{line}"],
                    [f"{line} {other}"],
                    [line.replace("0", other, 1)],
                    [line[: len(line) // 2]],
                ]
            )
        )
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(data)))
        return data[:cut] + draw(st.binary(max_size=30)) + data[cut:]
    return data


CONFIG = """\
rig_id: kitchen
source: {port: /dev/ttyUSB0, baud: 115200, rate_hz: 10}
models: [substances-50, mixtures-12]
mqtt:
  host: localhost
  port: 1883
  username: me
  password_file: secret
  tls: {ca: ca.pem}
  keepalive_s: 30
live_stride_s: 5
record: true
state_dir: state
decision:
  announce: 0.8
  labels:
    almond: {announce: 0.9, confirm: 3}
exposure: {quiet_s: 5}
log: {level: debug}
"""


@fuzz
@given(data=damaged(CONFIG))
def test_a_damaged_configuration_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "scentd.yaml"
    path.write_bytes(data)
    read_or_refused(lambda: load_config(path, {}))


@fuzz
@given(
    name=st.sampled_from(["RIG_ID", "MQTT__PORT", "MODELS", "SOURCE", "MQTT__TLS__CA", "LOG"]),
    value=st.one_of(st.sampled_from(NASTY), st.text(max_size=40)),
)
def test_a_damaged_environment_is_read_or_refused(name: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "scentd.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    read_or_refused(lambda: load_config(path, {f"SCENTD_{name}": value}))


def resealed(body: bytes) -> bytes:
    """Return a manifest's text under its own hash, so that its content is read."""
    whole = body if body.endswith(b"\n") else body + b"\n"
    return whole + f"manifest_sha256: {hashlib.sha256(whole).hexdigest()}\n".encode()


MANIFEST_BODY = toy_manifest("mixture").to_yaml().decode().rpartition("manifest_sha256")[0]


@fuzz
@given(data=damaged(MANIFEST_BODY), sealed=st.booleans())
def test_a_damaged_manifest_is_read_or_refused(data: bytes, sealed: bool) -> None:
    read_or_refused(lambda: Manifest.from_yaml(resealed(data) if sealed else data))


@pytest.fixture(scope="module")
def profile_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("profile") / "calibration.yaml"
    save_profile(_profile(), path)
    return path.read_text(encoding="utf-8")


@fuzz
@given(data=st.data())
def test_a_damaged_profile_is_read_or_refused(
    data: st.DataObject, profile_text: str, tmp_path: Path
) -> None:
    path = tmp_path / "calibration.yaml"
    text = data.draw(damaged(profile_text))
    if data.draw(st.booleans()):
        text = under_its_id(text)
    path.write_bytes(text)
    read_or_refused(lambda: load_profile(path, "kitchen"))


def under_its_id(data: bytes) -> bytes:
    """Return a profile's text with the id that matches its content, if it can be parsed."""
    try:
        plain = yaml.safe_load(data)
        body = {key: value for key, value in plain.items() if key != "id"}
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        whole: str = yaml.safe_dump({"id": f"{str(body.get('date'))[:10]}-{digest}", **body})
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, RecursionError):
        return data
    return whole.encode()


# Taught smells, from another rig

HERE = RigIdentity("kitchen", "kitchen board")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return teachable_bundle(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exported(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("exported")
    store = SmellStore(folder / "state", [bundle])
    store.enroll("petrol", record_smell(folder, PETROL), source="test", promote=True)
    export_smells(store, folder / "smells.zip", HERE)
    with zipfile.ZipFile(folder / "smells.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@fuzz
@given(data=st.data())
def test_damaged_smells_of_another_rig_are_imported_or_refused(
    data: st.DataObject, bundle: Bundle, exported: dict[str, bytes], tmp_path: Path
) -> None:
    files = dict(exported)
    struck = data.draw(st.sampled_from(sorted(files)))
    if struck in (INDEX, ORIGIN):
        body = files[struck].rpartition(b"sha256: ")[0]
        text = data.draw(damaged(body.decode()))
        # Under the right checksum its content is read.
        files[struck] = with_checksum(text) if data.draw(st.booleans()) else text
    else:
        place = data.draw(st.integers(0, len(files[struck])))
        files[struck] = files[struck][:place] + data.draw(st.binary(max_size=50))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    path = tmp_path / "smells.zip"
    path.write_bytes(packed.getvalue())
    inside = tmp_path / "rig" / "state"
    choices = ImportChoices(other_board=data.draw(st.booleans()), merge=True)
    read_or_refused(lambda: import_smells(SmellStore(inside, [bundle]), path, HERE, choices))
    # Nothing leaves the state folder, whatever names the file holds.
    assert {item.name for item in tmp_path.iterdir()} <= {"smells.zip", "rig"}
    assert {item.name for item in (tmp_path / "rig").glob("*")} <= {"state"}


def test_a_small_archive_that_unpacks_to_gigabytes_is_refused_unread(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "smells.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"exposures/{number}.csv", b"0" * (MAX_IMPORT_BYTES // 2))
    with pytest.raises(SmellError, match="unpacks to 384000000 bytes"):
        import_smells(SmellStore(tmp_path, [bundle]), path)


@fuzz
@given(data=st.data())
def test_a_damaged_list_of_smells_is_read_or_refused(
    data: st.DataObject, exported: dict[str, bytes]
) -> None:
    text = data.draw(damaged(exported[INDEX].decode()))
    read_or_refused(lambda: SmellSet.from_yaml(text, "smells.yaml"))


RECORDING = "timestamp_ms,NO2,C2H5CH,VOC,CO\n" + "".join(
    f"{row * 100}.0,862.0,953.0,{900 + row}.0,1002.0\n" for row in range(12)
)


@fuzz
@given(data=damaged(RECORDING))
def test_a_damaged_recording_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recording.csv"
    path.write_bytes(data)
    read_or_refused(lambda: [frame.values for frame in read_recording(path).frames()])


def read_or_refused(read: Callable[[], object]) -> None:
    """Check that `read` succeeds, or raises an error for people of limited length."""
    try:
        read()
    except ScentdError as error:
        text = str(error)
    else:
        return
    assert 10 < len(text) < 50_000


# Requests, into a whole service


@dataclass
class IdleService:
    """A service that is not running: requests are served in this thread, but for their disk."""

    service: Service
    answers: list[tuple[str, Data]]

    def ask(self, command: str, payload: bytes) -> list[Data]:
        """Return the answers to one request; long work is cancelled after a few steps."""
        self.answers.clear()
        requests = self.service._requests
        inbox = requests.inbox
        inbox._tokens = math.inf  # without a limit of the rate
        inbox.receive(command, payload, False)
        for _ in range(3):
            requests.work()
        while any(job.short for job in requests._jobs):
            requests.work()
        requests.close()
        return [answer for _, answer in self.answers]


@pytest.fixture(scope="module")
def idle(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdleService]:
    folder = tmp_path_factory.mktemp("rig")
    config = Config(
        rig_id="rig",
        source=SourceConfig(port=str(folder / "absent")),
        models=(str(bundle.folder),),
        mqtt=MqttConfig(host="127.0.0.1", port=9),
        state_dir=folder / "state",
    )
    service = Service(
        config, [bundle], ServiceManager({}), path=folder / "scentd.yaml", version="0"
    )
    answers: list[tuple[str, Data]] = []
    service._requests._reply = lambda command, answer: answers.append((command, answer))
    service._requests.start()
    yield IdleService(service, answers)
    service._requests.close_disk(60.0)


WORDS = [
    *("action", "label", "model", "seconds", "last_s", "promote", "past", "files", "name", "to"),
    *("new", "old", "channel", "transaction", "progress", "folder", "path", "version", "run"),
    *("teach", "list", "promote", "forget", "rename", "hide", "unhide", "rollback", "show"),
    *("baseline", "reference", "fit", "score", "reload", "install", "switch", "verify", "start"),
    *("export", "import", "check", "merge", "other_board", "exports/smells.zip"),
    *("stop", "petrol", "lemon", "toy-substance", "../../../etc/passwd", "/etc/passwd", "", " "),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 1e300, math.nan, math.inf, 2**63, 10**400, 60, 120]),
    st.sampled_from(WORDS),
    st.text(max_size=12),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=5)
RESPONSE = json.loads((ROOT / "daemon" / "schemas" / "response.json").read_text(encoding="utf-8"))


@fuzz
@given(data=st.data())
def test_every_request_has_one_answer_and_reveals_no_bug(
    data: st.DataObject, idle: IdleService
) -> None:
    # A reload reads the file in a process of its own: nothing of a request reaches that.
    commands = sorted({*idle.service._requests.commands} - {"reload"})
    assert {"status", "calibrate", "enroll"} <= set(commands)
    command = data.draw(st.one_of(st.sampled_from(commands), st.text(max_size=10)))
    if data.draw(st.integers(0, 4)) == 0:
        payload = data.draw(st.binary(max_size=200))
    else:
        request = data.draw(OBJECTS)
        if data.draw(st.booleans()):
            request["action"] = data.draw(st.sampled_from(WORDS))
        payload = json.dumps(request).encode("utf-8", "surrogatepass")
    answers = [answer for answer in idle.ask(command, payload) if answer["status"] != "working"]
    assert len(answers) == 1
    answer = {**answers[0], "words": describe_answer(command, answers[0])}
    jsonschema.validate(json.loads(json.dumps(answer, allow_nan=False)), RESPONSE)
    assert "which is a bug" not in (answers[0]["error"] or ""), payload


@pytest.mark.parametrize(
    "payload",
    [b"[" * PAYLOAD_LIMIT, b'{"a":' * 1600, b"9" * 8000, b'{"seconds": 1e99999}', b"\xff"],
)
def test_hostile_payloads_are_refused_with_an_error(idle: IdleService, payload: bytes) -> None:
    (answer,) = idle.ask("status", payload)
    assert answer["status"] == "error"


@pytest.mark.parametrize("read", ["config", "manifest", "smells", "profile"])
def test_a_text_whose_anchors_expand_without_bound_is_refused_at_once(
    read: str, tmp_path: Path
) -> None:
    """A few lines of YAML whose anchors expand to 10^12 items ("billion laughs")."""
    grown = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    used = ["rig_id: *a11", "labels: *a11", "name: *a11", "smells: *a11"]
    bomb = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *grown, *used])
    path = tmp_path / "bomb.yaml"
    path.write_text(f"format: 1\nversion: 1\n{bomb}\n", encoding="utf-8")
    data = path.read_bytes()
    readers: dict[str, Callable[[], Any]] = {
        "config": lambda: load_config(path, {}),
        "manifest": lambda: Manifest.from_yaml(resealed(data)),
        "smells": lambda: SmellSet.from_yaml(data, "smells.yaml"),
        "profile": lambda: load_profile(path),
    }
    with pytest.raises(ScentdError) as refused:
        readers[read]()
    assert len(str(refused.value)) < 50_000
