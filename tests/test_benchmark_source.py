"""The source's benchmark compares ways to the same frames."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with films that are small and short."""
    monkeypatch.syspath_prepend(FOLDER)
    import films
    import source

    for name, film in films.FILMS.items():
        small = replace(film, size=(64, 48), seconds=3, count=2)
        monkeypatch.setitem(sys.modules["films"].FILMS, name, small)
    return source


@pytest.mark.parametrize("name", ["vp9.webm", "mjpeg.mkv"])
def test_slices_show_what_whole_files_show(benchmark: ModuleType, name: str, tmp_path: Path) -> None:
    ways = [
        benchmark.decoded(make, benchmark.windows(name, tmp_path))
        for make in (benchmark.whole, benchmark.sliced)
    ]
    (theirs,), (ours,) = (way() for way in ways)
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert np.asarray(theirs[0]).shape == (16, 48, 64, 3)


def test_the_ceiling_decodes_the_packets_of_the_source(benchmark: ModuleType, tmp_path: Path) -> None:
    paths = benchmark.made("h264.mp4", tmp_path)
    catalog = benchmark.Catalog.open(benchmark.index(paths, tmp_path / "films.parquet", progress=False).path)
    alone, sourced = benchmark.Alone(catalog), benchmark.Sourced(catalog)
    alone.prepare()
    alone()
    sourced()
    pictures = sum(len(run) for streams in alone.ready for run in streams[0][1])
    assert pictures == sourced.decoded > sourced.shown
    assert all(len(runs[0]) > 30 for _, (_, runs) in alone.ready)  # a second of sound at least
