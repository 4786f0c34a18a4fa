"""Negatives: the published generator, uniform over the complement, the same however the batch is divided."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from coaug.kernels.bank_draw import philox, sample_negatives

KNOWN = [  # Random123's kat_vectors: counter, key, result
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def literal_philox(counter: list[int], key: list[int]) -> list[int]:
    """Salmon et al. 2011 in Python's integers."""
    (a, b, c, d), (k0, k1) = counter, key
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ k0, q & 0xFFFFFFFF, (p >> 32) ^ d ^ k1, p & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [a, b, c, d]


def literal_draw(excluded: list[int], rows: int, column: int, seed: int, step: int, place: int) -> int:
    counter = [column // 2, place, step & 0xFFFFFFFF, step >> 32]
    block = literal_philox(counter, [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF])
    low, high = block[2 * (column % 2) :][:2]
    left = [row for row in range(rows) if row not in set(excluded)]
    return left[((high << 32 | low) * len(left)) >> 64]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_known_answers(counter: str, key: str, result: str) -> None:
    state = [np.array([word], np.uint64) for word in words(counter)]
    philox(*state, *map(np.uint64, words(key)))
    assert [int(x[0]) for x in state] == words(result) == literal_philox(words(counter), words(key))


@given(st.data())
def test_equals_the_literal_draw(data: st.DataObject) -> None:
    rows = data.draw(st.integers(2, 40))
    width = data.draw(st.integers(0, rows - 1))
    some = st.lists(st.integers(0, rows - 1), max_size=width)  # duplicates too
    batch = data.draw(st.lists(some, min_size=1, max_size=4))
    seed, step = data.draw(st.integers(-(2**63), 2**63 - 1)), data.draw(st.integers(0, 2**63 - 1))
    offset, count = data.draw(st.integers(0, 1000)), data.draw(st.integers(0, 9))
    pad = data.draw(st.sampled_from([-1, rows]))
    excluded = torch.tensor([sorted(x) + [pad] * (width - len(x)) for x in batch], dtype=torch.int64)
    got = sample_negatives(excluded.view(len(batch), width), rows, count, seed=seed, step=step, offset=offset)
    want = [
        [literal_draw(x, rows, k, seed, step, offset + b) for k in range(count)] for b, x in enumerate(batch)
    ]
    assert got.shape == (len(batch), count) and got.tolist() == want


def test_largest_bank() -> None:
    rows = 2**31
    excluded = torch.tensor([[0, 5, rows - 1]])
    got = sample_negatives(excluded, rows, 50_000, seed=3, step=0)
    assert got.min() > 0 and got.max() < rows - 1 and got.max() > 0.999 * rows
    assert stats.kstest(got[0].numpy() / rows, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("repeats", [1, 3])
def test_uniform_over_the_complement(repeats: int) -> None:
    rows, count = 101, 2000
    positives = torch.tensor([0, 1, 7, 50, 51, 52, 100])
    excluded = positives.repeat_interleave(repeats).expand(100, -1).contiguous()
    got = sample_negatives(excluded, rows, count, seed=11, step=5)
    frequency = torch.bincount(got.flatten(), minlength=rows)
    assert not frequency[positives].any()
    left = np.setdiff1d(np.arange(rows), positives)
    assert stats.chisquare(frequency.numpy()[left]).pvalue > 1e-4


def test_columns_steps_rows_and_seeds_are_independent() -> None:
    none = torch.empty(64, 0, dtype=torch.int64)
    base = sample_negatives(none, 16, 64, seed=1, step=1)
    pairs = [
        (base, sample_negatives(none, 16, 64, seed=1, step=2)),
        (base, sample_negatives(none, 16, 64, seed=2, step=1)),
        (base[:-1], base[1:]),
        (base[:, :-1], base[:, 1:]),
    ]
    for a, b in pairs:
        table = torch.bincount((a * 16 + b).flatten(), minlength=256).numpy()
        assert stats.chisquare(table).pvalue > 1e-4


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_the_same_for_every_world_size(processes: int) -> None:
    excluded = torch.arange(16)[:, None]
    whole = sample_negatives(excluded, 1000, 33, seed=5, step=9)
    share = 16 // processes
    parts = [
        sample_negatives(excluded[i : i + share], 1000, 33, seed=5, step=9, offset=i)
        for i in range(0, 16, share)
    ]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    "excluded", [[[3, 2]], [[-1, 2]], [[0, 11]], [[-2, 0]], [[10, 3]], [list(range(10))], [[2, -1, 3]]]
)
def test_wrong_sets_are_named(excluded: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"excluded\[0\] = "):
        sample_negatives(torch.tensor(excluded), 10, 4, seed=0, step=0)


def test_wrong_arguments_are_named() -> None:
    good = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="excluded must be an int64 matrix"):
        sample_negatives(good.float(), 10, 4, seed=0, step=0)
    with pytest.raises(ValueError, match="excluded must be contiguous"):
        sample_negatives(torch.zeros(4, 2, dtype=torch.int64).T, 10, 4, seed=0, step=0)
    for wrong in ({"rows": 0}, {"rows": 2**31 + 1}, {"count": -1}, {"step": -1}, {"offset": -1}):
        with pytest.raises(ValueError, match="got"):
            sample_negatives(good, **({"rows": 10, "count": 4, "seed": 0, "step": 0} | wrong))  # type: ignore[arg-type]


def test_operator() -> None:
    from coaug.kernels.bank_draw import _sample_negatives

    excluded = torch.tensor([[1, 2], [3, -1]])
    torch.library.opcheck(_sample_negatives, (excluded, 50, 7, 1, 2, 3))
    compiled = torch.compile(sample_negatives, backend="aot_eager", fullgraph=True)
    assert torch.equal(
        compiled(excluded, 50, 7, seed=1, step=2), sample_negatives(excluded, 50, 7, seed=1, step=2)
    )
