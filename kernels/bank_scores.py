"""Inner products of queries with sampled rows of a memory bank (AVID, Eq. 1), without gathering the rows.

`bank[ids]` is (B, K, d): at B = K = 1024 and d = 128 that is 512 MiB written and read again, for 4 MiB of scores.
Here each row is read once and used at once, forward and backward. The bank is a constant: only queries learn.
"""

from __future__ import annotations

from typing import Any

import torch
from numba import njit, prange
from torch import Tensor

from . import checks, cuda
from .bank_rows import AHEAD, Array, add, bits, dots, fetch

STORAGE = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # BANK of bank_scores.cu
THREADS = 256  # of a CUDA block
CHUNK = 256  # scores that one block computes


def bank_scores(query: Tensor, bank: Tensor, ids: Tensor) -> Tensor:
    """query_b . bank[ids_bk] for every b and k.

    Args:
        query: (B, d) floating; carries gradient, sum_k grad_bk bank[ids_bk].
        bank: (N, d) float32, float16 or bfloat16, on the CPU float64 too; a constant.
        ids: (B, K) int64, rows of the bank.

    Returns:
        (B, K) float32, or float64 if the query is.

    Raises:
        TypeError, ValueError: wrong dtype, shape, device or memory layout, an id outside the bank, a query or a
            sampled row that is not finite.
    """
    query = check_query(query, bank)
    if ids.ndim != 2 or len(ids) != len(query):
        raise ValueError(f"ids must be a matrix of {len(query)} rows, got {checks.describe(ids)}")
    checks.same_device(query=query, ids=ids)
    scores: Tensor = _bank_scores(query, bank, ids)
    return scores


def check_query(query: Tensor, bank: Tensor) -> Tensor:
    """The query in the precision of the arithmetic, float32 or float64, once both are what they must be."""
    check_storage(bank)
    checks.matrix("query", query, width=bank.shape[1])
    checks.same_device(query=query, bank=bank)
    if query.is_cuda and query.dtype == torch.float64:
        raise TypeError(f"float64 is for the CPU, got query {checks.describe(query)}")
    return query.to(torch.promote_types(query.dtype, torch.float32))


def check_storage(bank: Tensor) -> None:
    """`bank` is a contiguous matrix of a type that its device stores, and a constant."""
    checks.matrix("bank", bank)
    if bank.requires_grad:
        raise ValueError("bank requires grad, but no gradient flows into it: pass bank.detach()")
    if bank.dtype == torch.float64 and bank.device.type == "cuda":
        raise TypeError(f"float64 is for the CPU, got bank {checks.describe(bank)}")


def kernels(bank: Tensor) -> cuda.Module:
    """bank_scores.cu for this bank's storage and width.

    Raises:
        ValueError: the bank is a view that does not begin at a multiple of 16 bytes, which its loads need.
    """
    if bank.data_ptr() % 16:
        raise ValueError(
            f"bank must begin at a multiple of 16 bytes, got {bank.data_ptr() = }: pass bank.clone()"
        )
    return cuda.module("bank_scores", BANK=STORAGE[bank.dtype], WIDTH=bank.shape[1])


@torch.library.custom_op("coaug::bank_scores", mutates_args=(), device_types="cpu")
def _bank_scores(query: Tensor, bank: Tensor, ids: Tensor) -> Tensor:
    checks.indices("ids", ids, len(bank))
    checks.finite("query", query)
    scores = query.new_empty(ids.shape)
    _scores(query.numpy(), bits(bank), ids.numpy(), scores.numpy())
    checks.finite("scores (query . bank[ids])", scores)
    return scores


@_bank_scores.register_kernel("cuda")
def bank_scores_cuda(query: Tensor, bank: Tensor, ids: Tensor) -> Tensor:
    """The CUDA path of `bank_scores`."""
    checks.indices("ids", ids, len(bank))
    checks.finite("query", query)
    scores = query.new_empty(ids.shape)
    if scores.numel():
        grid = len(ids), -(-ids.shape[1] // CHUNK)
        kernels(bank).launch("bank_dot", grid, THREADS, (query, bank, ids, scores, ids.shape[1], CHUNK))
    return scores


@_bank_scores.register_fake
def _(query: Tensor, bank: Tensor, ids: Tensor) -> Tensor:
    return query.new_empty(ids.shape)


@torch.library.custom_op("coaug::bank_scores_backward", mutates_args=(), device_types="cpu")
def _backward(grad: Tensor, bank: Tensor, ids: Tensor) -> Tensor:
    """sum_k grad_bk bank[ids_bk], (B, d): also linear in `grad`, so its own gradient is `_bank_scores`."""
    total = grad.new_zeros(len(ids), bank.shape[1])
    _combine(grad.contiguous().numpy(), bits(bank), ids.numpy(), total.numpy())
    return total


@_backward.register_kernel("cuda")
def backward_cuda(grad: Tensor, bank: Tensor, ids: Tensor) -> Tensor:
    """The CUDA path of the gradient."""
    total = grad.new_zeros(len(ids), bank.shape[1])
    if ids.numel():
        args = (grad.contiguous(), bank, ids, total, ids.shape[1])
        kernels(bank).launch("bank_combine", len(ids), THREADS, args)
    return total


@_backward.register_fake
def _(grad: Tensor, bank: Tensor, ids: Tensor) -> Tensor:
    return grad.new_empty(ids.shape[0], bank.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _scores_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _backward(grad, *ctx.saved_tensors), None, None


def _backward_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _bank_scores(grad.contiguous(), *ctx.saved_tensors), None, None


_bank_scores.register_autograd(_scores_gradient, setup_context=_save)
_backward.register_autograd(_backward_gradient, setup_context=_save)


@njit(cache=True, parallel=True)  # type: ignore[untyped-decorator]
def _scores(query: Array, bank: Array, ids: Array, out: Array) -> None:
    for b in prange(ids.shape[0]):
        dots(query[b], bank, ids[b], 0, ids.shape[1], out[b])


@njit(cache=True, parallel=True)  # type: ignore[untyped-decorator]
def _combine(weights: Array, bank: Array, ids: Array, total: Array) -> None:
    for b in prange(ids.shape[0]):  # a query's rows one after another: the sum does not depend on threads
        for first in range(0, ids.shape[1], AHEAD):
            last = min(first + AHEAD, ids.shape[1])
            for k in range(last, min(last + AHEAD, ids.shape[1])):
                fetch(bank, ids[b, k])
            add(total[b], weights[b], bank, ids[b], first, last)
