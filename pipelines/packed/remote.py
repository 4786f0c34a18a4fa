"""Packs behind a URL: their catalog, made to name its shards by URL."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from .. import table as files
from ..media import reason
from ..table import CatalogError

NAME = "catalog.parquet"


def fetched(url: str, folder: Path) -> Path:
    """A copy below `folder` of the catalog of the pack at `url` (its folder, or the catalog itself).

    Only the catalog is fetched; a loader fetches indexes and shards, or parts of these, when it needs them.

    Raises:
        CatalogError: it cannot be fetched, or is no catalog of a pack.
    """
    url = url if url.endswith(".parquet") else f"{url.rstrip('/')}/{NAME}"
    base, _, _ = url.rpartition("/")
    table = _read(url)
    if table["member"].null_count:
        raise CatalogError(f"{url}: not the catalog of a pack: its recordings are files of another machine")
    paths = [path if "://" in path else f"{base}/{path}" for path in table["path"].to_pylist()]
    place = table.schema.get_field_index("path")
    table = table.set_column(place, table.schema.field(place), pa.array(paths, pa.large_string()))
    stem = f"{PurePosixPath(base).name}-{hashlib.blake2b(url.encode(), digest_size=4).hexdigest()}"
    path = folder / f"{stem}.parquet"
    files.write(table, path)
    return path


def _read(url: str) -> pa.Table:
    try:
        with importlib.import_module("fsspec").open(url, "rb") as stream:
            table = pq.read_table(pa.BufferReader(stream.read()))
    except Exception as error:  # fsspec's file systems raise what they like
        raise CatalogError(f"{url}: cannot be fetched ({' '.join(reason(error).split())[:200]})") from None
    if "member" not in table.column_names:
        raise CatalogError(f"{url}: not the catalog of a pack")
    return table
