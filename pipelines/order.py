"""In which order the rows of an epoch come: arithmetic on (seed, epoch, position), so that there is no state to save.

    Shuffled    4 0 7 2 5 1 6 3      rows from anywhere: for local disks
    ByShard     1 5 0 4 | 7 2 6 3    pools of a few shards, mixed inside: for shards that come over a network

Both are called with positions of the epoch, (…) int64, or asked for the `place` of a single one.
"""

from __future__ import annotations

import copy
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .rng import MASK, Permutation

POOL = MASK - 1  # the last word of the counter of a pool's key; the permutation itself has MASK there


class Shuffled(Permutation):
    """Rows 0, …, n - 1 from anywhere, O(1) in time and memory."""


class ByShard:
    """All rows, a pool of shards at a time.

    Every epoch has the shards in an order of its own. Each `pool` shards that follow one another there are a pool
    (the last one may be smaller), and the rows of a pool are permuted among themselves: at any time rows come from at
    most `pool` shards, and a row that is drawn is anywhere among those. With shards of equal size every row is equally
    likely at every position.

    Args:
        shard_of_row: (N,) number of the shard that holds each row; any numbers.

    Raises:
        ValueError: no row at all, or a pool without shards.
    """

    def __init__(self, shard_of_row: NDArray[np.int64], seed: int, epoch: int, pool: int) -> None:
        if pool < 1:
            raise ValueError(f"a pool needs a shard: {pool = }")
        self.n, self.seed, self.pool = len(shard_of_row), seed, pool
        self._shards, self._sizes = np.unique(shard_of_row, return_counts=True)
        self._rows = np.argsort(shard_of_row, kind="stable")  # row numbers, shard after shard
        self._deal(epoch)

    def at(self, epoch: int) -> ByShard:
        """The order of another epoch; shares what took time to find out."""
        other = copy.copy(self)
        other._deal(epoch)
        return other

    def __call__(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows at positions of the epoch; any shape.

        Raises:
            IndexError: a position outside range(N).
        """
        position = np.asarray(position, np.int64)
        if position.size and not 0 <= position.min() <= position.max() < self.n:
            raise IndexError(f"position outside range({self.n})")
        pools = np.searchsorted(self._pools, position, side="right") - 1
        dealt = np.empty_like(position)
        for number in np.unique(pools).tolist():
            here, first = pools == number, self._pools[number]
            dealt[here] = first + self._mixed(number)(position[here] - first)
        slots = np.searchsorted(self._begins, dealt, side="right") - 1
        return np.asarray(self._rows[dealt + self._shift[slots]])

    def place(self, position: int) -> int:
        """The row at one position: as of an array of one, in a fraction of the time."""
        number = self._pool_of(position)
        first = int(self._pools[number])
        dealt = first + self._mixed(number).place(position - first)
        slot = int(np.searchsorted(self._begins, dealt, side="right")) - 1
        return int(self._rows[dealt + self._shift[slot]])

    def shards(self, position: int, ahead: int = 0) -> list[int]:
        """The shards of the pool that the row at `position` comes from, or of the pool `ahead` pools later.

        Empty beyond the last pool; there, the next epoch's first one is `at(epoch + 1).shards(0)`.
        """
        first = (self._pool_of(position) + ahead) * self.pool
        chosen: list[int] = self._shards[self._order[first : first + self.pool]].tolist()
        return chosen

    def _deal(self, epoch: int) -> None:
        """Lay out the shards of an epoch one after the other, rows in their own order; pools are mixed when read."""
        count = len(self._shards)
        self.epoch, self._order = epoch, Permutation(count, self.seed, epoch)(np.arange(count))
        sizes, stored = self._sizes[self._order], np.cumsum(self._sizes) - self._sizes
        self._begins = np.cumsum(sizes) - sizes  # (S,) where each shard's rows begin in the epoch
        self._shift = stored[self._order] - self._begins  # from there to where they stand in `_rows`
        self._pools = np.append(self._begins[:: self.pool], self.n)  # (P + 1,) where each pool's rows begin

    def _mixed(self, number: int) -> Permutation:
        """The permutation of one pool's rows among themselves."""
        count = int(self._pools[number + 1] - self._pools[number])
        return _permutation(count, self.seed, self.epoch, number)

    def _pool_of(self, position: int) -> int:
        if not 0 <= position < self.n:
            raise IndexError(f"position {position} outside range({self.n})")
        return int(np.searchsorted(self._pools, position, side="right")) - 1


@lru_cache(maxsize=8)  # neighbouring samples ask for the same one
def _permutation(count: int, seed: int, epoch: int, number: int) -> Permutation:
    """That of a pool of `count` rows, under a key of its own."""
    key, counter = [seed & MASK, epoch & MASK], [0, number, 0, POOL]
    bits = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))
    return Permutation(count, int(bits.random_raw()), epoch)
