"""The order of an epoch: against one that is written out row by row, and against what the words mean."""

from __future__ import annotations

import pickle
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from coaug.pipelines.order import ByShard, Shuffled
from coaug.pipelines.rng import Permutation

seeds = st.integers(-(2**63), 2**63 - 1)
epochs = st.integers(0, 1000)
pools = st.integers(1, 9)
tables = st.lists(st.integers(0, 12), min_size=1, max_size=120).map(lambda x: np.array(x, np.int64))


def written_out(shard_of_row: NDArray[np.int64], seed: int, epoch: int, pool: int) -> list[list[int]]:
    """The rows of every pool, by lists and loops; of the package only the permutation of range(n)."""
    names = sorted(set(shard_of_row.tolist()))
    order = [names[Permutation(len(names), seed, epoch).place(i)] for i in range(len(names))]
    dealt = []
    for number, begin in enumerate(range(0, len(order), pool)):
        rows: list[int] = []
        for shard in order[begin : begin + pool]:
            rows += [row for row, of in enumerate(shard_of_row.tolist()) if of == shard]
        key = np.array([seed % 2**64, epoch], np.uint64)
        bits = np.random.Philox(key=key, counter=np.array([0, number, 0, 2**64 - 2], np.uint64))
        mixed = Permutation(len(rows), int(bits.random_raw()), epoch)
        dealt.append([rows[mixed.place(i)] for i in range(len(rows))])
    return dealt


@given(tables, seeds, epochs, pools)
def test_the_order_is_the_one_written_out(table: NDArray[np.int64], seed: int, epoch: int, pool: int) -> None:
    expected = [row for rows in written_out(table, seed, epoch, pool) for row in rows]
    order = ByShard(table, seed, epoch, pool)
    assert order(np.arange(len(table))).tolist() == expected
    assert [order.place(position) for position in range(len(table))] == expected


@given(tables, seeds, epochs, pools)
def test_every_row_comes_once(table: NDArray[np.int64], seed: int, epoch: int, pool: int) -> None:
    rows = ByShard(table, seed, epoch, pool)(np.arange(len(table)))
    assert np.array_equal(np.sort(rows), np.arange(len(table)))


@given(tables, seeds, epochs, pools)
def test_rows_come_pool_by_pool(table: NDArray[np.int64], seed: int, epoch: int, pool: int) -> None:
    order, position, seen = ByShard(table, seed, epoch, pool), 0, set[int]()
    while position < len(table):
        shards = order.shards(position)
        count = int(np.isin(table, shards).sum())
        rows = order(np.arange(position, position + count))
        assert set(table[rows].tolist()) == set(shards)
        assert all(order.shards(p) == shards for p in range(position, position + count))
        assert len(shards) == pool or (len(shards) < pool and position + count == len(table))
        assert not seen & set(shards)
        seen |= set(shards)
        position += count
    assert seen == set(table.tolist())


@given(tables, seeds, epochs, pools)
def test_shards_of_later_pools(table: NDArray[np.int64], seed: int, epoch: int, pool: int) -> None:
    order, positions = ByShard(table, seed, epoch, pool), range(len(table))
    distinct = list(dict.fromkeys(tuple(order.shards(p)) for p in positions))
    ahead = [tuple(order.shards(0, number)) for number in range(len(distinct) + 2)]
    assert ahead == [*distinct, (), ()]
    assert order.shards(len(table) - 1, 1) == []


@given(tables, seeds, epochs, pools, st.data())
def test_any_shape_of_positions_and_one_by_one(
    table: NDArray[np.int64], seed: int, epoch: int, pool: int, data: st.DataObject
) -> None:
    order = ByShard(table, seed, epoch, pool)
    chosen = data.draw(st.lists(st.integers(0, len(table) - 1), max_size=8))
    positions = np.array(chosen, np.int64)
    expected = [order.place(position) for position in chosen]
    assert order(positions).tolist() == expected
    assert order(positions[:, None]).shape == (len(chosen), 1)
    assert order(positions).dtype == np.int64
    scalar = np.int64(len(table) - 1)
    assert int(order(np.asarray(scalar))) == order.place(int(scalar))


@given(tables, seeds, epochs, epochs, pools)
def test_another_epoch_is_the_one_made_from_scratch(
    table: NDArray[np.int64], seed: int, epoch: int, other: int, pool: int
) -> None:
    order, positions = ByShard(table, seed, epoch, pool), np.arange(len(table))
    before = order(positions)
    assert np.array_equal(order.at(other)(positions), ByShard(table, seed, other, pool)(positions))
    assert np.array_equal(order(positions), before)


