"""The sweeps of `soft_infonce` on a CPU: a panel of rows against all columns at a time, never the whole matrix.

A panel is a matrix product and a few passes over it while it is in the cache; `soft_infonce` has the equations.
Matrices are (B, d), B = samples * views, sample after sample, in float32 or float64. `left` holds consecutive
samples of the batch, all or some, of which the first stands at column `start` of `right`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor
from torch.linalg import vector_norm as norm

PANEL = 1 << 20  # elements of a panel: 4 MiB of float32, which the caches hold
ROWS = (
    128  # at least so many rows in a panel, else copying `right` for every panel would cost more than it does
)

Bounds = tuple[float, float] | None


class Products:
    """left right^T / temperature by panels, and how to take its exponentials."""

    def __init__(
        self,
        left: Tensor,
        right: Tensor,
        views: int,
        temperature: float,
        start: int = 0,
        kept: Tensor | None = None,
    ) -> None:
        self.left, self.right, self.views, self.start = left, right, views, start
        self.scale = 1 / temperature
        self.kept = None if kept is None or not len(kept) else _front(kept, len(left), len(right))
        rows = max(PANEL // max(len(right), 1), ROWS)
        self.height = max(min(rows, len(left)) // views, 1) * views

    def keep(self, room: Tensor) -> None:
        """Computes all products at once, for a batch small enough that `room` (flat) holds them."""
        if len(room):
            self.kept = _front(room, len(self.left), len(self.right))
            room[self.kept.numel() :] = 0
            torch.addmm(self.kept, self.left, self.right.T, beta=0, alpha=self.scale, out=self.kept)

    @cached_property
    def tame(self) -> bool:
        """No product is far from 0, so exp and its sums need no shift (unit vectors at temperature >= 0.04).

        The widest range is that of `unit`, three times the bound and the logarithm of the columns.
        """
        if not len(self.left):
            return True
        if self.kept is not None:
            least, greatest = self.kept.aminmax()
            return float(least) >= -25 and float(greatest) <= 25
        longest = norm(self.left, dim=1).amax() * norm(self.right, dim=1).amax()
        return float(longest) * self.scale <= 25

    def buffer(self) -> Tensor:
        """An empty panel, to be passed to `panels`."""
        return self.left.new_empty(self.height, len(self.right))

    def panels(self, buffer: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows, their products in `buffer`, and of these the samples' own pairs (n, V, V), a view."""
        for first in range(0, len(self.left), self.height):
            rows = slice(first, min(first + self.height, len(self.left)))
            panel = buffer[: rows.stop - first]
            if self.kept is None:
                torch.addmm(panel, self.left[rows], self.right.T, beta=0, alpha=self.scale, out=panel)
            else:
                panel.copy_(self.kept[rows])
            yield rows, panel, self.own(panel, first)

    def own(self, panel: Tensor, first: int) -> Tensor:
        """View (n, V, V) of a panel whose first row is `first`: [i, p, q] is sample i's view p with view q."""
        v, width = self.views, len(self.right)
        return panel.as_strided((len(panel) // v, v, v), (v * width + v, width, 1), self.start + first)

    def spread(self, gradient: Tensor, at: slice, d_left: Tensor, d_right: Tensor) -> None:
        """Adds a panel of gradients of the products to those of `left` and `right`."""
        d_left[at].addmm_(gradient, self.right, alpha=self.scale)
        d_right.addmm_(gradient.T, self.left[at], alpha=self.scale)


def room(x: Tensor, count: int) -> Tensor:
    """Where all products of `count` of the samples `x` (N, V, d) fit if one panel holds them, else nothing; flat."""
    products = count * len(x) * x.shape[1] ** 2
    fits = x.device.type == "cpu" and products <= PANEL
    return x.new_empty(products if fits else 0, dtype=torch.promote_types(x.dtype, torch.float32))


def _front(room: Tensor, rows: int, columns: int) -> Tensor:
    return room[: rows * columns].view(rows, columns)


def negatives(x: Products, columns: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Own products (n, V, V); log-sum-exp over each row's negatives (nV,) and, if wanted, each column's (B,)."""
    own = x.left.new_empty(len(x.left) // x.views, x.views, x.views)
    of_rows = x.left.new_empty(len(x.left))
    of_columns = x.left.new_full((len(x.right) if columns else 0,), 0 if x.tame else -torch.inf)
    for rows, panel, own_pairs in x.panels(x.buffer()):
        own[rows.start // x.views : rows.stop // x.views] = own_pairs
        if x.tame:
            panel.exp_()
            own_pairs.zero_()
            torch.sum(panel, 1, out=of_rows[rows])
            if columns:
                of_columns += panel.sum(0)
        else:
            own_pairs.fill_(-torch.inf)
            torch.logsumexp(panel, 1, out=of_rows[rows])
            if columns:
                torch.logaddexp(of_columns, panel.logsumexp(0), out=of_columns)
    if x.tame:
        of_rows.log_(), of_columns.log_()
    lowest = torch.finfo(own.dtype).min / 2  # without negatives: finite, or gradients would be NaN
    return own, of_rows.clamp_(min=lowest), of_columns.clamp_(min=lowest)


def pull_negatives(
    x: Products, d_own: Tensor | None, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor] | None,
    d_left: Tensor, d_right: Tensor,
) -> None:  # fmt: skip
    """Adds the gradients of `negatives` to `d_left` and `d_right`.

    `rows` and `columns` are the log-sum-exps and their gradients; without `d_own` the own products get none.
    """
    row_share = _share(x, *rows)
    column_share = None if columns is None else _share(x, *columns)
    for at, panel, _ in x.panels(x.buffer()):
        if x.tame:
            share = row_share[at, None] if column_share is None else row_share[at, None] + column_share
            panel.exp_().mul_(share)
        else:
            panel = _shifted(panel, rows, columns, at)
        own = x.own(panel, at.start)
        own.zero_() if d_own is None else own.copy_(d_own[at.start // x.views : at.stop // x.views])
        x.spread(panel, at, d_left, d_right)


def _share(x: Products, total: Tensor, gradient: Tensor) -> Tensor:
    """gradient * e^-total, what the exponentials of a row or column are multiplied by; 0 where nothing flows."""
    return (gradient * (-total).exp()).masked_fill_(gradient == 0, 0)


def _shifted(
    panel: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor] | None, at: slice
) -> Tensor:
    """The same where exp alone might overflow: probabilities times gradients."""
    found = (panel - rows[0][at, None]).exp_().mul_(rows[1][at, None])
    if columns is not None:
        found += panel.sub_(columns[0]).exp_().mul_(columns[1])
    return found


def affinity(x: Products, bounds: Bounds) -> tuple[Tensor, Tensor, Tensor]:
    """Own products (n, V, V), log-sum-exp of each row (nV,) and its sum of the weights of other samples (nV,)."""
    own = x.left.new_empty(len(x.left) // x.views, x.views, x.views)
    totals, sums = x.left.new_empty(len(x.left)), x.left.new_empty(len(x.left))
    for rows, panel, own_pairs in x.panels(x.buffer()):
        here = own[rows.start // x.views : rows.stop // x.views]
        here.copy_(own_pairs)
        totals[rows] = torch.logsumexp(panel, 1) if not x.tame else panel.exp_().sum(1).log_()
        weigh(x, panel, unit(totals[rows], here), bounds)
        own_pairs.zero_()
        torch.sum(panel, 1, out=sums[rows])
    return own, totals, sums


def unit(totals: Tensor, own: Tensor) -> Tensor:
    """rho: products minus it are log weights, so that the un-augmented pair's is 0. (nV,) from (nV,), (n, V, V)."""
    per_sample = totals.view(own.shape[:2])
    return (per_sample + (own[:, :1, 0] - per_sample[:, :1])).flatten()


def weigh(x: Products, panel: Tensor, log_unit: Tensor, bounds: Bounds) -> Tensor:
    """Turns a panel (of exponentials where `x` is tame, else of products) into weights; returns it."""
    if x.tame:
        panel.mul_((-log_unit).exp_()[:, None])
        return panel if bounds is None else panel.clamp_(*bounds)
    panel.sub_(log_unit[:, None])
    return panel.exp_() if bounds is None else panel.exp_().clamp_(*bounds)


def pull_affinity(
    x: Products, d_own: Tensor, totals: Tensor, d_totals: Tensor, d_left: Tensor, d_right: Tensor
) -> None:
    """Adds the gradients of `affinity`'s first two results to those of its matrices."""
    for at, panel, own_pairs in x.panels(x.buffer()):
        panel.sub_(totals[at, None]).exp_().mul_(d_totals[at, None])
        own_pairs += d_own[at.start // x.views : at.stop // x.views]
        x.spread(panel, at, d_left, d_right)
