"""bank_scores.cu, run on the CPU: the same draws as the CPU path, the same numbers up to rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cuda_on_cpu import Module, needs_compiler

from coaug.kernels import cuda
from coaug.kernels.bank_draw import sample_negatives, sample_negatives_cuda
from coaug.kernels.bank_nce import _nce, nce_cuda
from coaug.kernels.bank_scores import backward_cuda, bank_scores_cuda
from coaug.kernels.bank_update import bank_update_, bank_update_cuda

pytestmark = needs_compiler
KINDS = [(torch.float32, 128), (torch.float16, 128), (torch.bfloat16, 128), (torch.float16, 50)]
kinds = pytest.mark.parametrize(("stored", "width"), KINDS)


@pytest.fixture(params=["forward", "reverse"], autouse=True)
def emulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches run on the CPU; a kernel without races does not care in which order threads run."""
    monkeypatch.setattr(cuda, "module", lambda name, **defines: Module(name, request.param, **defines))


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


@kinds
@pytest.mark.parametrize("count", [1, 31, 33, 300])
def test_scores_and_their_gradient(stored: torch.dtype, width: int, count: int) -> None:
    query, bank = unit(3, width, 0), unit(40, width, 1).to(stored)
    ids = torch.randint(40, (3, count), generator=torch.Generator().manual_seed(2))
    want = (query.double()[:, None] * bank.double()[ids]).sum(-1)
    torch.testing.assert_close(bank_scores_cuda(query, bank, ids).double(), want, rtol=1e-5, atol=1e-6)
    weights = torch.randn(3, count, generator=torch.Generator().manual_seed(3))
    want = (weights.double()[:, :, None] * bank.double()[ids]).sum(1)
    torch.testing.assert_close(backward_cuda(weights, bank, ids).double(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [0, 1, 31, 32, 33, 70])
@pytest.mark.parametrize("rows", [72, 2**31])
def test_draws_are_those_of_the_cpu(width: int, rows: int) -> None:
    excluded = torch.randint(71, (4, width), generator=torch.Generator().manual_seed(width)).sort(1).values
    excluded[1, width // 2 :] = -1
    excluded[2, width // 3 :] = rows
    for seed, step, offset in ((1, 0, 0), (-(2**63), 2**62 + 7, 2**31 + 5)):
        args = excluded, rows, 77, seed, step, offset
        want = sample_negatives(*args[:3], seed=seed, step=step, offset=offset)
        assert torch.equal(sample_negatives_cuda(*args), want)


@pytest.mark.parametrize("excluded", [[3, 2], [-1, 2], [0, 11], [-2, 0], [10, 3], [*range(10)], [*range(40)]])
def test_wrong_sets_are_noticed(excluded: list[int]) -> None:
    with pytest.raises(RuntimeError, match="excluded must ascend"):
        sample_negatives_cuda(torch.tensor([excluded]), 10, 4, 0, 0, 0)


@kinds
@pytest.mark.parametrize("derive", [True, False])
def test_loss_sums_and_gradient(stored: torch.dtype, width: int, derive: bool) -> None:
    positives = torch.tensor([[0, 5, -1], [7, -1, -1], [-1, -1, -1], [9, 10, 11]])
    excluded = torch.tensor(
        [[0, 1, 5, 5], [7, 30, -1, -1], [3, 3, 3, 3], [4, 3, 2, 1]]
    )  # the last is not valid
    weights, valid = torch.rand(4, 3), torch.tensor([True, True, True, False])
    tensors: tuple[Any, ...] = (
        unit(4, width, 0),
        unit(31, width, 1).to(stored),
        positives,
        excluded,
        weights,
        valid,
    )
    args = (*tensors, torch.tensor(2.2, dtype=torch.float64), 261, 0.07, 5, 2**40, 3, derive)
    for got, want in zip(nce_cuda(*args), _nce(*args), strict=True):
        torch.testing.assert_close(
            got, want, rtol=1e-5, atol=1e-6 * (1 + float(want.abs().max() if len(want) else 0))
        )


@kinds
def test_update(stored: torch.dtype, width: int) -> None:
    banks = unit(20, width, 0).to(stored), unit(20, width, 0).to(stored)
    ids = torch.tensor([4, 7, 4, 0, -1, 4, 19, 7, 2, 5])
    features = 5 * unit(10, width, 1)
    features[3], features[7] = 0, -features[1]  # no direction; two that cancel
    features[8] = -banks[0][2].float()
    bank_update_cuda(banks[0], ids, features, 0.5)
    bank_update_(banks[1], ids.clamp(min=0), features, 0.5, ids >= 0)
    torch.testing.assert_close(*banks, rtol=2 * torch.finfo(stored).eps, atol=1e-7)
    unmoved = torch.ones(20, dtype=torch.bool).index_fill(0, torch.tensor([4, 2, 5, 19]), False)
    assert torch.equal(banks[0][unmoved], unit(20, width, 0).to(stored)[unmoved])


def test_banks_must_be_aligned() -> None:
    bank = torch.zeros(8 * 128 + 1)[1:].view(8, 128)
    with pytest.raises(ValueError, match="16 bytes"):
        bank_scores_cuda(unit(1, 128, 0), bank, torch.zeros(1, 1, dtype=torch.int64))
