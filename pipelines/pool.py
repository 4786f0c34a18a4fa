"""Runs one function on many strings in killable processes: what hangs is ended at its deadline, alone.

`concurrent.futures` cannot end a call that hangs or tell which call crashed; here a worker has one call at a time.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_BOOT = "import sys; from coaug.pipelines.pool import serve; serve(sys.argv[1])"


class Hung:
    """Stands for the result of a call that was ended at its deadline."""


class Crashed:
    """Stands for the result of a call that took its process down."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    target: str, arguments: Iterable[str], workers: int, deadline: Callable[[str], float]
) -> Iterator[tuple[str, Any]]:
    """(argument, result) as they come of `target` ("module:function" from str to something that JSON can hold).

    The result is Hung or Crashed where the call did not come back within `deadline(argument)` seconds. Workers are
    plain child processes: nothing of the caller's `__main__` is imported, and they end when the caller does.

    Raises:
        RuntimeError: a worker process cannot start.
    """
    queue = deque(arguments)
    with selectors.DefaultSelector() as ready:
        pool = [_Worker(target, ready) for _ in range(min(workers, len(queue)))]
        try:
            while queue or any(worker.pending is not None for worker in pool):
                for worker in pool:
                    if worker.idle and queue:
                        argument = queue.popleft()
                        worker.ask(argument, deadline(argument))
                yield from _answers(pool, ready)
        finally:
            for worker in pool:
                worker.stop()


def _answers(pool: list[_Worker], ready: selectors.BaseSelector) -> Iterator[tuple[str, Any]]:
    """What has come when the first worker says something, or when the next deadline is over."""
    soonest = min(worker.expires for worker in pool)
    wait = None if soonest == math.inf else max(0.0, soonest - time.monotonic())
    for key, _ in ready.select(wait):
        yield from key.data.hear()
    for worker in pool:
        if worker.pending is not None and time.monotonic() >= worker.expires:
            yield worker.pending, Hung()
            worker.restart()


class _Worker:
    """A child process: starting, idle, or busy with the `pending` argument until `expires`."""

    def __init__(self, target: str, ready: selectors.BaseSelector) -> None:
        self.target, self.ready = target, ready
        self.start()

    def start(self) -> None:
        self.idle, self.expires = False, math.inf
        self.pending: str | None = None
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        process: Any = subprocess.Popen(
            [sys.executable, "-c", _BOOT, self.target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders print
            env={**os.environ, **threads, "PYTHONPATH": path},
        )
        self.process = process
        self.ready.register(process.stdout, selectors.EVENT_READ, self)

    def ask(self, argument: str, seconds: float) -> None:
        self.idle, self.pending, self.expires = False, argument, time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):  # a dead worker's closed output says so too
            self.process.stdin.write(json.dumps(argument).encode() + b"\n")
            self.process.stdin.flush()

    def hear(self) -> Iterator[tuple[str, Any]]:
        line = self.process.stdout.readline()
        alive, argument = line.endswith(b"\n"), self.pending
        if alive:
            self.idle, self.pending, self.expires = True, None, math.inf
        elif argument is None:
            raise RuntimeError(
                f"a worker process cannot start: try `{sys.executable} -c 'import coaug.pipelines'`"
            )
        if argument is not None:
            yield argument, json.loads(line) if alive else Crashed()
        if not alive:
            self.restart()

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        if self.process.stdout.closed:
            return
        self.ready.unregister(self.process.stdout)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


def serve(target: str) -> None:
    """The worker's side: says it is up, then answers each JSON string on stdin by one line on what was stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints does not get between
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    print("null", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(function(json.loads(line))), file=answers, flush=True)
