"""`scent-train data get` against a hub on this machine: it fetches, verifies, resumes, explains."""

from __future__ import annotations

import shutil
import socket
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import COMMIT, Hub, running

pytest.importorskip("huggingface_hub", reason="the download needs the extra `train`")

from training.cli import main
from training.data.download import DATASET

HEADER = (
    b"NO2,C2H5OH,VOC,CO,Alcohol,LPG,Benzene,Temperature,Pressure,Humidity,Gas_Resistance,Altitude\n"
)
TRAINING = {
    "base_data/training/almond/almond.1.csv": HEADER + b"9,20,30,40,1,2,3,20,1000,40,50,9\n" * 9,
    "base_data/training/star anise/star.1.csv": HEADER + b"8,21,33,44,1,2,3,20,1000,40,50,9\n" * 5,
}  # fmt: skip
MIXTURES = {
    "mixture_data/training_new/almond_50_pear_50.a (14).csv": b"timestamp_ms,NO2\n0,600\n",
    "mixture_data/training_seen/almond.b.csv": b"timestamp_ms,NO2\n0,601\n",
}
TEST = {
    "base_data/testing/almond/almond.9.csv": HEADER + b"1,2,3,4,5,6,7,8,9,10,11,12\n",
    "mixture_data/test_seen/almond.c.csv": b"timestamp_ms,NO2\n0,602\n",
    "mixture_data/test_unseen/pear.d.csv": b"timestamp_ms,NO2\n0,603\n",
}
ABOUT = {"README.md": b"# SmellNet\n", "gcms.csv": b"label,C\nalmond,3\n"}
ELSEWHERE = {".gitattributes": b"*.bin lfs\n", "figures/nose.csv": b"x\n", "test_index.csv": b"y\n"}
BIG = "base_data/training/almond/almond.1.csv"


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = TRAINING | MIXTURES | TEST | ABOUT | ELSEWHERE
    with running(Hub(DATASET, files, large={BIG})) as served:
        yield served


def get(hub: Hub, output: Path, *options: str) -> int:
    return main(["data", "get", "--endpoint", hub.endpoint, "--output", str(output), *options])


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def test_only_training_parts_are_fetched(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert get(hub, tmp_path / "data") == 0
    assert files_of(tmp_path / "data") == TRAINING | MIXTURES | ABOUT
    assert hub.fetched == sorted(TRAINING | MIXTURES | ABOUT)
    out = capsys.readouterr().out
    assert "6 files" in out
    assert COMMIT in out


def test_a_subset_is_fetched_alone(hub: Hub, tmp_path: Path) -> None:
    assert get(hub, tmp_path, "--subset", "base") == 0
    assert files_of(tmp_path) == TRAINING | ABOUT


def test_test_splits_are_fetched_only_on_request(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert get(hub, tmp_path, "--with-test-splits") == 0
    assert files_of(tmp_path) == TRAINING | MIXTURES | TEST | ABOUT
    assert "final judgement" in capsys.readouterr().err


def test_finished_files_are_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    assert get(hub, tmp_path) == 0
    (tmp_path / "README.md").unlink()
    hub.requests.clear()
    assert get(hub, tmp_path) == 0
    assert hub.fetched == ["README.md"]
    assert files_of(tmp_path) == TRAINING | MIXTURES | ABOUT


def test_damaged_file_is_noticed_and_fetched_again(hub: Hub, tmp_path: Path) -> None:
    assert get(hub, tmp_path) == 0
    whole = (tmp_path / BIG).read_bytes()
    (tmp_path / BIG).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    hub.requests.clear()
    assert get(hub, tmp_path) == 0
    assert (tmp_path / BIG).read_bytes() == whole
    assert hub.fetched == [BIG]


def test_download_resumes_where_the_connection_broke(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client keeps whole chunks only, of 10 MB: more than a recording has.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 31)
    hub.break_once.add(BIG)
    assert get(hub, tmp_path) == 0
    assert (tmp_path / BIG).read_bytes() == TRAINING[BIG]
    kept = len(TRAINING[BIG]) // 2 // 31 * 31
    asked = [range_ for method, path, range_ in hub.requests if (method, path) == ("GET", BIG)]
    assert asked == [None, f"bytes={kept}-"]


@pytest.mark.parametrize("path", [BIG, "README.md"])
def test_wrong_bytes_are_removed_and_named(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    hub.corrupt.add(path)
    assert get(hub, tmp_path) == 1
    said = capsys.readouterr().err
    assert "checksums" in said
    assert path in said
    assert not (tmp_path / path).exists()
    hub.corrupt.clear()
    assert get(hub, tmp_path) == 0


def test_missing_network_is_an_error_even_with_files_in_place(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client alone would return the old folder with a warning."""
    assert get(hub, tmp_path) == 0
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert main(["data", "get", "--endpoint", url, "--output", str(tmp_path)]) == 1
    assert "Check the network" in capsys.readouterr().err


def test_unknown_data_set_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(Hub("someone/else", dict(ABOUT))) as other:
        assert get(other, tmp_path) == 2
    assert DATASET in capsys.readouterr().err
    assert not files_of(tmp_path)


def test_full_disk_is_reported_before_anything_is_fetched(
    hub: Hub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil gives it
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(100, 90, 10))
    assert get(hub, tmp_path) == 1
    assert "free disk" in capsys.readouterr().err
    assert not hub.fetched


def test_changed_layout_of_the_data_set_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(Hub(DATASET, {"v2/almond.csv": b"1"})) as anew:
        assert get(anew, tmp_path) == 1
    assert "layout has changed" in capsys.readouterr().err
