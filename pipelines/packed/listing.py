"""The catalog of a pack: the rows of the one that was packed, with where and as what each recording lies there now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import table as files
from ..catalog import Catalog
from .index import ShardIndex

Array = NDArray[Any]


def write(catalog: Catalog, shards: Sequence[Path], path: Path) -> int:
    """Writes the catalog of `shards`, beside them, to `path`; how many recordings it has.

    Ids, windows, labels and splits are those of `catalog`, so that plans and saved states carry over.
    """
    found = [_columns(shard) for shard in shards]
    packed = {name: np.concatenate([columns[name] for columns in found]) for name in found[0]}
    order, rows = _matched(catalog.ids, packed.pop("id"))
    table, _ = files.load(catalog.path)
    names = files.label_names(table)
    table = table.take(pa.array(rows))
    columns = {name: values[order].tolist() for name, values in packed.items()} | _display(catalog, rows)
    for name, values in columns.items():
        table = _set(table, name, values)
    files.write(files.with_labels(table, names), path)
    return len(rows)


def _matched(ids: Array, packed: Array) -> tuple[Array, Array]:
    """(packed samples in the catalog's order, their rows of the catalog)."""
    by_id = np.argsort(ids, kind="stable")
    rows = by_id[np.searchsorted(ids[by_id], packed)]
    order = np.argsort(rows, kind="stable")
    return order, rows[order]


def _columns(shard: Path) -> dict[str, Array]:
    """The new values of the catalog's columns for the samples of one shard; None where there is no such stream."""
    index = ShardIndex(shard.with_suffix(".arrow"))
    count = len(index)
    seen, heard = index.column("video_codec") != "", index.column("audio_codec") != ""

    def where(there: Array, values: Any) -> Array:
        chosen = np.full(count, None, object)
        chosen[there] = np.broadcast_to(values, count)[there]
        return chosen

    return {
        "id": index.column("id"),
        "path": np.full(count, shard.name, object),
        "member": np.arange(count),
        "video_codec": where(seen, index.column("video_codec")),
        "video_width": where(seen, index.column("video_width")),
        "video_height": where(seen, index.column("video_height")),
        "video_rotation": where(seen, index.column("video_rotation")),
        "video_pixel_format": where(seen, index.column("pixel_format")),
        "video_declared": where(seen, True),
        "audio_codec": where(heard, index.column("audio_codec")),
        "audio_channels": where(heard, 1),
        "audio_declared": where(heard, True),
    }


def _display(catalog: Catalog, rows: Array) -> dict[str, list[Any]]:
    sizes = [video.upright if (video := catalog[int(row)].video) else (None, None) for row in rows]
    return dict(
        zip(("video_display_width", "video_display_height"), map(list, zip(*sizes, strict=True)), strict=True)
    )


def _set(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    place = files.SCHEMA.get_field_index(name)
    kind = files.SCHEMA.field(place)
    return table.set_column(place, kind, pa.array(values, kind.type))
