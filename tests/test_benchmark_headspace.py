"""The headspace analysis: replayed batches, its arithmetic, and a small run from files to rows."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType

import catalogs
import numpy as np
import pytest
import torch
import toy
from media import write_clip

from coaug.engine import run_config
from coaug.engine.distributed import Ranks
from coaug.engine.parts import epochs
from coaug.pipelines.batch import Batch
from coaug.pipelines.catalog import Catalog

FOLDER = str(Path(__file__).parents[1] / "benchmarks")
SMALL = [
    *("data.video.frames=4", "data.video.size=32", "model.width=4", "train.batch=4", "train.split=null"),
    *("train.workers=1", "train.epochs=1"),
]
KEYS = {"name", "clips_per_s", "clips_per_cpu_s", "decoded_per_shown", "p50_ms", "p99_ms", "rss_mb", "share"}


@pytest.fixture
def headspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script."""
    monkeypatch.syspath_prepend(FOLDER)
    import headspace

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield headspace
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Eight recordings of 2 s."""
    folder = tmp_path_factory.mktemp("films")
    file = write_clip(folder / "film.mp4", frames=40, fps=20).path
    return catalogs.write(folder / "films.parquet", catalogs.repeated([file], 8))


def ids(batches: list[Batch]) -> list[list[int]]:
    return [batch.sample_id.tolist() for batch in batches]


def test_replayed_batches_come_again_in_order(headspace: ModuleType) -> None:
    replayed, same = headspace.Replayed(toy.ToyLoader(8), 3), toy.ToyLoader(8)
    assert len(replayed) == len(same) == 5
    assert ids(replayed.batches) == ids(list(islice(epochs(same), 3)))
    shown = islice(epochs(replayed), 7)  # across the end of an epoch
    assert all(batch is replayed.batches[n % 3] for n, batch in enumerate(shown))


def test_the_trainers_step_takes_them_and_leaves_them_as_they_are(
    headspace: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    toy.install(monkeypatch.setattr)
    config = run_config.load({"method": "toy", "train": {"epochs": 1, "batch": 8, "precision": "fp32"}})
    replayed = headspace.Replayed(toy.ToyLoader(8), 2)
    kept = [batch.video.clone() for batch in replayed.batches]
    step = headspace.trainer(config, replayed, Ranks(0, 1, torch.device("cpu")), tmp_path)
    rows = [step(batch) for batch in islice(epochs(replayed), 7)]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 1, 2]  # over and over the run's schedule
    assert len({row["loss"] for row in rows}) == 7  # the same batches, other parameters
    assert all(torch.equal(b.video, before) for b, before in zip(replayed.batches, kept, strict=True))


def segment(headspace: ModuleType, *seconds: float, cpu: float = 1.0) -> object:
    return headspace.Segment(list(seconds), 0.1 * sum(seconds), cpu, 100.0)


def test_figures_of_known_segments(headspace: ModuleType) -> None:
    passes = [segment(headspace, 1.0, 3.0), segment(headspace, 2.0, 2.0), segment(headspace, 5.0, 9.0)]
    found = headspace.figures(passes, clips=8)
    assert found["clips_per_s"] == 8 / 2  # of the median pass, two seconds a step
    assert found["clips_per_cpu_s"] == 8 / 0.5
    assert found["p50_ms"] == 2500
    assert found["data_wait"] == pytest.approx(0.1)
    assert found["rss_mb"] == 100


def test_a_known_share_lies_inside_its_interval(headspace: ModuleType) -> None:
    rng = np.random.default_rng(1)
    drift = rng.uniform(1, 2, 15)  # of the machine, in both ways
    noise = rng.normal(1, 0.02, 15)
    best = [segment(headspace, float(d)) for d in drift]
    found = headspace.share(
        [segment(headspace, float(d * n / 0.9)) for d, n in zip(drift, noise, strict=True)], best
    )
    assert found["low"] < 0.9 < found["high"] < found["low"] + 0.05
    assert found["low"] <= found["share"] <= found["high"]


def test_a_way_is_as_fast_as_itself(headspace: ModuleType) -> None:
    passes = [segment(headspace, s) for s in (1.0, 4.0, 2.0)]
    assert headspace.share(passes, passes) == {"share": 1.0, "low": 1.0, "high": 1.0}


@pytest.mark.parametrize(
    ("seconds", "training", "loading", "cores", "expected"),
    [
        (1.0, 2.0, 0.5, 2, 2.0 / 2.5),  # training on both cores: training / (training + loading)
        (1.0, 1.0, 0.7, 2, 1.0),  # a core to itself is enough for the loader
        (1.0, 1.0, 3.0, 2, 0.5),
        (1.0, 1.0, 8.0, 16, 1.0),
    ],
)
def test_bound(
    headspace: ModuleType, seconds: float, training: float, loading: float, cores: int, expected: float
) -> None:
    assert headspace.bound(seconds, training, loading, cores) == pytest.approx(expected)


def test_cpu_seconds_are_those_of_all_threads(headspace: ModuleType) -> None:
    before, ours = time.process_time(), headspace.cpu_seconds(os.getpid())
    assert 0 < before <= ours <= time.process_time()
    assert headspace.cpu_seconds(1 << 22) == 0.0  # no such process


@pytest.mark.slow
def test_from_files_to_rows(headspace: ModuleType, films: Catalog, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    arguments = ["svaclr-demo", *SMALL, "--data", str(films.path), "--replay", "2", "--steps", "2"]
    headspace.main([*arguments, "--passes", "2", "--json", str(out)])
    rows = {row["name"]: row for row in json.loads(out.read_text())}
    assert list(rows)[:2] == ["coaug", "replayed"] and list(rows)[-1] == "coaug alone"
    for row in rows.values():
        assert set(row) >= KEYS
        assert all(row[key] > 0 for key in KEYS - {"name", "decoded_per_shown"})
    assert rows["coaug"]["decoded_per_shown"] >= 1 and rows["replayed"]["decoded_per_shown"] == 0
    assert rows["replayed"]["share"] == 1 and 0 < rows["coaug"]["bound"] <= 1
    assert multiprocessing.active_children() == []  # the loaders are closed
