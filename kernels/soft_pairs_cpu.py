"""The sweep over weights and logits of all pairs at once, which `soft_infonce(pairs="all")` needs, on a CPU.

Names as in `soft_infonce`'s equations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .soft_infonce_cpu import Bounds, Products, unit, weigh


@dataclass
class Sums:
    """What the loss needs of the weights W (nV, B) and logits t of pairs of different samples, and of own pairs."""

    by_row: Tensor
    """(nV, V): W over the columns of each view."""
    by_column: Tensor
    """(B, V): W over the rows of each view."""
    agreement: Tensor
    """(nV,): sum of W t over each row."""
    own: Tensor
    """(n, V, V): the affinity's products of own pairs."""
    totals: Tensor
    """(nV,): log-sum-exp of the affinity's rows."""
    mixed: Tensor
    """(nV, d): W z_video, the gradient of `agreement`."""


def soft_pairs(x: Products, z_left: Tensor, z_right: Tensor, temperature: float, bounds: Bounds) -> Sums:
    """`x` has the affinity's products; `z_left`, `z_right` the projections of the same rows and columns."""
    v, b, n, d = x.views, len(x.right), len(x.left), z_right.shape[1]
    candidates = torch.cat([z_right, _views(z_right, v)], 1)
    found, totals = x.left.new_empty(n, d + v), x.left.new_empty(n)
    own, by_column = x.left.new_empty(n // v, v, v), x.left.new_zeros(v, b)
    for rows, panel, own_pairs in x.panels(x.buffer()):
        here = own[rows.start // v : rows.stop // v]
        here.copy_(own_pairs)
        totals[rows] = torch.logsumexp(panel, 1) if not x.tame else panel.exp_().sum(1).log_()
        weigh(x, panel, unit(totals[rows], here), bounds)
        own_pairs.zero_()
        torch.mm(panel, candidates, out=found[rows])
        by_column += panel.view(-1, v, b).sum(0)
    mixed, by_row = (
        part.clone(memory_format=torch.contiguous_format) for part in (found[:, :d], found[:, d:])
    )
    agreement = torch.linalg.vecdot(mixed, z_left) / temperature
    return Sums(by_row, by_column.T.contiguous(), agreement, own, totals, mixed)


@dataclass
class Pulls:
    """Gradients at the fields of `Sums` of the same names."""

    by_row: Tensor
    by_column: Tensor
    agreement: Tensor
    own: Tensor
    totals: Tensor


def pull_soft_pairs(
    x: Products, z_left: Tensor, z_right: Tensor, temperature: float, bounds: Bounds,
    kept: tuple[Tensor, Tensor], pulls: Pulls, into: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:  # fmt: skip
    """Adds the gradients to those of z_left, z_right, x.left and x.right; `kept`: `Sums.totals` and `Sums.mixed`.

    The gradient at the weight of a pair, d_S + d_T + d_Q t, is one matrix product: views are columns of 0 and 1.
    """
    (totals, mixed), (dz_left, dz_right, d_left, d_right) = kept, into
    v, share = x.views, (pulls.agreement / temperature)[:, None]
    pulled = z_left * share
    anchors = torch.cat([pulled, pulls.by_row, _views(z_left, v)], 1)
    candidates = torch.cat([z_right, _views(z_right, v), pulls.by_column], 1).T
    dz_left += mixed * share
    upstream, weights = x.buffer(), x.buffer()
    for at, panel, own_pairs in x.panels(x.buffer()):
        e, w = upstream[: len(panel)], weights[: len(panel)]
        torch.mm(anchors[at], candidates, out=e)
        torch.sub(panel, unit(totals[at], own_pairs)[:, None], out=w)
        own_pull = pulls.own[at.start // v : at.stop // v]
        _pull_weights(x, e, w.exp_(), bounds, at)
        dz_right.addmm_(w.T, pulled[at])
        panel.sub_(totals[at, None]).exp_()
        _pull_softmax(x, panel, e, x.own(e, at.start), own_pull, pulls.totals[at])
        x.spread(e, at, d_left, d_right)


def _pull_weights(x: Products, e: Tensor, w: Tensor, bounds: Bounds, at: slice) -> None:
    """Turns `e` from gradients at the weights into E, those at their logarithms, and bounds `w`; own pairs: 0."""
    e.mul_(w)
    if bounds is not None:
        e.masked_fill_((w < bounds[0]) | (w > bounds[1]), 0)
        w.clamp_(*bounds)
    x.own(e, at.start).zero_()
    x.own(w, at.start).zero_()


def _pull_softmax(x: Products, p: Tensor, e: Tensor, own: Tensor, d_own: Tensor, d_totals: Tensor) -> None:
    """Turns E into the gradients at the products, with `p` the affinity's rows and `own` a view of `e`."""
    of_rows = e.sum(1)
    of_samples = of_rows.view(-1, x.views).sum(1)
    gamma = d_totals - of_rows
    gamma.view(-1, x.views)[:, 0] += of_samples
    e.addcmul_(p, gamma[:, None])
    own += d_own
    own[:, 0, 0] -= of_samples


def _views(like: Tensor, views: int) -> Tensor:
    """(B, V) of 0 and 1: which view each row is."""
    return torch.eye(views, dtype=like.dtype, device=like.device).repeat(len(like) // views, 1)
