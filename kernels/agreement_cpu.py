"""agreement_topk on the CPU: tiles of narrow products, candidates with bounds, float64 ranking.

int16 products are twice as fast as float32, and hardly less precise. Rows whose candidates are too many to keep, as
with thousands of keys that are alike, are searched again in float32; those of equal keys get every key's score in
float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from . import agreement_bounds as bounds
from .agreement_bounds import Encoded
from .agreement_exact import LANES, rank, scan
from .agreement_lanes import KEYS, pack
from .agreement_prune import OPEN, room
from .agreement_select import Search, Side, candidates

Rows = NDArray[np.int64]
_CODERS = ((bounds.int16, 48), (bounds.float32, 256))  # and how many more than k candidates a row may have
_TILE = 256  # queries and keys: their codes stay in the core's cache
_PART = 1 << 14  # rows that are searched again at a time


@dataclass(frozen=True)
class Problem:
    """`tables`: one or two (N, d) of float32 or float64; `k`; `sign`: 1 for the smaller of both products, -1 for the
    larger; `own`: whether a row may find itself; `block`: queries and keys of a tile, or 0."""

    tables: tuple[Tensor, ...]
    k: int
    sign: int
    own: bool
    block: int

    def tile(self, queries: int) -> int:
        """Rows of a tile: few enough for every thread to have some."""
        most = min(_TILE, queries // (2 * numba.get_num_threads()))
        return max(1, -(-(self.block or most) // KEYS)) * KEYS


def topk(
    tables: tuple[Tensor, ...], k: int, sign: int, queries: Tensor, exclude_self: bool, block: int
) -> tuple[Tensor, Tensor]:
    """The op's work on CPU tensors; see `agreement_topk.agreement_topk`.

    Args:
        tables: video and audio, or the one that matters.
        sign: 1 for min, -1 for max.
        queries: (Q,) int64.
        block: queries and keys of a tile, in whole vectors; 0 for what fits the cache.
    """
    wide = tuple(_padded(x if x.dtype == torch.float64 else x.float()) for x in tables)
    problem, ids = Problem(wide, k, sign, not exclude_self, block), queries.numpy()
    values, keys = np.full((len(ids), k), -np.inf), np.full((len(ids), k), -1, np.int64)
    left = np.arange(len(ids))
    with _threads_of_torch():
        for coder, spare in _CODERS:
            if len(left):
                left = _settle(problem, coder, spare, ids, left, values, keys)
        scan(ids, problem.own, left, wide[0].numpy(), wide[-1].numpy(), sign, values, keys)
    return torch.from_numpy(values).float(), torch.from_numpy(keys)


def _padded(x: Tensor) -> Tensor:
    """With columns of zeros, which change no product, up to what `agreement_exact` asks for."""
    missing = -x.shape[1] % LANES
    return F.pad(x, (0, missing)) if missing else x


@contextmanager
def _threads_of_torch() -> Iterator[None]:
    """Numba's loops on as many threads as torch's."""
    threads = torch.get_num_threads()
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(
        threads
    )  # starting Numba's threads changes torch's number where both use one OpenMP
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _settle(
    problem: Problem,
    coder: bounds.Coder,
    spare: int,
    ids: Rows,
    left: Rows,
    values: NDArray[np.float64],
    keys: Rows,
) -> Rows:
    """Fill the rows that are `left` of queries `ids` as far as such codes can; return those that they cannot."""
    tables, k = problem.tables, problem.k
    power = bounds.exponent(*tables)
    rows = [bounds.encode(x, power, coder) for x in tables]
    every = _side(rows)
    mutual = np.array_equal(ids[left], np.arange(len(tables[0])))
    unsettled = []
    for part in np.array_split(left, 1 if mutual else -(-len(left) // _PART)):
        asked = every if mutual else _side([x.take(torch.from_numpy(ids[part])) for x in rows])
        tile, one = problem.tile(len(part)), len(tables) == 1
        search = Search(ids[part], k, problem.sign, problem.own, one, mutual, tile)
        found = room(len(part), k + spare)
        candidates(search, asked, every, found)
        rank(search, asked, every, found, part, tables[0].numpy(), tables[-1].numpy(), values, keys)
        unsettled.append(part[found.size == OPEN])
    return np.concatenate(unsettled)


def _side(rows: list[Encoded]) -> Side:
    """Rows of one or both modalities, packed."""
    packed = [pack(x.codes) for x in rows]
    scales = [x.scale.numpy() for x in rows]
    words = [-(-x.codes.shape[1] * x.codes.element_size() // 4) for x in rows]
    return Side(packed[0], packed[-1], words[0], words[-1], scales[0], scales[-1], *bounds.joint(rows))
