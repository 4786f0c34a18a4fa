"""A row in a process of its own: its libraries, its memory and its failures stay there."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from . import ROWS, maker

READY = 3  # batches a worker that may be ready when a pass begins: they are not counted
ENOUGH = 120.0  # seconds for a row to start; DALI's graph is compiled in 20


@dataclass(frozen=True)
class Job:
    """What a row is run on: `views` names the config (see `request.CONFIGS`), `cores` are those it may use,
    `workers` how many threads or processes prepare batches; none: the row itself."""

    row: str
    catalog: Path
    views: str
    batch: int
    cores: frozenset[int]
    workers: int = 0


@dataclass(frozen=True)
class Passed:
    """A pass over a few batches: CPU and wall-clock seconds of all, `waits` for each, frames, peak memory so far."""

    clips: int
    cpu: float
    wall: float
    waits: tuple[float, ...]
    decoded: float | None
    rss_mb: float


class Unavailable(Exception):
    """A row that cannot run here; the message says why."""


@contextmanager
def running(job: Job, libraries: Path) -> Iterator[Connection]:
    """A process that answers each (setting, batches) with a `Passed`. Raises Unavailable where it cannot start.

    Args:
        libraries: folder of shared libraries that the process finds first.
    """
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(theirs, job))
    before = os.environ.get("LD_LIBRARY_PATH")
    with mock.patch.dict(os.environ, LD_LIBRARY_PATH=":".join(filter(None, [str(libraries), before]))):
        process.start()  # the variable is read once, now
    theirs.close()
    try:
        problem = ours.recv() if ours.poll(ENOUGH) else f"did not start within {ENOUGH:.0f} s"
        if problem:
            raise Unavailable(problem)
        yield ours
    except EOFError:
        process.join(10)
        raise Unavailable(f"its process ended with status {process.exitcode}") from None
    finally:
        ours.close()  # ends it
        process.join(10)
        process.kill()


def serve(pipe: Connection, job: Job) -> None:
    """What the process does."""
    try:
        run = Run(job)
    except Exception as problem:
        pipe.send(f"{type(problem).__name__}: {str(problem).splitlines()[0]}")
        return
    pipe.send("")
    try:
        while True:
            pipe.send(run(*pipe.recv()))
    except EOFError:
        run.way = None
        gc.collect()  # workers end, and what they shared is given back
        os._exit(0)  # libraries' threads may not end in order


class Run:
    """The row, on its cores, each way with one thread of its own."""

    def __init__(self, job: Job) -> None:
        os.sched_setaffinity(0, job.cores)
        import torch
        from threadpoolctl import threadpool_limits

        from coaug.pipelines.catalog import Catalog
        from coaug.pipelines.memory import keep_memory

        from .request import CONFIGS, batches

        self.job, self.config = job, CONFIGS[job.views]
        self.catalog = Catalog.open(job.catalog).where(min_seconds=self.config.needed_seconds)
        self.asked = partial(batches, self.catalog, self.config, job.batch)
        self.setting: dict[str, Any] | None = None
        self._set({})
        torch.set_num_threads(1)
        threadpool_limits(1)
        keep_memory()

    def _set(self, setting: dict[str, Any]) -> None:
        """The row anew, on the clips from the first one on, where its setting is another one."""
        if setting != self.setting:
            self.way: Any = self._made(**setting)
            self.batches, self.setting = self.asked(), setting

    def _made(self, feed: str = "threads", **setting: Any) -> Any:
        make = partial(maker(self.job.row), self.catalog, self.config, self.job.batch, **setting)
        if not self.job.workers:
            return make()
        if ROWS[self.job.row].own:
            return make(workers=self.job.workers)
        from .feed import Fed

        return Fed(make, self.asked, feed, self.job.workers)

    def __call__(self, setting: dict[str, Any], steps: int) -> Passed:
        self._set(setting)
        self._settle()
        for _ in range(READY * self.job.workers):
            self.way(next(self.batches))
        asked = [next(self.batches) for _ in range(steps)]
        waits, cpu, before = [], 0.0, getattr(self.way, "decoded", None)
        for batch in asked:
            getattr(self.way, "prepare", lambda _: None)(batch)
            marks = time.perf_counter(), cpu_seconds()
            self.way(batch)
            waits.append(time.perf_counter() - marks[0])
            cpu += cpu_seconds() - marks[1]
        mark = cpu_seconds()
        self._settle()
        cpu += cpu_seconds() - mark if not self.job.workers else 0.0  # else it is the next pass's
        clips = steps * self.job.batch * len(self.config.views)
        return Passed(clips, cpu, sum(waits), tuple(waits), self._decoded(asked, before), peak_mb())

    def _settle(self) -> None:
        """What goes on behind a row's back belongs to whoever started it, and must not disturb the next row."""
        if self.job.workers or getattr(self.way, "settles", False):
            settle()

    def _decoded(self, asked: list[Any], before: int | None) -> float | None:
        """Frames decoded for each one shown, where the row knows."""
        if before is None:
            return getattr(self.way, "decoded_per_shown", None)
        shown = sum(
            len(np.unique(np.floor(r.times * r.recording.video.fps + 1e-6))) for b in asked for r in b
        )
        return (self.way.decoded - before) / shown


def settle(idle: float = 0.002) -> None:
    """Wait until nothing is computed here any more."""
    done, spent = -1.0, cpu_seconds()
    while spent - done > idle:
        time.sleep(2 * idle)
        done, spent = spent, cpu_seconds()


def cpu_seconds() -> float:
    """Of this process, all its threads, and of its living children, which count in hundredths."""
    tick = os.sysconf("SC_CLK_TCK")
    fields = [_read(pid, "stat").rpartition(")")[2].split() for pid in children(os.getpid())]
    return time.process_time() + sum(int(f[11]) + int(f[12]) for f in fields if f) / tick


def peak_mb() -> float:
    """Peak resident memory of this process and its living children."""
    found = (
        re.search(r"VmHWM:\s+(\d+)", _read(pid, "status")) for pid in (os.getpid(), *children(os.getpid()))
    )
    return sum(int(match[1]) for match in found if match) / 1024


def children(pid: int) -> list[int]:
    """All living descendants, by /proc."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    direct = [int(child) for task in tasks for child in task.read_text().split()]
    return direct + [grandchild for child in direct for grandchild in children(child)]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:  # it has ended
        return ""
