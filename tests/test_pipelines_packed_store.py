"""Bytes of shards: those of open().read(), however they come, once a machine, and nothing left open or lying about."""

from __future__ import annotations

import fcntl
import gc
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from coaug.pipelines.media import MediaError
from coaug.pipelines.packed.store import Cache, Store

SIZE = 100_000
CONTENT = np.random.default_rng(0).bytes(SIZE)
SPAWN: Any = multiprocessing.get_context("spawn")


class Slow(LocalFileSystem):  # type: ignore[misc]
    """Local files as if from afar: notes each download in x.log, and obeys files beside x, in whatever process."""

    protocol = "slow"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("slow://")))

    def get_file(self, path1: str, path2: str, callback: Any = None, **_: Any) -> None:
        data = Path(path1).read_bytes()
        with open(path2, "wb") as out, open(f"{path1}.log", "a") as log:
            log.write("download\n")
            out.write(data[: len(data) // 2])
            out.flush()
            if os.path.exists(f"{path1}.kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if os.path.exists(f"{path1}.gate"):
                with open(f"{path1}.gate") as gate:
                    fcntl.flock(gate, fcntl.LOCK_SH)
            if not os.path.exists(f"{path1}.cut"):
                out.write(data[len(data) // 2 :])


fsspec.register_implementation("slow", Slow, clobber=True)


def shard(folder: Path, name: str = "00000.tar", content: bytes = CONTENT) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def under_locks_of_their_own(folder: Path, count: int) -> list[Path]:
    """Shards: one of 256 names would share its lock with another, and not be fetched ahead meanwhile."""
    chosen: dict[str, Path] = {}
    for n in range(20 * count):
        path = shard(folder, f"{n:05}.tar")
        place, _ = Cache(folder).place(f"slow://{path}")
        chosen.setdefault(place.name[:2], path)
    return list(chosen.values())[:count]


def finish(others: set[threading.Thread]) -> None:
    for thread in set(threading.enumerate()) - others:
        thread.join()


def downloads(path: Path) -> int:
    log = Path(f"{path}.log")
    return len(log.read_text().splitlines()) if log.exists() else 0


def copies(folder: Path) -> list[Path]:
    return [path for path in (folder / "shards").iterdir() if path.suffix != ".lock"]


def opened(folder: Path) -> int:
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{descriptor}"
        links += [os.readlink(path)] if os.path.lexists(path) else []
    return sum(link.startswith(str(folder)) for link in links)


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Store, str]]]:
    """Every way to the same bytes: a store, and what to call the shard."""
    folder = tmp_path_factory.mktemp("shards")
    path = str(shard(folder))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/store/00000.tar", CONTENT)
    ranges, whole = Store(folder / "cache"), Store(folder / "cache", whole=True)
    yield {
        "local": (ranges, path),
        "local, whole": (whole, path),
        "file": (ranges, f"file://{path}"),
        "file, whole": (whole, f"file://{path}"),
        "memory": (ranges, "memory://store/00000.tar"),
        "memory, whole": (whole, "memory://store/00000.tar"),
    }
    memory.rm("/store", recursive=True)


ROUTES = pytest.mark.parametrize(
    "route", ["local", "local, whole", "file", "file, whole", "memory", "memory, whole"]
)


@ROUTES
@given(begin=st.integers(0, SIZE), size=st.integers(0, SIZE))
def test_exactly_the_bytes_of_the_file(
    routes: dict[str, tuple[Store, str]], route: str, begin: int, size: int
) -> None:
    store, path = routes[route]
    size = min(size, SIZE - begin)
    assert store.read(path, begin, size) == CONTENT[begin : begin + size]


@ROUTES
def test_a_short_file_is_named_as_such(routes: dict[str, tuple[Store, str]], route: str) -> None:
    store, path = routes[route]
    for begin, size in ((SIZE - 1, 2), (SIZE, 1), (10 * SIZE, 1)):
        with pytest.raises(MediaError, match=f"ends before byte {begin + size}: copy the shard") as failure:
            store.read(path, begin, size)
        assert path not in str(failure.value)


@ROUTES
def test_a_missing_file_is_named_as_such(routes: dict[str, tuple[Store, str]], route: str) -> None:
    store, path = routes[route]
    with pytest.raises(MediaError, match="no such file: put it where"):
        store.read(path + "x", 0, 1)


def test_what_cannot_be_read_ends_with_the_system_s_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in ((".", "Is a directory"), ("pipe", "Illegal seek")):
        with pytest.raises(MediaError, match=f"check disk, network and permissions: {said}$"):
            Store().read(str(tmp_path / name), 0, 1)
    with pytest.raises(MediaError, match="not known"):
        Store().read("nosuch://bucket/00000.tar", 0, 1)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MediaError, match="missing: Install s3fs"):
        Store().read("s3://bucket/00000.tar", 0, 1)


def test_a_server_that_ignores_ranges_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Slow, "cat_file", lambda self, path, **_: CONTENT)
    with pytest.raises(MediaError, match="keep whole shards"):
        Store().read(f"slow://{shard(tmp_path)}", 5, 10)


