"""The shards of a pack: writes them, checks them, and opens their samples by number."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ..media import Deadline, MediaError
from ..table import replace
from . import index
from .clip import PackedMedia
from .decoders import Decoders
from .index import ShardIndex
from .members import END
from .store import Store

OPEN = 1024  # indexes that a process keeps mapped: 20 KB of objects each


def tar_name(number: int) -> str:
    """The file name of a shard; its index has the suffix .arrow."""
    return f"{number:05d}.tar"


def write(path: Path, samples: Iterable[tuple[Path, dict[str, Any]]]) -> None:
    """A shard of samples, each a file of tar entries and its row; a reader sees all of it or nothing.

    Raises:
        MediaError: what was written does not read as it was meant.
    """
    rows: list[dict[str, Any]] = []

    def fill(name: str) -> None:
        with open(name, "wb") as out:
            for entries, row in samples:
                rows.append(row | {"begin": out.tell()})
                out.write(entries.read_bytes())
            out.write(END)
            out.flush()
            os.fsync(out.fileno())
        with open(name, "rb") as written:
            check(written, rows)

    replace(path, fill)
    index.write(rows, path.with_suffix(".arrow"))  # comes last: where it is, the shard is whole


def check(shard: BinaryIO, rows: Iterable[dict[str, Any]]) -> None:
    """Compares the samples' bytes with their check sums. Raises MediaError."""
    for row in rows:
        shard.seek(row["begin"])
        data = shard.read(row["size"])
        if len(data) != row["size"] or zlib.crc32(data) != row["check"]:
            raise MediaError(f"sample {row['id']} is damaged on disk: pack this shard again")


class Shards:
    """Samples of any shards; in a worker process, files are opened anew."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store()
        self._decoders = Decoders()
        self._indexes: OrderedDict[str, ShardIndex] = OrderedDict()

    def media(self, path: str, member: int, deadline: Deadline) -> PackedMedia:
        """Sample number `member` of the shard at `path`, a file or a URL. Raises MediaError."""
        sample = self._index(path)[member]
        begin = sample.row["begin"]
        read = partial(self._read, path, begin)
        return PackedMedia(sample, read, deadline, self._decoders)

    def _read(self, path: str, begin: int, at: int, size: int) -> bytes:
        return self.store.read(path, begin + at, size)

    def _index(self, path: str) -> ShardIndex:
        if path in self._indexes:
            self._indexes.move_to_end(path)
            return self._indexes[path]
        found = ShardIndex(self.store.local(path.removesuffix(".tar") + ".arrow"))
        self._indexes[path] = found
        if len(self._indexes) > OPEN:
            self._indexes.popitem(last=False)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"])  # type: ignore[misc]
