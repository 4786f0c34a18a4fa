"""agreement_topk.cu and the code that launches it, run on the CPU: equal to float64 loops, in indices and values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cuda_on_cpu import Module, needs_compiler
from numpy.typing import NDArray
from torch import Tensor

from coaug.kernels import agreement_cuda, cuda
from coaug.kernels.agreement_cuda import Plan

pytestmark = needs_compiler

TENSOR, GENERAL = Plan(True, 32, 32), Plan(False, 64, 32)
plans = pytest.mark.parametrize("plan", [TENSOR, GENERAL], ids=["tensor", "general"])


@pytest.fixture(params=["forward", "reverse"], autouse=True)
def emulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches run on the CPU; a kernel without races does not care in which order threads run."""
    monkeypatch.setattr(cuda, "module", lambda name, **defines: Module(name, request.param, **defines))


def product(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """32 partial sums in the order of entries, added by halves."""
    lanes = np.zeros(32)
    for row in np.pad(x * y, (0, -len(x) % 32)).reshape(-1, 32):
        lanes += row
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return float(lanes[0])


def reference(
    tables: list[Tensor], k: int, mode: str, queries: list[int], exclude_self: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    values, rows = np.full((len(queries), k), -np.inf), np.full((len(queries), k), -1)
    arrays = [x.double().numpy() for x in tables]
    for q, i in enumerate(queries):
        others = [j for j in range(len(arrays[0])) if not (exclude_self and j == i)]
        scores = {j: (max if mode == "max" else min)(product(x[i], x[j]) for x in arrays) for j in others}
        best = sorted(others, key=lambda j: (-scores[j], j))[:k]
        values[q, : len(best)], rows[q, : len(best)] = [scores[j] for j in best], best
    return values.astype(np.float32), rows


def check(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, tables: list[Tensor], k: int, mode: str = "min",
    queries: list[int] | None = None, exclude_self: bool = True, splits: int = 1,
) -> None:  # fmt: skip
    monkeypatch.setattr(agreement_cuda, "gpu", lambda device: (4, 227 << 10))
    monkeypatch.setattr(agreement_cuda, "planned", lambda widths, shared_bytes: plan)
    monkeypatch.setattr(agreement_cuda, "splits", lambda *args: splits)
    asked = list(range(len(tables[0]))) if queries is None else queries
    used = tables if mode in ("min", "max") else tables[:1] if mode == "video" else tables[1:]
    sign = -1 if mode == "max" else 1
    values, rows = agreement_cuda.topk(
        tuple(used), k, sign, torch.tensor(asked, dtype=torch.int64), exclude_self, 0
    )
    want_values, want_rows = reference(used, k, mode, asked, exclude_self)
    np.testing.assert_array_equal(rows.numpy(), want_rows)
    np.testing.assert_array_equal(values.numpy(), want_values)


def rows_of(kind: str, n: int, d: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    if kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 7), n)]
    elif kind == "equal":
        x[:] = x[:1]
    elif kind == "zeros":
        x[rng.random(n) < 0.6] = 0
    elif kind == "near":  # around the half, the float32 and the float64 precision
        x = x[:1] + rng.choice([0, 1e-4, 1e-7, 1e-8, 1e-15], (n, 1)) * x
    elif kind == "scales":
        x = x * 10.0 ** rng.integers(-6, 5, (n, 1))
    elif kind == "integers":
        x = rng.integers(-2, 3, (n, d)).astype(float)
    return torch.from_numpy(x)


KINDS = ["normal", "duplicates", "equal", "zeros", "near", "scales", "integers"]


