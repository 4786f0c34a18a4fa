"""A training step's loss against a bank: negatives drawn, scored, and the loss differentiated (AVID, Eq. 1-3)."""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Impl, Step, scores
from .scores import SIZES, K, copied, gathered

__all__ = ["IMPLS", "SIZES", "TARGETS", "K", "inputs"]
PARTITION, TEMPERATURE, SEED = 2.2, 0.07, 0

Given = tuple[scores.Given, Tensor]


def inputs(case: Case) -> Given:
    """With the queries' own rows."""
    found = scores.inputs(case)
    return found._replace(query=found.query.requires_grad_()), torch.arange(
        len(found.query), device=case.device
    )[:, None]


def ours(given: Given, case: Case) -> Step:
    from coaug.kernels.bank_nce import nce_loss

    (query, bank, _), own = given

    def run() -> tuple[Tensor, ...]:
        loss = nce_loss(
            query,
            bank,
            own,
            own,
            negatives=K(case.n),
            partition=PARTITION,
            temperature=TEMPERATURE,
            seed=SEED,
            step=0,
        ).loss.mean()
        return (loss.detach(), *torch.autograd.grad(loss, query))

    return run


def drawn(own: Tensor, rows: int, count: int) -> Tensor:
    """Uniform over the bank; the queries themselves may be among them."""
    return torch.randint(rows, (len(own), count), device=own.device)


def criterion(query: Tensor, bank: Tensor, ids: Tensor) -> Tensor:
    """AVID-CMA's: the first of each row of `ids` is the positive."""
    h = (gathered(query, bank, ids) / TEMPERATURE).exp()
    total = (ids.shape[1] - 1) * PARTITION
    positive, negative = h[:, 0] / (h[:, 0] + total), total / (h[:, 1:] + total)
    return -(positive.log() + negative.log().sum(1)).mean()


def avid(given: Given, case: Case, compiled: bool = False) -> Step:
    (query, bank, _), own = given
    step = torch.compile(criterion) if compiled else criterion

    def run() -> tuple[Tensor, ...]:
        loss = step(query, bank, torch.cat((own, drawn(own, len(bank), K(case.n))), 1))
        return (loss.detach(), *torch.autograd.grad(loss, query))

    return run


IMPLS = {
    "coaug": Impl(ours, "nce_loss"),
    "AVID-CMA": Impl(avid, "its criterion's semantics, re-implemented: randint, index_select, bmm"),
    "torch.compile": Impl(lambda given, case: avid(given, case, compiled=True), "the same, compiled"),
    "copy": Impl(
        lambda given, case: copied(given[0], case), "as many bytes as the negatives have", exact=False
    ),
}
TARGETS = ()
