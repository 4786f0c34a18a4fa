"""Candidates of the top k, from tiles of approximate products, on the CPU.

A tile's products (of int16 codes, say) with what they may be off give every pair's score an upper bound. Pairs whose
upper bound reaches what k others are known to reach become candidates, which `agreement_prune` tells apart. Where all
rows are queries a pair is a candidate of both its rows: rho is symmetric, and only half of the tiles are needed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from .agreement_lanes import products
from .agreement_prune import Candidates, kth, make_room, slack

Floats = NDArray[np.float32]
_ROWS = 32  # of a tile at a time: their products stay in the core's first cache
_LANES = 8  # flags that are looked at at once


class Side(NamedTuple):
    """Queries or keys: packed codes `a`, `b` of each modality (the same array where only one matters), see
    `agreement_lanes.pack`, rows of `words_a` and `words_b` words; their float32 scales `scale_a`, `scale_b` (R,); the
    bounds `norm` and `error` (R,) of both modalities, see `agreement_bounds.joint`."""

    a: NDArray[Any]
    b: NDArray[Any]
    words_a: int
    words_b: int
    scale_a: Floats
    scale_b: Floats
    norm: Floats
    error: Floats


class Search(NamedTuple):
    """`ids` (Q,) int64, which keys the queries are; `k`; `sign`, 1 for the smaller of both products, -1 for the larger;
    `own`: whether a row may find itself; `one`: only one modality matters; `mutual`: queries are the keys, in their
    order; `tile`: queries and keys of a tile, a multiple of 32."""

    ids: NDArray[np.int64]
    k: int
    sign: int
    own: bool
    one: bool
    mutual: bool
    tile: int


def candidates(search: Search, queries: Side, keys: Side, found: Candidates) -> None:
    """Add every key that may be one of a query's k best to `found`."""
    blocks = -(-len(keys.norm) // search.tile)
    for turn in range(-1, blocks | 1) if search.mutual else range(1):
        _admit(turn, search, queries, keys, found)


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _admit(turn: int, search: Any, queries: Any, keys: Any, found: Any) -> None:
    """The tiles of a turn. What they do is in `_meet`: Numba has got bodies of parallel loops wrong."""
    blocks = -(-len(queries.norm) // search.tile)
    tiles = blocks // 2 if search.mutual and turn >= 0 else blocks
    for p in prange(tiles):
        _meet(p, turn, blocks | 1, search, queries, keys, found)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _meet(p: int, turn: int, odd: int, search: Any, queries: Any, keys: Any, found: Any) -> None:
    """One block of queries with all keys or, in a mutual search, every block with itself (turn -1), then t + p + 1 with
    t - p - 1 in turn t, modulo an odd number of blocks: each block once in a turn, so that no two threads add to one
    row, and each two blocks once in all turns."""
    if not search.mutual:
        for other in range(-(-len(keys.norm) // search.tile)):
            _admit_tile(p, other, search, queries, keys, found)
    elif turn < 0:
        _admit_tile(p, p, search, queries, keys, found)
    else:
        _admit_tile((turn + p + 1) % odd, (turn - p - 1) % odd, search, queries, keys, found)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _admit_tile(block: int, other: int, search: Any, queries: Any, keys: Any, found: Any) -> None:
    tile = search.tile
    first, first_key = block * tile, other * tile
    end, end_key = min(first + tile, len(queries.norm)), min(first_key + tile, len(keys.norm))
    if first >= end or first_key >= end_key:  # the block that makes their number odd
        return
    both, width = search.mutual and block != other, end_key - first_key
    cuts = np.full(width, np.float32(np.inf))
    if both:
        _cut(
            first_key,
            end_key,
            keys,
            queries.error[first:end].max(),
            queries.norm[first:end].max(),
            found,
            cuts,
        )
    a = np.empty((_ROWS, -(-width // _ROWS) * _ROWS), queries.a.dtype)
    b = a if search.one else np.empty_like(a)
    scores, flags = np.empty(a.shape, np.float32), np.zeros(a.shape, np.int8)
    own_cuts, hits = np.empty(_ROWS, np.float32), np.empty(a.size + _LANES, np.int32)
    error, norm = keys.error[first_key:end_key].max(), keys.norm[first_key:end_key].max()
    for start in range(first, end, _ROWS):
        products(a, queries.a, start, keys.a, first_key, queries.words_a)
        if not search.one:
            products(b, queries.b, start, keys.b, first_key, queries.words_b)
        stop = min(start + _ROWS, end)
        if found.bound[start] == -np.inf:
            _flag(
                a,
                b,
                start,
                stop,
                first_key,
                end_key,
                search.sign,
                queries,
                keys,
                own_cuts,
                cuts,
                scores,
                flags,
            )
            k = search.k + (not search.own)  # one of them may be the row itself
            _begin(scores, start, stop, width, k, queries, error, norm, found)
        _cut(start, stop, queries, error, norm, found, own_cuts)
        _flag(
            a, b, start, stop, first_key, end_key, search.sign, queries, keys, own_cuts, cuts, scores, flags
        )
        n = _hits(flags[: stop - start].reshape(-1), hits)
        _collect(start, first_key, both, scores, hits[:n], search, queries, keys, found)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _begin(
    scores: Any, start: int, end: int, width: int, k: int, queries: Any, error: Any, norm: Any, found: Any
) -> None:
    """The first bound of rows start … end - 1, from their first tile."""
    for r in range(start, end):
        off, known = slack(queries.error[r], queries.norm[r], error, norm), np.float32(-np.inf)
        found.bound[r] = max(found.bound[r], kth(scores[r - start, :width], k, known) - off)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _cut(start: int, end: int, side: Any, error: Any, norm: Any, found: Any, out: Any) -> None:
    """The least product of rows start … end - 1 with rows of such bounds that may be worth a closer look."""
    for r in range(start, end):
        out[r - start] = found.bound[r] - slack(side.error[r], side.norm[r], error, norm)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _flag(
    a: Any, b: Any, start: int, stop: int, first: int, end: int, sign: int, queries: Any, keys: Any,
    of_row: Any, of_column: Any, scores: Any, flags: Any,
) -> None:  # fmt: skip
    """Scores of queries start … stop - 1 with keys first … end - 1, and where they reach a cut."""
    side = np.float32(sign)
    scale_a, scale_b = keys.scale_a[first:end], keys.scale_b[first:end]
    for r in range(stop - start):
        of_a, of_b, cut = queries.scale_a[start + r] * side, queries.scale_b[start + r] * side, of_row[r]
        for t in range(end - first):
            x, y = np.float32(a[r, t]) * (of_a * scale_a[t]), np.float32(b[r, t]) * (of_b * scale_b[t])
            score = side * (x if x < y else y)
            scores[r, t] = score
            flags[r, t] = score >= min(cut, of_column[t])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hits(flags: Any, out: Any) -> int:
    """Write where flags, of a multiple of `_LANES`, are 1; return how often.

    No branch depends on the data: what is no hit is written too, and overwritten."""
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
    start: int,
    first: int,
    both: bool,
    scores: Any,
    hits: Any,
    search: Any,
    queries: Any,
    keys: Any,
    found: Any,
) -> None:
    """Make candidates of the keys that may reach a row's bound and, of `both`, of rows for keys whose bound they may
    reach."""
    ids, k, own, width = search.ids, search.k, search.own, scores.shape[1]
    bound, size, index, score = found.bound, found.size, found.key, found.score
    full = index.shape[1]
    for hit in hits:
        r, t = hit // width, hit % width
        row, key = start + r, first + t
        most = scores[r, t] + slack(queries.error[row], queries.norm[row], keys.error[key], keys.norm[key])
        for _ in range(1 + both):
            if most >= bound[row] and (own or key != ids[row]):
                index[row, size[row]], score[row, size[row]] = key, scores[r, t]
                size[row] += 1
                if size[row] == full:
                    make_room(row, k, queries, keys, found)
            row, key = key, row
