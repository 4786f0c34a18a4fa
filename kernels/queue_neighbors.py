"""Neighbours in a queue of past features by rank: the nearest, and a band that begins farther out.

Temporal self-supervision takes the first k neighbours as positives and those of rank q to q + m, "starting from the
neighbor with median distance", as negatives (Audio-Visual Contrastive Learning with Temporal Self-Supervision, 3.1).
The order within the band matters to no loss, so ranks are selected and nothing is sorted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import checks, cuda, queue_cpu
from .queue_cpu import Found

THREADS = 512  # of a block that selects from one row
TILE = 64  # queries and columns of a block of scores
MOST = 1024  # neighbours that CUDA sorts in shared memory


class Neighbors(NamedTuple):
    """Scores and rows of the queue; where it has too few rows, -inf and -1 at the end.

    Attributes:
        first_values, first_indices: (B, first), best first, equal scores by ascending index.
        band_values, band_indices: (B, m), by ascending index.
    """

    first_values: Tensor
    first_indices: Tensor
    band_values: Tensor
    band_indices: Tensor


def queue_neighbors(
    query: Tensor,
    queue: Tensor,
    first: int = 5,
    band: tuple[int, int] | None = None,
    *,
    valid: Tensor | int | None = None,
) -> Neighbors:
    """The `first` nearest rows of the queue and those of rank q to q + m - 1, by dot product.

    Ranks count from 0 as in a stable sort of the scores, best first: equal scores rank by ascending index. With
    `order` that sort's result, the neighbours are `order[:first]` and `sorted(order[q : q + m])`. The paper's "q-th up
    to the (q+m)-th" are m + 1; its m negatives are here those after the q nearest.

    Scores are float32 products and sums of what is given (float64 if anything is), under autocast too; equal rows
    have equal scores. Values are differentiable with respect to `query`, not to `queue`. Time O(B n d), memory
    beside the result O(n) for 64 queries on a CPU, for each query on a GPU.

    Args:
        query: (B, d), float16, bfloat16, float32 or (on a CPU) float64. L2-normalised, for cosines.
        queue: (n, d), of any of these types.
        first: how many of the nearest; at most 1,024 on a GPU.
        band: (q, m). None: the paper's, from the median of the `valid` rows, 2,048; with a mask, of all rows.
        valid: which rows take part: the first ones, as many as this number, or where an (n,) mask is True.
            None: all.

    Raises:
        TypeError: a wrong dtype.
        ValueError: wrong shapes, devices or ranks, or NaN or infinity in rows that take part (on a GPU an assertion
            on the device, which a later synchronisation reports).
    """
    _check(query, queue, first, band, valid)
    mask = valid if isinstance(valid, Tensor) else None
    if valid is not None and mask is None:
        queue = queue[:valid]
    begin, length = band if band is not None else (len(queue) // 2, 2048)
    return Neighbors(*_neighbors(query, queue, mask, first, begin, length))


def _check(
    query: Tensor, queue: Tensor, first: int, band: tuple[int, int] | None, valid: Tensor | int | None
) -> None:
    checks.matrix("query", query)
    checks.matrix("queue", queue, width=query.shape[1])
    checks.same_device(query=query, queue=queue)
    if first < 0 or (band is not None and min(band) < 0):
        raise ValueError(f"first and band must not be negative, got {first = }, {band = }")
    if isinstance(valid, Tensor):
        checks.same_device(queue=queue, valid=valid)
        if valid.dtype != torch.bool or valid.shape != queue.shape[:1]:
            raise ValueError(f"valid must be bool of shape ({len(queue)},), got {checks.describe(valid)}")
    elif valid is not None and not 0 <= valid <= len(queue):
        raise ValueError(f"valid must lie in 0 … {len(queue)}, the queue's rows, got {valid}")


@torch.library.custom_op("coaug::queue_neighbors", mutates_args=())
def _neighbors(
    query: Tensor, queue: Tensor, valid: Tensor | None, first: int, begin: int, length: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        found = _empty(query, queue, first, length)
        if query.device.type == "cuda":
            _on_gpu(query, queue, valid, found, begin)
        else:
            _on_cpu(query, queue, valid, found, begin)
        return found


@_neighbors.register_fake
def _shapes(query: Tensor, queue: Tensor, valid: Tensor | None, first: int, begin: int, length: int) -> Found:
    return _empty(query, queue, first, length)


def _empty(query: Tensor, queue: Tensor, first: int, length: int) -> Found:
    dtype = _score_dtype(query, queue)
    shapes = ((len(query), first), (len(query), length))
    pairs = [
        (query.new_full(s, -torch.inf, dtype=dtype), query.new_full(s, -1, dtype=torch.int64)) for s in shapes
    ]
    return *pairs[0], *pairs[1]


def _score_dtype(query: Tensor, queue: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(query.dtype, queue.dtype), torch.float32)


def _on_cpu(query: Tensor, queue: Tensor, valid: Tensor | None, found: Found, begin: int) -> None:
    rows = None if valid is None else valid.nonzero()[:, 0]
    queue = queue if rows is None else queue[rows]
    if not len(query) or not len(queue):
        return
    dtype = _score_dtype(query, queue)
    if not queue_cpu.select(query.detach().to(dtype), queue.detach().to(dtype), found, begin):
        checks.finite("query", query)
        checks.finite("queue", queue)
        raise ValueError(f"products of query and queue do not fit {dtype}: they become infinite")
    if rows is not None:
        for indices in (found[1], found[3]):
            indices.copy_(torch.where(indices < 0, -1, rows[indices]))


def _on_gpu(query: Tensor, queue: Tensor, valid: Tensor | None, found: Found, begin: int) -> None:
    if torch.float64 in (query.dtype, queue.dtype):
        raise TypeError(f"float64 is for CPU tensors, got query {query.dtype} and queue {queue.dtype}")
    if found[0].shape[1] > MOST:
        raise ValueError(f"first must be at most {MOST} on a GPU, got {found[0].shape[1]}")
    (b, width), n = query.shape, len(queue)
    if not b or not n:
        return
    kernels = cuda.module("queue_neighbors", QUERY=_c_type(query), QUEUE=_c_type(queue), THREADS=THREADS)
    keys = torch.empty(b, n, dtype=torch.int32, device=query.device)
    wrong = torch.zeros((), dtype=torch.int32, device=query.device)
    mask = torch.ones(n, dtype=torch.bool, device=query.device) if valid is None else valid.contiguous()
    tiles = (-(-n // TILE), -(-b // TILE))
    kernels.launch("queue_keys", tiles, 256, [query, queue, mask, keys, wrong, b, n, width])
    torch._assert_async(wrong == 0, "query or queue holds NaN or infinity, or their products overflow")
    counts = [x.shape[1] for x in (found[0], found[2])]
    kernels.launch("select_ranks", b, THREADS, [keys, *found, n, counts[0], begin, counts[1]])


def _c_type(x: Tensor) -> str:
    return {torch.float16: "__half", torch.bfloat16: "__nv_bfloat16"}.get(x.dtype, "float")


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, queue, *_ = inputs
    ctx.save_for_backward(queue, output[1], output[3])
    ctx.dtype = query.dtype
    ctx.mark_non_differentiable(output[1], output[3])


def _backward(ctx: Any, first: Tensor, _: Any, band: Tensor, __: Any) -> tuple[Tensor | None, ...]:
    """Of each query: the sum over its neighbours of gradient times row. The queue is constant."""
    queue, *indices = ctx.saved_tensors
    near, far = (_weighted_rows(queue, *pair) for pair in zip(indices, (first, band), strict=True))
    return ((near + far).to(ctx.dtype), *(None,) * 5)


def _weighted_rows(queue: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """sum_k weights[b, k] * queue[indices[b, k]], without the (B, k, d) rows that it sums; index -1 is nothing."""
    if not len(queue) or not indices.shape[1]:
        return weights.new_zeros(len(indices), queue.shape[1])
    weights = weights.masked_fill(indices < 0, 0)
    return F.embedding_bag(
        indices.clamp(min=0), queue.to(weights.dtype), mode="sum", per_sample_weights=weights
    )


_neighbors.register_autograd(_backward, setup_context=_save)
