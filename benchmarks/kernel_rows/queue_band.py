"""The five nearest of a queue and its band from the median (temporal self-supervision, section 3.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import Case, Impl, Step, Target

SIZES = {"cpu": (16_384,), "cuda": (16_384,)}
QUERIES, WIDTH, FIRST = 256, 128, 5

Pair = tuple[Tensor, Tensor]


def K(n: int) -> int:
    """Length of the band, from the median."""
    return min(2048, n // 4)


def inputs(case: Case) -> Pair:
    generator = torch.Generator().manual_seed(0)
    query, queue = (F.normalize(torch.randn(n, WIDTH, generator=generator), dim=1) for n in (QUERIES, case.n))
    return query.to(case.device), queue.to(case.device)


def ours(given: Pair, case: Case) -> Step:
    from coaug.kernels.queue_neighbors import queue_neighbors

    return lambda: queue_neighbors(*given, FIRST, (case.n // 2, K(case.n)))


def ranked(query: Tensor, queue: Tensor, begin: int, length: int) -> tuple[Tensor, ...]:
    values, order = (query @ queue.T).sort(dim=1, descending=True, stable=True)
    return tuple(x[:, part] for part in (slice(FIRST), slice(begin, begin + length)) for x in (values, order))


def topk(query: Tensor, queue: Tensor, begin: int, length: int) -> tuple[Tensor, ...]:
    values, order = (query @ queue.T).topk(begin + length, dim=1)
    return tuple(x[:, part] for part in (slice(FIRST), slice(begin, begin + length)) for x in (values, order))


def partitioned(given: Pair, case: Case) -> Step:
    query, queue = (x.cpu().numpy() for x in given)
    begin, end = case.n // 2, case.n // 2 + K(case.n)

    def run() -> tuple[np.ndarray[Any, Any], ...]:
        scores = query @ queue.T
        order = np.argpartition(-scores, [FIRST - 1, begin, end - 1], axis=1)
        near, band = order[:, :FIRST], order[:, begin:end]
        first = np.take_along_axis(scores, near, 1)
        best = np.argsort(-first, axis=1)
        return (
            *(np.take_along_axis(x, best, 1) for x in (first, near)),
            np.take_along_axis(scores, band, 1),
            band,
        )

    return run


def _torch(function: Any) -> Any:
    return lambda given, case: lambda: function(*given, case.n // 2, K(case.n))


IMPLS = {
    "coaug": Impl(ours, "queue_neighbors"),
    "torch.sort": Impl(_torch(ranked), "all scores, a stable sort, slices"),
    "torch.topk": Impl(_torch(topk), "all scores, the best q + m, slices"),
    "torch.compile": Impl(
        lambda given, case: _torch(torch.compile(ranked))(given, case), "the stable sort, compiled"
    ),
    "np.argpartition": Impl(partitioned, "all scores by NumPy's BLAS, three ranks at once"),
    "GEMM": Impl(lambda given, case: lambda: given[0] @ given[1].T, "all scores, nothing else", exact=False),
}
TARGETS = (Target("torch.sort", 10, "cuda"),)
