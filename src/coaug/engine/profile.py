"""`PROFILE=1`: a torch profiler trace of a few steps, and named (NVTX) ranges for Nsight."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch.profiler import profile, record_function, schedule

T = TypeVar("T")
ENABLED = os.environ.get("PROFILE", "") not in ("", "0")


@contextmanager
def region(name: str) -> Iterator[None]:
    """A named range in the trace and, on CUDA, in NVTX; nothing at all without PROFILE=1."""
    with ExitStack() as stack:
        if ENABLED:
            stack.enter_context(record_function(name))
        if ENABLED and torch.cuda.is_available():
            stack.enter_context(torch.cuda.nvtx.range(name))
        yield


class Clock:
    """Tells how long each step took, and how much of that was waiting for data."""

    def __init__(self) -> None:
        self._start, self._waited = time.perf_counter(), 0.0

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items of `items`, each waited for in a region named `data`."""
        iterator = iter(items)
        while True:
            start = time.perf_counter()
            with region("data"):
                item = next(iterator, None)
            self._waited += time.perf_counter() - start
            if item is None:
                return
            yield item

    def lap(self) -> tuple[float, float]:
        """Seconds since the last lap, and the seconds of them spent waiting."""
        now = time.perf_counter()
        lap = now - self._start, self._waited
        self._start, self._waited = now, 0.0
        return lap


@contextmanager
def trace(folder: Path, skip: int = 3, steps: int = 3) -> Iterator[profile | None]:
    """A profiler to be stepped once a training step, writing `folder`/*.pt.trace.json; None without PROFILE=1."""
    if not ENABLED:
        yield None
        return
    handler = torch.profiler.tensorboard_trace_handler(str(folder))
    plan = schedule(wait=skip - 1, warmup=1, active=steps, repeat=1)
    with profile(schedule=plan, on_trace_ready=handler) as profiler:
        yield profiler
