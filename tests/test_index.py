"""`index`: folders -> catalog, and everything that can be wrong with them."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from media import silence, write_clip
from rich.console import Console

from coaug.pipelines import index as module
from coaug.pipelines import pool
from coaug.pipelines.catalog import Catalog, CatalogError
from coaug.pipelines.index import index
from coaug.pipelines.recording import sample_id


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """One second of each kind; tests copy what they need."""
    folder = tmp_path_factory.mktemp("material")
    write_clip(folder / "av.mp4", frames=30)
    write_clip(folder / "av.webm", frames=30)
    write_clip(folder / "mute.mp4", frames=30, audio_codec=None)
    write_clip(folder / "silent.mp4", frames=30, sound=silence)
    write_clip(folder / "sound.wav", frames=30)
    write_clip(folder / "apart.mkv", frames=10, audio_start=5.0)
    write_clip(folder / "long.avi", frames=125, fps=25)
    return folder


def lay(material, root, **files):
    """Copies material: `lay(material, root, **{"dog/x.mp4": "av.mp4"})`."""
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(material / source, root / name)
    return root


def run(roots, out, **options):
    options = {"workers": 1, "progress": False} | options
    report = index([roots] if isinstance(roots, Path) else roots, out, **options)
    return report, Catalog.open(report.path)


def keys(catalog):
    return [row.key for row in catalog]


def content(path):
    return pq.read_table(path).to_pydict()


def test_labels_splits_and_ids_come_from_the_folders(material, tmp_path):
    names = [
        "flat.mp4",
        "train/cat/1.mp4",
        "Valid/cat/2.webm",
        "test/dog/3.mp4",
        "dog/deep/4.mp4",
        "val/5.mp4",
    ]
    root = lay(
        material, tmp_path / "set", **{n: "av" + Path(n).suffix for n in names}, **{".hidden.mp4": "av.mp4"}
    )
    report, catalog = run(root, tmp_path / "c.parquet")
    assert keys(catalog) == sorted(names)
    assert catalog.label_names == ("cat", "deep", "dog")
    assert {row.key: (row.label, row.split) for row in catalog} == {
        "flat.mp4": (-1, "train"),
        "train/cat/1.mp4": (0, "train"),
        "Valid/cat/2.webm": (0, "val"),
        "test/dog/3.mp4": (2, "test"),
        "dog/deep/4.mp4": (1, "train"),
        "val/5.mp4": (-1, "val"),
    }
    assert [row.id for row in catalog] == [sample_id(key) for key in sorted(names)]
    assert (report.recordings, report.files, report.reused, report.rejects) == (6, 6, 0, ())


def test_the_window_is_where_both_streams_have_data(tmp_path):
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "x.mkv", start=1.0, audio_start=1.5, frames=60)
    row = run(tmp_path / "in", tmp_path / "c.parquet")[1][0]
    assert (row.start, row.end) == pytest.approx((1.5, 3.0), abs=0.03)
    assert row.start == max(row.video.start, row.audio.start)
    assert row.duration == row.end - row.start


KINDS = ["av.mp4", "mute.mp4", "silent.mp4", "sound.wav", "apart.mkv"]
POLICIES = {
    ("video", "audio"): (
        ["av.mp4"],
        {"no sound": 1, "silent": 1, "no picture": 1, "picture and sound do not overlap": 1},
    ),
    ("video",): (["apart.mkv", "av.mp4", "mute.mp4", "silent.mp4"], {"no picture": 1}),
    ("audio",): (["apart.mkv", "av.mp4", "sound.wav"], {"no sound": 1, "silent": 1}),
    "any": (["av.mp4", "mute.mp4", "silent.mp4", "sound.wav"], {"picture and sound do not overlap": 1}),
}


@pytest.mark.parametrize("modalities", POLICIES)
def test_what_must_be_there_is_a_choice(modalities, material, tmp_path):
    root = lay(material, tmp_path / "in", **{name: name for name in KINDS})
    report, catalog = run(root, tmp_path / "c.parquet", modalities=modalities)
    kept, reasons = POLICIES[modalities]
    assert (keys(catalog), report.reasons) == (kept, reasons)
    for row in catalog:
        assert (row.video is None) == (modalities == ("audio",) or row.key == "sound.wav")
        assert (row.audio is None) == (modalities == ("video",) or row.key in ("mute.mp4", "silent.mp4"))
    rejects = pq.read_table(tmp_path / "c.rejects.parquet").to_pylist()
    assert len(rejects) == len(report.rejects) == sum(reasons.values())


def test_bad_files_are_counted_and_shown_and_do_not_stop_the_run(material, tmp_path):
    root = lay(material, tmp_path / "in", **{"ok.mp4": "av.mp4"})
    (root / "empty.mp4").touch()
    (root / "[text].mp4").write_text("no video at all")
    (root / "folder.mp4").mkdir()
    (root / "cut.mp4").write_bytes((material / "av.mp4").read_bytes()[:5000])
    (root / "gone.mp4").symlink_to(root / "nowhere")
    (root / os.fsdecode(b"caf\xe9.mp4")).write_bytes((material / "av.mp4").read_bytes())
    report, catalog = run(root, tmp_path / "c.parquet")
    assert keys(catalog) == ["ok.mp4"]
    assert report.reasons == {
        "not a media file, or cut off before its index": 2,
        "empty file": 1,
        "cannot be read": 1,
        "file name is not UTF-8": 1,
    }
    console = Console(record=True, width=200)
    report.show(console)
    text = console.export_text()
    assert "[text].mp4" in text
    assert "1 recordings" in text


def test_mistakes_are_one_line(material, tmp_path):
    with pytest.raises(CatalogError, match=r"no such folder: .*nowhere"):
        run(tmp_path / "nowhere", tmp_path / "c.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError, match=r"no media files in .*empty: looked for .*\.mp4"):
        run(tmp_path / "empty", tmp_path / "c.parquet")
    root = lay(material, tmp_path / "in", **{"mute.mp4": "mute.mp4"})
    with pytest.raises(CatalogError, match=r"no usable recording in .*: no sound 1; .*c\.rejects\.parquet"):
        run(root, tmp_path / "c.parquet")
    with pytest.raises(CatalogError, match="unknown label format 'kinetiks'; there are: folder"):
        run(root, tmp_path / "c.parquet", label_format="kinetiks")
    lay(material, root, **{"sub/x.mp4": "av.mp4"})
    with pytest.raises(CatalogError, match="lies in"):
        run([root, root / "sub"], tmp_path / "c.parquet")
    with pytest.raises(CatalogError, match="weight must be above 0"):
        run([f"{root}=-1"], tmp_path / "c.parquet")
    with pytest.raises(CatalogError, match="'heavy' is not a weight"):
        run([f"{root}=heavy"], tmp_path / "c.parquet")
    assert not (tmp_path / "c.parquet").exists()


def test_ids_know_nothing_of_where_the_root_lies_or_of_its_order(material, tmp_path):
    root = lay(material, tmp_path / "in", **{"dog/b.mp4": "av.mp4", "dog/a.mp4": "av.mp4"})
    other = lay(material, tmp_path / "more", **{"cat/c.mp4": "av.mp4"})
    _, catalog = run([root, other], tmp_path / "c.parquet")
    moved = tmp_path / "else" / "where"
    moved.parent.mkdir()
    root.rename(moved)
    _, again = run([other, moved], tmp_path / "d.parquet")
    assert (keys(catalog), catalog.fingerprint) == (keys(again), again.fingerprint)
    assert again[2].path == str(moved / "dog/b.mp4")


def test_equal_keys_in_two_roots_are_told_apart(material, tmp_path):
    one, two = (lay(material, tmp_path / n / "data", **{"dog/x.mp4": "av.mp4"}) for n in ("one", "two"))
    lay(material, two, **{"dog/y.mp4": "av.mp4"})
    _, catalog = run([one, f"{two}=2.5"], tmp_path / "c.parquet")
    assert keys(catalog) == ["dog/y.mp4", "one/data/dog/x.mp4", "two/data/dog/x.mp4"]
    assert list(catalog.weights) == [2.5, 1.0, 2.5]
    _, swapped = run([two, one], tmp_path / "d.parquet")
    assert catalog.fingerprint == swapped.fingerprint


def test_equal_ids_are_refused_with_both_names(material, tmp_path, monkeypatch):
    root = lay(material, tmp_path / "in", **{"a.mp4": "av.mp4", "b.mp4": "av.mp4"})
    monkeypatch.setattr("coaug.pipelines.cut.sample_id", lambda key: 7)
    with pytest.raises(CatalogError, match=r"same id: 'a\.mp4' .* and 'b\.mp4'"):
        run(root, tmp_path / "c.parquet")


def test_long_files_are_cut_into_equal_pieces(material, tmp_path):
    root = lay(material, tmp_path / "in", **{"dog/long.avi": "long.avi", "dog/short.mp4": "av.mp4"})
    _, catalog = run(root, tmp_path / "c.parquet", segment_seconds=1.5)
    pieces = [(row.key, row.start, round(row.end, 1)) for row in catalog]
    assert pieces == [
        ("dog/long.avi#0-1.5", 0.0, 1.5),
        ("dog/long.avi#1.5-3", 1.5, 3.0),
        ("dog/long.avi#3-4.5", 3.0, 5.0),  # takes what is left
        ("dog/short.mp4", 0.0, 1.0),
    ]
    assert len(set(catalog.ids)) == 4


def test_a_list_of_segments(material, tmp_path):
    root = lay(material, tmp_path / "in", **{"dog/long.avi": "long.avi", "dog/other.mp4": "av.mp4"})
    lines = [
        "path, start, end, label, split, id",
        "dog/long.avi,1,2,,,",
        "dog/long,2.25,4,cat,test,my-own-id",
        f"{root}/dog/long.avi,4,,,,",
        "dog/long.avi,3,60,,,",
        "dog/long.avi,30,40,,,",
        "dog/missing.avi,0,1,,,",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    report, catalog = run(root, tmp_path / "c.parquet", segments=tmp_path / "list.csv")
    rows = {
        row.key: (row.start, round(row.end, 1), catalog.label_names[row.label], row.split) for row in catalog
    }
    assert rows == {
        "dog/long.avi#1-2": (1.0, 2.0, "dog", "train"),
        "my-own-id": (2.25, 4.0, "cat", "test"),
        "dog/long.avi#4-": (4.0, 5.0, "dog", "train"),
        "dog/long.avi#3-60": (3.0, 5.0, "dog", "train"),
    }
    assert report.files == 1  # only what is listed is probed
    assert report.reasons == {"segment lies outside the file": 1, "listed but not there": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x.mp4,1,2", "needs a first line with columns path,start,end; lacks end"),
        ("path,start,end\nx.mp4,one,2", "line 2: start and end must be seconds"),
        ("path,start,end\nx.mp4,1,2\nx.mp4,3,2", "line 3: end 2 is not after start 3"),
        ("path,start,end\n,1,2", "line 2: no path"),
    ],
)
def test_a_bad_list_of_segments_is_one_line(text, message, material, tmp_path):
    root = lay(material, tmp_path / "in", **{"x.mp4": "av.mp4"})
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(CatalogError, match=message):
        run(root, tmp_path / "c.parquet", segments=tmp_path / "list.csv")


def test_a_held_out_share_is_chosen_by_id(material, tmp_path):
    root = lay(material, tmp_path / "in", **{f"dog/{n}.mp4": "av.mp4" for n in range(12)})
    _, catalog = run(root, tmp_path / "c.parquet", holdout=0.4)
    assert {row.key for row in catalog if row.split == "test"} == {
        key for key in keys(catalog) if sample_id(key) / 2**63 < 0.4
    }


def test_a_single_file_can_be_given(material, tmp_path):
    _, catalog = run(material / "av.mp4", tmp_path / "c.parquet")
    assert keys(catalog) == ["av.mp4"]


def test_only_new_and_changed_files_are_probed_again(material, tmp_path):
    root = lay(material, tmp_path / "in", **{"a.mp4": "av.mp4", "b.mp4": "av.mp4", "c.mp4": "mute.mp4"})
    run(root, tmp_path / "c.parquet")
    lay(material, root, **{"d.webm": "av.webm", "b.mp4": "av.webm"})
    (root / "a.mp4").unlink()
    report, catalog = run(root, tmp_path / "c.parquet")
    assert (report.files, report.reused, keys(catalog)) == (3, 1, ["b.mp4", "d.webm"])
    assert len((tmp_path / "c.probed.jsonl").read_text().splitlines()) == 3
    assert run(root, tmp_path / "c.parquet", resume=False)[0].reused == 0


KILLED = """
import os, signal, sys
from coaug.pipelines import index, journal
add, count = journal.Journal.add, 0
def dying(self, *result):
    global count
    add(self, *result)
    count += 1
    if count == 5:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.add = dying
