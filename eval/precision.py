"""Precision of positive sets: how many of the K recordings that an expansion takes are of the class (AVID, Fig. 6b)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.agreement_topk import Mode, agreement_topk
from .bank import Bank

EXPANSIONS: dict[str, Mode] = {"agreement": "min", "video": "video", "audio": "audio", "either": "max"}
"""Name of an expansion (AVID, section 5.5) -> what the kernel calls the similarity it goes by."""
KS = (1, 2, 4, 8, 16, 32, 64, 128)
QUERIES = 10_000
"""Recordings that are asked for, at most: on 1.8 M rows all of them would take hours."""


def precision_at(bank: Bank, expansion: str, *, seed: int = 0, queries: int = QUERIES) -> dict[int, float]:
    """K -> mean share of a recording's K best by `expansion` that are of its class.

    Recordings without a label are taken out first; a K that would not leave another recording out is dropped.

    Args:
        queries: at most so many recordings are asked for, drawn at random.
    """
    known = bank.rows(bank.label >= 0)
    ks = [k for k in KS if k < len(known) - 1]
    if not ks:
        return {}
    asked = torch.arange(len(known))
    if len(known) > queries:
        asked = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))[:queries]
    _, rows = agreement_topk(known.video, known.audio, ks[-1], EXPANSIONS[expansion], queries=asked)
    hits = (known.label[rows] == known.label[asked, None]).double()
    return {k: float(hits[:, :k].mean()) for k in ks}


def by_chance(label: Tensor) -> float:
    """Precision of sets drawn at random from the other recordings with a label, at any K."""
    counts = torch.bincount(label[label >= 0]).double()
    total = counts.sum()
    return float((counts * (counts - 1)).sum() / (total * (total - 1)))
