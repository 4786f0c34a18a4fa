"""The fused loss against Eq. 1-3 and Eq. 9 written out, and against what is known of uniform vectors."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from coaug.kernels.bank_draw import sample_negatives
from coaug.kernels.bank_nce import NCE, _nce, nce_loss

STORED = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


def literal(
    query: torch.Tensor, bank: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor,
    weights: torch.Tensor, valid: torch.Tensor, z: float, tau: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Eq. 1, 2, 3, 9 in float64, term by term; differentiable in the query."""
    n, k = len(bank), negatives.shape[1]
    bank = bank.double()
    losses, sums = [], []
    for b, x in enumerate(query.double()):
        loss, total = x.sum() * 0, 0.0
        for i, weight in zip(positives[b].tolist(), weights[b].tolist(), strict=True):
            if i < 0 or not valid[b]:
                continue
            p = torch.exp(x @ bank[i] / tau) / (n * z)
            loss = loss - weight * torch.log(p / (p + k / n))
            for j in negatives[b].tolist():
                p = torch.exp(x @ bank[j] / tau) / (n * z)
                loss = loss - weight * torch.log(1 - p / (p + k / n))
        if valid[b]:
            total = float(torch.exp(bank[negatives[b]] @ x.detach() / tau).sum())
        losses.append(loss)
        sums.append(total)
    return torch.stack(losses), torch.tensor(sums, dtype=torch.float64)


@settings(max_examples=40)
@given(st.data())
def test_equals_the_equations(data: st.DataObject) -> None:
    b, n, d = (data.draw(st.integers(*span)) for span in ((1, 4), (6, 40), (1, 40)))
    k, width, seed = (
        data.draw(st.integers(1, 40)),
        data.draw(st.integers(1, 5)),
        data.draw(st.integers(0, 99)),
    )
    stored, tau = data.draw(st.sampled_from(STORED)), data.draw(st.sampled_from([0.07, 0.5, 1.0]))
    z, count = (
        data.draw(st.sampled_from([0.3, 2.2045])),
        data.draw(st.lists(st.integers(0, width), min_size=b, max_size=b)),
    )
    excluded = torch.stack(
        [torch.randperm(n, generator=torch.Generator().manual_seed(seed + i))[:width] for i in range(b)]
    )
    positives = excluded.masked_fill(torch.arange(width) >= torch.tensor(count)[:, None], -1)
    excluded = excluded.sort(1).values
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=b, max_size=b)))
    weights = None if data.draw(st.booleans()) else torch.rand(b, width)
    query, bank = unit(b, d, seed).requires_grad_(), unit(n, d, seed + 1).to(stored)

    loss, sums = nce_loss(
        query, bank, positives, excluded, negatives=k, partition=z, temperature=tau, seed=seed, step=3, offset=7,
        weights=weights, valid=valid,
    )  # fmt: skip
    negatives = sample_negatives(excluded, n, k, seed=seed, step=3, offset=7)
    given_weights = (positives >= 0) / (positives >= 0).sum(1, keepdim=True).clamp(min=1)
    want, want_sums = literal(
        query, bank, positives, negatives, given_weights if weights is None else weights, valid, z, tau
    )
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sums, want_sums, rtol=1e-5, atol=0)
    (got_gradient,) = torch.autograd.grad(loss.sum(), query)
    (want_gradient,) = torch.autograd.grad(want.sum(), query)
    assert not sums.requires_grad
    torch.testing.assert_close(
        got_gradient, want_gradient, rtol=1e-4, atol=1e-4 * float(want_gradient.abs().max())
    )


def run(**changes: Any) -> NCE:
    excluded = torch.arange(12).view(4, 3)
    good: dict[str, Any] = {
        "query": unit(4, 8, 0), "bank": unit(30, 8, 1), "positives": excluded[:, :2].contiguous(), "excluded": excluded,
        "negatives": 17, "partition": 2.0, "seed": 1, "step": 2,
    }  # fmt: skip
    return nce_loss(**(good | changes))


def test_gradcheck() -> None:
    bank = unit(30, 8, 1).double()
    query = unit(4, 8, 0).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda q: run(query=q, bank=bank, temperature=0.3).loss, query)


