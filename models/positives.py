"""Cross-modal agreement: which other recordings count as positives of each (CMA, Eq. 7 and 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..config import STRICT
from ..engine import distributed
from ..kernels import agreement_topk, sample_negatives
from ..kernels.agreement_topk import Mode
from .memory import Memory
from .rows import Rows, own_span

Expansion = Literal["agreement", "video", "audio", "either"]
MODES: dict[Expansion, Mode] = {"agreement": "min", "video": "video", "audio": "audio", "either": "max"}
NUMBERS = 2**31  # of which `chosen` draws
APART = 0x5EED  # added to the seed, so that positives are drawn apart from negatives


@dataclass(frozen=True)
class PositivesConfig:
    """Whom to look for, and when. Defaults: section 5; section 6 finds 128 and draws 32."""

    __pydantic_config__ = STRICT
    found: Annotated[int, Field(ge=1)] = 32
    """Positives of each recording, the k that agree most."""
    drawn: Annotated[int, Field(ge=1)] | None = None
    """K_p, how many of them a step meets (null: all)."""
    expansion: Expansion = "agreement"
    """What makes recordings alike: both modalities (Eq. 7), or as Fig. 5 has it video, audio, or either."""
    first_epoch: Annotated[int, Field(ge=0)] = 0
    """When to look, in epochs of the run; a run that inherits a memory looks at once."""
    every: Annotated[int, Field(ge=1)] | None = None
    """Look again every so many epochs (null: the sets stay)."""

    def due(self, epoch: int, first: int) -> bool:
        """Whether the sets are looked for as `epoch` begins, if `first` is when they are for the first time."""
        if epoch < first:
            return False
        return epoch == first if self.every is None else (epoch - first) % self.every == 0


def find(memory: Memory, config: PositivesConfig) -> tuple[Rows, float]:
    """Every recording's positives; the work is divided among the ranks (all ranks).

    Where the memory is sharded, every rank holds all of it for as long as this takes.

    Returns:
        (N, found) int32 rows of the memory, best first, -1 where there are fewer; their mean score.
    """
    count, device = len(memory), memory.ids.device
    mine = torch.arange(*own_span(count), device=device)
    video, audio = memory["video"].whole(), memory["audio"].whole()
    values, rows = agreement_topk(video, audio, config.found, MODES[config.expansion], queries=mine)
    there = rows >= 0
    sums = torch.stack([values.double().masked_fill(~there, 0).sum(), there.sum().double()])
    score, found = distributed.total(sums).tolist()
    return Rows.of_parts(count, rows.int(), memory.config.placement), score / max(found, 1)


def chosen(found: Tensor, drawn: int | None, *, seed: int, step: int, offset: int) -> Tensor:
    """`drawn` of each query's positives, without replacement; by a counter, as negatives are (see `bank_draw`).

    Args:
        found: (B, k) int64, -1 where there are fewer.
        offset: place of `found[0]` in the global batch.

    Returns:
        (B, min(drawn, k)); -1 only where a query has fewer.
    """
    if drawn is None or drawn >= found.shape[1]:
        return found.contiguous()
    none = found.new_empty(len(found), 0)
    tickets = sample_negatives(none, NUMBERS, found.shape[1], seed=seed + APART, step=step, offset=offset)
    order = tickets.masked_fill(found < 0, NUMBERS).argsort(dim=1, stable=True)
    return found.gather(1, order[:, :drawn])


def excluded(own: Tensor, found: Tensor, count: int) -> Tensor:
    """(B, 1 + k) ascending: the query's own row and its positives, which are nobody's negatives; `count` fills up."""
    rows = torch.cat([own[:, None], found], 1)
    return rows.masked_fill(rows < 0, count).sort(1).values.contiguous()
