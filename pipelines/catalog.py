"""What recordings exist: a memory-mapped table of probed media files, filtered by row numbers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from . import table as files
from .config import Modality
from .recording import AudioStream, Recording, VideoStream
from .table import CatalogError

__all__ = ["Catalog", "CatalogError"]


# columns, in the order of the fields
OWN = [f.name for f in fields(Recording) if f.name not in ("video", "audio")]
VIDEO, AUDIO = (
    [f"{side}_{f.name}" for f in fields(stream)]
    for side, stream in (("video", VideoStream), ("audio", AudioStream))
)


class Catalog:
    """An immutable sequence of recordings. Opening costs no memory per row; `where` makes views of row numbers.

        catalog = Catalog.open("catalog.parquet").where(split="train", min_seconds=2.0)
        catalog[0].path, catalog.ids, catalog.excluded

    Pickles as its path and row numbers: a worker process memory-maps the same file.
    """

    def __init__(
        self, path: Path, table: pa.Table, stamp: str, rows: NDArray[np.int64] | None = None
    ) -> None:
        self.path = path
        self.excluded: dict[str, int] = {}
        """What the last `where` left out: reason -> number of recordings."""
        self.label_names = files.label_names(table)
        self._table, self._stamp, self._rows = table, stamp, rows
        self._latest: tuple[int, Recording] | None = None

    @classmethod
    def open(cls, path: str | Path) -> Catalog:
        """The catalog of a .parquet file or its .arrow twin, which is made anew when missing or out of date.

        Raises:
            CatalogError: one line saying what is wrong with the file.
        """
        path = Path(path).absolute()
        return cls(path, *files.load(path))

    def __len__(self) -> int:
        return self._table.num_rows if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Recording:
        if not -len(self) <= index < len(self):
            raise IndexError(f"recording {index} of {len(self)}")
        index = int(index) % len(self)
        row = index if self._rows is None else int(self._rows[index])
        latest = self._latest  # whoever plans a sample and whoever plays it ask for the same row
        if latest is None or latest[0] != row:
            latest = self._latest = row, self._read(row)
        return latest[1]

    def _read(self, row: int) -> Recording:
        def values(names: Sequence[str]) -> list[Any]:
            return [self._columns[name][row].as_py() for name in names]

        video, audio = values(VIDEO), values(AUDIO)
        # the codec stands first, and there is none where there is no stream
        streams: dict[str, Any] = {
            "video": None if video[0] is None else VideoStream(*video),
            "audio": None if audio[0] is None else AudioStream(*audio),
        }
        own = dict(zip(OWN, values(OWN), strict=True))
        if own["member"] is not None:
            own["path"] = files.beside(self.path, own["path"])
        return Recording(**own, **streams)

    def __iter__(self) -> Iterator[Recording]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Catalog({len(self)} recordings, {len(self.label_names)} labels, {str(self.path)!r})"

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """(N,) stable sample ids."""
        return self._array("id")

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) indices into `label_names`, -1 where unknown."""
        return self._array("label")

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """(N,) weight of the root folder that each recording came from."""
        return self._array("weight")

    @cached_property
    def durations(self) -> NDArray[np.float64]:
        """(N,) seconds."""
        seconds: NDArray[np.float64] = self._array("end") - self._array("start")
        return seconds

    @cached_property
    def file_numbers(self) -> NDArray[np.int64]:
        """(N,) a number for each recording's file or shard, an index into `file_names`."""
        return self._files[0]

    @cached_property
    def file_names(self) -> list[str]:
        """Paths or URLs by number."""
        return [files.beside(self.path, name) for name in self._files[1]]

    @cached_property
    def _files(self) -> tuple[NDArray[np.int64], list[str]]:
        found = pc.dictionary_encode(self._columns["path"])
        numbers = _numpy(found.indices).astype(np.int64)
        return numbers if self._rows is None else numbers[self._rows], found.dictionary.to_pylist()

    def codecs(self, *, packed: bool = False) -> dict[str, int]:
        """Video codec -> number of recordings, most first; `packed`: only of those that lie in shards."""
        column = self._columns["video_codec"]
        if packed:
            column = pc.if_else(pc.is_valid(self._columns["member"]), column, None)
        chosen = column if self._rows is None else column.take(pa.array(self._rows))
        counts = {c["values"]: c["counts"] for c in pc.value_counts(chosen.drop_null()).to_pylist()}
        return dict(Counter(counts).most_common())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the ids and windows, in order: equal catalogs plan equal batches."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("id", "start", "end"):
            digest.update(np.ascontiguousarray(self._array(name)).data)
        return digest.hexdigest()

    def where(
        self,
        split: str | None = None,
        modalities: Sequence[Modality] = ("video", "audio"),
        min_seconds: float = 0.0,
    ) -> Catalog:
        """The recordings of a split (None: all) that have these streams and last at least `min_seconds`."""
        tests: list[tuple[str, NDArray[np.bool_]]] = []
        if split is not None:
            tests.append((f"split is not {split!r}", self._mask(pc.equal(self._columns["split"], split))))
        for name in modalities:
            tests.append((f"no {name}", self._mask(pc.is_valid(self._columns[f"{name}_codec"]))))
        tests.append((f"shorter than {min_seconds:g} s", self.durations >= min_seconds - 1e-9))
        keep, excluded = np.ones(len(self), bool), {}
        for reason, passed in tests:
            if count := int(np.count_nonzero(keep & ~passed)):
                excluded[reason] = count
            keep &= passed
        view = self._view(np.flatnonzero(keep)) if excluded else self._view(None)
        view.excluded = excluded
        return view

    def rows(self, index: Sequence[int] | NDArray[np.int64]) -> Catalog:
        """The recordings at these places, in this order."""
        return self._view(np.asarray(index, np.int64))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self._stamp, self._rows, self.excluded)

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        return {name: _one_chunk(self._table.column(name)) for name in files.SCHEMA.names}

    def _array(self, name: str) -> NDArray[Any]:
        column = _numpy(self._columns[name])
        return column if self._rows is None else column[self._rows]

    def _mask(self, column: pa.Array) -> NDArray[np.bool_]:
        mask = _numpy(column.cast(pa.uint8())).view(np.bool_)
        return mask if self._rows is None else mask[self._rows]

    def _view(self, keep: NDArray[np.int64] | None) -> Catalog:
        rows = self._rows
        if keep is not None:
            rows = keep if rows is None else rows[keep]
        return Catalog(self.path, self._table, self._stamp, rows)


def _reopen(path: Path, stamp: str, rows: NDArray[np.int64] | None, excluded: dict[str, int]) -> Catalog:
    table, now = files.load(path)
    if now != stamp:
        raise CatalogError(f"{path} changed while it was in use; start again")
    catalog = Catalog(path, table, stamp, rows)
    catalog.excluded = excluded
    return catalog


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _numpy(column: pa.Array) -> NDArray[Any]:
    """A column of numbers without nulls, no copy; `Array.to_numpy` would import pandas first (1.3 s, 45 MB)."""
    dtype = np.dtype(column.type.to_pandas_dtype())
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)