def test_only_so_many_descriptors_are_open(tmp_path: Path) -> None:
    paths = [str(shard(tmp_path, f"{n:05}.tar", bytes([n]) * 10)) for n in range(9)]
    store = Store(files=3)
    for n in (*range(9), 8, 7, 6, 0):
        assert store.read(paths[n], 2, 5) == bytes([n]) * 5
        assert opened(tmp_path) <= 3
    assert opened(tmp_path) == 3
    del store
    gc.collect()
    assert opened(tmp_path) == 0


def test_copies_are_not_kept_open(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache", whole=True)
    store.read(f"file://{shard(tmp_path)}", 0, 10)
    assert opened(tmp_path) == 0


def test_a_shard_that_was_replaced_is_noticed_when_it_is_opened_again(tmp_path: Path) -> None:
    store, path, other = Store(files=1), shard(tmp_path), shard(tmp_path, "00001.tar")
    store.read(str(path), 0, 10)
    os.replace(shard(tmp_path, "new", bytes(SIZE)), path)
    assert store.read(str(path), 0, 10) == CONTENT[:10]  # the one that is open: of one piece with its index
    store.read(str(other), 0, 10)
    for _ in range(2):
        with pytest.raises(MediaError, match="replaced"):
            store.read(str(path), 0, 10)


def test_a_store_pickles_without_what_is_open(tmp_path: Path) -> None:
    path = str(shard(tmp_path))
    store = Store(tmp_path / "cache", whole=True, keep=10**6, ahead=3, files=5)
    store.read(path, 0, 10)
    store.read(f"file://{path}", 0, 10)
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert opened(tmp_path) == 1
    assert again.read(path, 7, 10) == CONTENT[7:17]


def test_whole_shards_need_a_cache() -> None:
    with pytest.raises(ValueError, match="need a cache"):
        Store(whole=True)


def test_an_index_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path, "00000.arrow")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert Store().local(str(path)) == path
    found = {Store().local(f"slow://{path}") for _ in range(3)}
    assert len(found) == 1
    assert found.pop().read_bytes() == CONTENT
    assert downloads(path) == 1
    with pytest.raises(MediaError, match="no such file"):
        Store().local(f"slow://{path}x")


def test_what_changed_out_there_is_downloaded_anew(tmp_path: Path) -> None:
    path = shard(tmp_path)
    for content in (CONTENT, CONTENT[::-1]):
        os.replace(shard(tmp_path, "new", content), path)
        store = Store(tmp_path / "cache", whole=True)
        assert store.read(f"slow://{path}", 5, 50) == content[5:55]
        assert store.local(f"slow://{path}").read_bytes() == content
    assert downloads(path) == 4


def _read(store: Store, url: str, ready: Any, told: Any) -> None:
    ready.wait()
    told.put(store.read(url, 40_000, 30_000) + store.local(url).read_bytes()[:100])


