"""Catalogs for the tests of the loader, written straight from files, without the index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from coaug.pipelines import probe, table
from coaug.pipelines.catalog import Catalog
from coaug.pipelines.recording import Recording, sample_id, table_of


def recording(path: str | Path, key: str = "", label: int = 0) -> Recording:
    """The whole of a file, in which both of its streams have data."""
    found = probe.probe(str(path))
    assert isinstance(found, probe.Probe), found
    streams = [s for s in (found.video, found.audio) if s is not None]
    start, end = max(s.start for s in streams), min(s.start + s.duration for s in streams)
    key = key or Path(path).name
    return Recording(sample_id(key), key, str(path), start, end, label, "train", found.video, found.audio)


def write(path: Path, recordings: Iterable[Recording]) -> Catalog:
    """A catalog of `recordings` at `path` (x.parquet), opened."""
    table.write(table_of(recordings, ["one"]), path)
    return Catalog.open(path)


def repeated(paths: Sequence[Path], count: int) -> list[Recording]:
    """`count` recordings with ids of their own that share the files in turn."""
    known = [recording(path) for path in paths]
    rows = (known[i % len(known)] for i in range(count))
    return [replace(r, id=sample_id(f"r{i}"), key=f"r{i}", label=i) for i, r in enumerate(rows)]
