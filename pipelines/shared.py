"""A small table of numbers that worker processes share with the one that started them."""

from __future__ import annotations

import os
import weakref
from typing import Any

import numpy as np


class SharedTable:
    """`rows` (n, 2) int64, zeros at first, in memory without a name: however its processes end, nothing is left of it.

    Pickles as a path under /proc that works as long as its maker lives.
    """

    def __init__(self, count: int) -> None:
        descriptor = os.memfd_create("coaug")
        weakref.finalize(self, os.close, descriptor)
        os.truncate(descriptor, count * 16)
        self._path, self._count = f"/proc/{os.getpid()}/fd/{descriptor}", count
        self._open()

    def _open(self) -> None:
        self.rows = np.memmap(self._path, np.int64, "r+", shape=(self._count, 2))

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_count": self._count}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()
