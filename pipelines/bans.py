"""Recordings that failed, known to every worker process from a fixed step on, so that a resumed run repeats history."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .shared import SharedTable

CAPACITY = 1 << 16


class Bans:
    """sample id -> global step from which it is no longer tried; a small table shared with the workers.

    The loader writes, workers only read. A ban starts a fixed number of steps after the failure, later than any
    step that a worker may already be preparing: all workers, and a resumed run, agree on every step.
    """

    def __init__(self, entries: Mapping[int, int] | None = None) -> None:
        self._table = SharedTable(CAPACITY + 1)  # row 0: the count
        for sample, step in (entries or {}).items():
            self.add(sample, step)

    def add(self, sample_id: int, step: int) -> None:
        """Ban from `step` on, or from an earlier one that was added before. A full table bans no more (the failure
        itself is still counted)."""
        rows, count = self._table.rows, int(self._table.rows[0, 0])
        known = np.flatnonzero(rows[1 : 1 + count, 0] == sample_id)
        if len(known):
            rows[1 + known[0], 1] = min(rows[1 + known[0], 1], step)
        elif count < CAPACITY:
            rows[count + 1] = sample_id, step
            rows[0, 0] = count + 1  # last: readers never see half an entry

    def entries(self) -> dict[int, int]:
        """All bans."""
        rows = np.array(self._table.rows[1 : 1 + int(self._table.rows[0, 0])])
        return dict(zip(rows[:, 0].tolist(), rows[:, 1].tolist(), strict=True))

    def holds(self, sample_id: int, step: int) -> bool:
        """Whether the sample is banned at this global step."""
        if not (count := int(self._table.rows[0, 0])):
            return False
        rows = self._table.rows[1 : 1 + count]
        return bool(((rows[:, 0] == sample_id) & (rows[:, 1] <= step)).any())
