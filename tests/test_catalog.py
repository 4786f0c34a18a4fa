"""The table: rows, views, files, memory."""

import hashlib
import pickle
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coaug.pipelines import table
from coaug.pipelines.catalog import Catalog, CatalogError
from coaug.pipelines.recording import AudioStream, Recording, VideoStream, sample_id, table_of

VIDEO = VideoStream("h264", 96, 64, 90, 29.97, False, 0.0, 10.0)
AUDIO = AudioStream("aac", 44100, 2, -0.02, 10.1, -12.5)


def recording(key, video=VIDEO, audio=AUDIO, start=0.0, end=10.0, label=0, split="train"):
    return Recording(sample_id(key), key, f"/data/{key}", start, end, label, split, video, audio)


ROWS = [
    recording("a/1.mp4", label=1),
    recording("a/2.mp4", audio=None, end=1.0),
    recording("b/3.wav", video=None, label=-1, split="test"),
    recording("b/4.mp4", start=2.5, end=4.0, split="test"),
]


@pytest.fixture
def path(tmp_path):
    table.write(table_of(ROWS, ["cat", "dog"], [1.0, 2.0, 1.0, 1.0]), tmp_path / "catalog.parquet")
    return tmp_path / "catalog.parquet"


def test_rows_come_back(path):
    catalog = Catalog.open(path)
    assert list(catalog) == ROWS
    assert catalog[-1] == ROWS[-1]
    assert catalog.label_names == ("cat", "dog")
    np.testing.assert_array_equal(catalog.ids, [row.id for row in ROWS])
    np.testing.assert_array_equal(catalog.labels, [1, 0, -1, 0])
    np.testing.assert_array_equal(catalog.durations, [10.0, 1.0, 10.0, 1.5])
    np.testing.assert_array_equal(catalog.weights, [1.0, 2.0, 1.0, 1.0])
    assert (catalog.ids.dtype, catalog.labels.dtype, catalog.durations.dtype) == (
        np.int64,
        np.int64,
        np.float64,
    )
    with pytest.raises(IndexError):
        catalog[4]


def test_sample_ids_are_blake2b_and_non_negative():
    digest = hashlib.blake2b(b"dog/x.mp4", digest_size=8).digest()
    assert sample_id("dog/x.mp4") == int(np.frombuffer(digest, "<u8")[0] & np.uint64(0x7FFFFFFFFFFFFFFF))
    assert all(0 <= sample_id(str(n)) < 2**63 for n in range(200))


def test_where_says_what_it_left_out(path):
    catalog = Catalog.open(path)
    both = catalog.where(min_seconds=2.0)
    assert [row.key for row in both] == ["a/1.mp4"]
    assert both.excluded == {"no video": 1, "no audio": 1, "shorter than 2 s": 1}
    test = catalog.where("test", modalities=("audio",))
    assert [row.key for row in test] == ["b/3.wav", "b/4.mp4"]
    assert test.excluded == {"split is not 'test'": 2}
    assert [row.key for row in test.where(modalities=("video",))] == ["b/4.mp4"]
    np.testing.assert_array_equal(test.ids, [ROWS[2].id, ROWS[3].id])
    assert catalog.where(modalities=()).excluded == {}
    assert len(catalog.where("elsewhere")) == 0


def test_views_pickle_as_rows(path):
    view = Catalog.open(path).where("test", modalities=())
    data = pickle.dumps(view)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert (list(again), again.excluded, again.fingerprint) == (list(view), view.excluded, view.fingerprint)
    table.write(table_of(ROWS[:1], []), path)
    with pytest.raises(CatalogError, match="changed"):
        pickle.loads(data)


def test_fingerprint_knows_ids_and_windows(path):
    whole = Catalog.open(path)
    columns = (whole.ids, np.array([r.start for r in ROWS]), np.array([r.end for r in ROWS]))
    assert (
        whole.fingerprint
        == hashlib.blake2b(b"".join(c.tobytes() for c in columns), digest_size=16).hexdigest()
    )
    assert whole.fingerprint != whole.where("test", modalities=()).fingerprint


def test_a_missing_or_old_twin_is_made_anew(path):
    twin = path.with_suffix(".arrow")
    twin.unlink()
    assert list(Catalog.open(twin)) == ROWS
    assert twin.exists()
    pq.write_table(pq.read_table(path).slice(0, 2), path)  # somebody edits the exchange file
    assert list(Catalog.open(path)) == ROWS[:2]
    twin.write_bytes(b"broken")
    assert list(Catalog.open(path)) == ROWS[:2]
    path.unlink()
    assert list(Catalog.open(path)) == ROWS[:2]  # the twin alone will do


def test_a_read_only_folder_is_no_obstacle(path, monkeypatch):
    path.with_suffix(".arrow").unlink()

    def refuse(*_):
        raise OSError("read-only file system")

    monkeypatch.setattr(table, "_write_twin", refuse)
    assert list(Catalog.open(path)) == ROWS
    assert not path.with_suffix(".arrow").exists()


def test_unusable_files_are_named(tmp_path, path):
    with pytest.raises(CatalogError, match=r"no catalog .*missing\.parquet: build one with `coaug index"):
        Catalog.open(tmp_path / "missing.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(CatalogError, match=r"text\.parquet: not a Parquet catalog"):
        Catalog.open(tmp_path / "text.parquet")
    pq.write_table(pq.read_table(path).drop(["video_fps"]), tmp_path / "other.parquet")
    with pytest.raises(CatalogError, match="lacks column 'video_fps'"):
        Catalog.open(tmp_path / "other.parquet")
    text = pq.read_table(path)
    text = text.set_column(0, "id", pa.array(["x"] * 4))
    pq.write_table(text, tmp_path / "typed.parquet")
    with pytest.raises(CatalogError, match="wrong type"):
        Catalog.open(tmp_path / "typed.parquet")


def test_half_a_million_rows_cost_nothing_to_open(tmp_path):
    count = 500_000
    base = table_of(ROWS[:1], ["cat"])
    rows = {
        name: base[name].combine_chunks().take(pa.array(np.zeros(count, np.int32)))
        for name in base.column_names
    }
    rows["id"] = pa.array(np.arange(count) * 7)
    table.write(pa.table(rows, schema=base.schema), tmp_path / "big.parquet")
    del rows
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    catalog = Catalog.open(tmp_path / "big.parquet")
    ids, labels = catalog.ids, catalog.labels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(catalog) == count
    assert peak < 200_000
    assert pa.total_allocated_bytes() - arrow < 200_000
    assert not ids.flags.owndata
    assert not labels.flags.owndata
    assert catalog[count - 1].id == 7 * (count - 1)
    assert catalog.where(min_seconds=1.0)._rows is None  # nothing left out: no row numbers kept
