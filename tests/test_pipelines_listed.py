"""Lists of packets: kept by the index, read by the loader, and never missed where they are wrong or gone."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lists import listed, reading
from media import Clip, copy_packets, write_clip

from coaug.pipelines import listed as module
from coaug.pipelines import listings, opened
from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.index import index
from coaug.pipelines.listings import SUFFIX, Listings
from coaug.pipelines.loader import AVLoader
from coaug.pipelines.media import RGB, Deadline, MediaError, open_media, read_frames
from coaug.pipelines.probe import probe_json
from coaug.pipelines.slices import cut

CONFIG = DataConfig(
    video=VideoConfig(frames=4, fps=8.0, size=32),
    audio=AudioConfig(rate=16000, seconds=0.5, mels=16),
    views=(ViewConfig("speed(1, 2)"), ViewConfig("speed(1, 2)")),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three films with B-frames and stereo sound."""
    (tmp_path / "set").mkdir()
    for number in range(3):
        write_clip(tmp_path / f"set/{number}.mp4", b_frames=2, gop=40, channels=2, start=0.1 * number)
    return tmp_path / "set"


@pytest.fixture
def catalog(folder: Path) -> Catalog:
    return made(folder)


def made(folder: Path, **options: Any) -> Catalog:
    options = {"workers": 1, "progress": False} | options
    return Catalog.open(index([folder], folder.parent / "c.parquet", **options).path)


def batch(catalog: Catalog) -> Batch:
    return next(iter(AVLoader(catalog, CONFIG, batch_size=3, workers=0)))


