"""The k recordings that agree most with each, min of two inner products (CMA, Eq. 7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import OURS, Case, Impl, Step, Target, Unavailable

SIZES = {"cpu": (20_000, 100_000), "cuda": (240_000, 1_800_000)}
WIDTH, NEAREST, BLOCK, AVID = 128, 32, 1024, 16
MOST, SOME = {"cpu": 32_768, "cuda": 200_000}, 1024
CANDIDATES = 1024  # of each modality, for two passes of FAISS

Pair = tuple[Tensor, Tensor]


def K(n: int) -> int:
    return min(NEAREST, n - 1)


def sampled(n: int, device: str, impl: str) -> int | None:
    """How many queries are computed where all would take minutes."""
    return SOME if n > (SOME if impl.startswith("FAISS") else MOST[device]) and impl != OURS else None


def inputs(case: Case) -> Pair:
    generator = torch.Generator().manual_seed(0)
    video, audio = (F.normalize(torch.randn(case.n, WIDTH, generator=generator), dim=1) for _ in range(2))
    return video.to(case.device), audio.to(case.device)


def blocks(case: Case, size: int) -> Iterator[slice]:
    """Queries, `size` at a time."""
    last = case.queries or case.n
    return (slice(start, min(start + size, last)) for start in range(0, last, size))


def ours(given: Pair, case: Case) -> Step:
    from coaug.kernels.agreement_topk import agreement_topk

    queries = torch.arange(case.queries, device=case.device) if case.queries else None
    return lambda: agreement_topk(*given, K(case.n), queries=queries)


def nearest(video: Tensor, audio: Tensor, queries: Pair, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """A block of queries against everything."""
    scores = torch.minimum(queries[0] @ video.T, queries[1] @ audio.T)
    scores[torch.arange(len(own), device=own.device), own] = -torch.inf
    values, indices = scores.topk(k, dim=1)
    return values, indices


def chunked(given: Pair, case: Case, compiled: bool = False, half: bool = False) -> Step:
    if half and case.device == "cpu":
        raise Unavailable("processors have no fast half-precision products")
    step = torch.compile(nearest) if compiled else nearest
    video, audio = (x.half() for x in given) if half else given
    every = torch.arange(case.n, device=case.device)

    def run() -> tuple[Tensor, Tensor]:
        found = [step(video, audio, (video[b], audio[b]), every[b], K(case.n)) for b in blocks(case, BLOCK)]
        values, indices = (torch.cat(part) for part in zip(*found, strict=True))
        return values, indices

    return run


def avid(given: Pair, case: Case) -> Step:
    """Its `CMASampler`: the query itself is taken to be its own nearest, rows of indices are sorted."""
    memories = torch.stack(given)

    def run() -> np.ndarray[Any, Any]:
        found = []
        for b in blocks(case, AVID):
            both = torch.stack([memory[b] @ memory.T for memory in memories])
            found.append(both.min(0).values.topk(K(case.n) + 1, dim=1).indices[:, 1:].cpu().numpy())
        return np.sort(np.concatenate(found), axis=1)

    return run


def two_passes(given: Pair, case: Case) -> Step:
    import faiss

    arrays = [x.cpu().numpy() for x in given]
    indexes = [faiss.IndexFlatIP(WIDTH) for _ in arrays]
    for index, array in zip(indexes, arrays, strict=True):
        index.add(array)
    queries = slice(0, case.queries or case.n)

    def run() -> tuple[Tensor, Tensor]:
        count = min(CANDIDATES, case.n)
        near = [index.search(array[queries], count)[1] for index, array in zip(indexes, arrays, strict=True)]
        video, audio = given
        found = []
        for i, rows in enumerate(np.concatenate(near, axis=1)):
            kept = torch.from_numpy(np.setdiff1d(rows, [i]))
            scores = torch.minimum(video[kept] @ video[i], audio[kept] @ audio[i])
            best = scores.topk(min(K(case.n), len(kept)))
            found.append((best.values, kept[best.indices]))
        return torch.stack([v for v, _ in found]), torch.stack([i for _, i in found])

    return run


def products(given: Pair, case: Case) -> Step:
    outs = [torch.empty(BLOCK, case.n, device=case.device) for _ in given]

    def run() -> None:
        for b in blocks(case, BLOCK):
            for x, out in zip(given, outs, strict=True):
                torch.mm(x[b], x.T, out=out[: b.stop - b.start])

    return run


IMPLS = {
    "coaug": Impl(ours, "agreement_topk"),
    "torch, chunked": Impl(chunked, f"{BLOCK} queries at a time, minimum, topk"),
    "torch.compile": Impl(lambda given, case: chunked(given, case, compiled=True), "the same, compiled"),
    "torch, chunked fp16": Impl(
        lambda given, case: chunked(given, case, half=True), "the same in half precision", exact=False
    ),
    "AVID-CMA": Impl(avid, "its sampler's semantics, re-implemented: 16 queries at a time"),
    "FAISS, two passes": Impl(
        two_passes, f"{CANDIDATES} candidates of each modality, re-scored: misses some", exact=False
    ),
    "GEMM": Impl(products, "two products of everything with everything, nothing else", exact=False),
}
TARGETS = (
    Target("torch, chunked", 4),
    Target("AVID-CMA", 6),
    Target("GEMM", 0.5),
    Target("torch, chunked fp16", 4, "cuda"),
    Target("AVID-CMA", 100, "cuda"),
    Target("", 75, "cuda", (240_000,)),
    Target("", 4200, "cuda", (1_800_000,)),
)
