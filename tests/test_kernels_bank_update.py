"""The bank's moving average against a literal loop: duplicates, invalid rows, zeros, every storage type."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coaug.kernels.bank_update import _bank_update, bank_update_

STORED = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def literal(
    bank: torch.Tensor, ids: list[int], features: torch.Tensor, momentum: float, valid: list[bool]
) -> torch.Tensor:
    """Row by row in float64."""
    out = bank.clone()
    for row in set(ids):
        directions = []
        for place, x in enumerate(features.double().numpy()):
            if ids[place] == row and valid[place] and np.linalg.norm(x) > 0:
                directions.append(x / np.linalg.norm(x))
        mean = sum(directions) / len(directions) if directions else np.zeros(bank.shape[1])
        moved = momentum * bank[row].double().numpy() + (1 - momentum) * mean
        if np.any(mean) and np.linalg.norm(moved) > 0:
            out[row] = torch.from_numpy(moved / np.linalg.norm(moved)).to(bank.dtype)
    return out


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


@settings(max_examples=60)
@given(st.data())
def test_equals_the_literal_loop(data: st.DataObject) -> None:
    rows, width, batch = (data.draw(st.integers(*span)) for span in ((1, 12), (1, 20), (0, 16)))
    stored, seed = data.draw(st.sampled_from(STORED)), data.draw(st.integers(0, 99))
    momentum = data.draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    ids = data.draw(st.lists(st.integers(0, rows - 1), min_size=batch, max_size=batch))
    valid = data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch))
    features = 10 * torch.randn(batch, width, generator=torch.Generator().manual_seed(seed))
    features[: batch // 4] = 0
    bank = unit(rows, width, seed + 1).to(stored)
    want = literal(bank, ids, features, momentum, valid)
    before, untouched = bank.clone(), [row for row in range(rows) if row not in ids]
    got = bank_update_(
        bank, torch.tensor(ids, dtype=torch.int64), features, momentum, torch.tensor(valid).bool()
    )
    assert got is bank and torch.equal(bank[untouched], before[untouched])
    torch.testing.assert_close(bank, want, rtol=2 * torch.finfo(stored).eps, atol=1e-12)


def test_rows_keep_unit_norm() -> None:
    bank = unit(100, 128, 0)
    for step in range(20):
        ids = torch.randint(100, (64,), generator=torch.Generator().manual_seed(step))
        bank_update_(bank, ids, 3 * unit(64, 128, step))
    torch.testing.assert_close(bank.norm(dim=1), torch.ones(100), rtol=1e-6, atol=0)


def test_opposite_features_leave_the_row() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    bank_update_(bank, torch.tensor([0]), torch.tensor([[-4.0, 0.0]]))  # cancels the row
    bank_update_(bank, torch.tensor([1, 1]), torch.tensor([[2.0, 0.0], [-1.0, 0.0]]))  # cancel each other
    assert bank.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_invalid_rows_may_hold_anything() -> None:
    bank, before = unit(5, 4, 0), unit(5, 4, 0)
    features = torch.full((2, 4), float("nan"))
    features[1] = 1
    bank_update_(bank, torch.tensor([-77, 3]), features, valid=torch.tensor([False, True]))
    assert (bank != before).any(1).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]])
def test_order_of_the_processes_hardly_matters(order: list[int]) -> None:
    ids, features = torch.arange(32) % 5, unit(32, 16, 1)
    banks = [unit(8, 16, 0), unit(8, 16, 0)]
    bank_update_(banks[0], ids, features)
    parts = [ids.chunk(4)[i] for i in order], [features.chunk(4)[i] for i in order]
    bank_update_(banks[1], torch.cat(parts[0]), torch.cat(parts[1]))
    torch.testing.assert_close(*banks, rtol=1e-6, atol=1e-7)


def test_the_same_for_every_thread_count() -> None:
    banks = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        ids = torch.arange(301) % 97
        banks.append(bank_update_(unit(100, 33, 0), ids, unit(301, 33, 1)))
    assert torch.equal(*banks)


def test_operator() -> None:
    args = unit(10, 4, 0), torch.tensor([1, 1, -1]), unit(3, 4, 1), 0.5
    torch.library.opcheck(_bank_update, args)
    compiled = torch.compile(bank_update_, backend="aot_eager", fullgraph=True)
    banks = unit(10, 4, 0), unit(10, 4, 0)
    compiled(banks[0], torch.tensor([1, 1, 5]), args[2])
    bank_update_(banks[1], torch.tensor([1, 1, 5]), args[2])
    assert torch.equal(*banks)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"ids": torch.tensor([0, 10])}, ValueError, "ids"),
        ({"ids": torch.tensor([0])}, ValueError, "ids must be an int64 vector of 2"),
        ({"features": torch.ones(2, 5)}, ValueError, "features must have 4 columns"),
        ({"features": torch.full((2, 4), float("inf"))}, ValueError, "features holds infinity"),
        ({"momentum": 1.5}, ValueError, "momentum must lie in 0 … 1"),
        ({"valid": torch.ones(2)}, ValueError, "valid must be a bool vector"),
        ({"bank": torch.ones(4, 10).T}, ValueError, "bank must be contiguous"),
    ],
)
def test_errors_name_the_argument(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    good = {"bank": unit(10, 4, 0), "ids": torch.tensor([0, 1]), "features": unit(2, 4, 1)}
    with pytest.raises(error, match=words):
        bank_update_(**(good | changes))
