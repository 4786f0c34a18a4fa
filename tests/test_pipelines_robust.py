"""Bad files, refused batches, used-up budgets, killed processes: named, counted, and nothing else disturbed."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from catalogs import recording, repeated, write
from lists import list_files
from media import Clip, write_clip

from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.config import AudioConfig, DataConfig, VideoConfig, ViewConfig
from coaug.pipelines.loader import AHEAD, AVLoader, ErrorBudget, LoaderError

PICTURE = VideoConfig(frames=3, fps=6.0, size=32)
CONFIG = DataConfig(
    video=PICTURE,
    audio=AudioConfig(rate=16000, seconds=0.5, mels=16),
    views=(ViewConfig("video: speed(1, 2)"),),
)
SILENT = DataConfig(video=PICTURE, modalities=("video",))
GOOD = 5


@pytest.fixture(params=[False, True], ids=["container", "list"])
def files(
    tmp_path: Path, mp4: Clip, webm: Clip, request: pytest.FixtureRequest
) -> Callable[[str], tuple[Path, Catalog]]:
    """victim(suffix) -> a file of its own among five good ones, last in a catalog; spoil it after that. Once with lists
    of the files' packets beside the catalog, and once without."""

    def make(suffix: str = ".mp4", **options: Any) -> tuple[Path, Catalog]:
        victim = tmp_path / f"victim{suffix}"
        write_clip(victim, frames=60, **options)
        rows = [*repeated([mp4.path, webm.path], GOOD), recording(victim)]
        catalog = write(tmp_path / "catalog.parquet", rows)
        return victim, list_files(catalog) if request.param else catalog

    return make


def first(catalog: Catalog, config: DataConfig = CONFIG, **options: Any) -> tuple[Batch, AVLoader]:
    loader = AVLoader(
        catalog, config, **{"batch_size": len(catalog), "workers": 0, "shuffle": False} | options
    )
    return next(iter(loader)), loader


def assert_same(one: Batch, two: Batch, rows: slice = slice(None)) -> None:
    for f in fields(Batch):
        a, b = getattr(one, f.name), getattr(two, f.name)
        if isinstance(a, torch.Tensor):
            assert torch.equal(a[rows], b[rows]), f.name


def overwrite(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data)  # type: ignore[return-value,func-returns-value]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SPOILERS: dict[str, Callable[[Path], Any]] = {
    "removed": Path.unlink,
    "truncated": half,  # an mp4's index is at its end
    "zero bytes": overwrite(b""),
    "garbage": overwrite(bytes(range(256)) * 64),
    "no picture": lambda path: write_clip(path, codec=None, frames=60),
    "no sound": lambda path: write_clip(path, audio_codec=None, frames=60),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": pipe,
}


@pytest.mark.parametrize("kind", SPOILERS)
def test_a_spoilt_file_is_named_counted_and_alone(
    kind: str, files: Callable[..., tuple[Path, Catalog]], caplog: pytest.LogCaptureFixture
) -> None:
    victim, catalog = files()
    intact, _ = first(catalog)
    SPOILERS[kind](victim)
    with caplog.at_level(logging.WARNING, "coaug.loader"):
        batch, loader = first(catalog)
    assert batch.valid.tolist() == [True] * GOOD + [False]
    assert_same(batch, intact, slice(GOOD))
    assert batch.sample_id.tolist() == intact.sample_id.tolist()
    assert batch.label.tolist() == intact.label.tolist()
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert str(victim) in line
    assert "\n" not in line
    assert loader.stats()["failures"] == 1
    assert loader.stats()["samples"] == GOOD + 1
    assert batch.video is not None
    assert batch.video[GOOD].std() > 0.1  # a stand-in, not a blank: batch norm stays sane
    again, _ = first(catalog)
    assert_same(batch, again)


def test_when_everything_fails_blanks_are_handed_out(tmp_path: Path, mp4: Clip) -> None:
    copy = Path(shutil.copy(mp4.path, tmp_path / "a.mp4"))
    catalog = write(tmp_path / "c.parquet", repeated([copy], 4))
    copy.unlink()
    batch, loader = first(catalog)
    assert not batch.valid.any()
    assert batch.video is not None
    assert batch.audio is not None
    assert batch.video.isfinite().all()
    assert batch.audio.isfinite().all()
    assert loader.stats()["failures"] == 4


