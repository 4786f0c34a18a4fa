"""Exact scores, one order of summation, on the CPU.

The inner product of two rows is the sum of 32 partial sums in float64: partial sum l adds the products of entries
l, l + 32, l + 64, … in this order, and the 32 are added by halves (l + 16 to l, then l + 8 to l, …, 1 to 0).
Equal rows thus have equal products on every machine, block size and thread count. (It is what a GPU's warp does.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from .agreement_prune import OPEN, look

LANES = 32


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def product(x: Any, i: int, j: int, lanes: Any) -> float:
    """x_i.x_j of (N, d) rows; `lanes` (32,) float64 is scratch."""
    d = x.shape[1]
    whole = d - d % LANES
    lanes[:] = 0.0
    for c in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += np.float64(x[i, c + lane]) * np.float64(x[j, c + lane])
    for c in range(whole, d):
        lanes[c - whole] += np.float64(x[i, c]) * np.float64(x[j, c])
    for lane in range(16):  # halves of lengths that the compiler knows
        lanes[lane] += lanes[lane + 16]
    for lane in range(8):
        lanes[lane] += lanes[lane + 8]
    for lane in range(4):
        lanes[lane] += lanes[lane + 4]
    return float((lanes[0] + lanes[2]) + (lanes[1] + lanes[3]))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _agreement(i: int, j: int, video: Any, audio: Any, sign: Any, one: bool, lanes: Any) -> Any:
    x = product(video, i, j, lanes)
    if one:
        return x
    y = product(audio, i, j, lanes)
    return min(x, y) if sign > 0 else max(x, y)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _insert(score: float, key: int, filled: int, values: Any, keys: Any) -> int:
    """Put a key in its place among the `filled` best, sorted by score descending, then by index; return how many."""
    k = values.shape[0]
    at = filled
    while at > 0 and (score > values[at - 1] or (score == values[at - 1] and key < keys[at - 1])):
        at -= 1
    if at == k:
        return filled
    filled = min(filled + 1, k)
    for slot in range(filled - 1, at, -1):
        values[slot], keys[slot] = values[slot - 1], keys[slot - 1]
    values[at], keys[at] = score, key
    return filled


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def rank(queries: Any, table: Any, found: Any, video: Any, audio: Any, values: Any, keys: Any) -> None:
    """The k best candidates of each row by exact score, of those that float32 cannot tell apart.

    Args:
        queries: (R,) int64 rows of the tables.
        table: an `agreement_prune.Table`.
        found: `agreement_prune.Candidates`; rows that are open, or become it, are left alone.
        video, audio: (N, d) float32 or float64, the same array where there is one modality.
        values, keys: (R, k) float64 filled with -inf, and int64 filled with -1; written.
    """
    for r in prange(queries.shape[0]):
        if found.size[r] != OPEN:
            _rank(r, queries[r], table, found, video, audio, values, keys)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _rank(r: int, i: int, table: Any, found: Any, video: Any, audio: Any, values: Any, keys: Any) -> None:
    look(r, i, table, values.shape[1], found)
    one, lanes, filled = video.ctypes.data == audio.ctypes.data, np.empty(LANES), 0
    for key in found.key[r, : found.size[r]]:
        score = _agreement(i, key, video, audio, table.sign, one, lanes)
        filled = _insert(score, key, filled, values[r], keys[r])


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def scan(
    queries: Any, own: Any, rows: Any, video: Any, audio: Any, sign: Any, values: Any, keys: Any
) -> None:
    """As `rank`, for those `rows` only, with every key a candidate but own (R,)."""
    for at in prange(rows.shape[0]):
        r = rows[at]
        _scan(queries[r], own[r], video, audio, sign, values[r], keys[r])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _scan(i: int, own: int, video: Any, audio: Any, sign: Any, values: Any, keys: Any) -> None:
    one, lanes, filled = video.ctypes.data == audio.ctypes.data, np.empty(LANES), 0
    for key in range(video.shape[0]):
        if key != own:
            score = _agreement(i, key, video, audio, sign, one, lanes)
            filled = _insert(score, key, filled, values, keys)
