"""queue_neighbors against a literal stable sort: on the CPU, and the CUDA kernels run on the CPU."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from cuda_on_cpu import needs_compiler, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.library import opcheck

from coaug.kernels.queue_neighbors import Neighbors, queue_neighbors

SETTINGS = settings(max_examples=50, deadline=None)
module = import_module("coaug.kernels.queue_neighbors")  # the package's attribute is the function


def literal(scores: Any, first: int, begin: int, length: int, rows: Any) -> tuple[np.ndarray, ...]:
    """A stable sort of float64 `scores` (B, n), best first, of `rows`; -inf and -1 where there are too few."""
    shape = (len(scores), first), (len(scores), length)
    found = [(np.full(s, -np.inf), np.full(s, -1)) for s in shape]
    for b, line in enumerate(np.asarray(scores, np.float64)):
        order = sorted(rows, key=lambda i: (-line[i], i))
        for (values, indices), kept in zip(
            found, (order[:first], sorted(order[begin : begin + length])), strict=True
        ):
            values[b, : len(kept)], indices[b, : len(kept)] = line[kept], kept
    return (*found[0], *found[1])


def same(found: Neighbors, expected: tuple[np.ndarray, ...], tolerance: float = 0) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.detach().double(), theirs, rtol=0, atol=tolerance)


def whole_numbers(seed: int, *shape: int, limit: int = 3) -> torch.Tensor:
    """Small ones: their products are exact in any order of summation, and often equal."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-limit, limit + 1, shape)).float()


