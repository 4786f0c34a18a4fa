"""The catalog's files: one Parquet table to exchange and an Arrow IPC copy beside it that processes memory-map."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("key", pa.large_string()),
        ("path", pa.large_string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("label", pa.int64()),
        ("split", pa.large_string()),
        ("weight", pa.float64()),
        ("member", pa.int64()),  # null: `path` is a media file, not a shard
        ("video_codec", pa.large_string()),  # null: no picture; so are all video_ columns then
        ("video_width", pa.int32()),
        ("video_height", pa.int32()),
        ("video_rotation", pa.int32()),
        ("video_fps", pa.float64()),
        ("video_vfr", pa.bool_()),
        ("video_start", pa.float64()),
        ("video_duration", pa.float64()),
        ("video_pixel_format", pa.large_string()),
        ("video_declared", pa.bool_()),
        ("video_display_width", pa.int32()),
        ("video_display_height", pa.int32()),
        ("audio_codec", pa.large_string()),  # null: no sound
        ("audio_rate", pa.int32()),
        ("audio_channels", pa.int32()),
        ("audio_start", pa.float64()),
        ("audio_duration", pa.float64()),
        ("audio_level_db", pa.float64()),
        ("audio_declared", pa.bool_()),
    ]
)
LATER = {"member": None, "video_display_width": 0, "video_display_height": 0}  # not in the first catalogs
LABELS, STAMP = b"coaug.labels", b"coaug.stamp"


class CatalogError(ValueError):
    """A catalog that cannot be built or used; the message says which file and what to do."""


def write(table: pa.Table, path: Path) -> None:
    """Writes `table` as Parquet to `path` and its Arrow twin beside it; a reader sees either the old or the new.

    A catalog that holds just this already is left alone: a run may be using it.
    """
    if _holds(path, table):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
    _write_twin(table, path)


def _holds(path: Path, table: pa.Table) -> bool:
    try:
        there, _ = load(path)
    except CatalogError:
        return False
    return label_names(there) == label_names(table) and bool(there.equals(table))


def replace(path: Path, fill: Callable[[str], None]) -> None:
    """Has `fill` write a temporary neighbour of `path` and moves it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fill(str(temporary))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> tuple[pa.Table, str]:
    """The table of a Parquet file (or its .arrow twin), memory-mapped, and a stamp that changes with the file.

    Raises:
        CatalogError: no such file, not a catalog, or columns missing.
    """
    parquet, twin = path.with_suffix(".parquet"), path.with_suffix(".arrow")
    if not parquet.exists() and not twin.exists():
        raise CatalogError(f"no catalog {parquet}: build one with `coaug index FOLDER --out {parquet}`")
    if not parquet.exists():
        return _map(twin), _stamp(twin)
    stamp = _stamp(parquet)
    if twin.exists() and (table := _fresh(twin, stamp)) is not None:
        return table, stamp
    table = _read(parquet)
    try:
        _write_twin(table, parquet)
    except OSError:  # a read-only folder: this process keeps its own copy in memory
        return table, stamp
    return _map(twin), stamp


def label_names(table: pa.Table) -> tuple[str, ...]:
    """Names of the labels 0, 1, ... that the table was written with."""
    return tuple(json.loads((table.schema.metadata or {}).get(LABELS, b"[]")))


def with_labels(table: pa.Table, names: tuple[str, ...]) -> pa.Table:
    """`table` carrying `names` in its schema."""
    return table.replace_schema_metadata({LABELS: json.dumps(names)})


@lru_cache(maxsize=1024)  # samples of a pack name few shards
def beside(catalog: Path, path: str) -> str:
    """A shard's path as its catalog names it: relative to the catalog's folder, unless absolute or a URL."""
    return path if "://" in path else str(catalog.parent / path)


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"


def _fresh(twin: Path, stamp: str) -> pa.Table | None:
    """The twin, if it was made from the Parquet file of this stamp."""
    try:
        table = _map(twin)
    except CatalogError:
        return None
    return table if (table.schema.metadata or {}).get(STAMP) == stamp.encode() else None


def _write_twin(table: pa.Table, parquet: Path) -> None:
    metadata = {**(table.schema.metadata or {}), STAMP: _stamp(parquet)}
    table = table.replace_schema_metadata(metadata).combine_chunks()

    def fill(name: str) -> None:
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)  # one record batch, so that every column is one array

    replace(parquet.with_suffix(".arrow"), fill)


def _map(twin: Path) -> pa.Table:
    try:
        return _checked(pa.ipc.open_file(pa.memory_map(str(twin))).read_all(), twin)
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{twin}: not an Arrow catalog ({_short(error)}); delete it") from None


def _read(parquet: Path) -> pa.Table:
    try:
        table = _checked(pq.read_table(parquet), parquet)
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{parquet}: not a Parquet catalog ({_short(error)}); index again") from None
    return table.combine_chunks()


def _checked(table: pa.Table, path: Path) -> pa.Table:
    for name in LATER.keys() - set(table.column_names):
        table = table.append_column(name, pa.array([LATER[name]] * table.num_rows, SCHEMA.field(name).type))
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise CatalogError(f"{path}: not a coaug catalog, it lacks column {missing[0]!r}; index again")
    try:
        return table.select(SCHEMA.names).cast(SCHEMA.with_metadata(table.schema.metadata))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CatalogError(f"{path}: a column has the wrong type ({_short(error)})") from None


def _short(error: Any) -> str:
    return " ".join(str(error).split())[:120]
