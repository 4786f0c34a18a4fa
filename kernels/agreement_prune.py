"""Candidates of the top k with bounds of their scores, and how they are told apart, on the CPU.

A key is dropped only when its score's upper bound is below the lower bounds of k others, so what is left holds the
exact top k, ties included, whatever the order and size of the tiles. That is the certificate: a row whose
candidates outgrow their room is marked as open, and is searched again with more precise products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
OPEN = -1  # the size of a row that has more candidates than room
_STEPS = 16  # halvings at most of the interval in which the k-th lower bound lies
_UP, _TINY = np.float32(1 + 2.0**-20), np.float32(2.0**-80)  # as in `agreement_bounds`


class Candidates(NamedTuple):
    """Of R rows, at most C each: `key` (R, C) uint32, `score` (R, C) float32 as the tiles have it; `size` (R,) int32;
    `bound` (R,) float32, which at least k scores are known to reach, inf for open rows."""

    key: NDArray[np.uint32]
    score: Floats
    size: NDArray[np.int32]
    bound: Floats


def room(rows: int, most: int) -> Candidates:
    """No candidates yet, and room for `most` of each row."""
    shape = (rows, most)
    size, bound = np.zeros(rows, np.int32), np.full(rows, -np.inf, np.float32)
    return Candidates(np.empty(shape, np.uint32), np.empty(shape, np.float32), size, bound)


@njit(inline="always")  # type: ignore[untyped-decorator]
def slack(error_i: Any, norm_i: Any, error_j: Any, norm_j: Any) -> Any:
    """How far the product of two rows is off at most."""
    return (error_i * norm_j + norm_i * error_j) * _UP + _TINY


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def make_room(r: int, k: int, queries: Any, keys: Any, found: Any) -> None:
    """Drop what can be dropped. Where that is little row r is left open: to prune again and again is quadratic."""
    prune(r, k, queries, keys, found)
    if found.size[r] > found.key.shape[1] - found.key.shape[1] // 8:
        found.size[r], found.bound[r] = OPEN, np.inf


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def prune(r: int, k: int, queries: Any, keys: Any, found: Any) -> None:
    """Raise the bound of row r and drop the candidates that cannot reach it.

    Args:
        queries, keys: `agreement_select.Side` of each.
        found: `Candidates`, changed.
    """
    index, score, n = found.key, found.score, found.size[r]
    lower, off = np.empty(n, np.float32), np.empty(n, np.float32)
    error, norm, errors, norms = queries.error[r], queries.norm[r], keys.error, keys.norm
    for c in range(n):
        j = np.uint64(index[r, c])  # unsigned: LLVM then sees that no index counts from the end
        off[c] = slack(error, norm, errors[j], norms[j])
    for c in range(n):
        lower[c] = score[r, c] - off[c]
    bound, kept = found.bound[r], 0
    if n >= k:
        bound = max(bound, kth(lower, k, bound))
        found.bound[r] = bound
    for c in range(n):
        index[r, kept], score[r, kept] = index[r, c], score[r, c]
        kept += score[r, c] + off[c] >= bound
    found.size[r] = kept


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def kth(x: Any, k: int, known: Any) -> Any:
    """A value that at least k of x reach, and hardly more do; -inf where that is true of fewer.

    Args:
        x: (n,) float32.
        known: a value that k are known to reach, or -inf.
    """
    low, high = known, _greatest(x)
    if low == -np.inf:
        low = np.float32(0) if reach(x, np.float32(0)) >= k else _least(x)
        if reach(x, low) < k:
            return np.float32(-np.inf)
    for _ in range(_STEPS):
        middle = np.float32(0.5) * (low + high)
        count = reach(x, middle)
        if count < k:
            high = middle
        else:
            low = middle
        if count == k:
            break
    return low


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def reach(x: Any, value: Any) -> int:
    """How many of x are at least as great as another value."""
    count = 0
    for c in range(len(x)):
        count += x[c] >= value
    return count


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _greatest(x: Any) -> Any:
    """The greatest of x, or 0 if all are negative."""
    bits, greatest = x.view(np.int32), np.zeros(1, np.int32)
    most = np.int32(0)
    for c in range(
        len(x)
    ):  # floats of one sign are in the order of their bits, whose maximum is one of vectors
        most = max(most, bits[c])
    greatest[0] = most
    return greatest.view(np.float32)[0]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _least(x: Any) -> Any:
    """The least of x that is finite, or inf."""
    least = np.float32(np.inf)
    for c in range(len(x)):
        least = x[c] if -np.inf < x[c] < least else least
    return least
