"""Candidates of the top k, from tiles of approximate products, on the CPU.

A tile's products (int8, say) with what they may be off give every key's score an upper bound. Keys whose upper bound
reaches what k others are known to reach become candidates, which `agreement_prune` tells apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from .agreement_prune import OPEN, kth, make_room, slack, tighten

Floats = NDArray[np.float32]
_ROWS = 16  # that share scratch memory
_LANES = 8  # flags that are looked at at once
_LEAST = np.float32(-3.4e38)  # -inf never is a candidate


class Side(NamedTuple):
    """Of queries or keys: float32 scales `a`, `b` (R,) of each modality's codes (the queries' carry the mode's sign),
    and the bounds `norm` and `error` (R,) of both modalities, see `agreement_bounds.joint`."""

    a: Floats
    b: Floats
    norm: Floats
    error: Floats


class Tile(NamedTuple):
    """Products of codes: `a`, `b` (R, T) int32 or float32 of each modality; `first`, index of the tile's first key;
    `rows` (R,) int64, the queries' indices; `own` (R,) int64, the key that each of them must not find, or -1."""

    a: Any
    b: Any
    first: int
    rows: NDArray[np.int64]
    own: NDArray[np.int64]


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def admit(tile: Any, queries: Any, keys: Any, table: Any, k: int, found: Any) -> None:
    """Add what a tile holds to the candidates.

    Args:
        tile: a `Tile` of R queries and T keys.
        queries, keys: the `Side` of each.
        table: an `agreement_prune.Table`.
        found: `agreement_prune.Candidates`, changed.
    """
    for part in prange(-(-tile.a.shape[0] // _ROWS)):
        _admit_rows(part * _ROWS, tile, queries, keys, table, k, found)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _admit_rows(start: int, tile: Any, queries: Any, keys: Any, table: Any, k: int, found: Any) -> None:
    height, width = tile.a.shape
    upper = np.full(-(-width // _LANES) * _LANES, np.float32(-np.inf))
    flags, hits = np.empty(len(upper), np.int8), np.empty(len(upper) + _LANES, np.int32)
    for r in range(start, min(start + _ROWS, height)):
        if found.size[r] != OPEN:
            _uppers(r, tile, queries, keys, table.sign, upper)
            if found.bound[r] == -np.inf:
                off = slack(queries.error[r], queries.norm[r], keys.error.max(), keys.norm.max())
                found.bound[r] = kth(upper[:width], k, found.bound[r]) - (off + off)
            n = _hits(upper, max(found.bound[r], _LEAST), flags, hits)
            _collect(r, tile, queries, keys, upper, hits[:n], table, k, found)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _uppers(r: int, tile: Any, queries: Any, keys: Any, sign: int, out: Any) -> None:
    """The tile's upper bounds of a row's scores."""
    a, b, mine, side = tile.a[r], tile.b[r], tile.own[r] - tile.first, np.float32(sign)
    of_a, of_b, norm, error = queries.a[r], queries.b[r], queries.norm[r], queries.error[r]
    for t in range(len(a)):
        x, y = np.float32(a[t]) * (of_a * keys.a[t]), np.float32(b[t]) * (of_b * keys.b[t])
        out[t] = side * (x if x < y else y) + slack(error, norm, keys.error[t], keys.norm[t])
    if 0 <= mine < len(a):
        out[mine] = -np.inf


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hits(x: Any, cut: Any, flags: Any, out: Any) -> int:
    """Write where x, of a multiple of `_LANES` values, reaches `cut`; return how often.

    No branch depends on the data: what is no hit is written too, and overwritten."""
    for t in range(len(x)):
        flags[t] = x[t] >= cut
    words, some, n = flags.view(np.int64), 0, 0
    for word in range(len(words)):
        out[some] = word
        some += words[word] != 0
    for start in out[:some].copy():
        for t in range(_LANES * start, _LANES * start + _LANES):
            out[n] = t
            n += flags[t]
    return n


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _collect(
    r: int, tile: Any, queries: Any, keys: Any, upper: Any, hits: Any, table: Any, k: int, found: Any
) -> None:
    """Make candidates of the keys whose upper bound reaches the row's bound, and raise that."""
    n, index, lower, most = found.size[r], found.key[r], found.lower[r], found.upper[r]
    error, norm = queries.error[r], queries.norm[r]
    for t in hits:
        if n == len(index):
            found.size[r] = n
            make_room(r, tile.rows[r], table, k, found)
            n = found.size[r]
            if n == OPEN:
                return
        off = slack(error, norm, keys.error[t], keys.norm[t])
        index[n], lower[n], most[n] = tile.first + t, upper[t] - (off + off), upper[t]
        n += 1
    found.size[r] = n
    tighten(r, k, found)
