"""Noise-contrastive estimation with a partition function that is estimated once (AVID, Eq. 1-3 and section 4.1).

    h(x, v_i) = e^(x.v_i / tau) / (e^(x.v_i / tau) + K Z)                                            (2)
    NCE(x; v_i) = -log h(x, v_i) - sum over K negatives of log(1 - h(x, v_j))                        (3)

Z is the mean of e^(x.v_j / tau) over the negatives of the first global batch, and "kept constant thereafter".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels import bank_scores, nce_loss
from ..kernels.bank_nce import NCE
from ..kernels.cross_affinity import precise


@dataclass(frozen=True)
class Draw:
    """What negatives depend on: the run's seed, the step, and the place of the first query in the global batch."""

    seed: int
    step: int
    offset: int


@dataclass
class Partition:
    """Z by task, or one for all: that of the task which comes first, as in the authors' code."""

    per_task: bool = False
    values: dict[str, float] = field(default_factory=dict)

    def of(self, task: str) -> float | None:
        """Z of a task; None where it is not known yet."""
        return self.values.get(self._key(task))

    def estimate(self, task: str, exp_sum: float, negatives: float) -> None:
        """Z from now on: the mean of `negatives` terms e^(x.v / tau) with the sum `exp_sum`. None are none."""
        if negatives and math.isfinite(exp_sum):
            self.values[self._key(task)] = exp_sum / negatives

    def _key(self, task: str) -> str:
        return task if self.per_task else "all"


def nce(
    query: Tensor,
    bank: Tensor,
    positives: Tensor,
    excluded: Tensor,
    *,
    negatives: int,
    partition: float,
    temperature: float,
    draw: Draw,
    valid: Tensor,
) -> NCE:
    """Each query's mean of Eq. 3 over its positives, with negatives drawn from all rows but `excluded`.

    Args: see `kernels.nce_loss`.

    Returns:
        Losses (B,) and sums (B,); NaN for a query that is not finite, for the training loop to report.
    """
    finite = query.isfinite().all(1)
    loss, exp_sum = nce_loss(
        torch.where(finite[:, None], query, 0.0),
        bank,
        positives,
        excluded,
        negatives=negatives,
        partition=partition,
        temperature=temperature,
        seed=draw.seed,
        step=draw.step,
        offset=draw.offset,
        valid=valid & finite,
    )
    broken = valid & ~finite
    return NCE(loss.masked_fill(broken, math.nan), exp_sum.masked_fill(broken, math.nan))


def nce_of(
    query: Tensor,
    bank: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    partition: float,
    temperature: float,
    valid: Tensor,
) -> NCE:
    """The same of given rows: what `nce` is where only those rows of the bank are at hand.

    Args:
        positives: (B, P), rows of `bank`; -1 where there are fewer.
        negatives: (B, K), rows of `bank`.
    """
    finite = query.isfinite().all(1)
    taken = valid & finite
    x = torch.where(taken[:, None], precise(query), 0.0)
    ids = torch.cat([positives.clamp(min=0), negatives], 1)
    scores = bank_scores(x, bank, ids).double() / temperature
    logits = scores - math.log(negatives.shape[1] * partition)
    pulled, pushed = torch.split(logits, [positives.shape[1], negatives.shape[1]], 1)
    given = positives >= 0
    weights = given / given.sum(1, keepdim=True).clamp(min=1)
    loss = (F.softplus(-pulled) * weights).sum(1) + weights.sum(1) * F.softplus(pushed).sum(1)
    exp_sum = scores[:, positives.shape[1] :].detach().exp().sum(1)
    broken = valid & ~finite
    loss, exp_sum = ((t * taken).masked_fill(broken, math.nan) for t in (loss, exp_sum))
    return NCE(loss.to(x.dtype), exp_sum)
