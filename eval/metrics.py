"""Retrieval figures: recall@k of a ranking by cosine, and what a random ranking of the same gallery would score.

All of it is exact under ties: entries of equal score are taken to stand in random order, so that features which
tell nothing apart score at chance and not at 100 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

KS = (1, 5, 10, 20)
TIE = 1e-6
"""Cosines closer than this are equal: float32 features of the same clip differ by about 1e-7."""
BLOCK = 1 << 24
"""Scores held at once."""

Recalls = dict[int, float]


def recall(
    queries: Tensor,
    gallery: Tensor,
    query_keys: Tensor,
    gallery_keys: Tensor,
    ks: Sequence[int] = KS,
    *,
    leave_out: bool = False,
    block: int = BLOCK,
) -> Recalls:
    """Share of queries with an entry of their own key among the k most similar ones, expected over ties.

    Args:
        queries, gallery: (Q, d) and (G, d) features; compared by cosine.
        query_keys, gallery_keys: (Q,) and (G,) integers; equal keys are a hit (classes, or recordings' ids).
            A query whose key is not in the gallery is a miss.
        ks: numbers of neighbours; a k beyond G is G.
        leave_out: the queries are the gallery, and none of them is its own neighbour.
        block: at most this many scores are held at once (never less than one query's).

    The best relevant entry decides. With a entries strictly above it and t on a level with it, r of them relevant, the
    query hits with probability 1 - C(t-r, k-a) / C(t, k-a).
    """
    hits = torch.zeros(len(ks), dtype=torch.float64)
    for scores, relevant in _blocks(queries, gallery, query_keys, gallery_keys, block, leave_out):
        best = scores.masked_fill(~relevant, -torch.inf).amax(1, keepdim=True)
        level = (scores - best).abs() <= TIE
        above = (scores > best + TIE).sum(1)
        tied, right = level.sum(1), (level & relevant).sum(1)
        for i, k in enumerate(ks):
            hits[i] += (1 - miss_probability(tied, right, k - above)).sum().cpu()
    return _mean(hits, ks, len(query_keys))


def share_found(
    queries: Tensor,
    gallery: Tensor,
    query_keys: Tensor,
    gallery_keys: Tensor,
    ks: Sequence[int] = KS,
    *,
    block: int = BLOCK,
) -> Recalls:
    """Mean share of a query's relevant entries that are among the k most similar ones, expected over ties.

    With classes as keys this is the recall of the *same recording* that is left when the members of a class are
    shuffled: one of them, drawn at random, is among the first k with just this probability. Arguments as in `recall`.
    """
    found = torch.zeros(len(ks), dtype=torch.float64)
    for scores, relevant in _blocks(queries, gallery, query_keys, gallery_keys, block):
        size = relevant.sum(1).clamp(min=1)
        for i, k in enumerate(min(k, len(gallery)) for k in ks):
            edge = scores.topk(k, dim=1).values[:, -1:]
            above, level = scores > edge + TIE, (scores - edge).abs() <= TIE
            room = (k - above.sum(1)).double() / level.sum(1)
            inside = (above & relevant).sum(1) + room * (level & relevant).sum(1)
            found[i] += (inside.double() / size).sum().cpu()
    return _mean(found, ks, len(query_keys))


def chance(
    query_keys: Tensor, gallery_keys: Tensor, ks: Sequence[int] = KS, *, leave_out: bool = False
) -> Recalls:
    """`recall` expected of a random ranking of this very gallery: mean over queries of 1 - C(G-n, k) / C(G, k).

    n is the number of gallery entries with the query's key; for ids that occur once this is k / G. With `leave_out` the
    queries are the gallery, and n and G are one less.
    """
    ordered = gallery_keys.sort().values
    sizes = torch.searchsorted(ordered, query_keys, right=True) - torch.searchsorted(ordered, query_keys)
    total = torch.full_like(sizes, len(gallery_keys))
    if leave_out:
        sizes, total = sizes - 1, total - 1
    hits = [(1 - miss_probability(total, sizes, torch.full_like(sizes, k))).sum() for k in ks]
    return _mean(torch.stack(hits).cpu(), ks, len(query_keys))


def miss_probability(total: Tensor, relevant: Tensor, draws: Tensor) -> Tensor:
    """Probability that `draws` of `total` entries, drawn without replacement, hold none of the `relevant` ones.

    C(total - relevant, draws) / C(total, draws), float64, elementwise; 1 where draws <= 0, and draws beyond total
    are total.
    """
    draws = torch.minimum(draws, total)
    miss = torch.ones(total.shape, dtype=torch.float64, device=total.device)
    for i in range(int(draws.max()) if draws.numel() else 0):
        step = (total - relevant - i).clamp(min=0) / (total - i).clamp(min=1).double()
        miss = torch.where(i < draws, miss * step, miss)
    return miss


def _blocks(
    queries: Tensor,
    gallery: Tensor,
    query_keys: Tensor,
    gallery_keys: Tensor,
    block: int,
    leave_out: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Cosines and relevance of a few queries at a time with the whole gallery, both (rows, G)."""
    if not len(gallery):
        return
    targets = F.normalize(gallery.float(), dim=1).T
    rows = max(1, block // len(gallery))
    for start in range(0, len(queries), rows):
        part, keys = queries[start : start + rows], query_keys[start : start + rows]
        scores, relevant = F.normalize(part.float(), dim=1) @ targets, keys[:, None] == gallery_keys
        if leave_out:
            scores.diagonal(start).fill_(-torch.inf)
            relevant.diagonal(start).fill_(False)
        yield scores, relevant


def _mean(sums: Tensor, ks: Sequence[int], count: int) -> Recalls:
    return {k: float(value) / max(count, 1) for k, value in zip(ks, sums, strict=True)}
