"""Inner products with rows of a bank that are drawn for each query (AVID, Eq. 1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Case, Impl, Step, Target

SIZES = {"cpu": (232_067,), "cuda": (1_784_108,)}  # Kinetics-400 and AudioSet
QUERIES, NEGATIVES, WIDTH = 1024, 1024, 128


class Given(NamedTuple):
    query: Tensor
    bank: Tensor
    ids: Tensor


def K(n: int) -> int:
    return min(NEGATIVES, n)


def inputs(case: Case) -> Given:
    generator = torch.Generator().manual_seed(0)
    query, bank = (
        F.normalize(torch.randn(rows, WIDTH, generator=generator), dim=1)
        for rows in (min(QUERIES, case.n), case.n)
    )
    ids = torch.randint(case.n, (len(query), K(case.n)), generator=generator)
    return Given(*(x.to(case.device) for x in (query, bank, ids)))


def ours(given: Given, case: Case) -> Step:
    from coaug.kernels.bank_scores import bank_scores

    return lambda: bank_scores(*given)


def gathered(query: Tensor, bank: Tensor, ids: Tensor) -> Tensor:
    """AVID-CMA's: every row is copied, then multiplied."""
    rows = torch.index_select(bank, 0, ids.flatten()).view(*ids.shape, bank.shape[1])
    return torch.bmm(rows, query[:, :, None])[:, :, 0]


def compiled(given: Given, case: Case) -> Step:
    step = torch.compile(gathered)
    return lambda: step(*given)


def copied(given: Given, case: Case) -> Step:
    half = torch.empty(given.ids.numel() * WIDTH // 2, device=case.device)
    out = torch.zeros_like(half)
    half.zero_()
    return lambda: out.copy_(half)


IMPLS = {
    "coaug": Impl(ours, "bank_scores"),
    "AVID-CMA": Impl(
        lambda given, case: lambda: gathered(*given), "index_select and bmm: what its criterion does"
    ),
    "torch.compile": Impl(compiled, "the same, compiled"),
    "copy": Impl(copied, "as many bytes, read and written, as the rows have", exact=False),
}
TARGETS = (Target("copy", 0.8, "cuda"),)
