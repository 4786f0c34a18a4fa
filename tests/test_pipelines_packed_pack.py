"""`coaug pack`: what lies in the folder afterwards, and what is refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from catalogs import recording
from media import write_clip
from packs import LABELS, TINY, catalogued, contents, members, opened, quick, told

from coaug.pipelines.catalog import Catalog, CatalogError
from coaug.pipelines.media import Deadline, MediaError
from coaug.pipelines.packed import index, pack, sample, shards
from coaug.pipelines.packed.pack import layout
from coaug.pipelines.packed.settings import Packing
from coaug.pipelines.recording import Recording


def test_the_catalog_of_a_pack_is_that_of_the_files(packable_catalog: Path, pack_folder: Path) -> None:
    raw, packed = Catalog.open(packable_catalog), Catalog.open(pack_folder / "catalog.parquet")
    assert packed.fingerprint == raw.fingerprint
    assert packed.label_names == tuple(LABELS)
    assert packed.weights.tolist() == raw.weights.tolist()
    for before, after in zip(raw, packed, strict=True):
        for name in ("id", "key", "start", "end", "label", "split"):
            assert getattr(after, name) == getattr(before, name)
        assert (after.video is None, after.audio is None) == (before.video is None, before.audio is None)
        assert Path(after.path).parent == pack_folder and after.member is not None
        if before.video is not None and after.video is not None:
            assert after.video.upright == before.video.upright  # crops are drawn for that
            assert {after.video.width, after.video.height} == {48, 32}
            assert (after.video.codec, after.video.rotation, after.video.declared) == ("h264", 0, True)
        if after.audio is not None and before.audio is not None:
            assert (after.audio.codec, after.audio.channels) == ("flac", 1)
            assert (after.audio.rate, after.audio.level_db) == (before.audio.rate, before.audio.level_db)


def test_each_row_lies_where_the_catalog_says(packable_catalog: Path, pack_folder: Path) -> None:
    for row in Catalog.open(pack_folder / "catalog.parquet"):
        key, sample = list(members(Path(row.path)).items())[row.member or 0]
        said, label = told(sample), LABELS[row.label] if row.label >= 0 else ""
        assert key == f"{row.id:019d}"
        assert {said[name] for name in ("id", "key", "split")} == {row.id, row.key, row.split}
        assert (said["start"], said["end"]) == (row.start, row.end)
        assert (said["label"], said["label_name"]) == (row.label, label)
        assert sorted(sample) == sorted(
            {"json"} | {side["member"] for side in map(said.get, ("video", "audio")) if side}
        )
        media = opened(Path(row.path), row.member or 0)
        assert bool(media.sample.row["audio_codec"]) == (row.audio is not None)


def test_a_shard_has_pictures_of_one_size(packable_catalog: Path, pack_folder: Path) -> None:
    """In the catalog's order, as many as were asked for; sizes by themselves, and no picture first."""
    plan = layout(Catalog.open(packable_catalog), TINY)
    assert plan == [[5], [1, 4], [0, 2], [3, 6], [7]]
    ids = Catalog.open(packable_catalog).ids
    for number, rows in enumerate(plan):
        found = list(members(pack_folder / shards.tar_name(number)).values())
        assert [told(sample)["id"] for sample in found] == ids[rows].tolist()
        videos = [told(sample).get("video", {}) for sample in found]
        assert len({(video.get("width"), video.get("height")) for video in videos}) == 1


@pytest.mark.usefixtures("pack_here")
def test_workers_change_nothing(packable_catalog: Path, pack_folder: Path, tmp_path: Path) -> None:
    report = quick(packable_catalog, tmp_path / "here")
    assert contents(tmp_path / "here") == contents(pack_folder)
    assert (report.recordings, report.shards, report.rejects) == (8, 5, ())
    assert report.bytes == sum(path.stat().st_size for path in pack_folder.glob("*.tar"))
    assert set(contents(pack_folder)) == {
        *(f"{number:05d}{suffix}" for number in range(5) for suffix in (".tar", ".arrow")),
        *("pack.json", "catalog.parquet", "rejects.parquet"),
    }


