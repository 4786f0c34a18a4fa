"""Noise-contrastive estimation against a memory bank, drawn, scored and differentiated in one pass (AVID, Eq. 1-3).

    h(x, v_i) = e^(x.v_i / tau) / (e^(x.v_i / tau) + K Z)                                            (2)
    NCE(x; v_i) = -log h(x, v_i) - sum over K negatives of log(1 - h(x, v_j))                        (3)

With the logit s = x.v / tau - log(K Z) these are softplus(-s) for a positive and softplus(s) for a negative, which
neither overflow nor cancel. CMA's Eq. 9 averages NCE over several positives, which share one draw of negatives.

The loss of a query is a scalar function of it, so its gradient (B, d) is computed in the same pass, while the rows
are at hand, and the backward pass is one product. Every row of the bank that is needed is read once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import checks
from .bank_draw import WRONG, check_draw, check_excluded, halves, refuse
from .bank_nce_cpu import nce_all
from .bank_rows import bits
from .bank_scores import THREADS, check_query, kernels


class NCE(NamedTuple):
    """What `nce_loss` returns.

    Attributes:
        loss: (B,), 0 for queries that are not valid.
        exp_sum: (B,) float64, sum of e^(x.v / tau) over each query's negatives, constant; 0 for queries that are
            not valid. Z is estimated by its sum over a batch, divided by the number of negatives of valid queries.
    """

    loss: Tensor
    exp_sum: Tensor


def nce_loss(
    query: Tensor,
    bank: Tensor,
    positives: Tensor,
    excluded: Tensor,
    *,
    negatives: int = 1024,
    partition: float | Tensor,
    temperature: float = 0.07,
    seed: int,
    step: int,
    offset: int = 0,
    weights: Tensor | None = None,
    valid: Tensor | None = None,
) -> NCE:
    """The loss of each query, sum_p weight_p NCE(query; positive p, the query's negatives).

    Args:
        query: (B, d) floating, L2-normalised; carries gradient.
        bank: (N, d) float32, float16 or bfloat16, on the CPU float64 too; a constant.
        positives: (B, P) int64, rows of the bank to be told from negatives; -1 where there are fewer.
        excluded: (B, E) int64, rows that are no negatives, see `sample_negatives`, which draws them.
        negatives: K of each query.
        partition: Z, a number or a scalar tensor on the query's device (no synchronisation).
        temperature: tau.
        seed, step, offset: what the draw depends on, see `sample_negatives`.
        weights: (B, P), constant. None: the mean over the positives that a query has.
        valid: (B,) bool; queries that are False take no part. None: all are valid.

    Raises:
        TypeError, ValueError: wrong dtype, shape, device or memory layout, row numbers outside the bank, numbers
            that are not finite.
    """
    check_excluded(excluded)
    check_draw(len(bank), negatives, step, offset)
    if negatives < 1 or not 0 < temperature < math.inf:
        raise ValueError(f"negatives and temperature must be positive, got {negatives = }, {temperature = }")
    derive = query.requires_grad and torch.is_grad_enabled()
    query = check_query(query, bank)
    if weights is None:
        given = positives >= 0
        weights = given / given.sum(1, keepdim=True).clamp(min=1)
    weights = weights.detach().to(query.dtype).contiguous()
    if valid is None:
        valid = torch.ones(len(query), dtype=torch.bool, device=query.device)
    partition = torch.as_tensor(partition, dtype=torch.float64, device=query.device).reshape(())
    _check(query, positives, excluded, weights, valid)
    loss, exp_sum, _ = _nce(
        query, bank, positives, excluded, weights, valid, partition,
        negatives, temperature, seed, step, offset, derive,
    )  # fmt: skip
    return NCE(loss, exp_sum.detach())


def _check(query: Tensor, positives: Tensor, excluded: Tensor, weights: Tensor, valid: Tensor) -> None:
    shape = len(query), positives.shape[-1]
    if positives.dtype != torch.int64 or positives.shape != shape or not positives.is_contiguous():
        raise ValueError(
            f"positives must be a contiguous int64 matrix of {len(query)} rows, got {checks.describe(positives)}"
        )
    if weights.shape != shape:
        raise ValueError(f"weights must have the shape of positives, {shape}, got {checks.describe(weights)}")
    if len(excluded) != len(query):
        raise ValueError(f"excluded must have {len(query)} rows, got {checks.describe(excluded)}")
    if valid.dtype != torch.bool or valid.shape != shape[:1] or not valid.is_contiguous():
        raise ValueError(
            f"valid must be a contiguous bool vector of {len(query)}, got {checks.describe(valid)}"
        )
    checks.same_device(query=query, positives=positives, excluded=excluded, weights=weights, valid=valid)


@torch.library.custom_op("coaug::bank_nce", mutates_args=(), device_types="cpu")
def _nce(
    query: Tensor, bank: Tensor, positives: Tensor, excluded: Tensor, weights: Tensor, valid: Tensor,
    partition: Tensor, negatives: int, temperature: float, seed: int, step: int, offset: int, derive: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Loss (B,), sums (B,) and, if `derive`, the loss's gradient (B, d), else (0, d)."""
    loss, sums, gradient = _outputs(query, derive)
    _check_values(query, bank, positives, weights, partition)
    wrong, shift = np.zeros(len(query), np.bool_), math.log(negatives * float(partition))
    nce_all(
        query.numpy(), bits(bank), positives.numpy(), excluded.numpy(), weights.numpy(), valid.numpy(),
        negatives, 1 / temperature, shift, *halves(seed), *halves(step), offset, derive,
        loss.numpy(), sums.numpy(), gradient.numpy(), wrong,
    )  # fmt: skip
    refuse(wrong, excluded, len(bank))
    checks.finite("the loss (of a bank with such a row, or at such a temperature)", loss)
    return loss, sums, gradient


@_nce.register_kernel("cuda")
def nce_cuda(
    query: Tensor, bank: Tensor, positives: Tensor, excluded: Tensor, weights: Tensor, valid: Tensor,
    partition: Tensor, negatives: int, temperature: float, seed: int, step: int, offset: int, derive: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The CUDA path of `nce_loss`."""
    loss, sums, gradient = _outputs(query, derive)
    _check_values(query, bank, positives, weights, partition)
    if len(query):
        wrong = torch.zeros(1, dtype=torch.int32, device=query.device)
        tensors = (query, bank, positives, excluded, weights, valid, partition, loss, sums, gradient, wrong)
        sizes = (positives.shape[1], excluded.shape[1], negatives, np.int64(len(bank)))
        numbers = (np.float64(1 / temperature), np.int64(seed), np.int64(step), np.int64(offset), int(derive))
        shared = 4 * max(excluded.shape[1], 1)
        kernels(bank).launch("bank_nce", len(query), THREADS, (*tensors, *sizes, *numbers), shared)
        torch._assert_async(wrong == 0, WRONG)
        checks.finite("the loss (of a bank with such a row, or at such a temperature)", loss)
    return loss, sums, gradient


@_nce.register_fake
def _(
    query: Tensor, bank: Tensor, positives: Tensor, excluded: Tensor, weights: Tensor, valid: Tensor,
    partition: Tensor, negatives: int, temperature: float, seed: int, step: int, offset: int, derive: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _outputs(query, derive)


def _outputs(query: Tensor, derive: bool) -> tuple[Tensor, Tensor, Tensor]:
    rows, width = query.shape
    sums = query.new_zeros(rows, dtype=torch.float64)
    return query.new_zeros(rows), sums, query.new_zeros(rows if derive else 0, width)


def _check_values(query: Tensor, bank: Tensor, positives: Tensor, weights: Tensor, partition: Tensor) -> None:
    checks.finite("query", query)
    checks.finite("weights", weights)
    checks.finite("log(partition)", partition.log())
    checks.indices("positives", positives, len(bank), least=-1)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[2])


def _gradient(ctx: Any, loss: Tensor | None, sums: Tensor | None, gradient: Tensor | None) -> tuple[Any, ...]:
    if sums is not None or gradient is not None:
        raise RuntimeError("nce_loss can be differentiated once, and exp_sum not at all")
    query = None if loss is None else loss[:, None] * ctx.saved_tensors[0]
    return query, *[None] * 12


_nce.register_autograd(_gradient, setup_context=_save)
