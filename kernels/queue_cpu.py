"""`queue_neighbors` on the CPU: scores by BLAS a few queries at a time, ranks by selection, rows on all cores.

Scores are rounded once each: BLAS is only given whole tiles (multiples of `QUERIES` by `COLUMNS`), where every
product goes through the same instructions. Equal rows therefore get equal scores wherever they stand.

A rank's score is found without sorting. The row's keys are counted in bins between the least and the greatest; the
bin that the rank falls into is looked into again, until it is one key. Two or three passes over the row, and a
last one that collects what lies between the keys found, in ascending order of index.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 64  # queries a block: their scores stay in the cache until they are selected from
QUERIES, COLUMNS = 16, 64  # a whole tile of BLAS
BINS = 2048  # 8 KiB of counters: a quarter of a first-level cache

Array = NDArray[Any]
Bins = tuple[Array, Any, int]  # see `_counted`
Found = tuple[Tensor, Tensor, Tensor, Tensor]  # scores and rows (B, first), scores and rows (B, m)


def select(query: Tensor, queue: Tensor, picked: Found, begin: int) -> bool:
    """Fill `picked` from scores of `query` (B, d) with `queue` (n, d), both of its dtype.

    Args:
        begin: the band's first rank; its length is that of what is `picked`.

    Returns:
        Whether all scores are finite; `picked` means nothing where they are not.
    """
    numbers = [x.numpy() for x in picked]
    fine = np.ones(len(query), np.bool_)
    tail = queue.new_zeros(COLUMNS, queue.shape[1])  # what is left of the queue after its whole tiles
    whole = len(queue) // COLUMNS * COLUMNS
    tail[: len(queue) - whole] = queue[whole:]
    block = queue.new_empty(min(BLOCK, _whole(len(query), QUERIES)), whole + COLUMNS)
    for at in range(0, len(query), BLOCK):
        end = min(at + BLOCK, len(query))
        _score(query[at:end], queue[:whole], tail, block)
        scores = block[: end - at, : len(queue)].numpy()
        keys = scores.view(np.int32 if scores.dtype == np.float32 else np.int64)
        _select_rows(scores, keys, begin, *(x[at:end] for x in numbers), fine[at:end])
    return bool(fine.all())


def _score(query: Tensor, queue: Tensor, tail: Tensor, scores: Tensor) -> None:
    """Products of `query` with the rows of `queue`, then of `tail`, into the first rows of `scores`."""
    scores = scores[: _whole(len(query), QUERIES)]
    query = F.pad(query, (0, 0, 0, len(scores) - len(query)))
    torch.mm(query, queue.T, out=scores[:, : len(queue)])
    torch.mm(query, tail.T, out=scores[:, len(queue) :])


def _whole(count: int, tile: int) -> int:
    return -(-count // tile) * tile


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _select_rows(
    scores: Array,
    bits: Array,
    begin: int,
    first: Array,
    first_rows: Array,
    band: Array,
    band_rows: Array,
    fine: Array,
) -> None:
    for row in prange(len(scores)):
        keys = np.empty(scores.shape[1], bits.dtype)
        fine[row] = _order(bits[row], keys)
        if fine[row]:
            bins = _counted(keys)
            _pick(scores[row], keys, bins, (0, first.shape[1]), first[row], first_rows[row])
            order = np.argsort(-first[row], kind="mergesort")  # stable: ties stay by index
            first[row], first_rows[row] = first[row][order], first_rows[row][order]
            _pick(scores[row], keys, bins, (begin, begin + band.shape[1]), band[row], band_rows[row])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _order(bits: Array, keys: Array) -> bool:
    """Integers in the order of the scores: magnitude with its sign, so that -0 equals 0. Are all finite?"""
    infinite = bits.dtype.type(0x7F800000 if bits.itemsize == 4 else 0x7FF0000000000000)
    largest, greatest = bits.dtype.type(np.iinfo(bits.dtype).max), bits.dtype.type(0)
    for i in range(len(bits)):
        magnitude = bits[i] & largest
        greatest = max(greatest, magnitude)
        keys[i] = magnitude if bits[i] >= 0 else -magnitude
    return bool(greatest < infinite)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _pick(scores: Array, keys: Array, bins: Bins, ranks: tuple[int, int], values: Array, rows: Array) -> None:
    """Scores and positions of `ranks` (half-open, from 0, ties by position), by ascending position."""
    begin, stop = min(ranks[0], len(keys)), min(ranks[1], len(keys))
    if begin >= stop:
        return
    upper, above_upper = np.int64(np.iinfo(np.int64).max), 0  # of the best rank, any key that is no score's
    if begin > 0:
        upper, above_upper = _key_at(keys, begin, bins)
    lower, above_lower = _key_at(keys, stop - 1, bins)
    skip, take, at = begin - above_upper, stop - above_lower, 0
    found = np.empty(stop - begin + 1, np.int64)  # one more: every position is written, without a branch
    for i in range(len(keys)):
        inside = (keys[i] > lower) & (keys[i] < upper)
        if (keys[i] == lower) | (keys[i] == upper):  # of equals, those with the lower positions rank first
            take -= keys[i] == lower
            skip -= keys[i] == upper
            inside = (take >= 0 or keys[i] > lower) and (skip < 0 or keys[i] < upper)
        found[at] = i
        at += inside
    for at in range(stop - begin):
        values[at], rows[at] = scores[found[at]], found[at]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _key_at(keys: Array, rank: int, bins: Bins) -> tuple[int, int]:
    """The key at `rank` from the greatest, and how many are greater; `bins` are those of all `keys`."""
    above = 0
    while True:
        counts, least, shift = bins
        chosen = BINS - 1
        while above + counts[chosen] <= rank:
            above += counts[chosen]
            chosen -= 1
        if shift == 0:  # every bin is one key
            return least + chosen, above
        keys = _inside(keys, bins, chosen)
        bins = _counted(keys)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _counted(keys: Array) -> Bins:
    """How many keys are in each of `BINS` bins, the first one's least key, and the bins' width as a power of 2."""
    least, most = np.int64(keys.min()), np.int64(keys.max())
    reach, shift = np.uint64(most) - np.uint64(least), 0
    while reach >> np.uint64(shift) >= BINS:
        shift += 1
    counts = np.zeros(BINS, np.int32)
    for key in keys:
        counts[(np.uint64(key) - np.uint64(least)) >> np.uint64(shift)] += 1
    return counts, least, shift


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _inside(keys: Array, bins: Bins, chosen: int) -> Array:
    _, least, shift = bins
    lowest = least + (chosen << shift)
    highest, largest = lowest + (1 << shift) - 1, np.iinfo(keys.dtype).max
    if highest < lowest or highest > largest:  # the last bin may reach beyond the type
        highest = largest
    found: Array = keys[(keys >= keys.dtype.type(lowest)) & (keys <= keys.dtype.type(highest))]
    return found
