"""Gradients of a contrastive loss over the global batch, whatever the number of processes and micro-batches.

A contrastive loss couples all samples, so neither averaging micro-batch losses nor per-rank losses gives its gradient.
GradCache (Gao et al., 2021) does, in three moves:

    embed      every rank embeds its rows, micro-batch by micro-batch, without a graph
    objective  embeddings of all ranks are gathered; every rank computes the whole loss and d loss / d embeddings
    backward   every rank embeds its micro-batches again with a graph and feeds in its own rows of that gradient

With one micro-batch the first embedding keeps its graph and nothing is computed twice. Where the loss is a mean of
terms in one sample each (`Method.separable`), every rank computes its own rows' terms only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.method import Method
from ..pipelines.batch import Batch
from . import distributed
from .batchnorm import one_update, untracked
from .profile import region

Figures = dict[str, Tensor]
Rows = dict[str, Tensor]


class Result(NamedTuple):
    """Of a step: loss over the global batch, the objective's figures, the global batch's embeddings and `valid`.

    All detached and the same on all ranks.
    """

    loss: Tensor
    figures: Figures
    embeddings: Rows
    valid: Tensor


def backward(
    method: Method, batch: Batch, *, micro_batches: int = 1, autocast: torch.autocast | None = None
) -> Result:
    """Adds to every `.grad` so that the *mean over ranks* is the gradient of the loss over the global batch.

    Args:
        method: in training mode; its `objective` is computed in full on every rank, unless it is separable.
        batch: this rank's rows (B / world, ...); equally many on all ranks.
        micro_batches: parts in which the rows are embedded.
        autocast: context for the embeddings; the objective runs outside it, on fp32 (or fp64) embeddings.
    """
    cast = autocast or torch.autocast(batch.sample_id.device.type, enabled=False)
    if micro_batches == 1:
        with region("forward"), cast:
            rows = _embed(method, batch)
        result, gradients = _objective(method, rows, batch.valid)
        with region("backward"):
            _pull(rows, gradients)
        return result
    return _backward_in_parts(method, batch, min(micro_batches, len(batch)), cast)


def _backward_in_parts(method: Method, batch: Batch, count: int, cast: torch.autocast) -> Result:
    parts, states, embedded = list(_parts(batch, count)), [], []
    with region("forward"), torch.no_grad(), untracked(method), cast:
        for part in parts:
            states.append(_random_state(batch.sample_id.device))
            embedded.append(_embed(method, part))
    rows = {name: torch.cat([e[name] for e in embedded]) for name in embedded[0]}
    result, gradients = _objective(method, rows, batch.valid)
    start = 0
    with region("backward"), one_update(method) as after_pass, _restored(batch.sample_id.device):
        for part, state in zip(parts, states, strict=True):
            _set_random_state(state)  # dropout draws what it drew in the first pass
            with cast:
                again = _embed(method, part)
            _pull(again, {name: g[start : start + len(part)] for name, g in gradients.items()})
            start += len(part)
            after_pass()
    return result


def _embed(method: Method, batch: Batch) -> Rows:
    """Embeddings, lifted to fp32 at least."""
    return {
        k: v.float() if v.dtype in (torch.bfloat16, torch.half) else v for k, v in method.embed(batch).items()
    }


def _objective(method: Method, rows: Rows, valid: Tensor) -> tuple[Result, Rows]:
    """The global loss, backwards into the objective's own parameters; the gradient that this rank's rows are due.

    That gradient is times the world size, because gradients are averaged over ranks afterwards.
    """
    gathered = {name: distributed.gather_rows(value.detach()) for name, value in rows.items()}
    everyone, world = distributed.gather_rows(valid), distributed.world_size()
    own = slice(distributed.rank() * len(valid), (distributed.rank() + 1) * len(valid))
    seen, cut, scale = (own, slice(None), 1) if method.separable else (slice(None), own, world)
    leaves = {k: _leaf(v[seen]) for k, v in gathered.items()}
    with region("objective"):
        loss, figures = method.objective(leaves, everyone[seen])
        share = (everyone[seen].sum() / everyone.sum().clamp(min=1).double()).to(loss.dtype)  # of the mean
        if loss.requires_grad:  # not when every row is invalid
            (loss * share * (world // scale)).backward()  # type: ignore[no-untyped-call]
    if method.separable:
        loss, figures = _mean(loss, figures, share)
    mine = {k: leaf.grad[cut] * scale for k, leaf in leaves.items() if leaf.grad is not None}
    return Result(loss.detach(), {k: v.detach() for k, v in figures.items()}, gathered, everyone), mine


def _leaf(rows: Tensor) -> Tensor:
    """Where a gradient is caught; nothing that the objective does reaches the rows themselves."""
    return rows.detach().requires_grad_() if rows.is_floating_point() else rows


def _mean(loss: Tensor, figures: Figures, share: Tensor) -> tuple[Tensor, Figures]:
    """The ranks' means as that of all: each counts as much as it has valid rows."""
    values = torch.stack([x.detach().double().reshape(()) for x in (loss, *figures.values())])
    whole = distributed.total(torch.where(share > 0, values * share, 0.0))
    return whole[0].to(loss.dtype), dict(zip(figures, whole[1:], strict=True))


def _pull(rows: Rows, gradients: Rows) -> None:
    """Backward from embeddings."""
    names = [name for name in gradients if rows[name].requires_grad]
    torch.autograd.backward([rows[name] for name in names], [gradients[name] for name in names])


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    edges = [len(batch) * i // count for i in range(count + 1)]
    return (batch[slice(a, b)] for a, b in pairwise(edges))


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])


@contextmanager
def _restored(device: torch.device) -> Iterator[None]:
    """Leaves the random state as it stood on entry."""
    state = _random_state(device)
    yield
    _set_random_state(state)