@SETTINGS
@given(
    seed=st.integers(0, 2**31),
    b=st.integers(0, 70),
    n=st.sampled_from([0, 1, 2, 17, 63, 64, 65, 130, 500]),
    d=st.integers(1, 9),
    first=st.integers(0, 8),
    begin=st.integers(0, 200),
    length=st.integers(0, 150),
    valid=st.sampled_from(["all", "number", "mask"]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_ties_are_ranked_as_a_stable_sort_does(
    seed: int,
    b: int,
    n: int,
    d: int,
    first: int,
    begin: int,
    length: int,
    valid: str,
    dtype: torch.dtype,
) -> None:
    query, queue = whole_numbers(seed, b, d).to(dtype), whole_numbers(seed + 1, n, d).to(dtype)
    rng = np.random.default_rng(seed)
    given = {
        "all": None,
        "number": int(rng.integers(0, n + 1)),
        "mask": torch.from_numpy(rng.random(n) < 0.6),
    }
    rows = {"all": range(n), "number": range(given["number"]), "mask": np.flatnonzero(given["mask"])}
    found = queue_neighbors(query, queue, first, (begin, length), valid=given[valid])
    assert found.first_values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    same(found, literal(query.double() @ queue.double().T, first, begin, length, rows[valid]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_real_features(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    query, queue = (
        torch.nn.functional.normalize(torch.randn(n, 128, generator=generator, dtype=dtype), dim=1)
        for n in (37, 3000)
    )
    found = queue_neighbors(query, queue, 5, (1500, 700))
    scores = (query.double() @ queue.double().T).numpy()
    for b in range(len(query)):
        order = np.argsort(-scores[b], kind="stable")
        near, band = found.first_indices[b].numpy(), set(found.band_indices[b].tolist())
        np.testing.assert_allclose(scores[b][near], scores[b][order[:5]], atol=1e-6)
        border = scores[b][order[[1500, 2199]]]  # where float32 may rank otherwise than float64
        for i in band ^ set(order[1500:2200].tolist()):
            assert np.abs(scores[b][i] - border).min() < 1e-6
        np.testing.assert_allclose(found.band_values[b], scores[b][found.band_indices[b]], atol=1e-6)


@pytest.mark.parametrize("d", [1, 3, 100, 128, 512])
@pytest.mark.parametrize("n", [70, 777])
def test_equal_rows_have_equal_scores_wherever_they_stand(n: int, d: int) -> None:
    generator = torch.Generator().manual_seed(n + d)
    kinds = torch.randn(10, d, generator=generator)
    which = torch.randint(10, (n,), generator=generator)
    query = torch.randn(1, d, generator=generator).repeat(67, 1)
    every = queue_neighbors(query, kinds[which], 0, (0, n))
    assert (every.band_indices == torch.arange(n)).all()
    for kind in range(10):
        assert len(every.band_values[:, which == kind].unique()) == (1 if (which == kind).any() else 0)
    scores = np.array([every.band_values[0, which == k][0].item() for k in which])
    same(
        queue_neighbors(query, kinds[which], 9, (n // 2, 20)), literal([scores] * 67, 9, n // 2, 20, range(n))
    )


def test_results_do_not_depend_on_the_other_queries_or_on_threads() -> None:
    query, queue = torch.randn(150, 96), torch.randn(1111, 96)
    whole = queue_neighbors(query, queue, 3, (500, 100))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for part in (slice(0, 1), slice(7, 140)):
            for mine, theirs in zip(queue_neighbors(query[part], queue, 3, (500, 100)), whole, strict=True):
                assert torch.equal(mine, theirs[part])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("dtype", "least", "most"), [(torch.float32, -140, 120), (torch.float64, -1070, 1020)]
)
def test_scores_of_all_magnitudes(dtype: torch.dtype, least: int, most: int) -> None:
    rng = np.random.default_rng(0)
    exact = rng.choice([-1, 0, 1], 999) * np.ldexp(1.0, rng.integers(least, most, 999))
    queue = torch.from_numpy(exact).to(dtype)[:, None]
    for begin in (0, 1, 300, 500, 600, 990):
        found = queue_neighbors(torch.ones(1, 1, dtype=dtype), queue, 4, (begin, 99))
        same(found, literal(queue.double().T, 4, begin, 99, range(999)))


def test_minus_zero_equals_zero() -> None:
    queue = torch.tensor([[-0.0], [0.0], [-0.0], [0.0], [-1.0], [1.0]])
    found = queue_neighbors(torch.ones(1, 1), queue, 3, (3, 2))
    assert found.first_indices.tolist() == [[5, 0, 1]]
    assert found.band_indices.tolist() == [[2, 3]]


def test_the_band_of_the_paper() -> None:
    queue = torch.arange(5000.0)[:, None]
    found = queue_neighbors(torch.ones(1, 1), queue)
    assert found.first_indices.tolist() == [[4999, 4998, 4997, 4996, 4995]]
    assert found.band_indices.tolist() == [list(range(5000 - 2500 - 2048, 5000 - 2500))]
    half_full = queue_neighbors(torch.ones(1, 1), queue, valid=3000)
    assert half_full.band_indices[0, :1501].tolist() == [*range(1500), -1]
    assert half_full.band_values[0, 1500:].unique().tolist() == [-np.inf]


@pytest.mark.parametrize("valid", [None, 30, "mask"])
def test_gradients(valid: Any) -> None:
    query = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    queue = torch.randn(40, 4, dtype=torch.float64)
    valid = torch.arange(40) % 3 > 0 if valid == "mask" else valid

    def values(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = queue_neighbors(x, queue, 3, (12, 25), valid=valid)
        return found.first_values, found.band_values[:, :14]

    assert torch.autograd.gradcheck(values, (query,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_are_sums_over_the_rows_found(dtype: torch.dtype) -> None:
    query = (torch.randn(5, 16) / 4).to(dtype).requires_grad_()
    queue = torch.randn(60, 16).to(dtype).requires_grad_()
    found = queue_neighbors(query, queue, 3, (20, 50))
    loss = (
        found.first_values.exp().sum() + found.band_values.exp().sum()
    )  # exp(-inf) is 0, and so its gradient
    loss.backward()
    expected = torch.zeros(5, 16, dtype=torch.float64)
    for values, indices in ((found[0], found[1]), (found[2], found[3])):
        for b in range(5):
            for value, index in zip(values[b].tolist(), indices[b].tolist(), strict=True):
                if index >= 0:
                    expected[b] += np.exp(value) * queue[index].detach().double()
    assert query.grad is not None and query.grad.dtype == dtype
    error = (query.grad.double() - expected).norm() / expected.norm()
    assert error < (1e-5 if dtype == torch.float32 else 4e-3)
    assert queue.grad is None


def test_as_an_operator_of_torch() -> None:
    query, queue = torch.randn(4, 8, requires_grad=True), torch.randn(30, 8)
    mask = torch.arange(30) % 2 == 0
    for valid in (None, mask):
        opcheck(module._neighbors, (query, queue, valid, 2, 5, 7))
    compiled = torch.compile(queue_neighbors, backend="aot_eager", fullgraph=True)
    eager = queue_neighbors(query, queue, 2, (5, 7))
    for mine, theirs in zip(compiled(query, queue, 2, (5, 7)), eager, strict=True):
        assert torch.equal(mine, theirs)
    with torch.autocast("cpu", torch.bfloat16):
        for mine, theirs in zip(queue_neighbors(query, queue, 2, (5, 7)), eager, strict=True):
            assert torch.equal(mine, theirs)


def test_what_is_wrong_is_named() -> None:
    query, queue = torch.randn(4, 8), torch.randn(30, 8)
    nan, infinite = query.clone(), queue.clone()
    nan[2, 3], infinite[7, 0] = torch.nan, -torch.inf
    for message, arguments in (
        ("query holds NaN", (nan, queue)),
        ("queue holds infinity", (query, infinite)),
        ("do not fit torch.float32", (query * 1e30, queue * 1e30)),
        ("queue must have 8 columns", (query, queue[:, :5].contiguous())),
        ("query must be contiguous", (torch.randn(8, 4).T, queue)),
        ("must not be negative", (query, queue, -1)),
        ("must not be negative", (query, queue, 1, (-1, 5))),
    ):
        with pytest.raises(ValueError, match=message):
            queue_neighbors(*arguments)
    for valid in (31, -1, torch.ones(29, dtype=torch.bool), torch.ones(30)):
        with pytest.raises(ValueError, match="valid must"):
            queue_neighbors(query, queue, valid=valid)
    with pytest.raises(TypeError, match="query must be one of"):
        queue_neighbors(query.int(), queue)
    mask = torch.arange(30) != 7  # rows that take no part may hold anything
    assert torch.isfinite(queue_neighbors(query, infinite, 3, (5, 5), valid=mask).band_values).all()
    assert torch.isfinite(queue_neighbors(query, infinite, 3, (3, 3), valid=7).band_values).all()


# --- the CUDA kernels --------------------------------------------------------------------------------------

KINDS = {"float": torch.float32, "__half": torch.float16, "__nv_bfloat16": torch.bfloat16}


def on_gpu(
    query: torch.Tensor,
    queue: torch.Tensor,
    mask: torch.Tensor,
    first: int,
    begin: int,
    length: int,
    **how: Any,
) -> tuple[Neighbors, torch.Tensor]:
    names = {dtype: name for name, dtype in KINDS.items()}
    defines = {"QUERY": names[query.dtype], "QUEUE": names[queue.dtype], "THREADS": how.pop("threads", 64)}
    found = module._empty(query, queue, first, length)
    (b, d), n = query.shape, len(queue)
    keys, wrong = torch.zeros(b, n, dtype=torch.int32), torch.zeros((), dtype=torch.int32)
    tiles = (-(-n // module.TILE), -(-b // module.TILE))
    run(
        "queue_neighbors",
        "queue_keys",
        tiles,
        256,
        [query, queue, mask, keys, wrong, b, n, d],
        **how,
        **defines,
    )
    run(
        "queue_neighbors",
        "select_ranks",
        b,
        defines["THREADS"],
        [keys, *found, n, first, begin, length],
        **how,
        **defines,
    )
    return Neighbors(*found), wrong


@needs_compiler
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    b=st.integers(1, 5),
    n=st.sampled_from([1, 2, 63, 64, 65, 200]),
    d=st.integers(1, 20),
    first=st.integers(0, 8),
    begin=st.integers(0, 120),
    length=st.integers(0, 120),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    kind=st.sampled_from(sorted(KINDS)),
    order=st.sampled_from(["forward", "reverse"]),
)
def test_cuda_ranks_as_a_stable_sort_does(
    seed: int,
    b: int,
    n: int,
    d: int,
    first: int,
    begin: int,
    length: int,
    share: float,
    kind: str,
    order: Any,
) -> None:
    query, queue = whole_numbers(seed, b, d).to(KINDS[kind]), whole_numbers(seed + 1, n, d)
    mask = torch.from_numpy(np.random.default_rng(seed).random(n) < share)
    found, wrong = on_gpu(query, queue, mask, first, begin, length, order=order)
    same(found, literal(query.double() @ queue.double().T, first, begin, length, np.flatnonzero(mask)))
    assert wrong == 0


@needs_compiler
def test_cuda_agrees_with_the_cpu() -> None:
    query, queue = torch.randn(70, 100), torch.randn(333, 100)
    mine, _ = on_gpu(query, queue, torch.ones(333, dtype=torch.bool), 5, 160, 40, threads=128)
    theirs = queue_neighbors(query, queue, 5, (160, 40))
    assert torch.equal(mine.first_indices, theirs.first_indices)
    torch.testing.assert_close(mine.first_values, theirs.first_values)
    differ = (mine.band_indices != theirs.band_indices).any(1)  # where rounding decides at a border
    assert differ.float().mean() < 0.1


@needs_compiler
def test_cuda_sees_what_is_no_number() -> None:
    query, queue = torch.ones(2, 3), torch.randn(20, 3)
    queue[3, 1] = torch.nan
    mask = torch.ones(20, dtype=torch.bool)
    assert on_gpu(query, queue, mask, 1, 2, 3)[1] == 1
    mask[3] = False
    assert on_gpu(query, queue, mask, 1, 2, 3)[1] == 0


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    query, queue = torch.randn(300, 128, device="cuda"), torch.randn(5000, 128, device="cuda")
    query.requires_grad_()
    found = queue_neighbors(query, queue, 5, (2500, 600))
    theirs = queue_neighbors(query.detach().cpu(), queue.cpu(), 5, (2500, 600))
    torch.testing.assert_close(found.first_values.cpu(), theirs.first_values, atol=1e-4, rtol=1e-5)
    assert (found.band_indices.cpu() != theirs.band_indices).any(1).float().mean() < 0.1
    (gradient,) = torch.autograd.grad(found.band_values.sum(), query)
    expected = queue[found.band_indices].sum(1)
    torch.testing.assert_close(gradient, expected, atol=1e-2, rtol=1e-4)