def corrupt(path: Path) -> None:
    """Leaves the container and the first picture readable and breaks the insides of all other packets."""
    whole = True
    spoilt = path.with_name(f"spoilt{path.suffix}")
    with av.open(str(path)) as source, av.open(str(spoilt), "w") as out:
        targets = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.size:
                data = bytes(packet)
                if packet.stream.type == "video" and not whole:
                    data = data[:1] + bytes(255 - b for b in data[1:])
                whole &= packet.stream.type != "video"
                copy = av.Packet(data)
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.stream, copy.is_keyframe = targets[packet.stream.index], packet.is_keyframe
                out.mux(copy)
    spoilt.replace(path)


@pytest.mark.parametrize("kind", [{}, {"codec": "libvpx"}, {"codec": "mjpeg"}], ids=["vp9", "vp8", "mjpeg"])
def test_a_batch_that_the_graph_refuses_is_decoded_on_the_host(
    kind: dict[str, Any], files: Callable[..., tuple[Path, Catalog]]
) -> None:
    victim, catalog = files(".mkv", audio_codec="libopus", **({"codec": "libvpx-vp9"} | kind))
    intact, _ = first(catalog, decode="host")
    corrupt(victim)
    batch, loader = first(catalog, decode="graph")
    assert loader.state_dict()["distrusted"] == [0]
    assert batch.valid[:GOOD].all()
    assert not batch.valid[GOOD]
    assert batch.video is not None
    assert intact.video is not None
    assert (batch.video[:GOOD] - intact.video[:GOOD]).abs().max() < 0.1
    assert torch.equal(batch.video_pts[:GOOD], intact.video_pts[:GOOD])


def test_a_refused_batch_may_be_any_step_of_an_epoch(files: Callable[..., tuple[Path, Catalog]]) -> None:
    """Batches prepared ahead fail while an earlier one is asked for: it is the right one that is redone."""
    victim, catalog = files(".webm")
    corrupt(victim)
    options = {"budget": ErrorBudget(rate=1.0), "decode": "graph"}
    with AVLoader(catalog, SILENT, batch_size=1, workers=0, **options) as loader:
        for epoch in range(4):
            batches = list(loader)
            ids = [int(b.sample_id) for b in batches]
            assert sorted(ids) == sorted(catalog.ids.tolist())
            for batch in batches:
                assert bool(batch.valid) == (int(batch.sample_id) != catalog[GOOD].id), epoch


def test_bans_start_at_the_stated_step_and_travel_with_the_state(
    files: Callable[..., tuple[Path, Catalog]],
) -> None:
    victim, catalog = files()
    backup = victim.read_bytes()
    victim.unlink()
    _, loader = first(catalog, SILENT)
    state = loader.state_dict()
    assert state["bans"] == {catalog[GOOD].id: AHEAD}
    victim.write_bytes(backup)
    for _ in range(2):
        resumed = AVLoader(catalog, SILENT, batch_size=GOOD + 1, workers=0, shuffle=False)
        resumed.load_state_dict(state)
        valid = [bool(b.valid[GOOD]) for b in islice(endless(resumed), AHEAD + 1)]
        assert valid == [True] * (AHEAD - 1) + [False] * 2  # it stands at step 1
        assert resumed.state_dict()["bans"] == state["bans"]


def endless(loader: AVLoader) -> Iterator[Batch]:
    while True:
        yield from loader


def test_the_error_budget_stops_and_names_the_last_file(files: Callable[..., tuple[Path, Catalog]]) -> None:
    victim, catalog = files()
    victim.unlink()
    for shuffle in (False, True):
        with pytest.raises(LoaderError) as caught:
            first(catalog, SILENT, budget=ErrorBudget(count=0), shuffle=shuffle)
        assert str(victim) in str(caught.value)
        assert "1 of 6" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_banned_file_is_not_the_last_failure(files: Callable[..., tuple[Path, Catalog]]) -> None:
    victim, catalog = files()
    victim.unlink()
    _, loader = first(catalog, SILENT, budget=ErrorBudget(count=AHEAD + 3))
    with pytest.raises(LoaderError) as caught:
        for _ in islice(endless(loader), 3 * AHEAD):
            pass
    assert str(victim) in str(caught.value)


