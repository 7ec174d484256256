"""Installed models: verified first, switched atomically, never written outside their folder."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.installed_models import archive as archive_module
from daemon.installed_models.archive import UnpackingError, open_source, unpack_bundle
from daemon.installed_models.store import VERSIONS_KEPT, Choice, ModelStore, StoreError
from models.bundle import load_bundle
from models.manifest import BundleDamagedError, BundleError, BundleMissingError, write_bundle
from tests.models.toys import toy_files, toy_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = toy_files("substance")
NAME = "toy-substance"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "state")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    def make(version: str, **changes: object) -> Path:
        folder = tmp_path / "made" / version / NAME
        write_bundle(folder, toy_manifest(version=version, **changes), FILES)
        return folder

    return make


def tarred(folder: Path, name: str = "bundle.tar.gz") -> Path:
    path = folder.parent / name
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    return path


def zipped(folder: Path) -> Path:
    path = folder.parent / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return path


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("packed", [lambda folder: folder, tarred, zipped])
def test_a_bundle_is_installed_from_a_folder_or_an_archive(
    store: ModelStore, make_bundle: Callable[..., Path], packed: Callable[[Path], Path]
) -> None:
    manifest = store.install(packed(make_bundle("2.0")))
    assert (manifest.name, manifest.version) == (NAME, "2.0")
    assert store.names() == (NAME,)
    assert store.versions(NAME) == ("2.0",)
    with pytest.raises(BundleMissingError, match=f"Installed: {NAME}"):
        store.folder(NAME)  # installed is not active yet, and no such model is shipped
    store.switch(NAME, "2.0")
    assert load_bundle(store.folder(NAME)).manifest.sha256 == manifest.sha256


def test_files_that_the_manifest_does_not_list_are_not_installed(
    store: ModelStore, make_bundle: Callable[..., Path]
) -> None:
    folder = make_bundle("2.0")
    (folder / "run_me.sh").write_text("#!/bin/sh\n", "utf-8")
    for source in (folder, tarred(folder)):
        store.install(source)
        assert not (store.root / NAME / "2.0" / "run_me.sh").exists()


def test_switching_goes_forward_and_back(
    store: ModelStore, make_bundle: Callable[..., Path]
) -> None:
    for version in ("1.0", "2.0"):
        store.install(make_bundle(version))
        store.switch(NAME, version)
        if version == "1.0":
            assert store.describe(NAME)["previous"] is None  # no version of it is shipped
    assert store.choice(NAME) == Choice("2.0", (None, "1.0"))
    store.switch(NAME, "2.0")  # a second time changes nothing
    assert store.choice(NAME).before == (None, "1.0")
    store.rollback(NAME)
    assert store.folder(NAME).name == "1.0"
    # No version of it is shipped, so that a service that runs it would not start any more.
    with pytest.raises(StoreError, match="never switched"):
        store.rollback(NAME)
    assert store.choice(NAME).active == "1.0"
    store.restore(NAME, Choice("2.0", (None, "1.0")))
    assert store.choice(NAME).active == "2.0"


def test_a_shipped_model_can_be_replaced_and_taken_back(store: ModelStore, tmp_path: Path) -> None:
    name = "substances-50"
    folder = tmp_path / "made" / name
    write_bundle(folder, toy_manifest(name=name, version="9.9"), FILES)
    shipped = store.folder(name)
    store.install(folder)
    assert store.folder(name) == shipped
    store.switch(name, "9.9")
    assert store.folder(name) == store.root / name / "9.9"
    description = store.describe(name)
    assert (description["active"], description["previous"]) == ("9.9", "shipped")
    store.switch(name, None)
    assert store.folder(name) == shipped


def test_a_damaged_bundle_is_not_installed(
    store: ModelStore, make_bundle: Callable[..., Path]
) -> None:
    folder = make_bundle("2.0")
    data = bytearray((folder / "model.onnx").read_bytes())
    data[100] ^= 1
    (folder / "model.onnx").write_bytes(data)
    for source in (folder, tarred(folder), zipped(folder)):
        with pytest.raises(BundleDamagedError, match=r"model\.onnx"):
            store.install(source)
    assert everything_below(store.root) == {".lock"}


def test_a_bundle_that_does_not_run_is_not_installed(
    store: ModelStore, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hash will be right, but the model does not run.
    monkeypatch.setitem(FILES, "model.onnx", FILES["model.onnx"][:-50])
    with pytest.raises(BundleError):
        store.install(make_bundle("2.0"))
    assert store.names() == ()


def test_another_bundle_of_the_same_version_is_refused(
    store: ModelStore, make_bundle: Callable[..., Path]
) -> None:
    folder = make_bundle("2.0")
    store.install(folder)
    store.install(folder)
    with pytest.raises(StoreError, match=r"2\.0 is installed already, and is another bundle"):
        store.install(make_bundle("2.0", training={"seed": 8}))


@pytest.mark.parametrize("version", ["shipped", "..", "../../x", "a b", ""])
def test_versions_that_are_no_folder_names_are_refused(
    store: ModelStore, tmp_path: Path, version: str
) -> None:
    folder = tmp_path / "made" / NAME
    write_bundle(folder, toy_manifest(version=version), FILES)
    with pytest.raises(StoreError, match="A version consists of letters"):
        store.install(folder)
    with pytest.raises(StoreError, match="is not installed"):
        store.switch(NAME, version)


def archive_with(path: Path, *members: tuple[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        (("../evil", b"x"),),
        (("/evil", b"x"),),
        (("a/../../evil", b"x"),),
        (("a/b/evil", b"x"),),
        (("a/ok", b"x"), ("b/evil", b"x")),
        (("a/.hidden", b"x"),),
        (("a/twice", b"x"), ("a/twice", b"y")),
        (("a/manifest.yaml", link(tarfile.SYMTYPE, "/etc/passwd")),),
        (("a/manifest.yaml", link(tarfile.LNKTYPE, "../../secret")),),
        (("a/manifest.yaml", link(tarfile.CHRTYPE, "")),),
        (("a/manifest.yaml", link(tarfile.FIFOTYPE, "")),),
    ],
)
def test_archives_cannot_write_beside_their_folder(
    store: ModelStore, tmp_path: Path, members: tuple[tuple[str, bytes | tarfile.TarInfo], ...]
) -> None:
    before = everything_below(tmp_path)
    path = archive_with(tmp_path / "evil.tar", *members)
    with pytest.raises(UnpackingError):
        store.install(path)
    assert everything_below(tmp_path) - before == {
        "evil.tar",
        "state",
        "state/models",
        "state/models/.lock",
    }


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b/evil", "..\\evil"])
def test_zips_cannot_write_beside_their_folder(
    store: ModelStore, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(UnpackingError):
        store.install(path)
    assert everything_below(store.root) == {".lock"}


def test_a_link_in_a_zip_is_refused(store: ModelStore, tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    info = zipfile.ZipInfo("manifest.yaml")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnpackingError, match="a link or a device"):
        store.install(path)


def test_a_folder_of_links_is_refused(store: ModelStore, make_bundle: Callable[..., Path]) -> None:
    folder = make_bundle("2.0")
    secret = folder.parent / "secret"
    (folder / "README.md").rename(secret)
    (folder / "README.md").symlink_to(secret)
    with pytest.raises(UnpackingError, match="no links"):
        store.install(folder)
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    with pytest.raises(UnpackingError, match="no regular file"):
        store.install(folder)


def test_archives_are_bounded(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fresh").mkdir()
    monkeypatch.setattr(archive_module, "SIZE_LIMIT", 1 << 20)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.yaml", bytes(8 << 20))
    assert bomb.stat().st_size < 1 << 16
    with (
        open_source(bomb) as opened,
        pytest.raises(UnpackingError, match="unpacks to more than 1 MiB"),
    ):
        unpack_bundle(opened, tmp_path / "fresh")
    many = archive_with(tmp_path / "many.tar", *((f"a/f{number}", b"") for number in range(100)))
    with pytest.raises(UnpackingError, match="more than 64 files"):
        store.install(many)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04broken", b"\x1f\x8b\x08broken"])
def test_what_is_no_archive_is_refused(store: ModelStore, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(content)
    with pytest.raises(UnpackingError, match="cannot be unpacked"):
        store.install(path)
    with pytest.raises(UnpackingError, match="There is no bundle at"):
        store.install(tmp_path / "absent")


def test_an_archive_that_is_cut_leaves_no_files(
    store: ModelStore, make_bundle: Callable[..., Path]
) -> None:
    whole = tarred(make_bundle("2.0")).read_bytes()
    cut = store.root.parent.parent / "cut.tar.gz"
    for part in range(1, 8):
        cut.write_bytes(whole[: len(whole) * part // 8])
        with pytest.raises((UnpackingError, BundleError)):
            store.install(cut)
        assert everything_below(store.root) == {".lock"}


def test_a_damaged_version_is_replaced_by_the_one_before(
    store: ModelStore, make_bundle: Callable[..., Path]
) -> None:
    for version in ("1.0", "2.0"):
        store.install(make_bundle(version))
        store.switch(NAME, version)
    model = store.root / NAME / "2.0" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    assert store.load(NAME).manifest.version == "1.0"
    with pytest.raises(BundleDamagedError):
        store.switch(NAME, "2.0")
    shutil.rmtree(store.root / NAME / "1.0")
    with pytest.raises(BundleDamagedError, match=r"2\.0/model\.onnx"):
        store.load(NAME)
    store.install(make_bundle("2.0"))  # the new one replaces it
    assert store.load(NAME).manifest.version == "2.0"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"active": "../../etc", "before": []}', b'{"active": 1}']
)
def test_without_a_readable_choice_the_shipped_version_is_active(
    store: ModelStore, make_bundle: Callable[..., Path], content: bytes
) -> None:
    store.install(make_bundle("1.0"))
    (store.root / NAME / "active.json").write_bytes(content)
    assert store.choice(NAME) == Choice()


def test_old_versions_are_removed_but_never_those_in_use(
    store: ModelStore, make_bundle: Callable[..., Path]
) -> None:
    for number in range(VERSIONS_KEPT + 3):
        version = f"1.{number}"
        store.install(make_bundle(version))
        if number < 2:
            store.switch(NAME, version)
    there = store.versions(NAME)
    assert len(there) == VERSIONS_KEPT
    assert {"1.0", "1.1", f"1.{VERSIONS_KEPT + 2}"} <= set(there)


def test_names_cannot_leave_the_store(store: ModelStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "1.0"
    write_bundle(outside, toy_manifest(version="1.0"), FILES)
    store.root.mkdir(parents=True)
    for name in ("../../outside", str(tmp_path / "outside"), "..", ""):
        assert store.versions(name) == ()
        assert store.choice(name) == Choice()
        with pytest.raises(StoreError):
            store.switch(name, "1.0")
    assert store.names() == ()


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"active":' * 100_000, b"\xff", b"7"])
def test_a_choice_that_cannot_be_read_is_said_and_the_model_runs_as_shipped(
    store: ModelStore, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.root / "substances-50" / "active.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert store.choice("substances-50") == Choice()
    assert "cannot be used" in capsys.readouterr().out
    assert store.folder("substances-50").is_dir()


def test_a_flipped_bit_of_the_choice_never_makes_another_version_active(
    store: ModelStore, make_bundle: Callable[..., Path]
) -> None:
    for version in ("1.0", "1.1"):  # one bit apart
        store.install(make_bundle(version))
    store.switch(NAME, "1.0")
    path = store.root / NAME / "active.json"
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert store.choice(NAME).active in (None, "1.0")


def test_links_in_the_place_of_models_and_versions_are_ignored(
    store: ModelStore, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    elsewhere = make_bundle("1.0")
    (store.root / NAME).mkdir(parents=True)
    (store.root / NAME / "1.0").symlink_to(elsewhere)
    assert store.versions(NAME) == ()
    (store.root / "other").symlink_to(store.root / NAME)
    assert store.names() == ()
