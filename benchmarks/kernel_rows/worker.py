"""A row's process: makes its inputs, says what it needs more than them, then runs a pass whenever it is asked to."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from coaug.pipelines.memory import keep_memory

from . import Case, Unavailable, kernel

SMALL = 512  # what compiles everything first, so that compilers' memory is not the row's
ENOUGH = 900.0  # seconds for a first pass


class Pass(NamedTuple):
    """Seconds of one pass."""

    wall: float
    cpu: float


class Job(NamedTuple):
    kernel: str
    impl: str
    n: int
    device: str
    queries: int | None
    threads: int


@contextmanager
def running(job: Job) -> Iterator[tuple[Connection, float]]:
    """The process's pipe, and the MB that its first pass needed beside the inputs."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(theirs, job))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(job.threads))
    with mock.patch.dict(os.environ, threads):
        process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(ENOUGH) else f"no pass within {ENOUGH:.0f} s"
        if isinstance(found, str):
            raise Unavailable(found)
        yield ours, found
    except (EOFError, OSError):
        process.join(10)
        raise Unavailable(f"its process ended with status {process.exitcode}") from None
    finally:
        ours.close()  # ends it
        process.join(10)
        process.kill()


def serve(pipe: Connection, job: Job) -> None:
    """What the process does."""
    try:
        step, peak = prepared(job)
    except Exception as problem:
        said = str(problem).strip().splitlines()
        pipe.send(f"{type(problem).__name__}: {said[0][:200] if said else ''}")
        return
    pipe.send(peak)
    try:
        while True:
            pipe.recv()
            pipe.send(timed(step, job.device))
    except EOFError:
        os._exit(0)  # libraries' threads may not end in order


def prepared(job: Job) -> tuple[Any, float]:
    import torch

    torch.set_num_threads(job.threads)
    file = kernel(job.kernel)
    for case in (Case(min(SMALL, job.n), job.device), Case(job.n, job.device, job.queries)):
        give_memory_back()
        step = file.IMPLS[job.impl].make(file.inputs(case), case)
        before = memory(job.device, reset=True)
        step()
        peak = memory(job.device) - before
    keep_memory()  # as trainers do on a CPU
    return step, peak / 1e6


def give_memory_back() -> None:
    """What was freed, now and from now on: large blocks that are used again would hide from the peak."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD
        libc.malloc_trim(0)


def memory(device: str, reset: bool = False) -> float:
    """Most bytes in use since the last reset; with `reset`, what is in use now."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.max_memory_allocated())
    if reset:
        with suppress(
            OSError
        ):  # where it is refused, the most ever: peaks come out too small then, not too large
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return 1024.0 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def timed(step: Any, device: str) -> Pass:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return Pass(time.perf_counter() - wall, time.process_time() - cpu)