index.index([sys.argv[1]], sys.argv[2], workers=2, progress=False)
"""


def test_a_killed_run_goes_on_where_it_was(material, tmp_path):
    names = {f"dog/{n}.mp4": KINDS[n % 3] for n in range(12)}
    root = lay(material, tmp_path / "in", **names)
    out = tmp_path / "c.parquet"
    killed = subprocess.run([sys.executable, "-c", KILLED, root, out], check=False, stderr=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    with (tmp_path / "c.probed.jsonl").open("a") as journal:
        journal.write('[1, "half a li')
    report, catalog = run(root, out)
    assert report.reused == 5
    whole, _ = run(root, tmp_path / "d.parquet")
    assert content(out) == content(tmp_path / "d.parquet")
    assert content(tmp_path / "c.rejects.parquet") == content(tmp_path / "d.rejects.parquet")
    assert report.rejects == whole.rejects
    assert len(catalog) == 4


STUBBORN = """
import os, threading
def answer(name):
    if "hang" in name:
        threading.Event().wait()
    if "crash" in name:
        os.abort()
    print("noise")
    return name.upper()
"""


def test_workers_that_hang_or_crash_cost_one_file_each(tmp_path, monkeypatch):
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    monkeypatch.syspath_prepend(tmp_path)
    names = ["a", "hang1", "b", "crash1", "c", "crash2", "hang2", "d"]
    results = dict(pool.run("stubborn:answer", names, 2, lambda name: 0.2 if "hang" in name else 60.0))
    assert {name: result for name, result in results.items() if len(name) == 1} == {
        n: n.upper() for n in "abcd"
    }
    assert all(isinstance(results[name], pool.Hung) for name in ("hang1", "hang2"))
    assert all(isinstance(results[name], pool.Crashed) for name in ("crash1", "crash2"))


def test_a_file_that_hangs_is_rejected_and_tried_again_next_time(material, tmp_path, monkeypatch):
    root = lay(material, tmp_path / "in", **{"a.mp4": "av.mp4", "b.mp4": "av.mp4"})
    real = pool.run

    def one_hangs(*arguments):
        for path, result in real(*arguments):
            yield path, pool.Hung() if path.endswith("b.mp4") else result

    monkeypatch.setattr(module.pool, "run", one_hangs)
    report, catalog = run(root, tmp_path / "c.parquet")
    assert (report.reasons, keys(catalog)) == ({"took too long": 1}, ["a.mp4"])
    monkeypatch.undo()
    report, catalog = run(root, tmp_path / "c.parquet")
    assert (report.reused, keys(catalog)) == (1, ["a.mp4", "b.mp4"])


def test_workers_that_cannot_start_are_an_error_not_a_table_of_rejects():
    with pytest.raises(RuntimeError, match="cannot start"):
        list(pool.run("no_such_module:function", ["a"], 1, lambda _: 60.0))


def test_indexing_again_leaves_an_unchanged_catalog_alone(tmp_path: Path) -> None:
    """Another run may have it open."""
    (tmp_path / "a" / "dog").mkdir(parents=True)
    write_clip(tmp_path / "a" / "dog" / "x.mp4", frames=30)
    catalog = tmp_path / "c.parquet"
    index([tmp_path / "a"], catalog, progress=False)
    before = [(p.stat().st_mtime_ns, p.stat().st_ino) for p in (catalog, catalog.with_suffix(".arrow"))]
    index([tmp_path / "a"], catalog, progress=False)
    assert before == [
        (p.stat().st_mtime_ns, p.stat().st_ino) for p in (catalog, catalog.with_suffix(".arrow"))
    ]
    write_clip(tmp_path / "a" / "dog" / "y.mp4", frames=30)
    index([tmp_path / "a"], catalog, progress=False)
    assert catalog.stat().st_mtime_ns != before[0][0]
