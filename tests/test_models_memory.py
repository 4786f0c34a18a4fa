"""The memory bank: keyed by sample ids, started by them, moved by the global batch, carried over to other catalogs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import normalize

from coaug.config import ConfigError, build
from coaug.kernels.bank_start import start_rows
from coaug.models.memory import Memory, MemoryConfig
from coaug.models.rows import span

CPU = torch.device("cpu")


def ids(count: int, seed: int = 0) -> Tensor:
    """Distinct 63-bit numbers in no order."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**62, (count,), generator=draw)


def made(some: Tensor, width: int = 16, seed: int = 0, **options: object) -> Memory:
    return Memory(some, width, build(MemoryConfig, options), seed, CPU)


def test_rows_begin_uniform_on_the_sphere() -> None:
    d = 128
    rows = start_rows(ids(4000), d, seed=3, stream=0).double()
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4000, dtype=torch.float64), rtol=0, atol=1e-6)
    pairs = (rows[:2000] * rows[2000:]).sum(1).numpy()
    density = stats.beta((d - 1) / 2, (d - 1) / 2, loc=-1, scale=2)  # of a cosine on the sphere
    assert stats.kstest(pairs, density.cdf).pvalue > 1e-4
    for axis in (0, 77, 127):
        assert stats.kstest(rows[:, axis].numpy(), density.cdf).pvalue > 1e-4
    second = rows.T @ rows / 4000 * d  # its entries' deviation: 1 / sqrt(4000)
    assert float((second - torch.eye(d)).abs().max()) < 6 / 4000**0.5


def test_rows_begin_by_their_id_alone() -> None:
    some = ids(50)
    whole = start_rows(some, 20, seed=1, stream=0)
    picked = torch.tensor([41, 3, 17])
    assert torch.equal(start_rows(some[picked], 20, seed=1, stream=0), whole[picked])
    for seed, stream in ((2, 0), (1, 1), (1 + 2**40, 0)):
        other = start_rows(some, 20, seed=seed, stream=stream)
        assert float((other * whole).sum(1).abs().mean()) < 0.3  # independent: sqrt(2 / (pi 20)) = 0.18
    low = start_rows(torch.tensor([5, 5 + 2**33, 5 + 2**62]), 64, seed=0, stream=0)
    assert float((low @ low.T).triu(1).abs().max()) < 0.6  # all 63 bits count
    with pytest.raises(ValueError, match=r"int64 vector, got torch\.int32"):
        start_rows(some.int(), 4, seed=0, stream=0)


def test_order_and_company_change_nothing() -> None:
    some = ids(30)
    one, other = made(some), made(torch.cat([ids(10, seed=1), some.flip(0), some[:5]]))
    assert (len(one), len(other)) == (30, 40)
    every = torch.ones(30, dtype=torch.bool)
    for name in ("video", "audio"):
        ours, theirs = one[name].own[one.rows_of(some, every)], other[name].own[other.rows_of(some, every)]
        assert torch.equal(ours, theirs)
    assert not torch.equal(one["video"].own, one["audio"].own)


def test_rows_of_samples() -> None:
    some = torch.tensor([70, 10, 50])
    memory = made(some)
    valid = torch.tensor([True, True, False, True])
    assert memory.rows_of(torch.tensor([50, 70, 99, 10]), valid).tolist() == [1, 2, -1, 0]
    for stranger in (99, 11, 3):
        with pytest.raises(ConfigError, match=f"sample {stranger} is not among the 3 recordings"):
            memory.rows_of(torch.tensor([10, stranger]), torch.ones(2, dtype=torch.bool))


@pytest.mark.parametrize(("storage", "tolerance"), [("float32", 1e-6), ("float16", 1e-3)])
def test_the_global_batch_moves_rows_once(storage: str, tolerance: float) -> None:
    some = ids(20)
    memory = made(some, storage=storage, momentum=0.7)
    before = {name: memory[name].own.double() for name in ("video", "audio")}
    batch, valid = some[[3, 8, 3, 11, 3]], torch.tensor([True, True, True, False, True])
    rows = memory.rows_of(batch, valid)
    features = {name: torch.randn(5, 16) for name in ("video", "audio")}
    features["audio"][3] = float("nan")  # of the invalid sample
    memory.update_(rows, features, valid)
    for name, x in features.items():
        wanted = before[name].clone()
        x = normalize(x.double(), dim=1)
        three, eight = int(rows[0]), int(rows[1])
        wanted[three] = normalize(0.7 * wanted[three] + 0.3 * x[[0, 2, 4]].mean(0), dim=0)
        wanted[eight] = normalize(0.7 * wanted[eight] + 0.3 * x[1], dim=0)
        torch.testing.assert_close(memory[name].own.double(), wanted, rtol=0, atol=tolerance)
        assert memory[name].own.dtype == getattr(torch, storage)


def test_carried_over_to_another_catalog() -> None:
    common, gone, new = ids(30), ids(4, seed=1), ids(7, seed=2)
    old = made(torch.cat([gone, common]), seed=5)
    every = torch.ones(30, dtype=torch.bool)
    old.update_(old.rows_of(common, every), {name: torch.randn(30, 16) for name in ("video", "audio")}, every)
    memory, fresh = made(torch.cat([common, new]), seed=6), made(torch.cat([common, new]), seed=6)
    assert not memory.seen
    assert memory.load(old.state()) == (30, 7, 4)
    assert memory.seen
    for name in ("video", "audio"):
        theirs = old[name].own[old.rows_of(common, every)]
        assert torch.equal(memory[name].own[memory.rows_of(common, every)], theirs)
        others = memory.rows_of(new, every[:7])
        assert torch.equal(memory[name].own[others], fresh[name].own[others])
    assert made(common).load(made(ids(3, seed=9)).state()) == (0, 30, 3)
    with pytest.raises(
        ConfigError, match="memory of 8 numbers a row cannot be taken over: rows here have 16"
    ):
        memory.load(made(common, width=8).state())


def test_the_state_is_a_copy() -> None:
    memory = made(ids(5))
    state = memory.state()
    kept = state["video"].clone()
    valid = torch.ones(5, dtype=torch.bool)
    memory.update_(torch.arange(5), {"video": torch.randn(5, 16)}, valid)
    assert torch.equal(state["video"], kept)
    assert torch.equal(state["ids"], memory.ids)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 9, 1000])
@pytest.mark.parametrize("world", [1, 2, 4, 7])
def test_parts_are_contiguous_and_all_there(count: int, world: int) -> None:
    rows = [np.arange(*span(count, rank, world)) for rank in range(world)]
    assert np.concatenate(rows).tolist() == list(range(count))
    assert max(map(len, rows)) == -(-count // world)
