"""The kernels' benchmark compares like with like: every row that claims to be exact gives what ours gives."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

FOLDER = str(Path(__file__).parents[1] / "benchmarks")
SIZES = {
    "agreement_topk": 300,
    "soft_infonce": 40,
    "bank_scores": 500,
    "nce_loss": 500,
    "queue_neighbors": 400,
}


@pytest.fixture(scope="module")
def rows() -> Iterator[ModuleType]:
    sys.path.insert(0, FOLDER)
    try:
        yield import_module("kernel_rows")
    finally:
        sys.path.remove(FOLDER)


def arrays(name: str, found: Any) -> tuple[Any, ...]:
    """What a way returned, in an order that all ways share: indices only, where one gives no more."""
    parts = [np.asarray(x) for x in ((found,) if isinstance(found, torch.Tensor | np.ndarray) else found)]
    if name == "agreement_topk":
        return (np.sort(parts[-1], axis=1),)
    if name == "queue_neighbors":  # the band in any order
        order = np.argsort(parts[3], axis=1)
        return (*parts[:2], *(np.take_along_axis(x, order, 1) for x in parts[2:]))
    return tuple(parts)


def outputs(rows: ModuleType, name: str, case: Any) -> dict[str, tuple[Any, ...]]:
    file = rows.kernel(name)
    given = file.inputs(case)
    with mock.patch.object(torch, "compile", lambda function: function):  # its answer is torch's affair
        return {impl: arrays(name, way.make(given, case)()) for impl, way in file.IMPLS.items() if way.exact}


@pytest.mark.parametrize("name", list(SIZES))
def test_every_way_gives_what_ours_gives(
    rows: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coaug.kernels.bank_draw import sample_negatives

    nce = import_module("kernel_rows.nce")
    monkeypatch.setattr(nce, "drawn", lambda own, n, k: sample_negatives(own, n, k, seed=nce.SEED, step=0))
    found = outputs(rows, name, rows.Case(SIZES[name]))
    ours = found.pop("coaug")
    assert len(found) >= 2
    for impl, theirs in found.items():
        for x, y in zip(ours, theirs, strict=True):
            if np.issubdtype(x.dtype, np.integer):
                assert (x == y).all(), impl
            else:
                np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-4 * np.abs(x).max(), err_msg=impl)


def test_some_queries_are_the_first_ones(rows: ModuleType) -> None:
    found = outputs(rows, "agreement_topk", rows.Case(300, queries=70))
    whole = outputs(rows, "agreement_topk", rows.Case(300))["coaug"]
    for theirs in found.values():
        assert (theirs[0] == whole[0][:70]).all()


@pytest.mark.parametrize("name", list(SIZES))
def test_ways_that_compute_something_less_run(rows: ModuleType, name: str) -> None:
    file, case = rows.kernel(name), rows.Case(64)
    for way in (way for way in file.IMPLS.values() if not way.exact):
        with suppress(ImportError, rows.Unavailable):  # FAISS and Inf-CL, and what only GPUs do
            way.make(file.inputs(case), case)()


def test_targets_name_rows(rows: ModuleType) -> None:
    for name in rows.KERNELS:
        file = rows.kernel(name)
        assert next(iter(file.IMPLS)) == rows.OURS
        assert {target.impl for target in file.TARGETS} <= {"", *file.IMPLS}


def test_the_command(rows: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.json"
    options = ["--kernel", "queue_neighbors", "--n", "256", "--repeats", "2", "--threads", "1"]
    monkeypatch.setattr(
        sys, "argv", ["kernels.py", *options, "--impl", "coaug", "torch.sort", "--json", str(out)]
    )
    import_module("kernels").main()
    found = json.loads(out.read_text())
    assert [row["impl"] for row in found] == ["coaug", "torch.sort"]
    for row in found:
        assert (row["kernel"], row["n"], row["k"], row["threads"]) == ("queue_neighbors", 256, 64, 1)
        assert row["ms"] > 0 and row["cpu_ms"] > 0 and row["peak_mb"] >= 0
        assert len(row["x ours"]) == 3 and row["torch"]
    assert found[0]["x ours"] == [1, 1, 1]


def test_targets_are_told_from_figures(rows: ModuleType) -> None:
    verdict, target = import_module("kernels").verdict, rows.Target
    row = {"ms": 80.0, "peak_mb": 100.0, "x ours": (3.0, 2.0, 4.0)}
    assert not verdict(target("", 75), row, row)["met"]
    assert verdict(target("", 85), row, row)["met"]
    assert verdict(target("torch", 3), row, row)["met"]
    assert not verdict(target("torch", 3.1), row, row)["met"]
    assert verdict(target("torch", 50, figure="peak_mb"), row, {"peak_mb": 2.0})["met"]
    assert not verdict(target("torch", 50, figure="peak_mb"), row, {"peak_mb": 2.1})["met"]
