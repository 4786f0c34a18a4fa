"""Gradients of a contrastive loss over the global batch, whatever the number of processes and micro-batches.

A contrastive loss couples all samples, so neither averaging micro-batch losses nor per-rank losses gives its gradient.
GradCache (Gao et al., 2021) does, in three moves:

    embed      every rank embeds its rows, micro-batch by micro-batch, without a graph
    objective  embeddings of all ranks are gathered; every rank computes the whole loss and d loss / d embeddings
    backward   every rank embeds its micro-batches again with a graph and feeds in its own rows of that gradient

With one micro-batch the first embedding keeps its graph and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from ..models.method import Method
from ..pipelines.batch import Batch
from . import distributed
from .batchnorm import one_update, untracked
from .profile import region

Figures = dict[str, Tensor]


def backward(
    method: Method, batch: Batch, *, micro_batches: int = 1, autocast: torch.autocast | None = None
) -> tuple[Tensor, Figures]:
    """Adds to every `.grad` so that the *mean over ranks* is the gradient of the loss over the global batch.

    Args:
        method: in training mode; its `objective` is computed in full on every rank.
        batch: this rank's rows (B / world, ...); equally many on all ranks.
        micro_batches: parts in which the rows are embedded.
        autocast: context for the embeddings; the objective runs outside it, on fp32 (or fp64) embeddings.

    Returns:
        The loss over the global batch and the objective's figures, detached and the same on all ranks.
    """
    cast = autocast or torch.autocast(batch.sample_id.device.type, enabled=False)
    if micro_batches == 1:
        with region("forward"), cast:
            rows = _embed(method, batch)
        loss, figures, gradients = _objective(method, rows, batch.valid)
        with region("backward"):
            _pull(rows, gradients)
        return loss, figures
    return _backward_in_parts(method, batch, min(micro_batches, len(batch)), cast)


def _backward_in_parts(
    method: Method, batch: Batch, count: int, cast: torch.autocast
) -> tuple[Tensor, Figures]:
    parts, states, embedded = list(_parts(batch, count)), [], []
    with region("forward"), torch.no_grad(), untracked(method), cast:
        for part in parts:
            states.append(_random_state(batch.sample_id.device))
            embedded.append(_embed(method, part))
    rows = {name: torch.cat([e[name] for e in embedded]) for name in embedded[0]}
    loss, figures, gradients = _objective(method, rows, batch.valid)
    start = 0
    with region("backward"), one_update(method) as after_pass, _restored(batch.sample_id.device):
        for part, state in zip(parts, states, strict=True):
            _set_random_state(state)  # dropout draws what it drew in the first pass
            with cast:
                again = _embed(method, part)
            _pull(again, {name: g[start : start + len(part)] for name, g in gradients.items()})
            start += len(part)
            after_pass()
    return loss, figures


def _embed(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Embeddings, lifted to fp32 at least."""
    return {
        k: v.float() if v.dtype in (torch.bfloat16, torch.half) else v for k, v in method.embed(batch).items()
    }


def _objective(
    method: Method, rows: dict[str, Tensor], valid: Tensor
) -> tuple[Tensor, Figures, dict[str, Tensor]]:
    """The global loss, backwards into the objective's own parameters and to this rank's rows of the embeddings."""
    gathered = {name: distributed.gather_rows(value.detach()) for name, value in rows.items()}
    leaves = {k: v.requires_grad_() if v.is_floating_point() else v for k, v in gathered.items()}
    with region("objective"):
        loss, figures = method.objective(leaves, distributed.gather_rows(valid))
        if loss.requires_grad:  # not when every row is invalid
            loss.backward()  # type: ignore[no-untyped-call]
    first = distributed.rank() * len(valid)
    mine = {k: leaf.grad[first : first + len(valid)] for k, leaf in leaves.items() if leaf.grad is not None}
    return loss.detach(), {k: v.detach() for k, v in figures.items()}, mine


def _pull(rows: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
    """Backward from embeddings; times the world size, because gradients are averaged over ranks afterwards."""
    pairs = [
        (rows[name], g * distributed.world_size())
        for name, g in gradients.items()
        if rows[name].requires_grad
    ]
    torch.autograd.backward([row for row, _ in pairs], [gradient for _, gradient in pairs])


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
