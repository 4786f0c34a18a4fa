"""A shard's index: where every packet of every sample lies and when it plays, memory-mapped.

One Arrow IPC file beside each tar file. A row is a sample, in the order of the tar file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from ..disposable import Use
from ..media import MediaError
from ..packets import PacketTable
from ..table import replace

LISTS = {
    "video_at": np.int32,  # bytes from the sample's `begin`
    "video_size": np.int32,  # bytes
    "video_pts": np.int64,  # ticks of the source's time base
    "video_flags": np.uint8,
    "video_level": np.uint8,  # 0: a key frame; 1: others refer to it; 2: nothing does
    "video_fills": np.int16,  # `Use`: what may refer to what
    "video_reads": np.int16,
    "video_ends": np.int16,
    "audio_at": np.int32,
    "audio_size": np.int32,
    "audio_samples": np.int32,
}
NUMBERS = {
    "id": np.int64,
    "begin": np.int64,  # bytes of the tar file: where the sample's first header lies
    "size": np.int64,
    "check": np.int64,  # CRC-32 of these bytes
    "video_width": np.int32,
    "video_height": np.int32,
    "video_rotation": np.int32,  # still to be turned: only where packets are the source's own
    "video_num": np.int64,  # of the time base, a fraction of a second
    "video_den": np.int64,
    "audio_rate": np.int32,
    "audio_first": np.int64,  # number of the first sample: sample k plays at k / rate seconds
}
TEXTS = ("video_codec", "audio_codec", "pixel_format")  # FFmpeg's names, "" where there is no such stream
BYTES = ("video_extradata", "audio_extradata")
SCHEMA = pa.schema(
    [
        *((name, pa.from_numpy_dtype(kind)) for name, kind in NUMBERS.items()),
        *((name, pa.large_string()) for name in TEXTS),
        *((name, pa.large_binary()) for name in BYTES),
        *((name, pa.large_list(pa.from_numpy_dtype(kind))) for name, kind in LISTS.items()),
    ]
)
KEY, SHOWN = 1, 2  # bits of video_flags
Row = Mapping[str, Any]


def write(rows: Iterable[Row], path: Path) -> None:
    """Writes an index; a reader sees either none or all of it."""
    table = pa.Table.from_pylist([dict(row) for row in rows], SCHEMA).combine_chunks()

    def fill(name: str) -> None:
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            writer.write_table(table)

    replace(path, fill)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """All rows of an index, as they were written. Raises MediaError."""
    rows: list[dict[str, Any]] = _map(path).to_pylist()
    return rows


@dataclass(frozen=True)
class Sample:
    """One row: numbers and texts by name, lists as arrays that lie in the mapped file."""

    row: dict[str, Any]
    lists: dict[str, NDArray[Any]]

    @cached_property
    def pictures(self) -> PacketTable:
        """The packets of the pictures."""
        flags = self.lists["video_flags"]
        tick = self.row["video_num"] / self.row["video_den"]
        return PacketTable(self.lists["video_pts"], flags & KEY > 0, flags & SHOWN > 0, tick)

    @cached_property
    def simple(self) -> bool:
        """Whether all packets read one place only, as in H.264: what fills it, as key frames do, is of use to all later
        ones, and the rest to none."""
        fills, reads = self.lists["video_fills"], self.lists["video_reads"]
        return bool(
            (reads == 1).all()
            and (fills[self.pictures.key] == 1).all()
            and not self.lists["video_ends"].any()
        )

    def uses(self, places: NDArray[np.intp]) -> list[Use]:
        """What the packets at `places` are good for."""
        columns = [self.lists[f"video_{name}"][places].tolist() for name in Use._fields]
        return list(map(Use, *columns))


class ShardIndex:
    """An open index. Raises MediaError where the file is none."""

    def __init__(self, path: Path) -> None:
        table = _map(path)
        self.length: int = table.num_rows
        with _undamaged():
            self._arrays = {name: _one(table, name) for name in SCHEMA.names}
            self._numbers = {name: _values(self._arrays[name], kind) for name, kind in NUMBERS.items()}
            self._lists = {name: _list(self._arrays[name], kind) for name, kind in LISTS.items()}

    def __len__(self) -> int:
        return self.length

    def column(self, name: str) -> NDArray[Any]:
        """(n,) numbers or texts of all samples."""
        if name in self._numbers:
            return self._numbers[name]
        return np.array(self._arrays[name].to_pylist(), object)

    def __getitem__(self, number: int) -> Sample:
        if not 0 <= number < self.length:
            raise MediaError(f"the shard's index has no row {number}: pack again")
        row: dict[str, Any] = {name: values[number].item() for name, values in self._numbers.items()}
        with _undamaged():
            row |= {name: self._arrays[name][number].as_py() for name in TEXTS + BYTES}
        lists = {
            name: values[offsets[number] : offsets[number + 1]]
            for name, (offsets, values) in self._lists.items()
        }
        return Sample(row, lists)


@contextmanager
def _undamaged() -> Iterator[None]:
    """Makes a MediaError of numbers and texts that cannot be."""
    try:
        yield
    except ValueError as error:
        raise MediaError(f"the shard's index is damaged ({error}): pack again") from None


def _map(path: Path) -> pa.Table:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate(full=True)  # Arrow crashes on offsets that lead nowhere
        return table if table.schema.equals(SCHEMA) else table.select(SCHEMA.names).cast(SCHEMA)
    except (ValueError, NotImplementedError, KeyError, OSError) as error:  # Arrow's own are among these
        words = " ".join(str(error).split())[:120]
        raise MediaError(f"{path.name} is no index of a shard ({words}): pack again") from None


def _one(table: pa.Table, name: str) -> Any:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _values(array: Any, kind: type) -> NDArray[Any]:
    """A column of numbers, no copy."""
    size = np.dtype(kind).itemsize
    return np.frombuffer(array.buffers()[1] or b"", kind, len(array), array.offset * size)


def _list(array: Any, kind: type) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """(offsets, values) of a column of lists, no copy."""
    offsets = np.frombuffer(array.buffers()[1], np.int64, len(array) + 1, array.offset * 8)
    return offsets, _values(array.values, kind)