def assert_same(one: Batch, two: Batch) -> None:
    for f in fields(Batch):
        a, b = getattr(one, f.name), getattr(two, f.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, f.name


@pytest.fixture
def no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a container was opened")

    monkeypatch.setattr(opened, "open_media", refuse)


@pytest.fixture
def containers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The containers that were opened."""
    paths = []

    def note(path: str, *arguments: Any, **options: Any) -> Any:
        paths.append(str(path))
        return open_media(path, *arguments, **options)

    monkeypatch.setattr(opened, "open_media", note)
    return paths


def numbers(path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as database:
        return database.execute("SELECT * FROM packets ORDER BY id").fetchall()


def test_batches_are_the_same_with_and_without_lists(catalog: Catalog, containers: list[str]) -> None:
    with_lists = batch(catalog)
    assert not containers
    catalog.path.with_suffix(SUFFIX).unlink()
    assert_same(with_lists, batch(Catalog.open(catalog.path)))
    assert set(containers) == {recording.path for recording in catalog}


@pytest.mark.usefixtures("no_container")
def test_a_worker_process_reads_by_lists(catalog: Catalog) -> None:
    here = batch(catalog)
    loader = AVLoader(catalog, CONFIG, batch_size=3, workers=1)
    assert_same(here, next(iter(loader)))
    loader.close()


def damage(path: Path) -> None:
    """Spoils every list, and leaves the database one."""
    with sqlite3.connect(path) as database:
        database.execute("UPDATE packets SET video_at = zeroblob(length(video_at))")


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


WRONG: dict[str, Callable[[Path], Any]] = {
    "damaged": damage,
    "cut off": cut_off,
    "not a database": lambda path: path.write_bytes(b"nothing" * 10_000),
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_lists_are_not_missed(catalog: Catalog, kind: str) -> None:
    right = batch(catalog)
    WRONG[kind](catalog.path.with_suffix(SUFFIX))
    assert_same(right, batch(Catalog.open(catalog.path)))


def test_a_file_of_another_size_is_read_through_its_container(
    catalog: Catalog, containers: list[str]
) -> None:
    path = Path(catalog[0].path)
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    assert batch(catalog).valid.all()
    assert set(containers) == {str(path)}


def test_what_the_list_cannot_do_is_done_and_explained_by_the_container(
    catalog: Catalog, containers: list[str]
) -> None:
    """A film whose insides were overwritten in place, its length kept."""
    path = Path(catalog[0].path)
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    data[begin:-2000] = bytes(len(data) - 2000 - begin)
    path.write_bytes(data)
    by_list = batch(catalog)
    assert str(path) in containers
    catalog.path.with_suffix(SUFFIX).unlink()
    assert_same(by_list, batch(Catalog.open(catalog.path)))
    assert by_list.valid.sum() == 2


@pytest.mark.parametrize("spoil", ["short", "unreadable"])
def test_reading_that_fails_is_a_media_error(monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    def pread(*_: Any) -> bytes:
        if spoil == "short":
            return b""
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module.os, "pread", pread)
    with pytest.raises(MediaError, match="shorter than it was" if spoil == "short" else "Input/output error"):
        module._read(0, 0, 4)


def test_slices_are_cut_by_the_container(catalog: Catalog) -> None:
    path, instants = catalog[0].path, np.array([0.5, 1.0])
    lists = Listings(catalog.path.with_suffix(SUFFIX))
    with (
        opened.opened(catalog[0], ("video",), None, lists, Deadline(10.0)) as media,  # type: ignore[arg-type]
        open_media(path, Deadline(10.0), probe=False) as container,
    ):
        assert isinstance(media, module.ListedFile)
        assert media.images(instants) is None
        assert np.array_equal(media.near(instants, instants), instants)
        one, other = media.cut(instants), cut(container, instants, Deadline(10.0))
        assert one.data.shape == other.data.shape  # Matroska names each file at random
        assert np.array_equal(one.wanted, other.wanted)
        assert np.array_equal(one.pts, other.pts)


def test_what_is_asked_for_must_be_listed(catalog: Catalog, tmp_path: Path) -> None:
    """Matroska's sound is not: its time stamps do not count samples."""
    (tmp_path / "other").mkdir()
    film = copy_packets(Path(catalog[0].path), tmp_path / "other/x.mkv")
    other = made(film.parent)
    lists = Listings(other.path.with_suffix(SUFFIX))
    for modalities, kind in ((("video",), module.ListedFile), (("video", "audio"), opened.MediaFile)):
        with opened.opened(other[0], modalities, None, lists, Deadline(10.0)) as media:  # type: ignore[arg-type]
            assert isinstance(media, kind)


def test_a_list_keeps_to_its_deadline(catalog: Catalog) -> None:
    lists = Listings(catalog.path.with_suffix(SUFFIX))
    with opened.opened(catalog[0], ("video",), None, lists, Deadline(0.0)) as media:  # type: ignore[arg-type]
        with pytest.raises(MediaError, match="deadline"):
            media.frames(np.array([0.5]), RGB)
        with pytest.raises(MediaError, match="deadline"):
            media.sound(0, 100)


def test_a_film_of_many_groups_is_listed_group_by_group(tmp_path: Path) -> None:
    """What is of no use is dropped as it is when the packets lie side by side."""
    path = write_clip(tmp_path / "x.mp4", frames=200, b_frames=3, gop=9, audio_codec=None).path
    sample = listed(path, tmp_path / "x.packets")
    assert sample is not None
    for instants in (np.array([0.1, 2.0, 6.5]), np.linspace(1.0, 5.0, 9)):
        with reading(path, sample) as media, open_media(path, Deadline(10.0)) as container:
            found, other = media.frames(instants, RGB), read_frames(container, instants, Deadline(10.0))
        assert np.array_equal(found.pixels[found.index], other.pixels[other.index])
        assert found.decoded == other.decoded


def test_files_that_are_cut_off_have_no_list(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "x.mkv", audio_codec=None).path
    assert probe_json(str(whole))["packets"] is not None
    pieces = copy_packets(whole, tmp_path / "x.mp4", options={"movflags": "frag_keyframe+empty_moov"})
    assert probe_json(str(pieces))["packets"] is not None
    os.truncate(pieces, pieces.stat().st_size * 2 // 3)
    assert probe_json(str(pieces)).get("packets") is None


def test_indexing_again_keeps_lists_adds_new_ones_and_forgets_those_of_files_that_are_gone(
    catalog: Catalog, folder: Path
) -> None:
    path = catalog.path.with_suffix(SUFFIX)
    before = numbers(path)
    assert len(before) == 3
    state = path.stat()
    made(folder)
    assert path.stat().st_mtime_ns == state.st_mtime_ns  # a run may be reading it
    shutil.copy(folder / "0.mp4", folder / "3.mp4")
    (folder / "1.mp4").unlink()
    after = numbers(made(folder).path.with_suffix(SUFFIX))
    assert len(after) == 3
    assert len(set(before) & set(after)) == 2


def test_starting_over_leaves_readers_the_old_lists(catalog: Catalog, folder: Path) -> None:
    path, file = catalog.path.with_suffix(SUFFIX), Path(catalog[0].path)
    old = Listings(path)
    assert old.sample(str(file), file.stat().st_size) is not None
    write_clip(file, frames=60)
    new = Listings(made(folder, resume=False).path.with_suffix(SUFFIX))
    assert new.sample(str(file), file.stat().st_size) is not None
    assert old.sample(str(file), file.stat().st_size) is None


def test_a_database_that_is_none_is_made_anew(catalog: Catalog, folder: Path) -> None:
    path = catalog.path.with_suffix(SUFFIX)
    path.write_bytes(b"nothing" * 10_000)
    write_clip(folder / "9.mp4", frames=60)
    made(folder)
    assert len(numbers(path)) == 1  # of the others the journal knows all but these


def test_lists_that_cannot_be_kept_are_said_and_not_missed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(listings, "_values", full)
    assert len(made(folder)) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"coaug index: {folder.parent / 'c.packets'}: lists of packets are not kept (database or disk is full); "
        "clips will be read through their containers, which takes a little longer"
    )


def test_an_audio_only_and_a_silent_catalog_are_listed(tmp_path: Path, mp4: Clip) -> None:
    for modality in ("video", "audio"):
        (tmp_path / modality).mkdir()
        shutil.copy(mp4.path, tmp_path / modality / "x.mp4")
        catalog = made(tmp_path / modality, modalities=(modality,))
        lists = Listings(catalog.path.with_suffix(SUFFIX))
        with opened.opened(catalog[0], (modality,), None, lists, Deadline(10.0)) as media:  # type: ignore[arg-type]
            assert isinstance(media, module.ListedFile)
