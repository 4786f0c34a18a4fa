"""Recordings that failed, known to every worker process from a fixed step on, so that a resumed run repeats history."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

CAPACITY = 1 << 16


class Bans:
    """sample id -> global step from which it is no longer tried; a small memory-mapped table shared with the workers.

    The loader writes, workers only read. A ban starts a fixed number of steps after the failure, later than any
    step that a worker may already be preparing: all workers, and a resumed run, agree on every step.
    """

    def __init__(self, entries: Mapping[int, int] | None = None) -> None:
        handle, self.path = tempfile.mkstemp(prefix="coaug-bans-")
        os.close(handle)
        self.table = np.memmap(self.path, np.int64, "w+", shape=(CAPACITY + 1, 2))  # row 0: the count
        weakref.finalize(self, _remove, self.path)
        for sample, step in (entries or {}).items():
            self.add(sample, step)

    def add(self, sample_id: int, step: int) -> None:
        """Ban from `step` on; an earlier ban stays. A full table bans no more (the failure itself is still counted)."""
        count = int(self.table[0, 0])
        if sample_id not in self.entries() and count < CAPACITY:
            self.table[count + 1] = sample_id, step
            self.table[0, 0] = count + 1  # last: readers never see half an entry

    def entries(self) -> dict[int, int]:
        """All bans."""
        rows = np.array(self.table[1 : 1 + int(self.table[0, 0])])
        return dict(zip(rows[:, 0].tolist(), rows[:, 1].tolist(), strict=True))

    def holds(self, sample_id: int, step: int) -> bool:
        """Whether the sample is banned at this global step."""
        if not (count := int(self.table[0, 0])):
            return False
        rows = self.table[1 : 1 + count]
        return bool(((rows[:, 0] == sample_id) & (rows[:, 1] <= step)).any())

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self.table = np.memmap(self.path, np.int64, "r", shape=(CAPACITY + 1, 2))


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)
