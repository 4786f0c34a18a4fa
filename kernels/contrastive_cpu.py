"""`contrastive_ops` on a CPU: valid samples are gathered, swept in float32 or better, and the results put back."""

from __future__ import annotations

import torch
from torch import Tensor

from . import soft_infonce_cpu as sweeps
from .soft_infonce_cpu import Bounds, Products
from .soft_pairs_cpu import Pulls, pull_soft_pairs
from .soft_pairs_cpu import soft_pairs as sweep_soft_pairs


class Part:
    """The samples that take part, and among them the anchors, which are consecutive."""

    def __init__(self, like: Tensor, valid: Tensor | None, start: int, count: int) -> None:
        self.samples, self.views, _ = like.shape
        self.start, self.count = start, count
        self.kept = None if valid is None or valid.all() else valid.nonzero()[:, 0]
        first, last = start, start + count
        if self.kept is not None:
            first, last = torch.searchsorted(self.kept, self.kept.new_tensor([first, last])).tolist()
        self.whole = count == self.samples
        self.first = first * self.views
        self.rows = slice(self.first, last * self.views)
        self._anchors = slice(first, last)

    def gather(self, x: Tensor) -> Tensor:
        """(N, V, d) -> rows of the valid samples (B, d), float32 or better."""
        kept = x if self.kept is None else x[self.kept]
        return kept.to(torch.promote_types(x.dtype, torch.float32)).flatten(0, 1)

    def put(self, rows: Tensor) -> Tensor:
        """Values of the valid samples (n, ...) at their places (N, ...), among zeros."""
        if self.kept is None:
            return rows
        return rows.new_zeros(self.samples, *rows.shape[1:]).index_copy_(0, self.kept, rows)

    def put_anchors(self, rows: Tensor) -> Tensor:
        """Values of the valid anchors at their places (count, ...)."""
        if self.kept is None:
            return rows
        places = self.kept[self._anchors] - self.start
        return rows.new_zeros(self.count, *rows.shape[1:]).index_copy_(0, places, rows)

    def take(self, x: Tensor) -> Tensor:
        """Of all samples' values (N, ...) the valid ones'."""
        return x if self.kept is None else x[self.kept]

    def take_anchors(self, x: Tensor) -> Tensor:
        """Of the anchors' values (count, ...) the valid ones'."""
        return x if self.kept is None else x[self.kept[self._anchors] - self.start]

    def gradient(self, rows: Tensor, like: Tensor) -> Tensor:
        """Gradients of gathered rows as those of `like`."""
        return self.put(rows.view(-1, *like.shape[1:])).to(like.dtype)