@plans
@pytest.mark.parametrize("mode", ["min", "max", "video"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_float64_reference(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, mode: str, kind: str
) -> None:
    tables = [rows_of(kind, 150, 33, 0).float(), rows_of("normal", 150, 16, 1).float()]
    queries = [*range(0, 150, 8), 149, 3, 3]  # more than 16: both of a warp's strips
    check(monkeypatch, plan, tables, 3, mode, queries, exclude_self=kind != "normal")


@plans
@pytest.mark.parametrize(
    ("n", "k"), [(1, 1), (1, 4), (2, 1), (5, 5), (32, 31), (33, 1), (64, 7), (65, 90), (97, 40), (130, 129)]
)
def test_borders_of_tiles_and_of_k(monkeypatch: pytest.MonkeyPatch, plan: Plan, n: int, k: int) -> None:
    tables = [rows_of("duplicates", n, 37, n).half(), rows_of("integers", n, 5, k).double()]
    queries = sorted({0, n // 2, n - 1})
    check(monkeypatch, plan, tables, k, "min", queries)
    check(monkeypatch, plan, tables, k, "max", queries, exclude_self=False)


@plans
@pytest.mark.parametrize("splits", [2, 3, 7])
@pytest.mark.parametrize("kind", ["normal", "duplicates", "zeros"])
def test_splits_of_the_keys_do_not_change_the_result(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, splits: int, kind: str
) -> None:
    tables = [rows_of(kind, 200, 33, 2).float(), rows_of("normal", 200, 16, 3).float()]
    check(monkeypatch, plan, tables, 6, "min", [0, 31, 64, 199], splits=splits)


@plans
@pytest.mark.parametrize("ascending", [True, False])
def test_every_tile_brings_better_keys_or_none(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, ascending: bool
) -> None:
    """Candidates are pruned again and again, or once."""
    angles = torch.linspace(2, 0.01, 400) if ascending else torch.linspace(0.01, 2, 400)
    x = torch.cat([torch.tensor([[1.0, 0.0]]), torch.stack([angles.cos(), angles.sin()], 1)])
    check(monkeypatch, plan, [torch.nn.functional.pad(x, (0, 31)), x], 10, "min", [0, 200, 400])


@plans
def test_rows_with_more_ties_than_room_are_scanned(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    x = torch.ones(300, 33)
    x[::7] = 2
    x[40], x[299] = 0, -1
    check(monkeypatch, plan, [x, x[:, :4].contiguous()], 4, "min", [0, 1, 40, 299, 299])
    check(monkeypatch, plan, [x, x], 280, "video", [7, 40], splits=2)
    x = torch.ones(300, 33)
    x[270], x[290] = 2, 3  # better ones come last
    check(monkeypatch, plan, [x, x], 4, "video", [0, 270])


@plans
def test_queries_in_parts(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    monkeypatch.setattr(agreement_cuda, "_CANDIDATES", 1)
    tables = [rows_of("normal", 150, 40, 4).float(), rows_of("duplicates", 150, 16, 5).float()]
    check(monkeypatch, plan, tables, 2, "max", list(range(149, -1, -2)))
    check(monkeypatch, plan, tables, 2, "max", [])


@plans
@pytest.mark.parametrize("factor", [1e-200, 1e-30, 1e30, 1e120])
def test_huge_and_tiny_rows(monkeypatch: pytest.MonkeyPatch, plan: Plan, factor: float) -> None:
    tables = [rows_of("scales", 100, 33, 6) * factor, rows_of("normal", 100, 16, 7) * factor]
    with np.errstate(over="ignore"):
        check(monkeypatch, plan, tables, 5, "min", [0, 50, 99])


def test_many_queries_and_the_widest_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [rows_of("near", 60, 33, 7).float(), rows_of("normal", 60, 16, 8).float()]
    check(monkeypatch, Plan(True, 96, 64), tables, 3)


def test_what_runs_where() -> None:
    assert agreement_cuda.planned([128, 128], 227 << 10) == Plan(True, 256, 64)
    assert agreement_cuda.planned([128, 128], 163 << 10) == Plan(True, 128, 64)
    assert agreement_cuda.planned([128, 128], 99 << 10) == Plan(True, 96, 32)
    assert agreement_cuda.planned([128, 128], 64 << 10) == Plan(True, 32, 32)
    assert agreement_cuda.planned([2048, 512], 227 << 10) == Plan(False, 128, 64)


@pytest.mark.parametrize(
    ("queries", "most", "tile"), [(0, 9, 32), (1, 9, 32), (240_000, 131_072, 256), (65, 64, 32)]
)
def test_parts_cover_the_queries_in_whole_tiles(queries: int, most: int, tile: int) -> None:
    step = agreement_cuda.part(queries, most, tile)
    assert step % tile == 0 and -(-queries // step) <= max(1, -(-queries // most))


def test_few_queries_have_the_keys_split_and_many_have_not() -> None:
    plan, shared = Plan(True, 256, 64), 227 << 10
    assert agreement_cuda.splits(256, 1_800_000, 32, plan, 132, shared) >= 32
    assert agreement_cuda.splits(256 * 132 * 3, 1_800_000, 32, plan, 132, shared) == 1
    assert agreement_cuda.splits(256, 100, 32, plan, 132, shared) == 1
    assert agreement_cuda.splits(256, 10**9, 5000, plan, 132, shared) * plan.room(5000) * 16 <= shared


def test_k_beyond_the_shared_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement_cuda, "gpu", lambda device: (4, 64 << 10))
    x = torch.zeros(5000, 2)
    with pytest.raises(ValueError, match=r"k must be at most 2474 on this GPU.* 64 KiB .* got 2475"):
        agreement_cuda.topk((x, x), 2475, 1, torch.zeros(1, dtype=torch.int64), True, 0)
