"""Scores against sampled rows and their gradient, against a gathered bank in float64."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coaug.kernels.bank_math import exp, exp_sum, sigmoid, softplus_sum
from coaug.kernels.bank_rows import bits, dots
from coaug.kernels.bank_scores import _bank_scores, bank_scores

STORED = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def literal(query: torch.Tensor, bank: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return (query.double()[:, None] * bank.double()[ids]).sum(-1)


def example(b: int, k: int, n: int, d: int, stored: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    query, bank = torch.randn(b, d, generator=g), torch.randn(n, d, generator=g).to(stored)
    return query, bank, torch.randint(n, (b, k), generator=g)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_every_finite_half_is_read_exactly(stored: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(stored)
    bank = every[every.isfinite()][:, None].contiguous()
    ids, got = np.arange(len(bank)), np.empty(len(bank))
    dots(np.ones(1, np.float32), bits(bank), ids, 0, len(bank), got)
    assert np.array_equal(got, bank[:, 0].double().numpy())


@settings(max_examples=60)
@given(
    st.integers(0, 5), st.integers(0, 40), st.integers(1, 50), st.integers(1, 70),
    st.sampled_from(STORED), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), st.integers(0, 9),
)  # fmt: skip
def test_scores_and_gradient(
    b: int, k: int, n: int, d: int, stored: torch.dtype, asked: torch.dtype, seed: int
) -> None:
    query, bank, ids = example(b, k, n, d, stored, seed)
    query = query.to(asked).requires_grad_()
    got = bank_scores(query, bank, ids)
    assert got.dtype == torch.float32 and got.shape == (b, k)
    want = literal(query, bank, ids)
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5 * d**0.5)
    weights = torch.randn(b, k, generator=torch.Generator().manual_seed(seed))
    (gradient,) = torch.autograd.grad(got, query, weights)
    want_gradient = (weights.double()[:, :, None] * bank.double()[ids]).sum(1)
    assert gradient.dtype == asked
    torch.testing.assert_close(
        gradient.double(), want_gradient, rtol=1e-4 if asked == torch.float32 else 1e-2, atol=1e-4 * max(k, 1)
    )


def test_gradcheck() -> None:
    query, bank, ids = example(3, 11, 9, 7, torch.float64)
    query = query.double().requires_grad_()
    assert torch.autograd.gradcheck(bank_scores, (query, bank, ids))
    assert torch.autograd.gradgradcheck(bank_scores, (query, bank, ids))


def test_the_same_for_every_thread_count() -> None:
    query, bank, ids = example(17, 203, 500, 33, torch.float16)
    query.requires_grad_()
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        scores = bank_scores(query, bank, ids)
        results.append((scores, *torch.autograd.grad(scores.sin().sum(), query)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_operator() -> None:
    query, bank, ids = example(3, 5, 20, 8, torch.float16)
    torch.library.opcheck(_bank_scores, (query.requires_grad_(), bank, ids))
    compiled = torch.compile(bank_scores, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(query, bank, ids), bank_scores(query, bank, ids))
    assert bank_scores(query, bank, ids).dtype == torch.float32


def test_views_through_dlpack() -> None:
    query, bank, ids = example(3, 5, 20, 8, torch.float32)
    again = [torch.from_dlpack(x.numpy()) for x in (query, bank, ids)]
    assert torch.equal(bank_scores(*again), bank_scores(query, bank, ids))


def nan(x: torch.Tensor) -> torch.Tensor:
    return x.index_fill(0, torch.tensor([0]), float("nan"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda q, b, i: (q[0], b, i), ValueError, "query must be a matrix"),
        (lambda q, b, i: (q[:, :3].contiguous(), b, i), ValueError, "query must have 8 columns"),
        (lambda q, b, i: (q.long(), b, i), TypeError, "query must be one of"),
        (lambda q, b, i: (q, b.T, i), ValueError, "bank must be contiguous"),
        (lambda q, b, i: (q, b.clone().requires_grad_(), i), ValueError, "bank requires grad"),
        (lambda q, b, i: (q, b, i[:2]), ValueError, "ids must be a matrix of 3 rows"),
        (lambda q, b, i: (q, b, i.int()), TypeError, "ids must be an int64 tensor"),
        (lambda q, b, i: (q, b, i + 20), ValueError, "ids must lie in 0 … 19"),
        (lambda q, b, i: (q, b, i - 20), ValueError, "ids must lie in 0 … 19"),
        (lambda q, b, i: (nan(q), b, i), ValueError, "query holds NaN"),
        (lambda q, b, i: (q, nan(b), i * 0), ValueError, "scores .* holds NaN"),
        (lambda q, b, i: (q.to("meta"), b, i), ValueError, "one device"),
    ],
)
def test_errors_name_the_argument(change: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        bank_scores(*change(*example(3, 5, 20, 8, torch.float32)))


def test_exponentials() -> None:
    x = np.concatenate([np.linspace(-707, 708, 3001), np.linspace(-1, 1, 1001), [0.0, -1e-300]])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose([exp(v) for v in x], np.exp(x), rtol=1e-15)
        np.testing.assert_allclose([sigmoid(v) for v in x], np.exp(-np.logaddexp(0, -x)), rtol=2e-13)
    np.testing.assert_allclose(softplus_sum(x), np.logaddexp(0, x).sum(), rtol=1e-13)
    np.testing.assert_allclose(exp_sum(x[x < 700]), np.exp(x[x < 700]).sum(), rtol=1e-13)
    assert exp(-1e9) == exp(-708.0) > 0 and np.isfinite(exp(1e9))
