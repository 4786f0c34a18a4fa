"""Collections of which much is broken, spoilt bytes, workers that hang or crash, signals: nothing stops or stays."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import pytest
import torch
from catalogs import recording, repeated, write
from lists import list_files
from media import Clip, write_clip
from test_pipelines_robust import SCRIPT, alive, children

from coaug.pipelines import pool
from coaug.pipelines import running as module
from coaug.pipelines.ban_list import BanList
from coaug.pipelines.bans import Bans
from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.demux import packets_of
from coaug.pipelines.loader import AVLoader, LoaderError
from coaug.pipelines.probe import Reject, probe
from coaug.pipelines.schedule import Schedule
from coaug.pipelines.source import Source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="about Linux processes")
SILENT = DataConfig(video=VideoConfig(frames=3, fps=6.0, size=32), modalities=("video",))
SHORT = DataConfig(
    SILENT.video, AudioConfig(rate=16000, seconds=0.5, mels=16), (ViewConfig("speed(1, 2)"), ViewConfig())
)
BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
GOOD = 7


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """(hostile, hostile_fuzz), for this process and for the ones that it starts."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import hostile
    import hostile_fuzz

    return hostile, hostile_fuzz


@pytest.fixture
def victim(tmp_path: Path, mp4: Clip) -> tuple[Path, Catalog]:
    """A file of its own, the last of eight recordings."""
    path = Path(shutil.copy(mp4.path, tmp_path / "victim.mp4"))
    return path, write(tmp_path / "c.parquet", [*repeated([mp4.path], GOOD), recording(path)])


def batches(catalog: Catalog, count: int, **options: Any) -> tuple[list[Batch], AVLoader]:
    """So many batches, in the catalog's order, and the loader that they came from."""
    defaults = {"batch_size": 4, "workers": 0, "shuffle": False}
    with AVLoader(catalog, SILENT, **defaults | options) as loader:
        endless = (batch for _ in iter(int, 1) for batch in loader)
        return list(islice(endless, count)), loader


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- collections and bytes