def test_epochs_and_seeds_differ_in_shards_and_in_rows() -> None:
    table = np.repeat(np.arange(40), 25)
    orders = [ByShard(table, seed, epoch, 4) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order.shards(0)) for order in orders}) == len(orders)
    one_pool = [ByShard(table, seed, epoch, 40)(np.arange(1000)) for seed in (0, 1) for epoch in (0, 1, 2)]
    for i, rows in enumerate(one_pool):
        for others in islice(one_pool, i):
            assert abs(stats.spearmanr(rows, others).statistic) < 0.12
            assert (rows == others).mean() < 0.01


def test_pools_of_an_epoch_are_mixed_in_ways_of_their_own() -> None:
    """The order within one pool tells nothing of that within the next."""
    order = ByShard(np.repeat(np.arange(20), 50), seed=3, epoch=1, pool=2)
    by_pool = order(np.arange(1000)).reshape(10, 100)
    ranks = [
        stats.rankdata([order.shards(100 * p).index(row // 50) * 50 + row % 50 for row in rows])
        for p, rows in enumerate(by_pool)
    ]
    correlation = np.corrcoef(ranks) - np.eye(10)
    assert np.abs(correlation).max() < 0.4
    assert len({tuple(rank) for rank in ranks}) == 10


@pytest.mark.parametrize("pool", [1, 2, 3, 5])
@pytest.mark.parametrize("what", ["seed", "epoch"])
def test_a_row_lands_anywhere(pool: int, what: str) -> None:
    """Five shards of four rows, also where the last pool is smaller: uniform over the twenty positions."""
    table, draws = np.arange(20) % 5, 1500
    first = ByShard(table, 0, 0, pool)
    orders = (ByShard(table, k, 0, pool) if what == "seed" else first.at(k) for k in range(draws))
    rows = np.array([order(np.arange(20)) for order in orders])
    for row in (0, 7, 19):
        landed = np.nonzero(rows == row)[1]
        assert stats.chisquare(np.bincount(landed, minlength=20)).pvalue > 1e-4


def test_rows_of_a_shard_lie_apart_in_their_pool() -> None:
    """How often neighbours in the epoch are of one shard: as chance has it, (c - 1) / (pool·c - 1)."""
    table = np.repeat(np.arange(64), 100)
    shards = table[ByShard(table, 5, 2, 8)(np.arange(6400))]
    expected = 99 / 799
    assert (np.diff(shards) == 0).mean() == pytest.approx(expected, abs=5 * np.sqrt(expected / 6400))


def test_the_numbers_of_this_order_stay_what_they_are() -> None:
    """Written down once: runs that are resumed on other machines and with later versions see the same batches."""
    order = ByShard(np.array([7, 7, 7, 2, 2, 9, 9, 9, 4, 4]), seed=11, epoch=3, pool=2)
    assert order(np.arange(10)).tolist() == [7, 6, 5, 9, 8, 0, 3, 1, 4, 2]
    assert [order.shards(0), order.shards(0, 1)] == [[9, 4], [7, 2]]


def test_rows_from_anywhere_are_the_keyed_permutation() -> None:
    order, positions = Shuffled(50, 1, 2), np.arange(50)
    assert np.array_equal(order(positions), Permutation(50, 1, 2)(positions))
    assert order.place(7) == order(positions)[7]


def test_an_order_pickles() -> None:
    order, positions = ByShard(np.arange(30) // 4, 1, 2, 3), np.arange(30)
    assert np.array_equal(pickle.loads(pickle.dumps(order))(positions), order(positions))


def test_positions_outside_are_refused() -> None:
    order = ByShard(np.zeros(10, np.int64), 0, 0, 2)
    for position in (-1, 10):
        with pytest.raises(IndexError, match="10"):
            order(np.array([position]))
        with pytest.raises(IndexError, match="10"):
            order.place(position)
        with pytest.raises(IndexError, match="10"):
            order.shards(position)
    assert order(np.empty(0, np.int64)).shape == (0,)


def test_what_cannot_be_ordered_is_refused() -> None:
    with pytest.raises(ValueError, match="pool = 0"):
        ByShard(np.zeros(3, np.int64), 0, 0, 0)
    with pytest.raises(ValueError, match="nothing to permute"):
        ByShard(np.empty(0, np.int64), 0, 0, 1)
