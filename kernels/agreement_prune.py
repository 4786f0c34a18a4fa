"""Candidates of the top k with bounds of their scores, and how they are told apart, on the CPU.

A key is dropped only when its score's upper bound is below the lower bounds of k others, so what is left holds the
exact top k, ties included, whatever the order and size of the tiles. That is the certificate: a row whose
candidates outgrow their room is marked as open, and every key's exact score is then taken for it.

Bounds are those of the tiles' products (int8, say) at first. When no more can be dropped by them, candidates are looked
at in float32, which is some thousand times more precise.
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


class Table(NamedTuple):
    """`video` and `audio` (N, d) float32, the same one where only one matters, with the bounds `norm` and `error` (N,)
    float32 of both, see `agreement_bounds.joint`; `sign`, 1 for the smaller of both products, -1 for the larger."""

    video: Floats
    audio: Floats
    norm: Floats
    error: Floats
    sign: int


class Candidates(NamedTuple):
    """Of R rows, at most C each: `key` (R, C) int32, `lower` and `upper` (R, C) float32 bounds; `size` (R,) int32,
    of which the first `sure` (R,) int32 have been looked at in float32; `bound` (R,) float32, which at least k
    scores are known to reach; `looks` (R,) int64 in float32."""

    key: NDArray[np.int32]
    lower: Floats
    upper: Floats
    size: NDArray[np.int32]
    sure: NDArray[np.int32]
    bound: Floats
    looks: NDArray[np.int64]


def room(rows: int, k: int) -> Candidates:
    """No candidates yet."""
    shape = (rows, 4 * k + 256)
    lower, upper = np.empty(shape, np.float32), np.empty(shape, np.float32)
    size, sure, looks = np.zeros(rows, np.int32), np.zeros(rows, np.int32), np.zeros(rows, np.int64)
    bound = np.full(rows, -np.inf, np.float32)
    return Candidates(np.empty(shape, np.int32), lower, upper, size, sure, bound, looks)


@njit(inline="always")  # type: ignore[untyped-decorator]
def slack(error_i: Any, norm_i: Any, error_j: Any, norm_j: Any) -> Any:
    """How far the product of two rows is off at most."""
    return (error_i * norm_j + norm_i * error_j) * _UP + _TINY


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def tighten(r: int, k: int, found: Any) -> None:
    """Raise the bound of row r to what its k best candidates are known to reach."""
    n = found.size[r]
    if n >= k:
        found.bound[r] = max(found.bound[r], kth(found.lower[r, :n], k, found.bound[r]))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def prune(r: int, k: int, found: Any) -> None:
    """Raise the bound of row r and drop the candidates that cannot reach it."""
    tighten(r, k, found)
    index, lower, upper, bound = found.key[r], found.lower[r], found.upper[r], found.bound[r]
    kept, sure, looked = 0, 0, found.sure[r]
    for c in range(found.size[r]):
        keep = upper[c] >= bound
        index[kept], lower[kept], upper[kept] = index[c], lower[c], upper[c]
        sure += keep and c < looked
        kept += keep
    found.size[r], found.sure[r] = kept, sure


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def look(r: int, i: int, table: Any, k: int, found: Any) -> None:
    """Bound row r's candidates, i's neighbours, in float32, and prune."""
    prune(r, k, found)
    _look(
        r, i, found.bound[r], table, found
    )  # the k best first: with their bounds half of the others are dropped
    prune(r, k, found)
    _look(r, i, -np.inf, table, found)
    prune(r, k, found)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _look(r: int, i: int, cut: Any, table: Any, found: Any) -> None:
    index, lower, upper, sure = found.key[r], found.lower[r], found.upper[r], found.sure[r]
    end = sure
    for c in range(sure, found.size[r]):
        if lower[c] >= cut:
            index[c], index[end] = index[end], index[c]
            lower[c], lower[end] = lower[end], lower[c]
            upper[c], upper[end] = upper[end], upper[c]
            end += 1
    for c in range(sure, end):  # nothing but products: many rows are on their way from memory at once
        lower[c] = _product(table.video, i, index[c])
    for c in range(sure, end):
        s, t, j = lower[c], _product(table.audio, i, index[c]), index[c]
        s = min(s, t) if table.sign > 0 else max(s, t)
        off = slack(table.error[i], table.norm[i], table.error[j], table.norm[j])
        lower[c], upper[c] = s - off, s + off
    found.looks[r] += end - sure
    found.sure[r] = end


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})  # type: ignore[untyped-decorator]  # the bound holds for any order
def _product(x: Any, i: int, j: int) -> Any:
    total = np.float32(0)
    for c in range(x.shape[1]):
        total += x[i, c] * x[j, c]
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def make_room(r: int, i: int, table: Any, k: int, found: Any) -> None:
    """Drop what can be dropped. Where that is little row r is left open: to prune again and again is quadratic."""
    most = found.key.shape[1] - found.key.shape[1] // 8
    prune(r, k, found)
    if found.size[r] > most:
        look(r, i, table, k, found)
    if found.size[r] > most:
        found.size[r] = OPEN


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