# --- what cannot be packed


@pytest.mark.usefixtures("pack_here")
def test_a_bad_file_is_a_row_of_the_rejects(packable: list[Recording], tmp_path: Path) -> None:
    names = ["vanished.mp4", "truncated.mp4", "garbage.mp4", "mute.mp4"]
    for name in names:
        shutil.copy(packable[0].path, tmp_path / name)
    rows = [
        *packable[:3],
        *(replace(packable[0], id=n, key=name, path=str(tmp_path / name)) for n, name in enumerate(names)),
    ]
    catalog = catalogued(tmp_path / "c.parquet", [*rows, packable[3]])
    (tmp_path / "vanished.mp4").unlink()
    data = (tmp_path / "truncated.mp4").read_bytes()
    (tmp_path / "truncated.mp4").write_bytes(data[: len(data) // 2])
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    (tmp_path / "garbage.mp4").write_bytes(data[:begin] + b"\xff" * (end - begin) + data[end:])
    write_clip(tmp_path / "mute.mp4", size=(64, 48), frames=12, audio_codec=None)
    report = quick(catalog, tmp_path / "pack")
    rejects = pq.read_table(tmp_path / "pack" / "rejects.parquet").to_pylist()
    assert [row["path"] for row in rejects] == sorted(str(tmp_path / name) for name in names)
    assert [row["reason"] for row in rejects] == [reject.reason for reject in report.rejects]
    reasons = {Path(row["path"]).name: row["reason"] for row in rejects}
    assert reasons["mute.mp4"] == "the sound that was catalogued is gone"
    assert not any("Error:" in reason for reason in reasons.values()), reasons
    packed = Catalog.open(tmp_path / "pack" / "catalog.parquet")
    assert packed.ids.tolist() == [row.id for row in (*packable[:3], packable[3])]
    assert [(Path(row.path).name, row.member) for row in packed] == [
        ("00001.tar", 0),
        ("00000.tar", 0),
        ("00001.tar", 1),
        ("00004.tar", 0),  # all of 00002 and 00003 were bad
    ]
    for row in packed:
        assert opened(Path(row.path), row.member or 0).sample.row["id"] == row.id


@pytest.mark.parametrize("how", ["h264", "copy"])
def test_a_film_that_was_cut_off_since_it_was_indexed_is_bad(tmp_path: Path, how: str) -> None:
    """Also where FFmpeg plays what is left."""
    film = recording(write_clip(tmp_path / "x.mkv", size=(64, 48), frames=90, gop=6).path)
    os.truncate(film.path, os.path.getsize(film.path) // 2)
    with pytest.raises(MediaError, match=r"pictures end at 1\.\d s, the recording at 3\.0 s"):
        sample.packed(film, "", Packing(how, 32), Deadline(60.0))


@pytest.mark.usefixtures("pack_here")
def test_where_nothing_can_be_packed_the_reason_is_told(packable: list[Recording], tmp_path: Path) -> None:
    catalog = catalogued(tmp_path / "c.parquet", [replace(packable[0], path="/nowhere.mp4")])
    with pytest.raises(CatalogError, match=r"nothing could be packed; .*No such file"):
        quick(catalog, tmp_path / "pack")
    assert pq.read_table(tmp_path / "pack" / "rejects.parquet").num_rows == 1


@pytest.mark.usefixtures("pack_here")
def test_what_is_too_long_for_an_index_of_32_bits_is_rejected(
    packable_catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "LIMIT", 9000)
    report = quick(packable_catalog, tmp_path / "pack")
    assert report.rejects and report.recordings
    assert all("--segment-seconds" in reject.reason for reject in report.rejects)


# --- refusals


@pytest.mark.usefixtures("pack_here")
def test_a_complete_pack_is_left_alone(packable_catalog: Path, pack_folder: Path) -> None:
    def state() -> dict[str, Any]:
        return {path.name: path.stat() for path in pack_folder.iterdir()}

    def changed(before: dict[str, Any]) -> list[str]:
        now = state()
        assert now.keys() == before.keys()
        return [
            name
            for name in now
            if (now[name].st_mtime_ns, now[name].st_ino) != (before[name].st_mtime_ns, before[name].st_ino)
        ]

    before = state()
    assert quick(packable_catalog, pack_folder).recordings == 8
    assert changed(before) == []
    for other, words in (
        (replace(TINY, keyint=5), "keyint was 4"),
        (replace(TINY, size=48), "size was 32"),
        (replace(TINY, size=(32, 48), audio="pcm"), "size was 32, audio was flac"),
    ):
        with pytest.raises(CatalogError, match=f"another pack .{words}"):
            quick(packable_catalog, pack_folder, other)
    assert changed(before) == []


@pytest.mark.usefixtures("pack_here")
def test_a_folder_in_use_is_refused(
    packable_catalog: Path, pack_folder: Path, packable: list[Recording], tmp_path: Path
) -> None:
    with pytest.raises(CatalogError, match=r"another pack .catalog was "):
        quick(catalogued(tmp_path / "c.parquet", packable[:2]), pack_folder)
    with pytest.raises(CatalogError, match="packed already"):
        quick(pack_folder / "catalog.parquet", tmp_path / "again")
    foreign = catalogued(tmp_path / "videos" / "catalog.parquet", packable[:2])
    with pytest.raises(CatalogError, match="no pack's"):
        quick(foreign, foreign.parent)
    assert sorted(path.name for path in foreign.parent.iterdir()) == ["catalog.arrow", "catalog.parquet"]


# --- afterwards


def test_a_pack_can_be_moved(pack_folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "else" / "where"
    shutil.copytree(pack_folder, moved)
    catalog = Catalog.open(moved / "catalog.parquet")
    assert {Path(row.path).parent for row in catalog} == {moved}
    media = opened(Path(catalog[0].path), catalog[0].member or 0)
    assert media.sound(0, 10).shape == (10,)


@pytest.mark.parametrize("damage", ["flip", "cut", "swap"])
def test_damage_on_disk_is_noticed(pack_folder: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(pack_folder, tmp_path / "pack")
    tar = tmp_path / "pack" / "00001.tar"
    rows, data = index.rows_of(tar.with_suffix(".arrow")), bytearray(tar.read_bytes())
    with tar.open("rb") as shard:
        shards.check(shard, rows)
    if damage == "flip":
        data[rows[1]["begin"] + rows[1]["size"] // 2] ^= 1
    elif damage == "cut":
        del data[rows[1]["begin"] + rows[1]["size"] // 2 :]
    else:
        data = bytearray((tmp_path / "pack" / "00002.tar").read_bytes())
    tar.write_bytes(data)
    with tar.open("rb") as shard, pytest.raises(MediaError, match="damaged on disk"):
        shards.check(shard, rows)


def test_one_run_at_a_time(packable_catalog: Path, tmp_path: Path, pack_here: None) -> None:
    Packing.save(TINY, tmp_path, Catalog.open(packable_catalog).fingerprint)
    with pack._alone(tmp_path), pytest.raises(CatalogError, match="another `coaug pack` is at work"):
        quick(packable_catalog, tmp_path)
    assert quick(packable_catalog, tmp_path).recordings


def test_damage_to_an_index_raises_at_worst(pack_folder: Path, tmp_path: Path) -> None:
    """Arrow itself ends the process where the offsets of a text lead beyond its end."""
    whole, refused = (pack_folder / "00000.arrow").read_bytes(), 0
    for place in range(0, len(whole), max(1, len(whole) // 500)):
        path = tmp_path / "0.arrow"
        path.write_bytes(whole[:place] + b"\xff" * 8 + whole[place + 8 :])
        try:
            found = index.ShardIndex(path)
            for number in range(len(found)):
                assert found[number].pictures.tick is not None
        except (MediaError, ZeroDivisionError):
            refused += 1
        path.unlink()  # a mapped file must not be written to
    assert refused > 10
