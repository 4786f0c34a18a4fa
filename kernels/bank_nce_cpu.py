"""The CPU path of `bank_nce`: one query after another, in parallel, each with memory of the order of K."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from .bank_draw import draw, gaps
from .bank_math import exp_sum, sigmoid, softplus_sum
from .bank_rows import Array, add, dots

BLOCK = 16  # rows that are scored, then added to the gradient while they are in the nearest cache


@njit(cache=True, parallel=True)  # type: ignore[untyped-decorator]
def nce_all(
    query: Array, bank: Array, positives: Array, excluded: Array, weights: Array, valid: Array,
    negatives: int, scale: float, shift: float, seed: Any, seed_high: Any, step: Any, step_high: Any,
    offset: int, derive: bool, loss: Array, sums: Array, gradient: Array, wrong: Array,
) -> None:  # fmt: skip
    """Fills loss (B,), sums (B,) and, if `derive`, gradient (B, d); marks in wrong (B,) those whose
    excluded rows are not as they must be.

    Args:
        scale, shift: a logit is inner product * scale - shift.
        The others are those of `bank_nce.nce_loss`, 64-bit numbers in halves.
    """
    for b in prange(query.shape[0]):
        if not valid[b]:
            continue
        before = gaps(excluded[b], bank.shape[0])
        if before.shape[0] and before[0] < 0:
            wrong[b] = True
            continue
        ids, factors, count = _columns(positives[b], weights[b], negatives)
        draw(before, bank.shape[0], seed, seed_high, step, step_high, offset + b, ids[count:])
        logits = np.empty(ids.shape[0], np.float64)
        place = b if derive else 0
        _logits(query[b], bank, ids, factors, count, scale, shift, logits, gradient[place : place + derive])
        sums[b] = exp_sum(logits[count:] + shift)
        loss[b] = _loss(logits, factors, count)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _columns(positives: Array, weights: Array, negatives: int) -> tuple[Array, Array, int]:
    """Rows of the bank that a query meets, its positives first; what each counts; how many are positives."""
    ids = np.empty(positives.shape[0] + negatives, np.int64)
    factors, count, total = np.empty(ids.shape[0], np.float64), 0, 0.0
    for i in range(positives.shape[0]):
        if positives[i] >= 0:
            ids[count], factors[count] = positives[i], weights[i]
            count, total = count + 1, total + weights[i]
    factors[count:] = total
    return ids[: count + negatives], factors[: count + negatives], count


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _logits(
    query: Array, bank: Array, ids: Array, factors: Array, count: int,
    scale: float, shift: float, logits: Array, gradient: Array,
) -> None:  # fmt: skip
    """logits (n,) of the rows `ids`; gradient (1, d) of the loss, or (0, d) if it is not wanted."""
    slopes = np.empty(ids.shape[0], query.dtype)
    for first in range(0, ids.shape[0], BLOCK):
        last = min(first + BLOCK, ids.shape[0])
        dots(query, bank, ids, first, last, logits)
        for k in range(first, last):
            logits[k] = logits[k] * scale - shift
        if gradient.shape[0]:
            for k in range(first, last):
                sign = -1.0 if k < count else 1.0
                slopes[k] = sign * factors[k] * scale * sigmoid(sign * logits[k])
            add(gradient[0], slopes, bank, ids, first, last)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _loss(logits: Array, factors: Array, count: int) -> Any:
    """Eq. 3 of every positive with the same negatives, each counted by its factor."""
    total = factors[-1] * softplus_sum(logits[count:])
    for k in range(count):
        total += factors[k] * softplus_sum(-logits[k : k + 1])
    return total