def test_the_budget_as_arithmetic() -> None:
    budget = ErrorBudget(count=10, rate=0.1, after=50)
    assert not budget.exceeded(10, 49)
    assert budget.exceeded(11, 49)
    assert not budget.exceeded(5, 50)
    assert budget.exceeded(6, 50)


def test_a_deadline_of_nothing_fails_everything_and_hangs_nowhere(
    files: Callable[..., tuple[Path, Catalog]],
) -> None:
    _, catalog = files()
    batch, loader = first(catalog, deadline=0.0)
    assert not batch.valid.any()
    assert loader.stats()["failures"] == GOOD + 1
    assert any("deadline" in reason for reason in loader.state_dict()["failures"])


# --- processes

SCRIPT = """
import faulthandler
import sys
faulthandler.dump_traceback_later(75)  # where it hangs, if it does
from coaug.pipelines.config import DataConfig, VideoConfig
from coaug.pipelines.loader import AVLoader
if __name__ == "__main__":
    config = DataConfig(video=VideoConfig(frames=3, fps=6.0, size=32), modalities=("video",))
    loader = AVLoader(sys.argv[1], config, batch_size=2, workers=2)
    while True:
        for batch in loader:
            print(batch.step, flush=True)
"""


def children(pid: int) -> set[int]:
    """All living descendants of a process, by /proc."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | children(child)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_an_ended_main_process_leaves_no_worker(tmp_path: Path, mp4: Clip) -> None:
    """Killed, or interrupted from the keyboard (which signals the whole foreground group)."""
    write(tmp_path / "c.parquet", repeated([mp4.path], 8))
    (tmp_path / "main.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "main.py"), str(tmp_path / "c.parquet")]
    pipes: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": None,  # pytest shows it if this fails
        "start_new_session": True,
        # a shell lets what it runs in the background ignore interrupts, and that is inherited
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    workers: set[int] = set()
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline()  # it is under way
        own = children(process.pid)
        assert len(own) >= 2
        workers |= own
    processes[0].kill()
    os.killpg(processes[1].pid, signal.SIGINT)
    for process in processes:
        process.communicate(timeout=60)
    end = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not [pid for pid in workers if alive(pid)]


UNCLOSED = """
import faulthandler
import sys
import weakref
import numba  # uses weakref.finalize before multiprocessing is imported: its callbacks run after multiprocessing's
faulthandler.dump_traceback_later(100, exit=True)
from coaug.pipelines.config import DataConfig, VideoConfig
from coaug.pipelines.loader import AVLoader
if __name__ == "__main__":
    config = DataConfig(video=VideoConfig(frames=3, fps=6.0, size=32), modalities=("video",))
    loader = AVLoader(sys.argv[1], config, batch_size=2, workers=2)
    print(next(iter(loader)).step, flush=True)
"""


def test_a_script_that_never_closes_its_loader_ends(tmp_path: Path, mp4: Clip) -> None:
    write(tmp_path / "c.parquet", repeated([mp4.path], 8))
    (tmp_path / "main.py").write_text(UNCLOSED)
    command = [sys.executable, str(tmp_path / "main.py"), str(tmp_path / "c.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="about a Linux call")
def test_workers_outlive_the_thread_that_started_them(tmp_path: Path, mp4: Clip) -> None:
    """Trainers that prefetch iterate in threads that come and go."""
    catalog = write(tmp_path / "c.parquet", repeated([mp4.path], 8))
    with AVLoader(catalog, SILENT, batch_size=2, workers=1) as loader:
        batches: list[Batch] = []
        for _ in range(2):
            thread = threading.Thread(target=lambda: batches.append(next(iter(loader))))
            thread.start()
            thread.join()
            assert loader.state_dict()["distrusted"] == []
        batches += islice(endless(loader), 8)
    assert [b.epoch * 4 + b.step for b in batches] == list(range(10))
