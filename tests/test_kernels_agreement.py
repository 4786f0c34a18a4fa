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
from coaug.kernels.agreement_lanes import pack
from coaug.kernels.agreement_lanes import products as tile_products
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


@pytest.mark.parametrize("coders", [[("int16", 1)], [("int16", 60)], [("float32", 1)], [("float32", 60)], []])
def test_int16_and_float32_tiles_and_the_scan_are_each_exact(coders, monkeypatch):
    video, audio = unit(700, 64), unit(700, 33, 1)
    monkeypatch.setattr(agreement_cpu, "_CODERS", [(getattr(bounds, name), spare) for name, spare in coders])
    for block in (32, 96, None):
        check(video, audio, 20, "max", block=block)
        check(video, audio, 20, "min", torch.arange(0, 700, 9), block=block)


@pytest.mark.parametrize("kind", ["duplicates", "zeros", "scales"])
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
def test_each_two_blocks_meet_whether_their_number_is_odd_or_even(blocks, kind):
    rng = np.random.default_rng(blocks)
    for n in (32 * blocks - 1, 32 * blocks, 32 * blocks - 31):
        video, audio = (torch.from_numpy(rows_of(x, n, 6, rng)).float() for x in (kind, "normal"))
        check(video, audio, 7, block=32)
        check(video, audio, n, "audio", exclude_self=False, block=32)


def test_all_rows_at_once_and_as_shares_are_the_same():
    rng = np.random.default_rng(5)
    video, audio = (torch.from_numpy(rows_of(x, 1500, 20, rng)).float() for x in ("duplicates", "integers"))
    values, rows = agreement_topk(video, audio, 12)
    for share in torch.arange(1500).split(400):
        some_values, some_rows = agreement_topk(video, audio, 12, queries=share)
        assert torch.equal(some_values, values[share]) and torch.equal(some_rows, rows[share])
    order = torch.from_numpy(rng.permutation(1500))
    assert torch.equal(agreement_topk(video, audio, 12, queries=order)[1], rows[order])


def test_one_row_of_another_size_and_one_modality_of_another():
    video, audio = unit(600, 24), 1e-3 * unit(600, 24, 1)
    video[300] *= 1e6
    check(video, audio, 10)
    check(video, audio, 10, "max")


@pytest.mark.parametrize("d", [1, 2, 3, 129, 70_000])
@pytest.mark.parametrize("kind", ["one place", "all places"])
def test_products_of_int16_codes_fit_int32(d, kind):
    """Rows whose codes are as great as they can be, all of one sign or not."""
    x = torch.zeros(40, d, dtype=torch.float64)
    x[:, : 1 if kind == "one place" else d] = 1
    x[::2] *= -1
    codes = bounds.int16(x)[0]
    out = np.empty((64, 64), np.int32)
    packed = pack(codes)
    tile_products(out, packed, 0, packed, 0, -(-d // 2))
    exact = codes.double() @ codes.double().T
    assert exact.abs().max() < 2**31
    np.testing.assert_array_equal(out[:40, :40], exact.numpy())
    assert not out[40:].any() and not out[:, 40:].any()


@pytest.mark.parametrize("d", [1, 5, 32, 47])
def test_packed_float32_products(d):
    x, y = unit(70, d), unit(33, d, 1)
    out = np.empty((32, 64), np.float32)
    tile_products(out, pack(x), 32, pack(y), 0, d)
    np.testing.assert_allclose(out[:, :33], (x[32:64].double() @ y.double().T).numpy(), atol=1e-6)


@pytest.mark.parametrize("coder", [bounds.int16, bounds.float32, bounds.half])
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
