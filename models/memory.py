"""The memory bank: a moving average of every training recording's features, one a modality (AVID, section 3).

Rows are those of the sorted sample ids, so that they mean the same on every machine and after every change of the
catalog. What a rank needs of it costs O(log N) a row; nothing that a step does is O(N).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import STRICT, ConfigError
from ..kernels import bank_update_
from ..kernels.bank_start import start_rows
from .rows import CHUNK, Placement, Rows, own_span

MODALITIES = ("video", "audio")
State = Mapping[str, Any]


@dataclass(frozen=True)
class MemoryConfig:
    """How the bank is kept; none of it but `momentum` and the rounding of `storage` changes what is trained."""

    __pydantic_config__ = STRICT
    momentum: float = 0.5
    """Share of the old row in a new one; 0 keeps the newest features only."""
    storage: Literal["float32", "float16"] = "float32"
    placement: Placement = "replicated"
    """Whole on every process, or "sharded": each keeps a part, and rows are sent to where they are needed."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError("momentum: must lie in 0 ... 1")


class Memory:
    """Features of N recordings: `memory["video"]` and `memory["audio"]` are `Rows` (N, d) of unit length.

    A row that was not seen yet is a random direction, a function of the seed and of its sample id alone. `seen` tells
    whether any was.

    Args:
        ids: (N,) int64 sample ids in any order.
        width: d.
        seed: of the directions that rows begin with.
    """

    def __init__(
        self, ids: Tensor, width: int, config: MemoryConfig, seed: int, device: torch.device
    ) -> None:
        self.config, self.seen = config, False
        self.ids = torch.unique(ids).to(device)
        dtype = getattr(torch, config.storage)
        first, last = own_span(len(self.ids)) if config.placement == "sharded" else (0, len(self.ids))
        mine = self.ids[first:last].cpu()
        self._rows: dict[str, Rows] = {}
        for stream, name in enumerate(MODALITIES):
            own = torch.empty(last - first, width, dtype=dtype, device=device)
            for start in range(0, len(mine), CHUNK):
                own[start : start + CHUNK] = start_rows(
                    mine[start : start + CHUNK], width, seed=seed, stream=stream
                )
            self._rows[name] = Rows(len(self.ids), own, config.placement)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, modality: str) -> Rows:
        return self._rows[modality]

    def rows_of(self, sample_ids: Tensor, valid: Tensor) -> Tensor:
        """(B,) row of each sample; -1 where `valid` is False.

        Raises:
            ConfigError: a valid sample that is not in memory (on a GPU an assertion at the next synchronisation).
        """
        rows = torch.searchsorted(self.ids, sample_ids.contiguous()).clamp(max=len(self) - 1)
        known = (self.ids[rows] == sample_ids) | ~valid
        if known.is_cuda:
            torch._assert_async(known.all(), "a sample id that is not among the recordings trained on")
        elif not known.all():
            stranger = int(sample_ids[~known][0])
            raise ConfigError(
                f"sample {stranger} is not among the {len(self)} recordings that are remembered"
            )
        return rows.masked_fill(~valid, -1)

    def update_(self, rows: Tensor, features: Mapping[str, Tensor], valid: Tensor) -> None:
        """Moves the rows of the global batch towards its features.

        Args:
            rows: (B,), as from `rows_of`; a row that stands there twice moves once, by the mean.
            features: modality -> (B, d), all ranks' rows.
            valid: (B,) bool; the others change nothing.
        """
        for name, values in features.items():
            table = self._rows[name]
            places = rows - table.first
            here = valid & (places >= 0) & (places < len(table.own))
            bank_update_(table.own, places, values.contiguous(), self.config.momentum, here)
        self.seen = True

    def state(self) -> dict[str, Tensor]:
        """Ids and all rows, on the CPU of rank 0; the others' hold no rows (all ranks)."""
        return {"ids": self.ids.cpu(), **{name: rows.saved() for name, rows in self._rows.items()}}

    def load(self, state: State) -> tuple[int, int, int]:
        """Takes over the rows of the recordings that `state` holds as well.

        Returns:
            How many were taken over, how many of ours it did not know (they stay as they are), how many of its own
            are not ours.

        Raises:
            ConfigError: its rows are of another width.
        """
        theirs = state["ids"].to(self.ids.device)
        if not len(theirs):
            return 0, len(self), 0
        places = torch.searchsorted(theirs, self.ids).clamp(max=len(theirs) - 1)
        known = theirs[places] == self.ids
        for name, rows in self._rows.items():
            if state[name].shape[1] != rows.own.shape[1]:
                width, ours = state[name].shape[1], rows.own.shape[1]
                raise ConfigError(
                    f"a memory of {width} numbers a row cannot be taken over: rows here have {ours}"
                )
            here = slice(rows.first, rows.first + len(rows.own))
            took = known[here]
            rows.own[took] = state[name][places[here][took].cpu()].to(rows.own)
        kept, self.seen = int(known.sum()), True
        return kept, len(self) - kept, len(theirs) - kept

    def __repr__(self) -> str:
        own = self._rows["video"].own
        parts = f", {len(own)} of them here" if self._rows["video"].sharded else ""
        return f"Memory({len(self)} recordings x {own.shape[1]} {self.config.storage}{parts})"