def test_two_processes_download_a_shard_once(tmp_path: Path) -> None:
    path, store = shard(tmp_path), Store(tmp_path / "cache", whole=True)
    ready, told = SPAWN.Barrier(3, timeout=60), SPAWN.Queue()
    with open(f"{path}.gate", "w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        arguments = store, f"slow://{path}", ready, told
        processes = [SPAWN.Process(target=_read, args=arguments, daemon=True) for _ in range(2)]
        for process in processes:
            process.start()
        ready.wait()
    for _ in processes:
        assert told.get(timeout=60) == CONTENT[40_000:70_000] + CONTENT[:100]
    for process in processes:
        process.join()
    assert downloads(path) == 2  # once as a shard, once as an index
    assert [copy.read_bytes() for copy in copies(tmp_path / "cache")] == [CONTENT]


def _killed(store: Store, url: str) -> None:
    store.read(url, 0, 10)


def test_what_a_killed_download_left_is_cleaned(tmp_path: Path) -> None:
    path, store = shard(tmp_path), Store(tmp_path / "cache", whole=True)
    kill = Path(f"{path}.kill")
    kill.touch()
    process = SPAWN.Process(target=_killed, args=(store, f"slow://{path}"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (left,) = copies(tmp_path / "cache")
    assert left.suffix == ".part" and left.stat().st_size == SIZE // 2
    other = shard(tmp_path, "00001.tar")
    store.read(f"slow://{other}", 0, 10)
    (copy,) = copies(tmp_path / "cache")
    assert copy.suffix == "" and copy.read_bytes() == CONTENT
    kill.unlink()
    assert store.read(f"slow://{path}", 5, 10) == CONTENT[5:15]


def test_a_download_under_way_is_left_alone(tmp_path: Path) -> None:
    path, url = shard(tmp_path), f"slow://{tmp_path / '00000.tar'}"
    cache = Cache(tmp_path / "shards")
    part = cache.place(url)[0].with_suffix(".part")
    with cache._lock(part, wait=True):
        part.write_bytes(b"half")
        with pytest.raises(BlockingIOError):
            Cache(tmp_path / "shards").copy(url, wait=False)
        assert part.read_bytes() == b"half"
    assert cache.copy(url, wait=False).read(0, SIZE) == CONTENT
    assert downloads(path) == 1


def test_a_download_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, store = shard(tmp_path), Store(tmp_path / "cache", whole=True)
    cut = Path(f"{path}.cut")
    cut.touch()
    with pytest.raises(MediaError, match=f"ended after {SIZE // 2} of {SIZE} bytes"):
        store.read(f"slow://{path}", 0, 10)
    assert copies(tmp_path / "cache") == []
    cut.unlink()

    def broken(self: Slow, path1: str, path2: str, **_: Any) -> None:
        Path(path2).write_bytes(b"half")
        raise RuntimeError("503 Slow\nDown")  # no OSError: such are the errors of some file systems

    with monkeypatch.context() as patch:
        patch.setattr(Slow, "get_file", broken)
        with pytest.raises(MediaError, match=r"permissions: 503 Slow Down$"):
            store.read(f"slow://{path}", 0, 10)
    assert copies(tmp_path / "cache") == []
    assert store.read(f"slow://{path}", 0, 10) == CONTENT[:10]


def test_the_shard_that_was_not_used_longest_makes_room(tmp_path: Path) -> None:
    a, b, c = (shard(tmp_path, f"{name}.tar") for name in "abc")
    store = Store(tmp_path / "cache", whole=True, keep=2 * SIZE + 1)
    for path in (a, b, a, c, a):
        assert store.read(f"slow://{path}", 1, 9) == CONTENT[1:10]
        assert sum(copy.stat().st_size for copy in copies(tmp_path / "cache")) <= store.keep
    assert [downloads(path) for path in (a, b, c)] == [1, 1, 1]
    store.read(f"slow://{b}", 0, 1)
    assert [downloads(path) for path in (a, b, c)] == [1, 2, 1]
    store.read(f"slow://{c}", 0, 1)  # b made room of it, not of a
    assert [downloads(path) for path in (a, b, c)] == [1, 2, 2]


def test_a_shard_that_is_read_may_be_deleted(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "shards", keep=SIZE)
    first, second = (f"file://{shard(tmp_path, name)}" for name in ("a.tar", "b.tar"))
    file = cache.copy(first)
    cache.copy(second)
    assert not cache.place(first)[0].exists()
    assert file.read(10, 90) == CONTENT[10:100]


def test_a_shard_larger_than_the_cache_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache", whole=True, keep=SIZE - 1)
    with pytest.raises(MediaError, match="let it keep more"):
        store.read(f"file://{shard(tmp_path)}", 0, 1)


def test_shards_are_fetched_ahead(tmp_path: Path) -> None:
    paths = under_locks_of_their_own(tmp_path, 5)
    urls, others = [f"slow://{path}" for path in paths], set(threading.enumerate())
    store = Store(tmp_path / "cache", whole=True, ahead=2)
    for _ in range(3):
        store.prefetch([*urls, str(paths[0]), "slow://nowhere/00000.tar"])
    finish(others)
    assert [downloads(path) for path in paths] == [1] * 5
    assert [store.read(url, 3, 4) for url in urls] == [CONTENT[3:7]] * 5
    assert [downloads(path) for path in paths] == [1] * 5


def test_what_somebody_else_downloads_is_not_waited_for(tmp_path: Path) -> None:
    a, b = under_locks_of_their_own(tmp_path, 2)
    store, cache = Store(tmp_path / "cache", whole=True, ahead=1), Cache(tmp_path / "cache" / "shards")
    others = set(threading.enumerate())
    with cache._lock(cache.place(f"slow://{a}")[0], wait=True):
        store.prefetch([f"slow://{a}", f"slow://{b}"])
        finish(others)
    assert [downloads(path) for path in (a, b)] == [0, 1]


def test_what_is_no_longer_wanted_is_not_fetched(tmp_path: Path) -> None:
    a, b, c, d = under_locks_of_their_own(tmp_path, 4)
    others, store = set(threading.enumerate()), Store(tmp_path / "cache", whole=True, ahead=1)
    with open(f"{a}.gate", "w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        store.prefetch([f"slow://{path}" for path in (a, b, c)])
        store.prefetch([f"slow://{d}"])
    finish(others)
    assert [downloads(path) for path in (b, c, d)] == [0, 0, 1]


def test_ranges_need_no_fetching_ahead(tmp_path: Path) -> None:
    Store(tmp_path / "cache").prefetch([f"slow://{shard(tmp_path)}"])
    assert not (tmp_path / "cache").exists()
