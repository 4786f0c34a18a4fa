"""A table with a row for each recording, held whole by every rank (`replicated`) or in contiguous parts (`sharded`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from ..engine import distributed

Placement = Literal["replicated", "sharded"]
CHUNK = 1 << 16  # rows that are sent at a time where all are sent


def span(count: int, rank: int, world: int) -> tuple[int, int]:
    """First row and end of a rank's part: ceil(count / world) rows each, the last ones fewer."""
    share = -(-count // world)
    return min(count, rank * share), min(count, (rank + 1) * share)


def own_span(count: int) -> tuple[int, int]:
    """This rank's."""
    return span(count, distributed.rank(), distributed.world_size())


class Rows:
    """(N, d) numbers on the ranks' devices. Methods marked (all ranks) are collectives.

    Args:
        count: N.
        own: what this rank holds: all rows, or those of `own_span(count)`.
        placement: which of the two.
    """

    def __init__(self, count: int, own: Tensor, placement: Placement) -> None:
        self.count, self.own = count, own
        self.sharded = placement == "sharded" and distributed.world_size() > 1
        self.first = own_span(count)[0] if self.sharded else 0
        """The row of the table that stands first in `own`."""

    @classmethod
    def of_parts(cls, count: int, part: Tensor, placement: Placement) -> Rows:
        """The table that has this rank's `part`, rows `own_span(count)`, from every rank (all ranks)."""
        divided = cls(count, part, "sharded")
        return divided if placement == "sharded" else cls(count, divided.whole(), placement)

    def fetch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Values that hold the wanted `rows`, and where: `values[places]` are they (all ranks).

        Args:
            rows: int64 of any shape, all in 0 ... N - 1.
        """
        if not self.sharded:
            return self.own, rows
        wanted, places = torch.unique(rows, return_inverse=True)
        edges = [span(self.count, r, distributed.world_size())[0] for r in range(distributed.world_size())]
        begins = torch.searchsorted(wanted, torch.tensor(edges, device=wanted.device))
        asked = torch.diff(begins, append=begins.new_tensor([len(wanted)]))
        due = torch.empty_like(asked)
        dist.all_to_all_single(due, asked)
        sizes, owed = asked.tolist(), due.tolist()
        numbers = wanted.new_empty(sum(owed))
        dist.all_to_all_single(numbers, wanted, owed, sizes)
        values = self.own.new_empty(len(wanted), self.own.shape[1])
        dist.all_to_all_single(_bytes(values), _bytes(self.own[numbers - self.first]), sizes, owed)
        return values, places

    def take(self, rows: Tensor) -> Tensor:
        """`rows`, (..., d) (all ranks)."""
        values, places = self.fetch(rows)
        return values[places]

    def whole(self) -> Tensor:
        """All rows, on this rank's device (all ranks)."""
        if not self.sharded:
            return self.own
        out = self.own.new_empty(self.count, self.own.shape[1])
        for start, end, rows in self._pieces():
            out[start:end] = rows
        return out

    def saved(self) -> Tensor:
        """All rows on the CPU, a copy; on ranks other than 0 no rows (all ranks)."""
        first = distributed.rank() == 0
        out = torch.empty(self.count if first else 0, self.own.shape[1], dtype=self.own.dtype)
        if not self.sharded:
            return out.copy_(self.own) if first else out
        for start, end, rows in self._pieces():
            if first:
                out[start:end] = rows
        return out

    def _pieces(self) -> Iterator[tuple[int, int, Tensor]]:
        """(first row, end, rows) of every rank's part, a chunk at a time, on all ranks."""
        for source in range(distributed.world_size()):
            first, last = span(self.count, source, distributed.world_size())
            for start in range(first, last, CHUNK):
                end = min(start + CHUNK, last)
                if distributed.rank() == source:
                    rows = self.own[start - first : end - first].contiguous()
                else:
                    rows = self.own.new_empty(end - start, self.own.shape[1])
                dist.broadcast(_bytes(rows), source)
                yield start, end, rows


def _bytes(rows: Tensor) -> Tensor:
    """The same memory as bytes: not every backend sends every type."""
    return rows.view(torch.uint8)
