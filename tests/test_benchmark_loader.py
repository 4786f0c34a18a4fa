"""The loader's benchmark: all rows are asked for the loader's own clips, and what is printed is what was measured."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coaug.pipelines.catalog import Catalog
from coaug.pipelines.index import index

FOLDER = str(Path(__file__).parents[1] / "benchmarks")
KEYS = {"name", "clips_per_s", "clips_per_cpu_s", "decoded_per_shown", "p50_ms", "p99_ms", "rss_mb"}


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    import films

    small = replace(films.FILMS["h264.mp4"], size=(64, 48), seconds=6, count=4)
    monkeypatch.setitem(sys.modules["films"].FILMS, "h264.mp4", small)
    return Catalog.open(
        index(films.made("h264.mp4", tmp_path), tmp_path / "h264-0.parquet", progress=False).path
    )


def test_the_clips_asked_for_are_the_loaders(films: Catalog) -> None:
    from rows.ours import Loaded
    from rows.request import CONFIGS, batches

    config = CONFIGS["two views"]
    loaded, asked = Loaded(films, config, 2), batches(films, config, 2)
    for _ in range(3):
        requests = next(asked)
        ready = loaded(requests)
        assert ready.sample_id.tolist() == [r.recording.id for r in requests]
        times, pts = np.stack([r.times for r in requests]), ready.video_pts.numpy()
        assert ((pts <= times + 1e-6) & (times < pts + 1 / 30 + 1e-3)).all()
        heard = np.stack([r.heard for r in requests])
        np.testing.assert_allclose(ready.audio_pts.numpy(), heard, atol=4 / 24000)


def test_the_ceiling_decodes_what_the_loader_decodes(films: Catalog) -> None:
    from rows.ceiling import DecodeOnly
    from rows.request import CONFIGS, batches

    from coaug.pipelines.bans import Bans
    from coaug.pipelines.schedule import Schedule
    from coaug.pipelines.source import Source

    config = CONFIGS["two views"]
    source = Source(films, config, Schedule(len(films), len(films), 1), Bans())
    costs = np.array([source.sample(0, 0, n)["cost"] for n in range(len(films))]).sum(0)
    ceiling, batch = DecodeOnly(films, config, len(films)), next(batches(films, config, len(films)))
    ceiling.prepare(batch)
    ceiling(batch)
    assert ceiling.decoded == costs[0] > costs[1]
    assert all(len(sounds) > 30 for *_, sounds in ceiling.ready)  # a second of sound at least


@given(st.floats(0.1, 10), st.lists(st.floats(0.5, 2), min_size=2, max_size=12))
def test_a_ratio_that_never_changes_is_certain(factor: float, rates: list[float]) -> None:
    from measure import ratio

    assert ratio([factor * r for r in rates], rates) == pytest.approx((factor,) * 3)


def test_the_interval_holds_the_true_ratio_in_most_runs() -> None:
    from measure import ratio

    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        noise = np.exp(rng.normal(0, 0.1, (2, 9)))
        middle, low, high = ratio((2 * noise[0]).tolist(), noise[1].tolist())
        assert low <= middle <= high
        hits += low <= 2 <= high
    assert hits >= 180


def test_rows_are_what_the_passes_say() -> None:
    from measure import row_of
    from rows.worker import Passed

    passes = [
        Passed(10, cpu, 2 * cpu, (cpu, 3 * cpu), 4.0, rss) for cpu, rss in ((1, 5.0), (2, 7.0), (4, 6.0))
    ]
    row = row_of("x", passes)
    assert set(row) == KEYS
    assert (row["clips_per_cpu_s"], row["clips_per_s"], row["decoded_per_shown"], row["rss_mb"]) == (
        5,
        2.5,
        4,
        7,
    )
    assert (row["p50_ms"], row["p99_ms"]) == pytest.approx(
        (3500, np.percentile([1, 3, 2, 6, 4, 12], 99) * 1e3)
    )


def test_rows_run_in_processes_of_their_own_and_are_left_out_with_a_reason(
    films: Catalog, tmp_path: Path
) -> None:
    from measure import measured, row_of
    from report import chart, write
    from rows.worker import Job

    job = Job("cached", films.path, "one view", 2, frozenset({0}))
    jobs = {"cached": job, "decode only": replace(job, row="decode only"), "DALI": replace(job, row="DALI")}
    said: list[str] = []
    passes = measured(jobs, repeats=2, steps=1, say=said.append)
    assert list(passes) == ["cached", "decode only"]
    assert len(said) == 1 and "DALI: left out: RuntimeError: DALI decodes h264 on NVIDIA GPUs only" in said[0]
    rows = [row_of(name, found) | {"views": "one view"} for name, found in passes.items()]
    assert rows[0]["clips_per_cpu_s"] > rows[1]["clips_per_cpu_s"]
    write(rows, tmp_path / "rows.json", tmp_path / "rows.csv")
    read: list[dict[str, Any]] = json.loads((tmp_path / "rows.json").read_text())
    assert read == rows and all(row.keys() >= KEYS for row in read)
    with (tmp_path / "rows.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["cached", "decode only"]
    chart(rows, tmp_path / "rows.png")
    assert (tmp_path / "rows.png").read_bytes()[:4] == b"\x89PNG"
