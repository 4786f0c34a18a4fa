"""`contrastive_ops` on a GPU: soft_infonce.cu, and torch's own products by panels for float64 and pairs="all".

Panels need to know on the host how many samples are valid and so wait for the GPU; the kernels never do.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import contrastive_cpu as panels
from . import cuda
from .soft_infonce_cpu import Bounds, unit

soft_pairs, soft_pairs_backward = panels.soft_pairs, panels.soft_pairs_backward

TILE, WIDTH, THREADS = 64, 128, 256  # as in soft_infonce.cu
REALS = {torch.float32: "float", torch.float16: "__half", torch.bfloat16: "__nv_bfloat16"}
TENSOR = {torch.float16: 70, torch.bfloat16: 80}  # least architecture with tensor cores for it


def negatives(
    audio: Tensor, video: Tensor, valid: Tensor | None, temperature: float, start: int, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `contrastive_ops.negatives`."""
    if audio.dtype not in REALS:
        return panels.negatives(audio, video, valid, temperature, start, count)
    seen, anchors = _seen(audio, valid), slice(start, start + count)
    own, of_audio = _totals(audio, video, seen, temperature, anchors, others_only=True)
    _, of_video = _totals(video, audio, seen, temperature, anchors, others_only=True)
    return own, of_audio, of_video, own.new_empty(0)


def negatives_backward(
    audio: Tensor, video: Tensor, valid: Tensor | None, totals: tuple[Tensor, Tensor], kept: Tensor,
    gradients: tuple[Tensor, Tensor, Tensor], temperature: float, start: int, count: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `contrastive_ops.negatives_backward`."""
    if audio.dtype not in REALS:
        return panels.negatives_backward(
            audio, video, valid, totals, kept, gradients, temperature, start, count
        )
    n, seen, stop = len(audio), _seen(audio, valid), start + count
    own, d_audio, d_video = (_widened(x, n, start) for x in gradients)
    of_audio, of_video = (_widened(x, n, start) for x in totals)
    regions = [((start, stop), (0, n)), ((0, start), (start, stop)), ((stop, n), (start, stop))]
    by_row, by_column = (of_audio, d_audio), (of_video, d_video)
    left = _pull(audio, video, seen, by_row, by_column, own, regions, temperature, others_only=True)
    turned = own.transpose(1, 2).contiguous()
    right = _pull(video, audio, seen, by_column, by_row, turned, regions, temperature, others_only=True)
    return left, right


def affinity(
    audio: Tensor, video: Tensor, valid: Tensor | None, temperature: float, bounds: Bounds,
    start: int, count: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `contrastive_ops.affinity`."""
    if audio.dtype not in REALS:
        return panels.affinity(audio, video, valid, temperature, bounds, start, count)
    seen = _seen(audio, valid)
    own, totals = _totals(audio, video, seen, temperature, slice(start, start + count), others_only=False)
    n, v, width = audio.shape
    rho = _widened(unit(totals.flatten(), own).view(count, v), n, start)
    sums, (least, greatest) = torch.zeros_like(rho), bounds or (0.0, torch.finfo(torch.float32).max)
    first, rows, columns = (np.int64(x * v) for x in (start, count, n))
    arguments = (audio, video, seen, rho, sums, first, rows, columns, width, v)
    numbers = (1 / temperature, float(least), float(greatest))
    _module(audio).launch("row_weights", _tiles(count * v), THREADS, (*arguments, *numbers))
    return own, totals, sums[start : start + count].clone(), own.new_empty(0)


def affinity_backward(
    audio: Tensor, video: Tensor, valid: Tensor | None, totals: Tensor, kept: Tensor, d_own: Tensor, d_totals: Tensor,
    temperature: float, start: int, count: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `contrastive_ops.affinity_backward`."""
    if audio.dtype not in REALS:
        return panels.affinity_backward(
            audio, video, valid, totals, kept, d_own, d_totals, temperature, start, count
        )
    n, seen, anchors = len(audio), _seen(audio, valid), (start, start + count)
    own, total, gradient = (_widened(x, n, start) for x in (d_own, totals, d_totals))
    rows, none = (total, gradient), (torch.zeros_like(total), torch.zeros_like(total))
    left = _pull(audio, video, seen, rows, none, own, [(anchors, (0, n))], temperature, others_only=False)
    turned, regions = own.transpose(1, 2).contiguous(), [((0, n), anchors)]
    right = _pull(video, audio, seen, none, rows, turned, regions, temperature, others_only=False)
    return left, right


def _totals(
    left: Tensor, right: Tensor, seen: Tensor, temperature: float, anchors: slice, *, others_only: bool
) -> tuple[Tensor, Tensor]:
    """Own products (count, V, V) and log-sum-exps of the anchors' rows (count, V); 0 where they are not valid."""
    n, v, width = left.shape
    totals, own = left.new_zeros((n, v), dtype=torch.float32), left.new_zeros((n, v, v), dtype=torch.float32)
    count = anchors.stop - anchors.start
    first, rows, columns = (np.int64(x * v) for x in (anchors.start, count, n))
    arguments = (left, right, seen, totals, own, first, rows, columns, width, v, 1 / temperature)
    _module(left).launch("row_totals", _tiles(count * v), THREADS, (*arguments, int(others_only)))
    hidden = ~seen[anchors]
    return (
        own[anchors].masked_fill(hidden[:, None, None], 0),
        totals[anchors].masked_fill(hidden[:, None], 0),
    )


Region = tuple[tuple[int, int], tuple[int, int]]


def _pull(
    left: Tensor, right: Tensor, seen: Tensor, by_row: tuple[Tensor, Tensor], by_column: tuple[Tensor, Tensor],
    own: Tensor, regions: list[Region], temperature: float, *, others_only: bool,
) -> Tensor:  # fmt: skip
    """The gradient at `left` of products in `regions`: samples of its rows against samples of the columns."""
    v, width = left.shape[1:]
    gradient = torch.zeros_like(left)
    for (row, last_row), (column, last_column) in regions:
        if row == last_row or column == last_column:
            continue
        grid = (_tiles((last_row - row) * v), -(-width // WIDTH))
        area = (np.int64(x * v) for x in (row, last_row - row, column, last_column - column))
        vectors = (left, right, seen, *by_row, *by_column, own, gradient)
        numbers = (width, v, 1 / temperature, int(others_only))
        _module(left).launch("row_pull", grid, THREADS, (*vectors, *area, *numbers))
    return gradient


def _module(x: Tensor) -> cuda.Module:
    if x.dtype in TENSOR:
        return cuda.module("soft_infonce", REAL=REALS[x.dtype], TENSOR=TENSOR[x.dtype])
    return cuda.module("soft_infonce", REAL=REALS[x.dtype])


def _tiles(rows: int) -> int:
    return -(-rows // TILE)


def _seen(like: Tensor, valid: Tensor | None) -> Tensor:
    return like.new_ones(len(like), dtype=torch.bool) if valid is None else valid.contiguous()


def _widened(x: Tensor, n: int, start: int) -> Tensor:
    """Values of the anchors (count, ...) among zeros for all samples (n, ...)."""
    if len(x) == n:
        return x
    wide = x.new_zeros((n, *x.shape[1:]))
    wide[start : start + len(x)] = x
    return wide