def negatives(
    audio: Tensor, video: Tensor, valid: Tensor | None, temperature: float, start: int, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `contrastive_ops.negatives`."""
    part = Part(audio, valid, start, count)
    v, a, b = part.views, part.gather(audio), part.gather(video)
    x = Products(a[part.rows], b, v, temperature, part.first)
    x.keep(kept := sweeps.room(audio, count if part.whole else 0))
    own, of_audio, of_video = sweeps.negatives(x, part.whole)
    if not part.whole:
        of_video = sweeps.negatives(Products(b[part.rows], a, v, temperature, part.first), False)[1]
    return (
        part.put_anchors(own),
        part.put_anchors(of_audio.view(-1, v)),
        part.put_anchors(of_video.view(-1, v)),
        kept,
    )


def negatives_backward(
    audio: Tensor, video: Tensor, valid: Tensor | None, totals: tuple[Tensor, Tensor], kept: Tensor,
    gradients: tuple[Tensor, Tensor, Tensor], temperature: float, start: int, count: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `contrastive_ops.negatives_backward`."""
    part = Part(audio, valid, start, count)
    v, a, b, rows = part.views, part.gather(audio), part.gather(video), part.rows
    d_own, d_rows, d_columns = (part.take_anchors(x) for x in gradients)
    by_row, by_column = (
        (part.take_anchors(total).flatten(), d.flatten())
        for total, d in zip(totals, (d_rows, d_columns), strict=True)
    )
    d_a, d_b = torch.zeros_like(a), torch.zeros_like(b)
    x = Products(a[rows], b, v, temperature, part.first, kept)
    sweeps.pull_negatives(x, d_own, by_row, by_column if part.whole else None, d_a[rows], d_b)
    if not part.whole:
        x = Products(b[rows], a, v, temperature, part.first)
        sweeps.pull_negatives(x, None, by_column, None, d_b[rows], d_a)
    return part.gradient(d_a, audio), part.gradient(d_b, video)


def affinity(
    audio: Tensor, video: Tensor, valid: Tensor | None, temperature: float, bounds: Bounds,
    start: int, count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `contrastive_ops.affinity`."""
    part = Part(audio, valid, start, count)
    x = _products(part, audio, video, temperature)
    x.keep(kept := sweeps.room(audio, count))
    own, totals, sums = sweeps.affinity(x, bounds)
    totals, sums = (part.put_anchors(values.view(-1, part.views)) for values in (totals, sums))
    return part.put_anchors(own), totals, sums, kept


def affinity_backward(
    audio: Tensor, video: Tensor, valid: Tensor | None, totals: Tensor, kept: Tensor, d_own: Tensor, d_totals: Tensor,
    temperature: float, start: int, count: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `contrastive_ops.affinity_backward`."""
    part = Part(audio, valid, start, count)
    x = _products(part, audio, video, temperature, kept)
    d_a, d_b = torch.zeros_like(x.right), torch.zeros_like(x.right)
    totals, d_totals = (part.take_anchors(values).flatten() for values in (totals, d_totals))
    sweeps.pull_affinity(x, part.take_anchors(d_own), totals, d_totals, d_a[part.rows], d_b)
    return part.gradient(d_a, audio), part.gradient(d_b, video)


def soft_pairs(
    z_audio: Tensor, z_video: Tensor, y_audio: Tensor, y_video: Tensor, valid: Tensor | None,
    temperatures: tuple[float, float], bounds: Bounds, start: int, count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `contrastive_ops.soft_pairs`."""
    part = Part(z_audio, valid, start, count)
    x = _products(part, y_audio, y_video, temperatures[1])
    z_left, z_right = part.gather(z_audio)[part.rows], part.gather(z_video)
    x.keep(kept := sweeps.room(y_audio, count))
    found = sweep_soft_pairs(x, z_left, z_right, temperatures[0], bounds)
    by_column = part.put(found.by_column.view(-1, part.views, part.views))
    of_anchors = (found.by_row, found.agreement, found.totals, found.mixed)
    by_row, agreement, totals, mixed = (
        part.put_anchors(values.view(-1, part.views, *values.shape[1:])) for values in of_anchors
    )
    return by_row, by_column, agreement, part.put_anchors(found.own), totals, mixed, kept


def soft_pairs_backward(
    z_audio: Tensor, z_video: Tensor, y_audio: Tensor, y_video: Tensor, valid: Tensor | None,
    totals: Tensor, mixed: Tensor, kept: Tensor, gradients: tuple[Tensor, ...],
    temperatures: tuple[float, float], bounds: Bounds, start: int, count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `contrastive_ops.soft_pairs_backward`."""
    part = Part(z_audio, valid, start, count)
    rows = part.rows
    x = _products(part, y_audio, y_video, temperatures[1], kept)
    z_left, z_right = part.gather(z_audio)[rows], part.gather(z_video)
    into = [torch.zeros_like(side) for side in (z_right, z_right, x.right, x.right)]
    saved = (part.take_anchors(totals).flatten(), part.take_anchors(mixed).flatten(0, 1))
    by_row, agreement, own, totals = (part.take_anchors(gradients[i]) for i in (0, 2, 3, 4))
    by_column = part.take(gradients[1]).flatten(0, 1)
    pulls = Pulls(by_row.flatten(0, 1), by_column, agreement.flatten(), own, totals.flatten())
    places = (into[0][rows], into[1], into[2][rows], into[3])
    pull_soft_pairs(x, z_left, z_right, temperatures[0], bounds, saved, pulls, places)
    z = [part.gradient(d, like) for d, like in zip(into[:2], (z_audio, z_video), strict=True)]
    y = [part.gradient(d, like) for d, like in zip(into[2:], (y_audio, y_video), strict=True)]
    return z[0], z[1], y[0], y[1]


def _products(
    part: Part, audio: Tensor, video: Tensor, temperature: float, kept: Tensor | None = None
) -> Products:
    left, right = part.gather(audio)[part.rows], part.gather(video)
    return Products(left, right, part.views, temperature, part.first, kept)
