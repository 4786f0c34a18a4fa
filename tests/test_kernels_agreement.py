from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coaug.kernels import agreement_bounds as bounds
from coaug.kernels import agreement_cpu
from coaug.kernels.agreement_prune import slack
from coaug.kernels.agreement_topk import MODES, agreement_topk

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def products(x: np.ndarray, i: int) -> np.ndarray:
    """x_i . x_j of all j: 32 partial sums in the order of entries, added by halves."""
    n, d = x.shape
    padded = np.zeros((n, -(-d // 32) * 32))
    padded[:, :d] = x
    lanes = np.zeros((n, 32))
    for start in range(0, padded.shape[1], 32):
        lanes = lanes + padded[:, start : start + 32] * padded[i, start : start + 32]
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def reference(video, audio, k, mode, queries, exclude_self=True):
    values = np.full((len(queries), k), -np.inf)
    rows = np.full((len(queries), k), -1)
    tables = [
        x.double().numpy() for name, x in (("video", video), ("audio", audio)) if mode in ("min", "max", name)
    ]
    for q, i in enumerate(queries.tolist()):
        scores = [products(x, i) for x in tables]
        score = np.max(scores, axis=0) if mode == "max" else np.min(scores, axis=0)
        order = np.lexsort((np.arange(len(score)), -score))
        order = order[order != i][:k] if exclude_self else order[:k]
        values[q, : len(order)], rows[q, : len(order)] = score[order], order
    with np.errstate(over="ignore"):
        return values.astype(np.float32), rows


def check(video, audio, k, mode="min", queries=None, exclude_self=True, block=None):
    values, rows = agreement_topk(
        video, audio, k, mode, queries=queries, exclude_self=exclude_self, block=block
    )
    known = video if video is not None else audio
    asked = torch.arange(len(known)) if queries is None else queries
    want_values, want_rows = reference(video, audio, k, mode, asked, exclude_self)
    assert values.dtype == torch.float32 and rows.dtype == torch.int64
    np.testing.assert_array_equal(rows.numpy(), want_rows)
    np.testing.assert_array_equal(values.numpy(), want_values)


def unit(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1
    )


def rows_of(kind: str, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.normal(size=(n, d))
    if kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 7), n)]
    elif kind == "equal":
        x[:] = x[:1]
    elif kind == "zeros":
        x[rng.random(n) < 0.6] = 0
    elif kind == "near":  # around the float32 and the float64 precision
        x = x[:1] + rng.choice([0, 1e-7, 1e-8, 1e-15], (n, 1)) * x
    elif kind == "scales":
        x = x * 10.0 ** rng.integers(-6, 5, (n, 1))
    elif kind == "integers":
        x = rng.integers(-2, 3, (n, d)).astype(float)
    return x


KINDS = ["normal", "duplicates", "equal", "zeros", "near", "scales", "integers"]


@settings(max_examples=250, deadline=None)
@given(
    st.integers(1, 200), st.sampled_from([1, 2, 5, 31, 32, 33, 64, 130]), st.sampled_from([1, 2, 7, 40, 250]),
    st.sampled_from(MODES), st.sampled_from(DTYPES), st.sampled_from(KINDS), st.sampled_from(KINDS),
    st.booleans(), st.sampled_from([None, 1, 17, 64]), st.integers(0, 10**6),
)  # fmt: skip
def test_equals_the_float64_reference(n, d, k, mode, dtype, kind, other, exclude_self, block, seed):
    rng = np.random.default_rng(seed)
    video, audio = (torch.from_numpy(rows_of(x, n, d, rng)).to(dtype) for x in (kind, other))
    queries = torch.from_numpy(rng.integers(0, n, rng.integers(0, 12)))
    check(video, audio, k, mode, queries, exclude_self, block)


@pytest.mark.parametrize("kind", KINDS)
def test_many_keys(kind):
    rng = np.random.default_rng(1)
    video, audio = (torch.from_numpy(rows_of(x, 5000, 48, rng)).float() for x in (kind, "normal"))
    queries = torch.arange(0, 5000, 500)
    check(video, audio, 32, "min", queries)
    check(video, audio, 32, "video", queries)


def test_int8_and_float32_tiles_are_both_exact(monkeypatch):
    video, audio = unit(3000, 64), unit(3000, 64, 1)
    queries = torch.arange(0, 3000, 40)
    monkeypatch.setattr(agreement_cpu, "_has_int8", lambda rows: False)
    check(video, audio, 20, "max", queries, block=256)
    monkeypatch.setattr(agreement_cpu, "_has_int8", lambda rows: True)
    check(video, audio, 20, "max", queries, block=256)


@pytest.mark.parametrize("coder", [bounds.int8, bounds.float32, bounds.half])
@pytest.mark.parametrize("kind", KINDS)
def test_no_product_is_further_off_than_its_bound(coder, kind):
    x = torch.from_numpy(rows_of(kind, 300, 70, np.random.default_rng(2)))
    power = bounds.exponent(x)
    rows = bounds.encode(x, power, coder)
    scale = rows.scale.double()
    approximate = rows.codes.double() @ rows.codes.double().T * scale[:, None] * scale
    exact = torch.ldexp(x, -power) @ torch.ldexp(x, -power).T
    norm, error = bounds.joint([rows])
    off = slack(error[:, None], norm[:, None], error, norm)
    assert ((approximate - exact).abs().numpy() <= off).all()


def test_huge_and_tiny_rows():
    for factor in (1e-40, 1e-30, 1e18, 1e30):
        x = (unit(300, 16).double() * factor).float()
        check(x, x.flip(0), 5, queries=torch.arange(0, 300, 30))
    for factor in (1e-200, 1e120):
        x = unit(300, 16).double() * factor
        check(x, x.flip(0), 5, queries=torch.arange(0, 300, 30))


def test_one_modality_alone_and_the_other_is_not_looked_at():
    x, broken = unit(50, 8), torch.full((50, 8), float("nan"))
    check(x, None, 3, "video")
    check(None, x, 3, "audio")
    torch.testing.assert_close(agreement_topk(x, broken, 3, "video"), agreement_topk(x, None, 3, "video"))


def test_the_modalities_may_differ_in_width_and_type():
    video, audio = unit(80, 8).half(), unit(80, 20, 1).double()
    check(video, audio, 9)


def test_no_rows_and_no_queries():
    values, rows = agreement_topk(torch.zeros(0, 4), torch.zeros(0, 4), 3)
    assert values.shape == rows.shape == (0, 3)
    check(unit(5, 4), unit(5, 4), 2, queries=torch.zeros(0, dtype=torch.int64))


def test_threads_and_blocks_do_not_change_the_result():
    rng = np.random.default_rng(3)
    video, audio = (torch.from_numpy(rows_of(x, 500, 40, rng)).float() for x in ("near", "duplicates"))
    before, found = torch.get_num_threads(), []
    for threads, block in ((1, None), (2, None), (2, 33), (1, 512)):
        torch.set_num_threads(threads)
        found.append(agreement_topk(video, audio, 16, block=block))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    for values, rows in found[1:]:
        assert torch.equal(rows, found[0][1]) and torch.equal(values, found[0][0])


@pytest.mark.parametrize("kind", ["normal", "equal"])
def test_memory_is_not_quadratic(kind):
    n = 2000
    x = torch.from_numpy(rows_of(kind, n, 8, np.random.default_rng(4))).float()
    queries = torch.arange(0, n, 2)
    agreement_topk(x, x, 4, queries=queries[:2])  # compiles
    tracemalloc.start()
    with torch.profiler.profile(profile_memory=True) as profile:
        agreement_topk(x, x, 4, queries=queries, block=256)
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    greatest = max(event.self_cpu_memory_usage for event in profile.events())
    assert python < n * n and greatest < n * n  # of 4 n n bytes that one matrix of scores would take


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": 0}, ValueError, "k must be at least 1, got 0"),
        ({"block": 0}, ValueError, "block must be at least 1, got 0"),
        ({"mode": "mean"}, ValueError, "mode must be one of min, max, video, audio, got 'mean'"),
        ({"video": torch.full((6, 4), float("nan"))}, ValueError, "video"),
        ({"audio": torch.full((6, 4), float("inf"))}, ValueError, "audio"),
        ({"audio": None}, ValueError, "audio must be given for mode='min'"),
        ({"audio": torch.zeros(5, 4)}, ValueError, "one row for each sample"),
        ({"audio": torch.zeros(6, 4, dtype=torch.int32)}, TypeError, "audio"),
        ({"audio": torch.zeros(4, 6).T}, ValueError, "contiguous"),
        ({"video": torch.zeros(6)}, ValueError, "video"),
        ({"queries": torch.tensor([6])}, ValueError, "queries"),
        ({"queries": torch.tensor([-1])}, ValueError, "queries"),
        ({"queries": torch.tensor([1.0])}, TypeError, "queries"),
        ({"queries": torch.tensor([[1]])}, ValueError, "queries"),
    ],
)
def test_errors_name_the_argument(change, error, words):
    arguments = {"video": unit(6, 4), "audio": unit(6, 4), "k": 2, **change}
    with pytest.raises(error, match=words):
        agreement_topk(**arguments)


def test_products_beyond_float64_are_an_error():
    with pytest.raises(ValueError, match="overflow"):
        agreement_topk(torch.full((4, 3), 1e160, dtype=torch.float64), None, 2, "video")


def test_as_an_operator():
    x, y = unit(40, 8), unit(40, 8, 1)
    torch.library.opcheck(torch.ops.coaug.agreement_topk, (x, y, 3, "min", torch.arange(5), True, 0))
    compiled = torch.compile(lambda a, b: agreement_topk(a, b, 3), backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(compiled(x, y)[1], agreement_topk(x, y, 3)[1])
    check(x, y, 3)