def test_second_derivatives_are_refused() -> None:
    query = unit(4, 8, 0).requires_grad_()
    (gradient,) = torch.autograd.grad(run(query=query).loss.sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        gradient.sum().backward()


def test_partition_of_uniform_vectors() -> None:
    """E[e^(s / tau)] on the sphere is Gamma(d/2) (2 tau)^(d/2 - 1) I_(d/2 - 1)(1 / tau)."""
    d, tau, queries, k = 128, 0.07, 1024, 1024
    bank, own = unit(20_000, d, 1), torch.arange(queries)[:, None]
    sums = nce_loss(unit(queries, d, 0), bank, own, own, negatives=k, partition=1.0, seed=4, step=0).exp_sum
    order = d / 2 - 1
    log_bessel = np.log(special.ive(order, 1 / tau)) + 1 / tau
    closed = np.exp(special.gammaln(d / 2) + order * np.log(2 * tau) + log_bessel)
    assert closed == pytest.approx(2.208, abs=1e-3)
    assert float(sums.sum()) / (queries * k) == pytest.approx(closed, rel=0.005)


def test_first_loss_of_uniform_vectors() -> None:
    d, tau, k, z = 128, 0.07, 1024, 2.208
    own = torch.arange(512)[:, None]
    loss = nce_loss(unit(512, d, 0), unit(20_000, d, 1), own, own, partition=z, seed=4, step=0).loss

    def density(s: float) -> float:
        log_area = special.gammaln(d / 2) - special.gammaln((d - 1) / 2) - np.log(np.pi) / 2
        return float(np.exp(log_area + (d - 3) / 2 * np.log1p(-s * s)))

    def mean_loss(s: float) -> float:
        logit = s / tau - np.log(k * z)
        return density(s) * float(np.logaddexp(0, -logit) + k * np.logaddexp(0, logit))

    closed = integrate.quad(mean_loss, -0.999, 0.999, points=[0])[0]
    assert closed == pytest.approx(8.72, abs=0.02)
    assert float(loss.mean()) == pytest.approx(closed, rel=0.01)


def test_far_from_ordinary_logits() -> None:
    """e^(1 / 0.01) overflows float32, and an agreeing positive's loss nearly vanishes."""
    query = torch.tensor([[1.0, 0.0]], requires_grad=True)
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    self_id, others = torch.tensor([[0]]), torch.tensor([[0, 2]])
    kwargs: dict[str, Any] = {"negatives": 3, "partition": 1.0, "temperature": 0.01, "seed": 0, "step": 0}
    loss, sums = nce_loss(query, bank, self_id, others, **kwargs)  # all negatives agree
    assert loss.item() == pytest.approx(3 * (100 - np.log(3)), rel=1e-6)
    assert float(sums) == pytest.approx(3 * np.exp(100), rel=1e-6)
    loss.sum().backward()
    assert query.grad is not None and query.grad[0, 0] == pytest.approx(300, rel=1e-6)
    loss, _ = nce_loss(query, bank, self_id, torch.tensor([[0, 1]]), **kwargs)  # none does
    assert 0 <= loss.item() < 1e-12


def test_divided_among_processes() -> None:
    whole = run()
    excluded = torch.arange(12).view(4, 3)
    for i in range(4):
        part = run(
            query=unit(4, 8, 0)[i : i + 1], positives=excluded[i : i + 1, :2].contiguous(),
            excluded=excluded[i : i + 1], offset=i,
        )  # fmt: skip
        assert torch.equal(part.loss, whole.loss[i : i + 1])
        assert torch.equal(part.exp_sum, whole.exp_sum[i : i + 1])


def test_the_same_for_every_thread_count() -> None:
    own, results = torch.arange(37)[:, None], []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        query = unit(37, 33, 0).requires_grad_()
        loss, sums = nce_loss(query, unit(200, 33, 1), own, own, negatives=101, partition=2.0, seed=0, step=0)
        results.append((loss, sums, *torch.autograd.grad(loss.sum(), query)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_mixed_precision_and_partition_as_tensor() -> None:
    query = unit(4, 8, 0)
    half = query.half().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = run(query=half, partition=torch.tensor(2.0)).loss
    assert loss.dtype == torch.float32
    assert torch.equal(loss, run(query=query.half().float()).loss)
    loss.sum().backward()
    assert half.grad is not None and half.grad.dtype == torch.float16


def test_operator() -> None:
    excluded = torch.tensor([[0, 1], [2, -1]])
    weights, valid = torch.ones(2, 1), torch.tensor([True, False])
    tensors = (
        unit(2, 8, 0).requires_grad_(),
        unit(30, 8, 1),
        excluded[:, :1].contiguous(),
        excluded,
        weights,
        valid,
    )
    args = (*tensors, torch.tensor(2.0, dtype=torch.float64), 5, 0.07, 1, 2, 0, True)
    # not test_aot_dispatch_dynamic: it differentiates all outputs, of which two refuse; compiled below instead
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(_nce, args, test_utils=checks)
    query, bank, own = unit(4, 8, 0).requires_grad_(), unit(30, 8, 1), torch.arange(4)[:, None]

    def both(q: torch.Tensor) -> NCE:
        return nce_loss(q, bank, own, own, negatives=5, partition=2.0, seed=1, step=2)

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(query)[0], both(query).loss)
    gradients = [torch.autograd.grad(f(query)[0].sum(), query)[0] for f in (compiled, both)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"query": torch.full((4, 8), float("nan"))}, ValueError, "query holds NaN"),
        ({"bank": torch.full((30, 8), float("nan"))}, ValueError, "the loss .* holds NaN"),
        ({"query": torch.ones(4, 9)}, ValueError, "query must have 8 columns"),
        ({"positives": torch.zeros(4, 2)}, ValueError, "positives must be a contiguous int64 matrix"),
        ({"positives": torch.full((4, 2), 30)}, ValueError, "positives"),
        ({"excluded": torch.tensor([[2, 1]] * 4)}, ValueError, r"excluded\[0\] = "),
        ({"excluded": torch.tensor([[1, 2]] * 3)}, ValueError, "excluded must have 4 rows"),
        ({"weights": torch.ones(4, 1)}, ValueError, "weights must have the shape of positives"),
        ({"weights": torch.full((4, 2), float("inf"))}, ValueError, "weights holds infinity"),
        ({"valid": torch.ones(4)}, ValueError, "valid must be a contiguous bool vector"),
        ({"partition": 0.0}, ValueError, "partition"),
        ({"partition": float("nan")}, ValueError, "partition"),
        ({"temperature": 0.0}, ValueError, "temperature = 0.0"),
        ({"negatives": 0}, ValueError, "negatives = 0"),
    ],
)
def test_errors_name_the_argument(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        run(**changes)


def test_sets_of_invalid_queries_may_hold_anything() -> None:
    excluded = torch.tensor([[2, 1, 0], [3, 4, 5], [6, 7, 8], [9, 10, 11]])
    got = run(excluded=excluded, valid=torch.tensor([False, True, True, True]))
    assert torch.equal(got.loss[1:], run().loss[1:]) and got.loss[0] == 0 == got.exp_sum[0]