def test_a_collection_of_which_a_third_is_broken(
    scripts: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    """One of each kind: the whole of what docs/robustness.md reports, small."""
    given = ["--files", "60", "--films", "6", "--batch", "2", "--epochs", "3", "--workers", "2"]
    found = scripts[0].campaign(tmp_path / "all", scripts[0].arguments(given))
    assert [check for check in found["checks"] if not check["holds"]] == []
    assert {row["kind"]: row["files"] for row in found["kinds"]} == {"good": 40} | dict.fromkeys(
        scripts[0].KINDS, 1
    )
    assert sum(row["invalid"] for row in found["kinds"]) > 0


def fuzzed(script: ModuleType, folder: Path, count: int, graph: int) -> None:
    found = script.fuzz(folder, script.cases_of(count), pool.cores(), graph)
    assert found["bad"] == {}
    assert found["counts"]["index: usable"] > count / 2
    assert sum(number for what, number in found["counts"].items() if what.startswith("source: ")) > count / 10


def test_changed_bytes_neither_crash_nor_hang_nor_surprise(
    scripts: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    fuzzed(scripts[1], tmp_path, 300, graph=0)


@pytest.mark.slow
def test_many_more_changed_bytes(scripts: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    fuzzed(scripts[1], tmp_path, 10_000, graph=8)


def test_a_case_that_crashes_hangs_or_surprises_is_named(
    scripts: tuple[ModuleType, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [
        pool.Crashed(),
        pool.Hung(),
        {"unforeseen": ["KeyError: 1"]},
        {"longest": 60.0},
        {"probed": "usable"},
    ]

    def run(target: str, arguments: list[str], *_: object) -> Iterator[tuple[str, Any]]:
        return zip(arguments, answers, strict=True)

    monkeypatch.setattr(pool, "run", run)
    monkeypatch.setattr(scripts[1], "FILMS", scripts[1].FILMS[2:4])
    found = scripts[1].fuzz(tmp_path, scripts[1].cases_of(5, seed=7), 1, 0)
    named = {"0.avi 7": "crashed", "1.mkv 8": "hung", "0.avi 9": "KeyError: 1", "1.mkv 10": "took 60.0 s"}
    assert found["bad"] == named


def test_a_stream_that_begins_late_is_no_error_of_ours(tmp_path: Path) -> None:
    """Broadcasts change what they consist of; FFmpeg looks at the first 5 MB and at the end."""
    muted = write_clip(
        tmp_path / "mute.ts", codec="mpeg2video", audio_codec=None, size=(320, 240)
    ).path.read_bytes()
    both = write_clip(tmp_path / "both.ts", codec="mpeg2video", audio_codec="mp2").path.read_bytes()
    around = muted * (6_000_000 // len(muted) + 1)
    (tmp_path / "late.ts").write_bytes(around + both + around)
    found = probe(str(tmp_path / "late.ts"))
    assert isinstance(found, Reject)
    assert found.reason == "a stream begins in the middle of the file"


def test_tags_in_another_encoding_do_not_matter(tmp_path: Path) -> None:
    """Old files carry titles in Latin-1: what the index takes, the source must read."""
    path = write_clip(tmp_path / "x.mkv", codec="libx264", frames=30).path
    path.write_bytes(path.read_bytes().replace(b"ENCODER", b"\xe9NCODER"))
    catalog = write(tmp_path / "c.parquet", [recording(path)])
    assert Source(catalog, SILENT, Schedule(1, 1, 1), Bans()).sample(0, 0, 0)["error"] == b""


# --- memory

READS = 150


def malloced() -> int:
    """Bytes that the C library has handed out and not got back (mallinfo(3): uordblks and hblkhd)."""
    names = (
        "arena",
        "ordblks",
        "smblks",
        "hblks",
        "hblkhd",
        "usmblks",
        "fsmblks",
        "uordblks",
        "fordblks",
        "keepcost",
    )
    info = type("Mallinfo2", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names]})
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("needs glibc 2.33")
    mallinfo.restype = info
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def leak(read: Callable[[], object], rounds: int = 12) -> float:
    """Bytes a call of `read` that stay allocated: the least of several rounds, as caches fill up at first."""
    least, before = float("inf"), held()
    for _ in range(rounds):
        for _ in range(READS):
            read()
        after = held()
        least, before = min(least, (after - before) / READS), after
        if least < 20:  # nothing, but for noise
            break
    return least


def held() -> int:
    gc.collect()
    return malloced()


def test_packets_left_unread_are_given_back(mp4: Clip) -> None:
    def first() -> None:
        with av.open(str(mp4.path)) as container:
            next(packets_of(container, container.streams.video[0]))

    assert leak(first) < 20


@pytest.mark.parametrize(
    ("kind", "by_list"), [("mp4", False), ("mp4", True), ("webm", False), ("avi", False)]
)
def test_a_sample_leaves_nothing_allocated(
    kind: str, by_list: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Epochs have millions of samples: a few hundred bytes each fill a machine."""
    catalog = write(tmp_path / "c.parquet", repeated([request.getfixturevalue(kind).path], 2))
    catalog = list_files(catalog) if by_list else catalog
    source = Source(catalog, SHORT, Schedule(2, 2, 1), Bans())
    turns = count()
    assert leak(lambda: source.sample(0, next(turns), 0)) < 60


# --- worker processes


@contextmanager
def leased(path: Path, opened: Callable[..., Any] | signal.Handlers = signal.SIG_IGN) -> Iterator[None]:
    """Whoever opens the file waits, 45 s by default, as on a network drive that is gone; `opened` is told by SIGIO."""
    before = signal.signal(signal.SIGIO, opened)
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        pytest.skip("no leases on this file system")
    try:
        yield
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)


def crash(*_: object) -> None:
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, signal.SIGSEGV)


@pytest.mark.parametrize(("how", "why"), [(signal.SIG_IGN, "hung beyond its deadline"), (crash, "SIGSEGV")])
def test_a_file_that_takes_its_worker_down_is_named_and_left_out(
    how: Any, why: str, victim: tuple[Path, Catalog], caplog: pytest.LogCaptureFixture
) -> None:
    path, catalog = victim
    intact, _ = batches(catalog, 4)
    with leased(path, how), caplog.at_level(logging.WARNING, "coaug.loader"):
        given, loader = batches(catalog, 4, workers=1, deadline=2.0)
    (named, *epochs) = lines(caplog)
    assert named.startswith(f"left out: {path}: ")
    assert why in named
    assert epochs == ["8 samples after epoch 0; 1 of them not valid, 1 of these banned before"]
    assert loader.state_dict()["bans"] == {catalog[GOOD].id: 1}  # from the step on at which it happened
    assert [b.valid.tolist() for b in given] == [[True] * 4, [True] * 3 + [False]] * 2
    for one, two in zip(given, intact, strict=True):
        assert one.video is not None
        assert two.video is not None
        assert torch.equal(one.video[one.valid], two.video[one.valid])


def test_workers_that_keep_dying_end_the_run(
    victim: tuple[Path, Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEATHS", 1)
    with (
        leased(victim[0], crash),
        pytest.raises(LoaderError, match=f"died 1 times before step 0 .*{victim[0]}"),
    ):
        batches(victim[1], 2, workers=1)


def test_workers_leave_interrupts_to_the_trainer(victim: tuple[Path, Catalog]) -> None:
    """Ctrl-C reaches the whole foreground group; a trainer that finishes its step first needs them."""
    with AVLoader(victim[1], SILENT, batch_size=4, workers=1) as loader:
        given = [next(iter(loader))]
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid or 0, signal.SIGINT)
        given += islice((batch for _ in iter(int, 1) for batch in loader), 8)
        assert multiprocessing.active_children() == [worker]
    assert all(batch.valid.all() for batch in given)


@pytest.mark.parametrize(("number", "group"), [("SIGTERM", False), ("SIGTERM", True), ("SIGINT", True)])
def test_a_signal_leaves_neither_process_nor_memory_nor_file(
    number: str, group: bool, tmp_path: Path, victim: tuple[Path, Catalog]
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "main.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py"), str(victim[1].path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell may ignore it
    )
    assert process.stdout is not None
    assert process.stdout.readline()  # it is under way
    family = {process.pid, *children(process.pid)}
    shared = {line.split(maxsplit=5)[5] for pid in family for line in mapped(pid) if "/dev/shm/" in line}
    assert shared
    (os.killpg if group else os.kill)(process.pid, getattr(signal, number))
    process.communicate(timeout=60)
    end = time.monotonic() + 20
    while any(map(alive, family)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not [pid for pid in family if alive(pid)]
    assert not [name for name in shared if Path(name).exists()]
    ours = [file.name for file in temporary.iterdir() if not file.name.startswith("__autograph")]  # DALI's
    assert ours == []


def mapped(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/maps").read_text().splitlines()


# --- bans


def test_what_failed_is_known_to_the_next_run_until_it_changes(
    victim: tuple[Path, Catalog], caplog: pytest.LogCaptureFixture
) -> None:
    path, catalog = victim
    whole, known = path.read_bytes(), catalog.path.with_name("c.bans.jsonl")
    path.write_bytes(b"no film " * 99)
    batches(catalog, 4)
    (line,) = known.read_text().strip().splitlines()
    assert json.loads(line)["path"] == str(path)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "coaug.loader"):
        given, loader = batches(catalog, 2)
    assert given[1].valid.tolist() == [True] * 3 + [False]
    assert lines(caplog) == []  # nobody tried it
    assert loader.state_dict()["bans"] == {catalog[GOOD].id: 0}
    assert f"not tried again: 1 that failed in earlier runs ({known})" in loader.describe()
    path.write_bytes(whole)
    given, loader = batches(catalog, 2)
    assert given[1].valid.all()
    assert "not tried" not in loader.describe()


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("took longer than the deadline of 20 s", False),
        ("video does not decode: Input/output error", False),
        ("Permission denied", False),
        ("No such file or directory", True),
        ("audio does not decode: Invalid data found when processing input", True),
    ],
)
def test_passing_failures_are_not_kept(reason: str, kept: bool, victim: tuple[Path, Catalog]) -> None:
    path, catalog = victim
    bans = BanList(catalog.path)
    bans.add(5, str(path), reason)
    bans.path.open("a").write('{"id": 6, "pa')  # a run was killed
    assert bans.read(catalog.ids) == {}  # not of this catalog
    bans.add(int(catalog.ids[0]), str(path), reason)
    expected = {int(catalog.ids[0]): f"{path}: {reason}"} if kept else {}
    assert bans.read(catalog.ids) == expected


def test_a_ban_list_that_cannot_be_written_is_done_without() -> None:
    BanList(Path("/proc/nowhere/c.parquet")).add(1, "a.mp4", "broken")


def test_of_two_bans_the_earlier_counts() -> None:
    bans = Bans({7: 30})
    bans.add(7, 20)
    bans.add(7, 25)
    assert bans.entries() == {7: 20}
    assert (bans.holds(7, 19), bans.holds(7, 20), bans.holds(8, 99)) == (False, True, False)


def test_the_log_counts_at_the_end_of_each_epoch(
    victim: tuple[Path, Catalog], caplog: pytest.LogCaptureFixture
) -> None:
    """Banned from 16 steps after the first failure on, the eighth of eight is tried twice and banned the third time."""
    path, catalog = victim
    path.unlink()
    with caplog.at_level(logging.WARNING, "coaug.loader"):
        batches(catalog, 25, batch_size=1)
    assert [line for line in lines(caplog) if not line.startswith("left out")] == [
        "8 samples after epoch 0; 1 of them not valid, 0 of these banned before",
        "16 samples after epoch 1; 2 of them not valid, 0 of these banned before",
        "24 samples after epoch 2; 3 of them not valid, 1 of these banned before",
    ]
