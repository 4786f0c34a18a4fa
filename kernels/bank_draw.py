"""Negatives for noise-contrastive estimation: uniform over the rows of a bank that are no positives (CMA, Eq. 8).

Draw k of row b is a function of (seed, step, b's place in the global batch, k) and of nothing else: Philox4x32-10
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) under the key `seed`, at the counter
(k // 2, place, step). Every process, thread and device draws the same, and a backward pass can draw it again.

    the generator's 64 bits r -> u = r * (N - P) >> 64         uniform over N - P ranks, to one part in 2^33
    u -> u + #{i : p_i - i <= u}                               the u-th row that is not among p_0 < p_1 < …
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from . import checks, cuda
from .bank_rows import Array

MOST_ROWS = 2**31  # of a bank: row numbers times 32 random bits must fit 64
_WORD = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
THREADS = 256


def sample_negatives(
    excluded: Tensor, rows: int, count: int, *, seed: int, step: int, offset: int = 0
) -> Tensor:
    """`count` row numbers for each query, uniform (with replacement) over the rows that are not excluded.

    Args:
        excluded: (B, P) int64, ascending in each row: the positives and the query's own row. Places at the end
            that are not needed hold -1 or `rows`. A row number that stands there twice counts once.
        rows: N of the bank, at most 2^31.
        count: K, negatives a query.
        seed: any int64; use another for draws that shall be independent of these.
        step: of the training, not negative.
        offset: place of `excluded[0]` in the global batch.

    Returns:
        (B, K) int64, the same on every device and for every division of the global batch.

    Raises:
        ValueError: `excluded` is not as described, or leaves no row to draw.
    """
    check_excluded(excluded)
    check_draw(rows, count, step, offset)
    ids: Tensor = _sample_negatives(excluded, rows, count, seed, step, offset)
    return ids


def check_excluded(excluded: Tensor) -> None:
    """`excluded` is a contiguous int64 matrix."""
    if not isinstance(excluded, Tensor) or excluded.dtype != torch.int64 or excluded.ndim != 2:
        raise ValueError(
            f"excluded must be an int64 matrix (queries, positives), got {checks.describe(excluded)}"
        )
    checks.contiguous("excluded", excluded)


def check_draw(rows: int, count: int, step: int, offset: int) -> None:
    """The numbers that a draw depends on are in range."""
    if not 0 < rows <= MOST_ROWS:
        raise ValueError(f"rows of the bank must be 1 … 2^31, got {rows = }")
    if count < 0 or step < 0 or offset < 0:
        raise ValueError(f"these must not be negative, got {count = }, {step = }, {offset = }")


@torch.library.custom_op("coaug::sample_negatives", mutates_args=(), device_types="cpu")
def _sample_negatives(excluded: Tensor, rows: int, count: int, seed: int, step: int, offset: int) -> Tensor:
    ids = torch.empty(len(excluded), count, dtype=torch.int64)
    wrong = np.zeros(len(excluded), np.bool_)
    _draw_all(excluded.numpy(), rows, *halves(seed), *halves(step), offset, ids.numpy(), wrong)
    refuse(wrong, excluded, rows)
    return ids


@_sample_negatives.register_kernel("cuda")
def sample_negatives_cuda(
    excluded: Tensor, rows: int, count: int, seed: int, step: int, offset: int
) -> Tensor:
    """The CUDA path of `sample_negatives`."""
    queries, width = excluded.shape
    ids = excluded.new_empty(queries, count)
    wrong = torch.zeros(1, dtype=torch.int32, device=excluded.device)
    if ids.numel():
        numbers = (width, count, np.int64(rows), np.int64(seed), np.int64(step), np.int64(offset))
        module = cuda.module("bank_scores", BANK=0, WIDTH=128)
        module.launch("bank_draw", queries, THREADS, (excluded, ids, wrong, *numbers), 4 * max(width, 1))
        torch._assert_async(wrong == 0, WRONG)
    return ids


@_sample_negatives.register_fake
def _(excluded: Tensor, rows: int, count: int, seed: int, step: int, offset: int) -> Tensor:
    return excluded.new_empty(excluded.shape[0], count)


WRONG = "excluded must ascend in each row and hold row numbers of the bank, then only -1 or N, and leave a row to draw"


def refuse(wrong: Array, excluded: Tensor, rows: int) -> None:
    """ValueError quoting the first row of `excluded` that is marked `wrong`."""
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"{WRONG}; got {rows = } and excluded[{row}] = {excluded[row].tolist()}")


def halves(word: int) -> tuple[Any, Any]:
    """The lower and the upper 32 bits of an int64, as uint64."""
    return np.uint64(word & 0xFFFFFFFF), np.uint64(word >> 32 & 0xFFFFFFFF)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def philox(x: Array, y: Array, z: Array, w: Array, key: Any, key_high: Any) -> None:
    """Philox4x32-10 of many counters in place: arrays (n,) of 32-bit words, each in a uint64.

    Round by round over all counters, so that a vector register holds eight of them.
    """
    for _ in range(10):
        for i in range(x.shape[0]):
            # the masks change nothing; they tell the compiler that a 32-bit multiplication will do
            a, b = np.uint64(0xD2511F53) * (x[i] & _WORD), np.uint64(0xCD9E8D57) * (z[i] & _WORD)
            x[i], y[i], z[i], w[i] = (
                (b >> _32) ^ y[i] ^ key,
                b & _WORD,
                (a >> _32) ^ w[i] ^ key_high,
                a & _WORD,
            )
        key, key_high = (key + np.uint64(0x9E3779B9)) & _WORD, (key_high + np.uint64(0xBB67AE85)) & _WORD


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _below(limit: Any, low: Any, high: Any) -> Any:
    """The upper word of limit * (2^32 high + low), for a limit up to 2^31: uniform over [0, limit)."""
    return np.int64((high * limit + (low * limit >> _32)) >> _32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def gaps(excluded: Array, rows: int) -> Array:
    """For each excluded row, how many rows that are not excluded stand before it, ascending; empty and last -1: wrong.

    Args:
        excluded: (P,) int64, as in `sample_negatives`.
    """
    before, used, ended = np.empty(excluded.shape[0] + 1, np.int64), 0, False
    for i in range(excluded.shape[0]):
        row = excluded[i]
        if row == -1 or row == rows:
            ended = True
            continue
        if ended or row < 0 or row > rows or (i > 0 and row < excluded[i - 1]):
            return np.full(1, -1)
        if i == 0 or row != excluded[i - 1]:
            before[used] = row - used
            used += 1
    return before[:used] if used < rows else np.full(1, -1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def draw(
    before: Array, rows: int, seed: Any, seed_high: Any, step: Any, step_high: Any, place: int, out: Array
) -> None:
    """out (K,) = the draws of the query at `place` in the global batch, given its `gaps`."""
    limit, words = np.uint64(rows - before.shape[0]), np.empty((4, (out.shape[0] + 1) // 2), np.uint64)
    for pair in range(words.shape[1]):
        words[0, pair], words[1, pair] = pair, place
        words[2, pair], words[3, pair] = step, step_high
    philox(words[0], words[1], words[2], words[3], seed, seed_high)
    for k in range(out.shape[0]):
        half = 2 * (k % 2)
        rank, shift = _below(limit, words[half, k // 2], words[half + 1, k // 2]), 0
        for i in range(before.shape[0]):
            shift += before[i] <= rank
        out[k] = rank + shift


@njit(cache=True, parallel=True)  # type: ignore[untyped-decorator]
def _draw_all(
    excluded: Array,
    rows: int,
    seed: Any,
    seed_high: Any,
    step: Any,
    step_high: Any,
    offset: int,
    ids: Array,
    wrong: Array,
) -> None:
    for b in prange(ids.shape[0]):
        before = gaps(excluded[b], rows)
        if before.shape[0] and before[0] < 0:
            wrong[b] = True
        else:
            draw(before, rows, seed, seed_high, step, step_high, offset + b, ids[b])
