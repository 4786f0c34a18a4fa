"""Exact scores, one order of summation, on the CPU.

The inner product of two rows is the sum of 32 partial sums in float64: partial sum l adds the products of entries
l, l + 32, l + 64, … in this order, and the 32 are added by halves (l + 16 to l, then l + 8 to l, …, 1 to 0).
Equal rows thus have equal products on every machine, block size and thread count. (It is what a GPU's warp does.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .agreement_prune import OPEN, prune

LANES = 32
_SCANNED = 512  # keys at a time where all are candidates


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def products(x: Any, i: int, keys: Any, out: Any) -> None:
    """out[c] = x_i . x_keys[c], of (N, d) rows, d a multiple of 32."""
    mine, flat, d = x[i].astype(np.float64), x.reshape(-1), x.shape[1]
    for c in range(len(keys)):
        out[c] = _product(mine, flat, np.int64(keys[c]) * d)


@intrinsic  # type: ignore[untyped-decorator]
def _product(_: Any, mine: Any, rows: Any, first: Any) -> Any:
    """The inner product of mine (d,) float64 and rows[first : first + d]. LLVM would not keep the sums in registers."""
    signature = types.float64(mine, rows, types.int64)

    def code(context: Any, builder: Any, typed: Any, values: Any) -> Any:
        mine, rows = (context.make_array(typed.args[x])(context, builder, values[x]) for x in (0, 1))
        count = builder.extract_value(mine.shape, 0)
        total = cgutils.alloca_once_value(builder, ir.Constant(_doubles(LANES), None))
        with cgutils.for_range_slice(builder, count.type(0), count, count.type(LANES), count.type) as (at, _):
            a = _load(builder, mine.data, at)
            b = _load(builder, rows.data, builder.add(values[2], at))
            b = b if b.type == a.type else builder.fpext(b, a.type)
            builder.store(builder.fadd(builder.load(total), builder.fmul(a, b)), total)
        sums = builder.load(total)
        for half in (16, 8, 4, 2, 1):
            low, high = (ir.Constant(_ints(half), list(range(x, x + half))) for x in (0, half))
            sums = builder.fadd(
                builder.shuffle_vector(sums, sums, low), builder.shuffle_vector(sums, sums, high)
            )
        return builder.extract_element(sums, ir.IntType(32)(0))

    return signature, code


def _load(builder: Any, array: Any, at: Any) -> Any:
    vector = ir.VectorType(array.type.pointee, LANES)
    place = builder.bitcast(builder.gep(array, [at]), vector.as_pointer())
    return builder.load(place, align=4)


def _doubles(n: int) -> Any:
    return ir.VectorType(ir.DoubleType(), n)


def _ints(n: int) -> Any:
    return ir.VectorType(ir.IntType(32), n)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _agreements(i: int, keys: Any, video: Any, audio: Any, sign: int) -> Any:
    """Exact scores of row i with some keys."""
    scores = np.empty(len(keys))
    products(video, i, keys, scores)
    if video.ctypes.data != audio.ctypes.data:
        others = np.empty(len(keys))
        products(audio, i, keys, others)
        scores = np.minimum(scores, others) if sign > 0 else np.maximum(scores, others)
    return scores


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _insert(scores: Any, found: Any, filled: int, values: Any, keys: Any) -> int:
    """Put keys in their places among the `filled` best, sorted by score descending, then by index; return how many."""
    k = len(values)
    for c in range(len(found)):
        score, key, at = scores[c], found[c], filled
        while at > 0 and (score > values[at - 1] or (score == values[at - 1] and key < keys[at - 1])):
            at -= 1
        if at < k:
            filled = min(filled + 1, k)
            for slot in range(filled - 1, at, -1):
                values[slot], keys[slot] = values[slot - 1], keys[slot - 1]
            values[at], keys[at] = score, key
    return filled


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def rank(
    search: Any, asked: Any, sides: Any, found: Any, rows: Any, video: Any, audio: Any, values: Any, keys: Any
) -> None:
    """The k best candidates of each row by exact score.

    Args:
        search: an `agreement_select.Search` of R queries.
        asked, sides: `agreement_select.Side` of queries and keys.
        found: `agreement_prune.Candidates`; rows that are open are left alone.
        rows: (R,) int64, each query's row of `values` and `keys`.
        video, audio: (N, d) float32 or float64, the same array where there is one modality.
        values, keys: (Q, k) float64 filled with -inf, and int64 filled with -1; written.
    """
    for r in prange(rows.shape[0]):
        if found.size[r] != OPEN:
            _rank(r, search, asked, sides, found, video, audio, values[rows[r]], keys[rows[r]])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _rank(
    r: int, search: Any, asked: Any, sides: Any, found: Any, video: Any, audio: Any, values: Any, keys: Any
) -> None:
    prune(r, search.k, asked, sides, found)
    index = found.key[r, : found.size[r]]
    _insert(_agreements(search.ids[r], index, video, audio, search.sign), index, 0, values, keys)


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def scan(ids: Any, own: bool, rows: Any, video: Any, audio: Any, sign: int, values: Any, keys: Any) -> None:
    """As `rank`, for those `rows` of the queries `ids` (Q,): every key is a candidate but, if not `own`, itself."""
    for at in prange(rows.shape[0]):
        r = rows[at]
        _scan(ids[r], own, video, audio, sign, values[r], keys[r])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _scan(i: int, own: bool, video: Any, audio: Any, sign: int, values: Any, keys: Any) -> None:
    filled = 0
    for start in range(0, len(video), _SCANNED):
        index = np.arange(start, min(start + _SCANNED, len(video)))
        if not own:
            index = index[index != i]
        filled = _insert(_agreements(i, index, video, audio, sign), index, filled, values, keys)
