"""Bytes of shards: from local disks, or from wherever fsspec reaches, by ranges or through copies of whole shards.

    Store()                                   # of remote shards just the ranges that are asked for
    Store(Path("/scratch/x"), whole=True)     # remote shards whole, each by one sequential download a machine

What goes wrong is a MediaError: a sample is lost, not the epoch.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from functools import cached_property, lru_cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ..media import MediaError, reason

P = ParamSpec("P")
T = TypeVar("T")


class _File:
    """A file that is open for as long as somebody holds this, even if it is deleted or replaced meanwhile."""

    def __init__(self, path: str | Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait
        weakref.finalize(self, os.close, self.descriptor)
        status = os.fstat(self.descriptor)
        self.size = status.st_size
        self.state = (status.st_ino, status.st_size, status.st_mtime_ns)

    def read(self, begin: int, size: int) -> bytes:
        return os.pread(self.descriptor, size, begin)

    def touch(self) -> _File:
        """Note that it was used just now, for `Cache` to know what was not."""
        now = time.time_ns()  # the kernel's own stamps are milliseconds apart
        os.utime(self.descriptor, ns=(now, now))
        return self


def _explained(function: Callable[P, T]) -> Callable[P, T]:
    """Make a MediaError of whatever goes wrong: fsspec's file systems raise what they like."""

    @wraps(function)
    def explained(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except MediaError:
            raise
        except FileNotFoundError:
            raise MediaError("no such file: put it where the catalog says, or make a new catalog") from None
        except ImportError as error:
            raise MediaError(f"a package for addresses of this kind is missing: {reason(error)}") from None
        except Exception as error:
            said = " ".join(reason(error).split())[:200]
            raise MediaError(f"cannot be read; check disk, network and permissions: {said}") from None

    return explained


@dataclass
class Store:
    """Reads shards by path or by URL (`s3://…`, whatever has `://` in it, also `file://…` for a slow mount).

    Threads may share it. Pickles without what is open; all processes of a machine share the cache.

    Attributes:
        cache: folder for copies of remote files, on a local disk; `~/.cache/coaug` if None.
        whole: bring remote shards into the cache before they are read.
        keep: bytes of shards that the cache may hold: some more than two pools of `order.ByShard`.
        ahead: shards that `prefetch` downloads at a time.
        files: local shards kept open, the most recently used ones.
    """

    cache: Path | None = None
    whole: bool = False
    keep: int = 64 << 30
    ahead: int = 2
    files: int = 64

    def __post_init__(self) -> None:
        if self.whole and self.cache is None:
            raise ValueError("whole shards need a cache: name a folder on a local disk")
        self._asked: list[str] = []
        self._queue: deque[str] = deque()
        self._seen: dict[str, tuple[int, ...]] = {}

    @_explained
    def read(self, path: str, begin: int, size: int) -> bytes:
        """The bytes [begin, begin + size) of a shard.

        Raises:
            MediaError: no such file, unreadable, replaced since it was first read here, or not that long.
        """
        if not _is_url(path):
            data = self._local(path).read(begin, size)
        elif self.whole:
            data = self._shards.copy(path).read(begin, size)
        else:
            data = _range(path, begin, size)
        if len(data) != size:
            raise MediaError(f"ends before byte {begin + size}: copy the shard here again, or pack it again")
        return data

    @_explained
    def local(self, path: str) -> Path:
        """Where a small file (an index) can be opened: a copy that stays in the cache, or `path` if that is no URL.

        Raises:
            MediaError: a remote file cannot be downloaded.
        """
        if not _is_url(path):
            return Path(path)
        self._indexes.copy(path)
        return self._indexes.place(path)[0]

    def prefetch(self, paths: Sequence[str]) -> None:
        """Begin to download those shards that are missing, in this order, and return at once.

        What an earlier call asked for and has not begun is forgotten. Does nothing unless shards are kept whole.
        A failure is told to whoever reads the shard.
        """
        if not self.whole or (asked := [path for path in paths if _is_url(path)]) == self._asked:
            return
        self._queue.clear()
        self._asked, self._queue = asked, deque(asked)
        for _ in range(min(self.ahead, len(asked))):
            threading.Thread(target=_fetch, args=(self._shards, self._queue), daemon=True).start()

    def __reduce__(self) -> tuple[type[Store], tuple[Any, ...]]:
        return type(self), astuple(self)

    def _local(self, path: str) -> _File:
        file = self._open(path)
        if self._seen.setdefault(path, file.state) != file.state:
            raise MediaError("was replaced since it was first read: start the run again")
        return file

    @cached_property
    def _open(self) -> Callable[[str], _File]:
        return lru_cache(self.files)(_File)  # what drops out of it is closed when its last reader is done

    @cached_property
    def _folder(self) -> Path:
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coaug"
        return default if self.cache is None else Path(self.cache)

    @cached_property
    def _shards(self) -> Cache:
        return Cache(self._folder / "shards", self.keep)

    @cached_property
    def _indexes(self) -> Cache:
        return Cache(self._folder / "indexes")


class Cache:
    """Copies of remote files in a folder that all processes of a machine share: each is downloaded once.

    A copy is named by a hash of the URL and of the version that lies there. Whoever downloads holds one of 256 lock
    files, which the kernel releases however a process ends: a `.part` that nobody holds the lock of is left over.

    Args:
        keep: bytes of copies, downloads under way left aside; those used least recently are deleted. None: no limit.
    """

    def __init__(self, folder: Path, keep: int | None = None) -> None:
        self.folder, self.keep = folder, keep
        self._known: dict[str, tuple[Path, int]] = {}
        for part in folder.glob("*.part"):
            with suppress(BlockingIOError), self._lock(part, wait=False):
                part.unlink(missing_ok=True)

    def copy(self, url: str, *, wait: bool = True) -> _File:
        """The copy of a file, open, so that it can be read even when it is deleted; downloaded if it is not there.

        Raises:
            BlockingIOError: not `wait`, and another process or thread is downloading it.
        """
        target, size = self.place(url)
        with suppress(FileNotFoundError):
            return _File(target).touch()
        with self._lock(target, wait):
            with suppress(FileNotFoundError):  # somebody was faster
                return _File(target).touch()
            return self._download(url, target, size)

    def place(self, url: str) -> tuple[Path, int]:
        """Where the copy of a file is or will be, and the file's size in bytes, 0 if its server does not tell."""
        if url not in self._known:
            fs, path = _remote(url)
            info = fs.info(path)
            version = info.get("ETag") or fs.ukey(path)  # fsspec takes files behind HTTP for unchanging
            key = f"{url}\n{version}\n{info['size']}".encode()
            name = hashlib.blake2b(key, digest_size=16).hexdigest()
            self._known[url] = self.folder / name, int(info["size"] or 0)
        return self._known[url]

    @contextmanager
    def _lock(self, path: Path, wait: bool) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{path.name[:2]}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield

    def _download(self, url: str, target: Path, size: int) -> _File:
        self._make_room(size)
        part = target.with_suffix(".part")
        try:
            fs, path = _remote(url)
            fs.get_file(path, str(part))
            file = _File(part).touch()
            if size and file.size != size:
                raise MediaError(f"the download ended after {file.size} of {size} bytes: check the network")
            os.fsync(file.descriptor)  # a power cut must not leave a name without its bytes
            os.replace(part, target)
            return file
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Delete what was used least recently, so that `size` bytes more may be kept."""
        if self.keep is None:
            return
        if size > self.keep:
            raise MediaError(f"its {size} bytes do not fit into a cache of {self.keep}: let it keep more")
        room = self.keep - size
        for _, taken, path in sorted(self._copies(), reverse=True):
            room -= taken
            if room < 0:
                Path(path).unlink(missing_ok=True)

    def _copies(self) -> Iterator[tuple[int, int, str]]:
        """(time of last use, bytes, path) of every copy."""
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):  # another process makes room, too
                if "." not in entry.name:
                    yield entry.stat().st_mtime_ns, entry.stat().st_size, entry.path


def _fetch(shards: Cache, wanted: deque[str]) -> None:
    """Download what is `wanted` until nothing is."""
    while True:
        try:
            url = wanted.popleft()
        except IndexError:
            return
        with suppress(Exception):  # whoever reads it will be told
            shards.copy(url, wait=False)


def _is_url(path: str) -> bool:
    return "://" in path


def _remote(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path there."""
    fs, path = importlib.import_module("fsspec.core").url_to_fs(url)  # 0.1 s that local shards do not need
    return fs, path


def _range(url: str, begin: int, size: int) -> bytes:
    fs, path = _remote(url)
    data = bytes(fs.cat_file(path, start=begin, end=begin + size))
    if len(data) > size:
        raise MediaError("its server sends whole files only: have the store keep whole shards")
    return data
