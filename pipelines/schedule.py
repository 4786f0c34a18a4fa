"""Which place of the global order each sample of each batch has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Where every sample of every step stands: arithmetic on counters, no state.

    Attributes:
        samples: recordings in the catalog.  batch: global batch.  steps: an epoch.  rank, world: this process.
        first: global step of the first batch.  last: global step to stop before, or None.
    """

    samples: int
    batch: int
    steps: int
    rank: int = 0
    world: int = 1
    first: int = 0
    last: int | None = None

    @property
    def local(self) -> int:
        """Rows of the global batch that belong to this rank."""
        return self.batch // self.world

    def place(self, iteration: int, index: int) -> tuple[int, int, int]:
        """(global step, epoch, position in the epoch's order) of row `index` of this rank's batch `iteration`."""
        step = self.first + iteration
        if self.last is not None and step >= self.last:
            raise StopIteration
        epoch, within = divmod(step, self.steps)
        return step, epoch, within * self.batch + self.rank * self.local + index
