"""Discrimination of recordings by their features against a memory: which tasks there are, and a task's losses."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..engine import distributed
from ..kernels import sample_negatives
from ..kernels.bank_nce import NCE
from ..losses.nce import Draw, Partition, nce, nce_of
from .rows import Rows


class Task(NamedTuple):
    """Whose features are compared with whose memories."""

    name: str
    query: str
    target: str


CROSS = (Task("v2a", "video", "audio"), Task("a2v", "audio", "video"))
SELF = (Task("v2v", "video", "video"), Task("a2a", "audio", "audio"))
WITHIN = (Task("positives_v2v", "video", "video"), Task("positives_a2a", "audio", "audio"))
TASKS = {"cross": CROSS, "self": SELF, "joint": CROSS + SELF}


class Term(NamedTuple):
    """A task of a step: positives (B, P) and rows that are no negatives (B, E), negatives drawn, weight in the loss."""

    task: Task
    positives: Tensor
    excluded: Tensor
    negatives: int
    weight: float = 1.0

    def repeated(self, views: int) -> Term:
        """For each view of each sample."""
        positives, excluded = (x.repeat_interleave(views, 0) for x in (self.positives, self.excluded))
        return self._replace(positives=positives.contiguous(), excluded=excluded.contiguous())


def losses(
    term: Term,
    query: Tensor,
    valid: Tensor,
    targets: Rows,
    *,
    partition: Partition,
    temperature: float,
    draw: Draw,
) -> Tensor:
    """(B,) the loss of each of this rank's queries (all ranks). Where Z is not known, all ranks' queries estimate it.

    Args:
        term: as the queries are: once for each view.
        query: (B, d) of unit length.
        valid: (B,) bool; the others' loss is 0.
        targets: the memory of `term.task.target`.
    """
    compute = partial(_sharded if targets.sharded else _whole, term, targets, draw)
    if partition.of(term.task.name) is None:
        with torch.no_grad():
            exp_sum = compute(query, partition=1.0, temperature=temperature, valid=valid).exp_sum
        sums = torch.stack([exp_sum.sum(), valid.sum().double() * term.negatives])
        partition.estimate(term.task.name, *distributed.total(sums).tolist())
    z = partition.of(term.task.name) or 1.0  # not one valid query: there is no loss either
    return compute(query, partition=z, temperature=temperature, valid=valid).loss


def _whole(
    term: Term,
    targets: Rows,
    draw: Draw,
    query: Tensor,
    *,
    partition: float,
    temperature: float,
    valid: Tensor,
) -> NCE:
    return nce(
        query,
        targets.own,
        term.positives,
        term.excluded,
        negatives=term.negatives,
        partition=partition,
        temperature=temperature,
        draw=draw,
        valid=valid,
    )


def _sharded(
    term: Term,
    targets: Rows,
    draw: Draw,
    query: Tensor,
    *,
    partition: float,
    temperature: float,
    valid: Tensor,
) -> NCE:
    """The same draw, and rows that are sent for."""
    excluded = term.excluded.masked_fill(~valid[:, None], targets.count)
    negatives = sample_negatives(
        excluded, targets.count, term.negatives, seed=draw.seed, step=draw.step, offset=draw.offset
    )
    wanted = torch.cat([term.positives.clamp(min=0), negatives], 1)
    values, places = targets.fetch(wanted)
    pulled, pushed = torch.split(places, [term.positives.shape[1], term.negatives], 1)
    return nce_of(
        query,
        values,
        pulled.masked_fill(term.positives < 0, -1),
        pushed,
        partition=partition,
        temperature=temperature,
        valid=valid,
    )
